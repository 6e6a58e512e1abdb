// railccl.hpp as a C++ program uses it: ranks as threads, every call once with values that tell one
// rank's data from another's, sizes that do not fit refused before anybody waits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <railccl/railccl.hpp>
#include <thread>
#include <vector>

namespace {

using railccl::Communicator;
using railccl::Status;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

#define EXPECT_OK(call)                                          \
  do {                                                           \
    const Status ended = (call);                                 \
    EXPECT_TRUE(ended.ok()) << #call << ": " << ended.message(); \
  } while (0)

/// Runs `work` on `ranks` threads, each with its communicator.
template <typename Work>
void on_ranks(int ranks, Work work) {
  ncclUniqueId id;
  ASSERT_TRUE(railccl::make_id(&id).ok());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; rank++)
    threads.emplace_back([&, rank] {
      Communicator comm;
      const Status joined = comm.init(ranks, id, rank);
      ASSERT_TRUE(joined.ok()) << joined.message();
      EXPECT_EQ(comm.rank(), rank);
      EXPECT_EQ(comm.size(), ranks);
      work(comm);
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(Wrapper, CollectivesOnVectorsArraysAndSpans) {
  on_ranks(3, [](Communicator& comm) {
    const int rank = comm.rank();
    std::vector<float> numbers(5, static_cast<float>(rank + 1)), sums(5);
    EXPECT_OK(comm.all_reduce(numbers, sums));
    EXPECT_EQ(sums, std::vector<float>(5, 6.0F));
    EXPECT_OK(comm.all_reduce(std::span(numbers).first(2), ncclMax));
    EXPECT_THAT(numbers, ElementsAre(3, 3, rank + 1, rank + 1, rank + 1));

    const std::array<int64_t, 6> parts{1, 2, 3, 4, 5, 6};
    std::array<int64_t, 2> part{};
    EXPECT_OK(comm.reduce_scatter(parts, part, ncclProd));
    const int64_t first = parts[2 * static_cast<size_t>(rank)], second = first + 1;
    EXPECT_THAT(part, ElementsAre(first * first * first, second * second * second));

    std::vector<uint8_t> mine(2, static_cast<uint8_t>(rank)), all(6);
    EXPECT_OK(comm.all_gather(mine, all));
    EXPECT_THAT(all, ElementsAre(0, 0, 1, 1, 2, 2));

    double value[1] = {rank == 2 ? 2.5 : 0};
    EXPECT_OK(comm.broadcast(value, 2));
    EXPECT_EQ(value[0], 2.5);

    std::vector<uint32_t> there(3, static_cast<uint32_t>(rank)), here(3);
    EXPECT_OK(comm.all_to_all(there, here));
    EXPECT_THAT(here, ElementsAre(0, 1, 2));

    std::vector<uint32_t> at_root(rank == 1 ? 9 : 0);
    EXPECT_OK(comm.gather(there, at_root, 1));
    if (rank == 1) {
      EXPECT_THAT(at_root, ElementsAre(0, 0, 0, 1, 1, 1, 2, 2, 2));
      std::iota(at_root.begin(), at_root.end(), 0U);
    }
    EXPECT_OK(comm.scatter(at_root, here, 1));
    const auto begin = 3 * static_cast<uint32_t>(rank);
    EXPECT_THAT(here, ElementsAre(begin, begin + 1, begin + 2));

    std::vector<uint32_t> total(rank == 0 ? 3 : 0);
    EXPECT_OK(comm.reduce(here, total, 0));
    if (rank == 0) {
      EXPECT_THAT(total, ElementsAre(9, 12, 15));
    }
    EXPECT_OK(comm.barrier());
  });
}

TEST(Wrapper, GroupsStreamsMemoryAndSplit) {
  on_ranks(4, [](Communicator& comm) {
    const int next = (comm.rank() + 1) % 4, before = (comm.rank() + 3) % 4;
    std::vector<int> out{comm.rank(), 7}, in(2);
    railccl::Group group;
    EXPECT_OK(comm.send(out, next));
    EXPECT_OK(comm.recv(in, before));
    EXPECT_OK(group.end());
    EXPECT_THAT(in, ElementsAre(before, 7));
    EXPECT_FALSE(group.end().ok());

    railccl::Stream stream;
    EXPECT_OK(stream.create());
    railccl::Memory<float> memory;
    EXPECT_OK(memory.allocate(1000));
    std::ranges::fill(memory, 1.0F);
    EXPECT_OK(comm.all_reduce(memory, ncclSum, stream));
    EXPECT_OK(comm.all_reduce(memory, ncclSum, stream));
    EXPECT_OK(stream.synchronize());
    EXPECT_EQ(std::ranges::count(memory, 16.0F), 1000);

    Communicator half;
    EXPECT_OK(comm.split(comm.rank() == 3 ? NCCL_SPLIT_NOCOLOR : comm.rank() % 2, 0, &half));
    EXPECT_EQ(half.handle() == nullptr, comm.rank() == 3);
    if (half.handle() == nullptr) return;
    EXPECT_EQ(half.size(), comm.rank() % 2 == 0 ? 2 : 1);
    std::vector<int> one(1, 1);
    EXPECT_OK(half.all_reduce(one));
    EXPECT_EQ(one[0], half.size());
  });
}

TEST(Wrapper, SizesThatDoNotFitAreRefusedBeforeAnybodyWaits) {
  on_ranks(2, [](Communicator& comm) {
    std::vector<float> three(3), four(4), none;
    // One rank alone: the other would be waited for if the library were called.
    if (comm.rank() == 0) {
      EXPECT_EQ(comm.all_reduce(three, four).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.reduce_scatter(three, four).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.all_gather(four, three).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.all_to_all(three, three).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.reduce(three, none, 0).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.gather(four, four, 0).code(), ncclInvalidArgument);
      EXPECT_EQ(comm.scatter(four, four, 0).code(), ncclInvalidArgument);
      const Status refused = comm.all_gather(three, four);
      EXPECT_THAT(refused.message(),
                  HasSubstr("all_gather with 3 elements in and 4 out on 2 ranks"));
      EXPECT_THROW(refused.or_throw(), std::runtime_error);
    }
    EXPECT_OK(comm.barrier());
  });
}

TEST(Wrapper, FailuresOfTheLibraryComeWithItsWords) {
  Communicator comm;
  EXPECT_EQ(comm.init(2, ncclUniqueId{}, 5).code(), ncclInvalidArgument);
  EXPECT_EQ(comm.handle(), nullptr);
  std::vector<float> data(1);
  const Status status = comm.all_reduce(data);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("comm"));
}

}  // namespace
