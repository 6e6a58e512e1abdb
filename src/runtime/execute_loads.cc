// What a run moves over each of its links: counted from the program, message by message.
#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/execute.h"

namespace railccl::runtime {

std::vector<LinkLoad> Execution::loads() const {
  std::map<std::tuple<int, int, bool>, LinkLoad> loads;
  for (size_t c = 0; c < program_.channels.size(); c++) {
    const plan::Channel& channel = program_.channels[c];
    for (const plan::Loop& loop : channel.loops) {
      for (uint32_t s = loop.first_step; s < loop.first_step + loop.step_count; s++) {
        const plan::Step& step = channel.steps[s];
        const bool sends = step.verb == plan::Verb::send;
        if (!sends && step.verb != plan::Verb::recv && step.verb != plan::Verb::recv_reduce)
          continue;
        const int number = static_cast<int>(c);
        LinkLoad& load = loads[{number, step.peer, sends}];
        load.channel = number;
        load.peer = step.peer;
        load.sends = sends;
        load.medium = wire_of(number, s)->medium();
        load.messages += loop.iterations;
        for (uint64_t i = 0; i < loop.iterations; i++) {
          const uint64_t bytes = (sends ? step.src : step.dst).count_at(i) * element_;
          load.bytes += bytes;
          load.message_bytes = std::max(load.message_bytes, bytes);
        }
      }
    }
  }
  std::vector<LinkLoad> all;
  for (const auto& [key, load] : loads) all.push_back(load);
  return all;
}

}  // namespace railccl::runtime
