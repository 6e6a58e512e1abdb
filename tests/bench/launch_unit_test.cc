// Launch: Slurm's node lists give the first host, and malformed ones give nothing.
#include <gtest/gtest.h>

#include "launch/launch.h"

namespace railccl::launch {
namespace {

TEST(Launch, FirstHostOfSlurmNodeLists) {
  EXPECT_EQ(first_host("node7"), "node7");
  EXPECT_EQ(first_host("node7,node9"), "node7");
  EXPECT_EQ(first_host("gpu[03-04,9],login1"), "gpu03");
  EXPECT_EQ(first_host("gpu[12]"), "gpu12");
  EXPECT_EQ(first_host("rack1-[5,7]"), "rack1-5");
  EXPECT_EQ(first_host("gpu["), "");
  EXPECT_EQ(first_host("gpu[x]"), "");
  EXPECT_EQ(first_host("gpu[12"), "");
  EXPECT_EQ(first_host(""), "");
}

}  // namespace
}  // namespace railccl::launch
