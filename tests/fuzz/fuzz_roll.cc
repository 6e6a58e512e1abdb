// fuzz-link: railccl_runtime
// Messages of a roll and what they carry: what the parsers accept must mean the same after a round
// trip, and a rank that is told it must neither crash nor grow without bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/replay.h"
#include "runtime/roll.h"
#include "runtime/verdict.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::runtime;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto message = parse_roll(bytes); message.is_ok()) {
    const auto again = parse_roll(encode(*message));
    if (!again.is_ok() || !(*again == *message)) std::abort();
    Roll leader(0, 4), other(2, 4);
    for (Roll* roll : {&leader, &other}) {
      roll->contribute(message->round, "text");
      roll->receive(1, *message);
      roll->receive(0, *message);
      if (roll->take_posts().size() > 64) std::abort();
    }
  }
  if (const auto result = parse_roll_result(bytes, 4); result.is_ok()) {
    if (encode(*result) != bytes) std::abort();
    (void)result->majority();
    (void)verdict_of(*result, {"rank 0", "rank 1", "rank 2", "rank 3"}).status.text();
  }
  Tally tally;
  if (parse_tally(bytes, &tally)) (void)rule({{0, tally}, {1, Tally{}}});
  Account account;
  (void)parse_account(bytes, &account);
  return 0;
}
