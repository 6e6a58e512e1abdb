// Shows that a request does what the call of its name does, as often as it is started, beside
// ordinary calls of other ranks, in groups and on streams, and that wrong uses are told.
#include <gmock/gmock.h>

#include <numeric>

#include "api_ranks.h"

namespace railccl::test {
namespace {

using ::testing::HasSubstr;

constexpr int kRanks = 3;

struct Buffers {
  explicit Buffers(int rank, size_t count) : in(kRanks * count), out(kRanks * count) { fill(rank); }
  void fill(int rank, int round = 0) {
    std::iota(in.begin(), in.end(), static_cast<float>(100 * rank + round));
    std::fill(out.begin(), out.end(), -1.0f);
  }
  std::vector<float> in, out;
};

TEST(Requests, EveryCollectiveGivesWhatItsFunctionGives) {
  Ranks ranks(kRanks);
  ranks.each([&](int rank, ncclComm_t comm) {
    for (const size_t count : {size_t{2}, size_t{777}, size_t{40000}}) {
      for (int kind = railcclAllReduce; kind <= railcclScatter; kind++) {
        Buffers by_request(rank, count), by_call(rank, count);
        railcclRequest_t request = nullptr;
        OK(railcclRequestCreate(static_cast<railcclCollective_t>(kind), by_request.in.data(),
                                by_request.out.data(), count, ncclFloat, ncclMax, 1, comm,
                                &request));
        for (int round = 0; round < 3; round++) {
          by_request.fill(rank, round);
          by_call.fill(rank, round);
          OK(railcclRequestStart(request, nullptr));
          float* in = by_call.in.data();
          float* out = by_call.out.data();
          switch (kind) {
            case railcclAllReduce:
              OK(ncclAllReduce(in, out, count, ncclFloat, ncclMax, comm, nullptr));
              break;
            case railcclReduceScatter:
              OK(ncclReduceScatter(in, out, count, ncclFloat, ncclMax, comm, nullptr));
              break;
            case railcclAllGather:
              OK(ncclAllGather(in, out, count, ncclFloat, comm, nullptr));
              break;
            case railcclBroadcast:
              OK(ncclBroadcast(in, out, count, ncclFloat, 1, comm, nullptr));
              break;
            case railcclReduce:
              OK(ncclReduce(in, out, count, ncclFloat, ncclMax, 1, comm, nullptr));
              break;
            case railcclAlltoAll:
              OK(ncclAlltoAll(in, out, count, ncclFloat, comm, nullptr));
              break;
            case railcclGather:
              OK(ncclGather(in, out, count, ncclFloat, 1, comm, nullptr));
              break;
            default:
              OK(ncclScatter(in, out, count, ncclFloat, 1, comm, nullptr));
          }
          ASSERT_EQ(by_request.out, by_call.out) << "collective " << kind << " count " << count;
        }
        OK(railcclRequestDestroy(request));
      }
    }
  });
}

TEST(Requests, MeetOrdinaryCallsOfOtherRanks) {
  Ranks ranks(kRanks);
  ranks.each([&](int rank, ncclComm_t comm) {
    std::vector<int32_t> in(5, rank + 1), out(5);
    railcclRequest_t request = nullptr;
    if (rank == 0) {
      OK(railcclRequestCreate(railcclAllReduce, in.data(), out.data(), 5, ncclInt32, ncclSum, 0,
                              comm, &request));
    }
    for (int i = 0; i < 100; i++) {
      if (rank == 0) {
        OK(railcclRequestStart(request, nullptr));
      } else {
        OK(ncclAllReduce(in.data(), out.data(), 5, ncclInt32, ncclSum, comm, nullptr));
      }
      ASSERT_EQ(out[4], 6);
      out[4] = 0;
    }
    OK(railcclRequestDestroy(request));
  });
}

TEST(Requests, OnStreamsAndInGroups) {
  Ranks ranks(kRanks);
  ranks.each([&](int rank, ncclComm_t comm) {
    std::vector<int64_t> in(1000, rank), first(1000), second(1000);
    railcclRequest_t a = nullptr, b = nullptr;
    OK(railcclRequestCreate(railcclAllReduce, in.data(), first.data(), 1000, ncclInt64, ncclSum, 0,
                            comm, &a));
    OK(railcclRequestCreate(railcclAllReduce, in.data(), second.data(), 1000, ncclInt64, ncclMax, 0,
                            comm, &b));
    cudaStream_t stream = nullptr;
    OK(railcclStreamCreate(&stream));
    OK(railcclRequestStart(a, stream));
    OK(railcclStreamSynchronize(stream));
    EXPECT_EQ(first[999], 3);
    first[999] = 0;
    OK(ncclGroupStart());
    OK(railcclRequestStart(b, nullptr));
    OK(railcclRequestStart(a, nullptr));
    EXPECT_EQ(second[999], 0) << "ran before the group's end";
    OK(ncclGroupEnd());
    EXPECT_EQ(first[999], 3);
    EXPECT_EQ(second[999], 2);
    OK(railcclStreamDestroy(stream));
    OK(railcclRequestDestroy(a));
    OK(railcclRequestDestroy(b));
  });
}

TEST(Requests, AFactorInMemoryIsReadAtEachStart) {
  Ranks ranks(kRanks);
  ranks.each([&](int, ncclComm_t comm) {
    float in = 1, out = 0, factor = 2;
    ncclRedOp_t op;
    OK(ncclRedOpCreatePreMulSum(&op, &factor, ncclFloat, ncclScalarDevice, comm));
    railcclRequest_t request = nullptr;
    OK(railcclRequestCreate(railcclAllReduce, &in, &out, 1, ncclFloat, op, 0, comm, &request));
    OK(railcclRequestStart(request, nullptr));
    EXPECT_EQ(out, 6);
    factor = 5;
    OK(railcclRequestStart(request, nullptr));
    EXPECT_EQ(out, 15);
    OK(ncclRedOpDestroy(op, comm));
    EXPECT_EQ(railcclRequestStart(request, nullptr), ncclInvalidArgument);
    OK(railcclRequestDestroy(request));
  });
}

TEST(Requests, WrongUsesAreTold) {
  float in = 1, out = 0;
  railcclRequest_t request = nullptr;
  {
    Ranks ranks(1);
    ranks.each([&](int, ncclComm_t comm) {
      const auto create = [&](int kind, const void* from, ncclDataType_t type, int root) {
        return railcclRequestCreate(static_cast<railcclCollective_t>(kind), from, &out, 1, type,
                                    ncclSum, root, comm, &request);
      };
      EXPECT_EQ(create(railcclNumCollectives, &in, ncclFloat, 0), ncclInvalidArgument);
      EXPECT_EQ(create(railcclAllReduce, nullptr, ncclFloat, 0), ncclInvalidArgument);
      EXPECT_EQ(create(railcclAllReduce, &in, ncclNumTypes, 0), ncclInvalidArgument);
      EXPECT_EQ(create(railcclBroadcast, &in, ncclFloat, 1), ncclInvalidArgument);
      EXPECT_EQ(request, nullptr);
      EXPECT_EQ(railcclRequestCreate(railcclAllReduce, &in, &out, 1, ncclFloat, ncclSum, 0, comm,
                                     nullptr),
                ncclInvalidArgument);
      EXPECT_EQ(railcclRequestStart(nullptr, nullptr), ncclInvalidArgument);
      OK(create(railcclAllReduce, &in, ncclFloat, 0));
      OK(railcclRequestDestroy(request));
      EXPECT_EQ(railcclRequestStart(request, nullptr), ncclInvalidArgument);
      EXPECT_THAT(ncclGetLastError(nullptr), HasSubstr("destroyed"));
      EXPECT_EQ(railcclRequestDestroy(request), ncclInvalidArgument);
      OK(create(railcclAllReduce, &in, ncclFloat, 0));
    });
  }
  EXPECT_NE(railcclRequestStart(request, nullptr), ncclSuccess) << "its communicator is gone";
  OK(railcclRequestDestroy(request));
  OK(railcclRequestDestroy(nullptr));
}

}  // namespace
}  // namespace railccl::test
