// Verdict: one sentence for a failure, the same on every rank that survives it: who died, and in
// which operation, who had entered it and stands where, and who had not.
//
// Each survivor gives an Account in round 0 of the roll call (roll_call.h); the sentence is made of
// all accounts, by every rank for itself. Pure functions. Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/roll.h"

namespace railccl::runtime {

/// What one rank was doing when it learned of the failure.
struct Account {
  uint64_t entered = 0;   // operations that it has entered
  uint64_t finished = 0;  // of these
  std::string call;       // the one that it is in, as all ranks describe it
  std::string where;      // the step and the link at which it stands there
  uint64_t code = 0;      // Code of its failure
  std::string failure;    // in its words
};
std::string encode(const Account& account);
/// False for bytes that are none.
bool parse_account(std::string_view bytes, Account* account);

/// Does such a failure concern all ranks, so that they call the roll? What ranks did on purpose or
/// called differently has a verdict of its own (control.h).
inline bool calls_the_roll(Code code) {
  return code == Code::remote || code == Code::timeout || code == Code::system;
}

/// A rank without which the others could not go on.
struct Suspect {
  int rank = -1;
  std::string what;  // "died", "has not entered all_reduce(...) as operation 17"
};

struct Verdict {
  Status status;
  std::vector<Suspect> suspects;
};

/// `who`: "rank 3 (host, pid 12)" for each rank.
Verdict verdict_of(const RollResult& roll, const std::vector<std::string>& who);

}  // namespace railccl::runtime
