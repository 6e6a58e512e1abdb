// Shows that railcclCommProve speaks of the plan that calls really get, on hosts that a file tells
// of: nothing crosses rails where rails are used, and what does cross is counted; that rounds are
// counted; and what it refuses.
#include <filesystem>

#include "api_ranks.h"
#include "topology/synthetic.h"
#include "topology/text.h"

namespace railccl::test {
namespace {

/// The ranks of this process are on these hosts, for the time of a test.
class Hosts {
 public:
  explicit Hosts(const std::string& description)
      : path_(testing::TempDir() + "/prove-" + std::to_string(getpid()) + ".topo"),
        file_("RAILCCL_TOPO_FILE", path_) {
    const auto topology = topology::synthetic(description);
    EXPECT_TRUE(topology.is_ok() && topology::save_topology(*topology, path_).is_ok());
  }
  ~Hosts() { std::filesystem::remove(path_); }
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;

 private:
  std::string path_;
  Variable file_;
};

constexpr size_t kCount = 1 << 18;

railcclProof_t all_reduce_proof(ncclComm_t comm, size_t count) {
  railcclProof_t proof = RAILCCL_PROOF_INITIALIZER;
  EXPECT_EQ(railcclCommProve(railcclAllReduce, count, ncclFloat, ncclSum, 0, 0, railcclReachNone,
                             comm, &proof),
            ncclSuccess)
      << ncclGetLastError(nullptr);
  return proof;
}

TEST(Prove, TheChosenPlanStaysOnItsRailsAndUsesThemEqually) {
  Hosts hosts("hosts=2,ranks=4,nics=4,nic=1GB/s");
  Ranks ranks(8);
  ranks.each([](int, ncclComm_t comm) {
    std::vector<float> in(kCount, 1), out(kCount);
    OK(ncclAllReduce(in.data(), out.data(), kCount, ncclFloat, ncclSum, comm, nullptr));
    railcclChoice_t choice = RAILCCL_CHOICE_INITIALIZER;
    OK(railcclCommLastChoice(comm, &choice));
    const railcclProof_t proof = all_reduce_proof(comm, kCount);
    EXPECT_STREQ(proof.algorithm, choice.algorithm);
    EXPECT_EQ(proof.bytesAcrossRails, 0u);
    ASSERT_EQ(proof.rails, 4);
    // Each host sends half of each rail's share in each of two phases.
    for (int rail = 0; rail < 4; rail++) EXPECT_EQ(proof.bytesOfRail[rail], 2 * kCount * 4 / 4);
    EXPECT_EQ(proof.bytesBetweenHosts, 2 * kCount * 4);
    EXPECT_GT(proof.bytes, proof.bytesBetweenHosts);
    EXPECT_GT(proof.messages, proof.rounds);
  });
}

TEST(Prove, WhatCrossesRailsIsCounted) {
  Variable ring("NCCL_ALGO", "ring");
  Hosts hosts("hosts=2,ranks=4,nics=4,nic=1GB/s");
  Ranks ranks(8);
  // From the last rank of a host to the first one of the other, which is on another rail.
  const railcclProof_t proof = all_reduce_proof(ranks.comm(0), kCount);
  EXPECT_STREQ(proof.algorithm, "ring");
  EXPECT_EQ(proof.bytesAcrossRails, 2 * (2 * 7 * kCount * 4 / 8));
  EXPECT_EQ(proof.bytesBetweenHosts, proof.bytesAcrossRails);
  EXPECT_EQ(proof.bytesOfRail[0] + proof.bytesOfRail[3], 0u);
}

TEST(Prove, ASmallAllReduceOfSixteenHostsHasFourRounds) {
  Hosts hosts("hosts=16,ranks=1,nics=1,nic=1GB/s");
  Ranks ranks(16);
  const railcclProof_t proof = all_reduce_proof(ranks.comm(0), 2);
  EXPECT_EQ(proof.rounds, 4u) << proof.algorithm;
  EXPECT_EQ(proof.bytesBetweenHosts, proof.bytes);
}

TEST(Prove, EveryCollectiveInAndOutOfPlace) {
  Ranks ranks(3);
  for (int c = 0; c < railcclNumCollectives; c++) {
    for (const int in_place : {0, 1}) {
      railcclProof_t proof = RAILCCL_PROOF_INITIALIZER;
      OK(railcclCommProve(static_cast<railcclCollective_t>(c), 1000, ncclInt, ncclAvg, 2, in_place,
                          railcclReachNone, ranks.comm(1), &proof));
      EXPECT_GE(proof.rounds, 1u);
      EXPECT_EQ(proof.bytesBetweenHosts, 0u);
    }
  }
  railcclProof_t open = RAILCCL_PROOF_INITIALIZER;
  OK(railcclCommProve(railcclAllReduce, 1000, ncclFloat, ncclSum, 0, 0, railcclReachOpen,
                      ranks.comm(0), &open));
  EXPECT_STREQ(open.algorithm, "open");
  railcclProof_t fetched = RAILCCL_PROOF_INITIALIZER;
  OK(railcclCommProve(railcclAllGather, 1 << 20, ncclFloat, ncclSum, 0, 0, railcclReachFetched,
                      ranks.comm(0), &fetched));
  EXPECT_STREQ(fetched.algorithm, "fetched");
}

TEST(Prove, WrongUsesAreTold) {
  Ranks ranks(2);
  const ncclComm_t comm = ranks.comm(0);
  railcclProof_t proof = RAILCCL_PROOF_INITIALIZER;
  const auto prove = [&](railcclCollective_t collective, size_t count, ncclDataType_t type,
                         int root, ncclComm_t on, railcclProof_t* out) {
    return railcclCommProve(collective, count, type, ncclSum, root, 0, railcclReachNone, on, out);
  };
  FAILS(prove(railcclAllReduce, 1, ncclFloat, 0, comm, nullptr), ncclInvalidArgument,
        "proof is null");
  FAILS(prove(railcclAllReduce, 1, ncclFloat, 0, nullptr, &proof), ncclInvalidArgument, "comm");
  FAILS(railcclCommProve(railcclAllReduce, 1, ncclFloat, ncclSum, 0, 0,
                         static_cast<railcclReach_t>(3), comm, &proof),
        ncclInvalidArgument, "3 is no reach");
  FAILS(prove(railcclNumCollectives, 1, ncclFloat, 0, comm, &proof), ncclInvalidArgument,
        "8 is no collective");
  FAILS(prove(railcclAllReduce, 1, ncclNumTypes, 0, comm, &proof), ncclInvalidArgument,
        "is no datatype");
  FAILS(prove(railcclReduce, 1, ncclFloat, 2, comm, &proof), ncclInvalidArgument, "root 2");
  FAILS(prove(railcclAllGather, ~size_t{0}, ncclFloat, 0, comm, &proof), ncclInvalidArgument,
        "too large");
  proof.size = 1;
  FAILS(prove(railcclAllReduce, 1, ncclFloat, 0, comm, &proof), ncclInvalidArgument, "initializer");
}

}  // namespace
}  // namespace railccl::test
