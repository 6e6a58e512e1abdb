// Plugins: which version of an interface is taken, and what is said where there is none. The C
// library stands for a plugin that has two versions, of "dup": dup2 and dup3.
#include "base/plugin.h"

#include <gmock/gmock.h>

namespace railccl {
namespace {

using ::testing::HasSubstr;

TEST(FindPlugin, TakesTheNewestVersionThatBothKnow) {
  const auto newest = find_plugin("libc.so.6", "libnccl-net", {"dup", 1, 9});
  ASSERT_TRUE(newest.is_ok()) << newest.status().text();
  EXPECT_EQ(newest->version, 3);
  EXPECT_THAT(newest->file, HasSubstr("libc.so.6"));
}

TEST(FindPlugin, TakesNoVersionThatIsNewerThanOurs) {
  const auto ours = find_plugin("libc.so.6", "libnccl-tuner", {"dup", 1, 2});
  ASSERT_TRUE(ours.is_ok()) << ours.status().text();
  EXPECT_EQ(ours->version, 2);
}

TEST(FindPlugin, SaysWhatIsMissing) {
  const auto versions = find_plugin("libc.so.6", "libnccl-profiler", {"dup", 4, 5});
  ASSERT_FALSE(versions.is_ok());
  EXPECT_EQ(versions.status().code(), Code::unsupported);
  EXPECT_THAT(versions.status().text(), HasSubstr("has no dup4 to v5"));
  const auto file = find_plugin("nosuch", "libnccl-net", {"dup", 1, 9});
  ASSERT_FALSE(file.is_ok());
  EXPECT_THAT(file.status().text(), HasSubstr("libnccl-net-nosuch.so"));
}

}  // namespace
}  // namespace railccl
