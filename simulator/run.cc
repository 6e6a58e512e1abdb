// Run: events, threads and flows.
#include "simulator/run.h"

#include <algorithm>
#include <cmath>

namespace railccl::simulator {

namespace {

// Events within a tenth of a picosecond are one instant: what is simultaneous but for rounding
// changes rates once, not once for each.
constexpr double kInstant = 1e-13;

}  // namespace

Run::Run(const plan::Request& request, const topology::Topology& topology, const Compiled& programs,
         const Folding& folding, const Options& options)
    : request_(request),
      topology_(topology),
      programs_(programs),
      folding_(folding),
      options_(options),
      element_(static_cast<double>(size_of(request.datatype))),
      fabric_(topology),
      random_(options.seed),
      slowness_(static_cast<size_t>(topology.size()), 1),
      threads_(programs.threads().size()),
      queues_(programs.queues().size()),
      in_flight_(static_cast<size_t>(topology.size())),
      carried_(fabric_.links().size(), 0) {
  for (int rank = 0; rank < topology.size(); rank++) layouts_.push_back(layout_of(rank));
}

Run::Layout Run::layout_of(int rank) const {
  const uint64_t input = plan::input_elements(request_, topology_.size(), rank);
  const uint64_t output = plan::output_elements(request_, topology_.size(), rank);
  const uint64_t mine = request_.count * static_cast<uint64_t>(rank);
  Layout layout;
  if (!request_.in_place || input == 0 || output == 0)
    layout.output = input;
  else if (input < output)
    layout.input = mine;
  else if (output < input)
    layout.output = mine;
  layout.scratch = std::max(layout.input + input, layout.output + output);
  return layout;
}

void Run::prepare() {
  for (const LinkFacts& link : fabric_.links()) sharing_.add_link(link.bytes_per_s);
  for (const SlowRank& slow : options_.slow) {
    slowness_[static_cast<size_t>(slow.rank)] *= slow.factor;
    const int memory = fabric_.memory_of(slow.rank);
    sharing_.set_capacity(memory, sharing_.capacity(memory) / slow.factor);
  }
  for (size_t f = 0; f < options_.faults.size(); f++)
    schedule(options_.faults[f].time_s, Kind::fault, static_cast<uint32_t>(f));
  for (uint32_t t = 0; t < threads_.size(); t++) {
    ready_.push_back(t);
    if (programs_.threads()[t].loop_count > 0) continue;
    threads_[t].state = State::done;
    threads_done_++;
  }
}

Result<Report> Run::run() {
  if (!fabric_.fold(folding_))
    return Status(Code::internal, "ranks were folded that do not have the same links");
  prepare();
  for (;;) {
    RAILCCL_CHECK(run_threads());
    settle();
    if (threads_done_ == threads_.size()) break;
    if (events_.empty()) return stuck();
    take_events();
  }
  for (size_t q = 0; q < queues_.size(); q++)
    if (queues_[q].held > 0 || (programs_.queues()[q].local && queues_[q].arrived > 0))
      return Status(Code::invalid_argument,
                    "the plan is wrong: rank {} leaves messages from rank {} untaken",
                    programs_.queues()[q].to_rank, programs_.queues()[q].from_rank);
  return report();
}

void Run::schedule(double time, Kind kind, uint32_t what, uint32_t version) {
  events_.push({time, event_count_++, what, version, kind});
}

void Run::take_events() {
  now_ = std::max(now_, events_.top().time);
  while (!events_.empty() && events_.top().time <= now_ + kInstant) {
    const Event event = events_.top();
    events_.pop();
    take(event);
  }
}

void Run::take(const Event& event) {
  switch (event.kind) {
    case Kind::flow: {
      Flow& flow = flows_[event.what];
      if (flow.version != event.version) return;
      flow.version++;
      sharing_.finish(static_cast<int>(event.what));
      if (flow.message) return left(flow.owner);
      Thread& thread = threads_[flow.owner];
      const uint32_t t = flow.owner;
      const Compiled::Op& op = op_of(t);
      if (op.verb == plan::Verb::recv_reduce) taken(op.queue);
      thread.state = State::ready;
      ready_.push_back(t);
      next_step(t);
      return;
    }
    case Kind::arrival:
      queues_[event.what].arrived++;
      if (const uint32_t to = programs_.queues()[event.what].to; to != kNone)
        wake(to, State::message);
      return;
    case Kind::thread:
      threads_[event.what].paid = true;
      wake(event.what, State::overhead);
      return;
    case Kind::fault: {
      const Fault& fault = options_.faults[event.what];
      const auto [out, in] = fabric_.nic_links(fault.host, fault.nic);
      for (const int link : {out, in})
        sharing_.set_capacity(
            link, fabric_.links()[static_cast<size_t>(link)].bytes_per_s * fault.factor);
      return;
    }
  }
}

Status Run::run_threads() {
  for (; next_ready_ < ready_.size(); next_ready_++) RAILCCL_CHECK(run_thread(ready_[next_ready_]));
  ready_.clear();
  next_ready_ = 0;
  return ok();
}

void Run::wake(uint32_t t, State waiting) {
  if (threads_[t].state != waiting) return;
  threads_[t].state = State::ready;
  ready_.push_back(t);
}

void Run::start_flow(double bytes, bool message, uint32_t owner) {
  for (const Use& use : uses_) carried_[static_cast<size_t>(use.link)] += bytes * use.weight;
  const auto id = static_cast<size_t>(sharing_.start(uses_));
  if (id >= flows_.size()) flows_.resize(id + 1);
  Flow& flow = flows_[id];
  flow.left = bytes;
  flow.rate = 0;
  flow.since = now_;
  flow.version++;
  flow.message = message;
  flow.owner = owner;
}

void Run::settle() {
  sharing_.settle([this](int id, double rate) {
    Flow& flow = flows_[static_cast<size_t>(id)];
    flow.left = std::max(0.0, flow.left - flow.rate * (now_ - flow.since));
    flow.since = now_;
    flow.rate = rate;
    flow.version++;
    if (rate > 0)
      schedule(now_ + flow.left / rate, Kind::flow, static_cast<uint32_t>(id), flow.version);
  });
}

double Run::jittered(double seconds) {
  if (options_.jitter == 0) return seconds;
  return seconds * (1 - options_.jitter * std::log1p(-random_.uniform()));
}

Status Run::stuck() const {
  for (size_t l = 0; l < carried_.size(); l++)
    if (carried_[l] > 0 && sharing_.capacity(static_cast<int>(l)) == 0)
      return Status(Code::invalid_argument,
                    "{} carries nothing any more at {:.6g} s: give it a later fault with a factor "
                    "above 0, or take the NIC down in the topology, so that plans avoid it",
                    fabric_.links()[l].name, now_);
  for (uint32_t t = 0; t < threads_.size(); t++)
    if (threads_[t].state != State::done)
      return Status(Code::invalid_argument, "the plan cannot finish: {}", text_of(t));
  return Status(Code::internal, "nothing happens any more");
}

std::string Run::text_of(uint32_t t) const {
  const Compiled::Thread& thread = programs_.threads()[t];
  const Compiled::Op& op = op_of(t);
  std::string peer;
  if (op.queue != kNone) {
    const Compiled::Queue& queue = programs_.queues()[op.queue];
    peer = op.verb == plan::Verb::send || op.verb == plan::Verb::signal
               ? fmt::format(" to rank {}", queue.to_rank)
               : fmt::format(" from rank {}", queue.from_rank);
  }
  return fmt::format("rank {} channel {} waits in {}{}", thread.rank, thread.channel,
                     plan::name_of(op.verb), peer);
}

Report Run::report() const {
  const auto folds = static_cast<uint64_t>(folding_.folds());
  Report report;
  report.seconds = now_;
  report.folds = folding_.folds();
  report.steps = step_count_ * folds;
  report.events = event_count_;
  const size_t rails = topology_.rails().size();
  std::vector<uint64_t> of_stand_ins(rails);
  for (size_t q = 0; q < queues_.size(); q++) {
    const Compiled::Queue& ends = programs_.queues()[q];
    const Queue& queue = queues_[q];
    if (ends.local || queue.messages == 0) continue;
    report.messages[{ends.from_rank, ends.to_rank}] += queue.messages;
    if (queue.bytes == 0) continue;
    report.bytes[{ends.from_rank, ends.to_rank}] += queue.bytes;
    if (topology_.rank(ends.from_rank).host == topology_.rank(ends.to_rank).host) continue;
    const uint64_t bytes = queue.bytes * folds;
    report.inter_host_bytes += bytes;
    if (rails == 0) continue;
    const int rail = fabric_.rail_of(ends.from_rank, ends.to_rank);
    (rail < 0 ? report.spine_bytes
              : of_stand_ins[static_cast<size_t>(fabric_.rail_stand_in(rail).first)]) += bytes;
  }
  for (size_t r = 0; r < rails; r++) {
    const auto [by, alike] = fabric_.rail_stand_in(static_cast<int>(r));
    report.bytes_of_rail.push_back(of_stand_ins[static_cast<size_t>(by)] /
                                   static_cast<uint64_t>(alike));
  }
  for (size_t l = 0; l < carried_.size(); l++)
    if (carried_[l] > 0)
      report.links.push_back(
          {fabric_.links()[l], carried_[l], carried_[l] / (fabric_.links()[l].bytes_per_s * now_)});
  return report;
}

}  // namespace railccl::simulator
