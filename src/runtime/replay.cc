// Tallies to rulings; see replay.h.
#include "runtime/replay.h"

#include <algorithm>

#include "runtime/pack.h"
#include "runtime/rank_list.h"
#include "runtime/rendezvous_wire.h"

namespace railccl::runtime {

std::string encode(const Tally& tally) {
  Packer packer;
  packer.add(tally.done).add(uint64_t{tally.complete}).add(tally.calls.size());
  for (const Interrupted& call : tally.calls)
    packer.add(uint64_t{call.intact})
        .add(uint64_t{call.shaped})
        .add(static_cast<uint64_t>(call.root + 1));
  return std::move(packer).take();
}

bool parse_tally(std::string_view bytes, Tally* tally) {
  Unpacker unpacker(bytes);
  uint64_t complete = 0, count = 0;
  if (!unpacker.get(&tally->done) || !unpacker.get(&complete) || !unpacker.get(&count) ||
      count > bytes.size())
    return false;
  tally->complete = complete != 0;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t intact = 0, shaped = 0, root = 0;
    if (!unpacker.get(&intact) || !unpacker.get(&shaped) || !unpacker.get(&root) ||
        root > static_cast<uint64_t>(kRanksMax))
      return false;
    tally->calls.push_back({intact != 0, shaped != 0, static_cast<int>(root) - 1});
  }
  return unpacker.at_end();
}

Ruling rule(const std::map<int, Tally>& tallies) {
  Ruling ruling;
  for (const auto& [rank, tally] : tallies) ruling.from = std::max(ruling.from, tally.done);
  ruling.until = ruling.from;
  uint64_t least = ruling.from;
  std::vector<int> without;
  bool any = false;
  for (const auto& [rank, tally] : tallies) {
    any |= !tally.calls.empty();
    const bool kept = tally.complete && tally.done + 1 == ruling.until;
    if (tally.done == ruling.until || kept) continue;
    least = std::min(least, tally.done);
    without.push_back(rank);
  }
  if (!without.empty()) {
    ruling.outcome = CallsFate::torn;
    ruling.from = least;
    ruling.why = fmt::format("some ranks have the results of collectives {} to {}, but {} not",
                             least, ruling.until - 1, rank_list(without));
    return ruling;
  }
  for (const auto& [rank, tally] : tallies)
    for (size_t i = 0; i < tally.calls.size(); i++) {
      const uint64_t number = tally.done + i;
      if (number < ruling.from) continue;
      const Interrupted& call = tally.calls[i];
      const char* reason = !call.intact   ? "has overwritten its input"
                           : !call.shaped ? "has a block for each rank"
                           : call.root >= 0 && !tallies.contains(call.root) ? "has lost its root"
                                                                            : nullptr;
      if (reason == nullptr) continue;
      ruling.outcome = CallsFate::spoiled;
      ruling.why = fmt::format("collective {} of rank {} {}", number, rank, reason);
      return ruling;
    }
  ruling.outcome = any ? CallsFate::finished : CallsFate::none;
  return ruling;
}

}  // namespace railccl::runtime
