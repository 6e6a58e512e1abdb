// Replay: what becomes of the collectives that a failure has interrupted, decided by all ranks
// alike from what each of them tells.
//
// A collective that no rank that lives has brought to an end is repeated among these, from inputs
// that nobody has touched. One that some have had success from cannot be repeated: it is kept where
// the others have its result too and only did not know that all have (that is what the commit of
// protected communicators is for: once a rank has passed it, every rank has the result); else it is
// torn, and every rank is told. Pure functions. Private to this room.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/communicator.h"

namespace railccl::runtime {

/// One interrupted call, as its rank tells of it.
struct Interrupted {
  bool intact = false;  // its input is as it was
  bool shaped = false;  // means the same among any ranks
  int root = -1;        // old rank without which it means nothing; -1: none
};

/// What a rank tells.
struct Tally {
  uint64_t done = 0;      // collectives that its caller has had success from
  bool complete = false;  // the next one is complete here too, though not known to be everywhere
  std::vector<Interrupted> calls;  // that failed: numbers done, done + 1, ...
};
std::string encode(const Tally& tally);
/// False for bytes that are none.
bool parse_tally(std::string_view bytes, Tally* tally);

struct Ruling {
  CallsFate outcome = CallsFate::none;
  uint64_t from = 0;  // torn: numbers of the calls that some ranks have had success from and others
  uint64_t until = 0;  // not; else both the number of the first call that is repeated
  std::string why;     // torn, spoiled
  /// Is the first interrupted call of a rank with that tally kept?
  bool keeps(const Tally& tally) const {
    return outcome == CallsFate::finished && tally.done < from && !tally.calls.empty();
  }
};
/// `tallies`: of the ranks that go on, by old rank. The same on all of them.
Ruling rule(const std::map<int, Tally>& tallies);

/// Can a collective be repeated among fewer ranks? Others have a block for each rank.
inline bool is_shaped(Collective collective) {
  return collective == Collective::all_reduce || collective == Collective::broadcast ||
         collective == Collective::reduce;
}
/// Does it overwrite its own input?
inline bool spoils_input(const plan::Request& request) {
  return request.in_place && reduces(request.collective);
}

}  // namespace railccl::runtime
