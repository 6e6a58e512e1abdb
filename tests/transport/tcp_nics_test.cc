// What a NIC carries, measured from what its paths tell.
#include "transport/tcp_nics.h"

#include <gtest/gtest.h>

namespace railccl::transport {
namespace {

// Messages that are shorter than the kernel's ticks, with pauses between them and long waits for
// the next call: the NIC is as fast as it is while it has something to do.
TEST(TcpNics, ASpeedIsThatOfTheTimeInWhichThereWasSomethingToSend) {
  constexpr double kBytesPerS = 12.5e6;
  PathLog log;
  TcpNics nics("tcp", &log);
  Peers peers;
  peers.host_ids = {1, 2};
  peers.nics = {"eth0", "eth0"};
  nics.set_peers(0, {"eth0"}, peers);
  int64_t now = 1'000'000'000;
  const auto look = [&](double ms, double sent_ms, bool busy) {
    now += static_cast<int64_t>(ms * 1e6);
    TcpLink::NicLoad load{.nic = "eth0", .usage = {}};
    load.usage.bytes = static_cast<uint64_t>(kBytesPerS * sent_ms / 1e3);
    load.usage.busy = busy;
    ASSERT_TRUE(nics.measure_now(now));
    nics.observe({load}, true, now);
  };
  look(50, 0, false);
  for (int call = 0; call < 20; call++) {
    if (call == 3) {
      EXPECT_EQ(nics.measured().at(0).bytes_per_s, 0) << "too little";
    }
    look(50, 1, true);
    for (int i = 0; i < 8; i++) look(5, 5, true);
    look(5, 4, false);
    for (int i = 0; i < 20; i++) look(50, 0, false);
  }
  EXPECT_LE(nics.measured().at(0).bytes_per_s, kBytesPerS);
  EXPECT_GE(nics.measured().at(0).bytes_per_s, 0.8 * kBytesPerS);
}

}  // namespace
}  // namespace railccl::transport
