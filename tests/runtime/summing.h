// What ranks do that are expected to die: sums in place, again and again, whatever happens.
#pragma once

#include "mortal_ranks.h"

namespace railccl::test {

inline Request int_sum(uint64_t count, Collective collective = Collective::all_reduce) {
  Request request = sum_request(count, collective);
  request.datatype = Datatype::int32;
  return request;
}

inline Call sum_call(const int32_t* input, int32_t* output, uint64_t count) {
  Call call;
  call.request = int_sum(count);
  call.request.in_place = input == output;
  call.input = input;
  call.output = output;
  return call;
}

/// Sums in place, one after the other, of `count` numbers, and recovers whenever one fails. Leaves
/// each sum in the slot, of the first 63, behind them how many ranks are left, and what the first
/// failure said; the reason in its text, where something goes wrong.
inline void sum_on_and_on(CommunicatorPtr communicator, Slot& slot, int sums, size_t count) {
  const int old_rank = communicator->rank();
  if (const Status status = communicator->protect(1 << 20); !status.is_ok())
    return MortalRanks::note(slot, status.text());
  std::vector<int32_t> data(count);
  for (int i = 0; i < sums; i++) {
    std::fill(data.begin(), data.end(), 1 << old_rank);
    Status status = communicator->start(sum_call(data.data(), data.data(), count), nullptr);
    if (!status.is_ok()) {
      if (slot.verdict[0] == 0)
        std::strncpy(slot.verdict, status.text().c_str(), sizeof slot.verdict - 1);
      const int64_t start = now_ns();
      auto recovery = communicator->recover(communicator->config(), true);
      slot.recovery_ns = std::max(slot.recovery_ns, now_ns() - start);
      if (!recovery.is_ok())
        return MortalRanks::note(
            slot, fmt::format("{} after {}", recovery.status().text(), status.text()));
      if (recovery->fate != runtime::CallsFate::finished ||
          recovery->kept + recovery->repeated != 1)
        return MortalRanks::note(slot,
                                 fmt::format("fate {} of sum {}, {} kept, {} repeated: {}",
                                             static_cast<int>(recovery->fate), i, recovery->kept,
                                             recovery->repeated, recovery->why));
      communicator = recovery->communicator;
    }
    for (const int32_t value : data)
      if (value != data[0])
        return MortalRanks::note(slot, fmt::format("sum {} holds {} and {}", i, data[0], value));
    slot.values[i % 64] = data[0];
  }
  slot.values[63] = communicator->size();
}

}  // namespace railccl::test
