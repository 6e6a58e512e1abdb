// The keeper of a network of messages: goes on with its rank's paths while the rank computes, and
// wakes it when it sleeps.
#include "transport/net_keeper.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "transport/nccl_net_plugin.h"
#include "transport/net_example.h"
#include "transport/net_maker.h"
#include "transport/net_path.h"

namespace railccl::transport {
namespace {

/// Until something has come both ways.
void meet(RealWorld& world) {
  std::vector<Tasks> tasks(2);
  for (int rank = 0; rank < 2; rank++) {
    Link* const link = *world.at(rank).link(1 - rank, 0);
    tasks[static_cast<size_t>(rank)].push_back(std::make_unique<SendTask>(link, 1, 10, 10));
    tasks[static_cast<size_t>(rank)].push_back(std::make_unique<ReceiveTask>(link, 1, 10, 10));
  }
  for (const Status& status : drive_all(world, tasks)) EXPECT_TRUE(status.is_ok());
}

/// Sends or receives all of it, without anything being wrong.
bool all_moves(TestWorld& world, int rank, Task& task) {
  const Deadline deadline = Deadline::after_ms(5000);
  while (!task.done() && task.failure().is_ok() && !deadline.passed())
    if (!task.step() && world.at(rank).progress().is_ok()) world.at(rank).wait(1000);
  EXPECT_TRUE(task.failure().is_ok()) << task.failure().text();
  return task.done();
}

// A rank that has what it wants computes, and does not call for as long as that takes. What it has
// written goes out all the same, when there is credit for it; and its peer gets the credit and the
// acknowledgements that it waits for.
TEST(NetKeeper, GoesOnWhileItsRankDoesNotCall) {
  for (const auto& [version, how] : {std::pair(6, ""), std::pair(11, "reluctant")}) {
    Example example(version);
    example.misbehave(how);
    RealWorld world("nccl_net", 2, settings_of(version));
    meet(world);
    // As much as is taken: the last of it has to wait for credit.
    std::vector<std::byte> bytes(2 * NetPath::kReceives * NetPath::kMessageBytes);
    fill_pattern(bytes.data(), 2, 0, bytes.size());
    Link* const to = *world.at(1).link(0, 0);
    Deadline over = Deadline::after_ms(50);
    size_t sent = 0;
    while (!over.passed()) {
      const iovec range{bytes.data() + sent, bytes.size() - sent};
      const Result<size_t> some = to->send({&range, 1});
      ASSERT_TRUE(some.is_ok()) << some.status().text();
      sent += *some;
      ASSERT_TRUE(world.at(1).progress().is_ok());
      if (*some > 0) over = Deadline::after_ms(50);
    }
    ASSERT_LT(sent, bytes.size());
    ASSERT_FALSE(*to->flush()) << "nothing has to wait";
    // From here on rank 1 does not call.
    ReceiveTask all(*world.at(0).link(1, 0), 2, sent, 300'000);
    EXPECT_TRUE(all_moves(world, 0, all)) << all.got() << " bytes came";
    SendTask little(*world.at(0).link(1, 0), 3, 1000, 1000);
    EXPECT_TRUE(all_moves(world, 0, little));
    EXPECT_TRUE(world.at(0).progress().is_ok());
    const Deadline heard = Deadline::after_ms(5000);
    while (!world.at(0).settled() && !heard.passed()) world.at(0).wait(1000);
    EXPECT_TRUE(world.at(0).settled()) << "nobody acknowledges";
  }
}

// Over several devices a source is let go of when its bytes are acknowledged.
TEST(NetKeeper, AcknowledgesWhileItsRankDoesNotCall) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  Example example(10);
  example.misbehave("reluctant");
  RealWorld world = two_hosts(10);
  meet(world);
  SendTask large(*world.at(0).link(1, 0), 3, 300'000, 300'000);
  EXPECT_TRUE(all_moves(world, 0, large)) << large.sent() << " bytes were sent";
}

/// A network that has a descriptor, which never tells anything: whoever sleeps on it has to be
/// woken.
class Mute final : public MessageNet {
 public:
  explicit Mute(std::shared_ptr<NetPlugin> inner)
      : MessageNet(inner->name()),
        inner_(std::move(inner)),
        descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    devices_ = inner_->devices();
  }
  std::string title() const override { return inner_->title(); }
  size_t handle_bytes() const override { return inner_->handle_bytes(); }
  Result<void*> listen(int device, NetHandle* handle) override {
    return inner_->listen(device, handle);
  }
  Result<void*> connect(int device, NetHandle* handle) override {
    return inner_->connect(device, handle);
  }
  Result<void*> accept(void* listen) override { return inner_->accept(listen); }
  Result<void*> enroll(void* comm, void* data, size_t bytes) override {
    return inner_->enroll(comm, data, bytes);
  }
  Status dismiss(void* comm, void* memory) override { return inner_->dismiss(comm, memory); }
  Result<void*> send(void* comm, void* data, size_t bytes, int tag, void* memory) override {
    return inner_->send(comm, data, bytes, tag, memory);
  }
  Result<void*> receive(void* comm, std::span<const NetReceive> places) override {
    return inner_->receive(comm, places);
  }
  Result<bool> test(void* request, std::span<int> bytes) override {
    return inner_->test(request, bytes);
  }
  Status close_send(void* comm) override { return inner_->close_send(comm); }
  Status close_receive(void* comm) override { return inner_->close_receive(comm); }
  Status close_listen(void* listen) override { return inner_->close_listen(listen); }
  std::vector<int> descriptors() const override { return {descriptor_.get()}; }

 private:
  const std::shared_ptr<NetPlugin> inner_;
  const UniqueFd descriptor_;
};

// What the keeper finds while its rank sleeps on descriptors, which then have nothing more to tell.
TEST(NetKeeper, WakesARankThatSleeps) {
  Peers peers;
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < 2; rank++) {
    const Context context = context_of(rank, 2, 4711, 99, settings_of(6));
    auto net = std::make_shared<Mute>(*NetPlugin::open(context.settings, context.job));
    auto maker = make_net_maker("mute", "NCCL_NET", rank, std::move(net));
    ASSERT_TRUE(maker.is_ok()) << maker.status().text();
    auto made = make_path_transport(context, *tcp_endpoints(context.settings, {}),
                                    std::move(maker).value());
    ASSERT_TRUE(made.is_ok()) << made.status().text();
    transports.push_back(std::move(made).value());
    peers.addresses.push_back(transports.back()->address());
    peers.host_ids.push_back(context.host_id);
    peers.processes.push_back(context.process);
  }
  std::array<Link*, 2> links{};
  for (size_t rank = 0; rank < 2; rank++) {
    ASSERT_TRUE(transports[rank]->set_peers(peers).is_ok());
    links[rank] = *transports[rank]->link(1 - static_cast<int>(rank), 0);
  }
  std::byte byte{1};
  const iovec range{&byte, 1};
  const auto until = [&](const auto& done) {
    const Deadline deadline = Deadline::after_ms(10'000);
    while (!done() && !deadline.passed())
      for (auto& transport : transports) ASSERT_TRUE(transport->progress().is_ok());
  };
  until([&] { return *links[0]->send({&range, 1}) == 1; });
  until([&] { return *links[1]->receive(&byte, 1) == 1; });
  std::thread sleeper([&] {
    const Deadline deadline = Deadline::after_ms(10'000);
    while (*links[1]->receive(&byte, 1) == 0 && !deadline.passed()) {
      EXPECT_TRUE(transports[1]->progress().is_ok());
      transports[1]->wait(8'000'000);
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const int64_t start = now_ns();
  EXPECT_EQ(*links[0]->send({&range, 1}), 1u);
  for (int i = 0; i < 5; i++) EXPECT_TRUE(transports[0]->progress().is_ok());
  sleeper.join();
  EXPECT_LT(now_ns() - start, 4'000'000'000);
}

}  // namespace
}  // namespace railccl::transport
