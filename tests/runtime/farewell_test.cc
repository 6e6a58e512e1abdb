// A rank that has done its part may leave at once: what it wrote counts, also for who had looked in
// vain just before, and looks aside meanwhile.
#include <gtest/gtest.h>

#include <thread>

#include "base/clock.h"
#include "local_wires.h"
#include "runtime/open_buffers.h"
#include "runtime/point_to_point.h"

namespace railccl::test {
namespace {

using runtime::OpenBuffers;
using runtime::PointToPoint;
using runtime::Wires;

/// Rank 0 goes, and rank 1 has learned of it.
void leave(std::vector<std::unique_ptr<Wires>>& wires, int channel) {
  auto wire = wires[1]->wire(0, channel);
  ASSERT_TRUE(wire.is_ok()) << wire.status().text();
  wires[0].reset();
  const Deadline deadline = Deadline::after_ms(5000);
  while ((*wire)->state().is_ok() && !deadline.passed()) (void)wires[1]->progress(true);
  ASSERT_FALSE((*wire)->state().is_ok()) << "the loss did not show";
}

class Farewell : public ::testing::TestWithParam<size_t> {};

TEST_P(Farewell, AMessageIsReceivedAfterItsSenderLeft) {
  const size_t count = GetParam();
  auto wires = local_wires(2, "shm");
  std::vector<float> sent(count, 3), received(count, 0);
  PointToPoint sender(*wires[0]), receiver(*wires[1]);
  ASSERT_TRUE(sender.add_send(1, sent.data(), count, Datatype::float32).is_ok());
  ASSERT_TRUE(receiver.add_recv(0, received.data(), count, Datatype::float32).is_ok());
  ASSERT_FALSE(receiver.step().done);
  const Deadline deadline = Deadline::after_ms(5000);
  while (!sender.step().done && !deadline.passed()) (void)wires[1]->progress(true);
  ASSERT_TRUE(sender.step().done);
  leave(wires, runtime::kPointToPointChannel);
  const Status aside = receiver.look_aside();
  EXPECT_TRUE(aside.is_ok()) << aside.text();
  const auto outcome = receiver.step();
  EXPECT_TRUE(outcome.done) << outcome.status.text();
  EXPECT_EQ(received, sent);
}

TEST_P(Farewell, ALossWithoutAMessageIsALoss) {
  const size_t count = GetParam();
  auto wires = local_wires(2, "shm");
  std::vector<float> received(count, 0);
  PointToPoint receiver(*wires[1]);
  ASSERT_TRUE(receiver.add_recv(0, received.data(), count, Datatype::float32).is_ok());
  // Links come about when both want them.
  ASSERT_TRUE(wires[0]->wire(1, runtime::kPointToPointChannel).is_ok());
  ASSERT_FALSE(receiver.step().done);
  leave(wires, runtime::kPointToPointChannel);
  EXPECT_FALSE(receiver.step().status.is_ok());
}

INSTANTIATE_TEST_SUITE_P(LaneAndRing, Farewell, ::testing::Values(399, 50'000));

TEST(FarewellOfBuffers, WhereTheyWereIsHeardAfterTheirOwnerLeft) {
  auto wires = local_wires(2, "shm");
  std::vector<float> memory(4000);
  plan::Request request;
  request.count = 1000;
  request.op = Reduction::sum;
  OpenBuffers first(*wires[0]), second(*wires[1]);
  OpenBuffers::Question question;
  question.request = request;
  question.input = memory.data();
  question.output = memory.data() + 2000;
  for (OpenBuffers* buffers : {&first, &second}) ASSERT_TRUE(buffers->begin(question).is_ok());
  ASSERT_FALSE(second.step().done);
  while (!first.step().done) (void)wires[1]->progress(true);
  leave(wires, 0);
  const Status aside = second.look_aside();
  EXPECT_TRUE(aside.is_ok()) << aside.text();
  const auto outcome = second.step();
  EXPECT_TRUE(outcome.done) << outcome.status.text();
}

}  // namespace
}  // namespace railccl::test
