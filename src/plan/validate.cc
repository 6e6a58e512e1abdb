// Validate: what can be said about one program without running it.
#include <fmt/format.h>

#include "plan/checker.h"

namespace railccl::plan {
namespace {

struct Marks {
  bool peer;     // must name another rank (or itself: messages to oneself are legal)
  bool pre;      // may have pre
  bool post;     // may have post
  bool reduces;  // only in collectives that reduce
};

Marks marks_of(Verb verb) {
  switch (verb) {
    case Verb::copy:
      return {false, true, true, false};
    case Verb::reduce:
      return {false, true, true, true};
    case Verb::send:
      return {true, true, false, false};
    case Verb::recv:
      return {true, false, true, false};
    case Verb::recv_reduce:
      return {true, true, true, true};
    case Verb::signal:
    case Verb::wait:
      return {false, false, false, false};
  }
  return {};
}

/// Null when the step is well formed, else what is wrong with it.
std::string fault_of(const Program& program, const Step& step) {
  const Marks marks = marks_of(step.verb);
  if (step.peer != kHere && (step.peer < 0 || step.peer >= program.ranks))
    return fmt::format("there is no rank {}", step.peer);
  if (marks.peer && step.peer == kHere) return "it names no peer";
  const bool local_signal =
      (step.verb == Verb::signal || step.verb == Verb::wait) && step.peer == kHere;
  if (local_signal && step.channel >= program.channels.size())
    return fmt::format("there is no channel {}", step.channel);
  if (step.pre && !marks.pre) return "it reads no input, so it cannot have pre";
  if (step.post && !marks.post) return "it writes no result, so it cannot have post";
  if (!reduces(program.request.collective)) {
    if (marks.reduces)
      return fmt::format("{} does not reduce", name_of(program.request.collective));
    if (step.pre || step.post)
      return fmt::format("{} does not reduce, so pre and post mean nothing",
                         name_of(program.request.collective));
  }
  if (uint64_t{step.first_source} + step.source_count > program.sources.size())
    return "its sources lie outside of the table";
  if (step.source_count != 0 && step.verb != Verb::reduce) return "only reduce has sources";
  if (uint64_t{step.first_target} + step.target_count > program.targets.size())
    return "its targets lie outside of the table";
  if (step.target_count != 0 && step.verb != Verb::reduce && step.verb != Verb::copy)
    return "only copy and reduce have targets";
  return {};
}

}  // namespace

Status validate(const Program& program) {
  const Request& request = program.request;
  const auto wrong = [&](std::string what) {
    return Status(Code::internal, "rank {}: {}", program.rank, what);
  };
  if (program.ranks < 1 || program.rank < 0 || program.rank >= program.ranks)
    return wrong(fmt::format("the program is made for {} ranks", program.ranks));
  if (request.root < 0 || request.root >= program.ranks)
    return wrong(fmt::format("root {} is not one of {} ranks", request.root, program.ranks));
  if (request.in_place && request.collective == Collective::all_to_all)
    return wrong("all_to_all cannot be done in place");
  if (program.channels.empty()) return wrong("the program has no channel");
  for (size_t c = 0; c < program.channels.size(); c++) {
    const Channel& channel = program.channels[c];
    uint64_t next = 0;
    for (const Loop& loop : channel.loops) {
      if (loop.first_step != next)
        return wrong(fmt::format("channel {}: its loops do not cover its steps in order", c));
      next += loop.step_count;
    }
    if (next != channel.steps.size())
      return wrong(fmt::format("channel {}: {} steps, but its loops cover {}", c,
                               channel.steps.size(), next));
    for (size_t s = 0; s < channel.steps.size(); s++)
      if (const std::string fault = fault_of(program, channel.steps[s]); !fault.empty())
        return wrong(fmt::format("channel {} step {} ({}): {}", c, s,
                                 name_of(channel.steps[s].verb), fault));
  }
  return ok();
}

}  // namespace railccl::plan
