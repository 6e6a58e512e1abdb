// Settings: good values arrive, malformed ones are errors that name variable, value and
// expectation.
#include "base/settings.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

namespace railccl {
namespace {

Result<Settings> load(const std::map<std::string, std::string>& environment) {
  return Settings::load([&](const char* variable) -> const char* {
    const auto found = environment.find(variable);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

TEST(Settings, DefaultsWithoutEnvironment) {
  const Result<Settings> settings = load({});
  ASSERT_TRUE(settings.is_ok());
  EXPECT_EQ(settings->min_channels, 1);
  EXPECT_FALSE(settings->shm_disable);
  EXPECT_EQ(settings->socket_ifname, "");
}

TEST(Settings, GoodValuesArrive) {
  const Result<Settings> settings = load({{"NCCL_MIN_NCHANNELS", " 4 "},
                                          {"RAILCCL_CHUNK_SIZE", "256K"},
                                          {"NCCL_SHM_DISABLE", "1"},
                                          {"NCCL_SOCKET_IFNAME", "^docker"}});
  ASSERT_TRUE(settings.is_ok()) << settings.status().text();
  EXPECT_EQ(settings->min_channels, 4);
  EXPECT_EQ(settings->chunk_bytes, 256u << 10);
  EXPECT_TRUE(settings->shm_disable);
  EXPECT_EQ(settings->socket_ifname, "^docker");
}

TEST(Settings, EmptyMeansDefault) {
  const Result<Settings> settings = load({{"NCCL_MIN_NCHANNELS", ""}, {"NCCL_SHM_DISABLE", ""}});
  ASSERT_TRUE(settings.is_ok());
  EXPECT_EQ(settings->min_channels, 1);
}

struct Bad {
  const char* variable;
  const char* value;
  const char* expectation;
};

class BadSettings : public testing::TestWithParam<Bad> {};

TEST_P(BadSettings, AreErrorsThatSayWhatWasExpected) {
  const Bad& bad = GetParam();
  const Result<Settings> settings = load({{bad.variable, bad.value}});
  ASSERT_FALSE(settings.is_ok());
  EXPECT_EQ(settings.status().code(), Code::invalid_argument);
  const std::string text = settings.status().text();
  EXPECT_NE(text.find(bad.variable), std::string::npos) << text;
  EXPECT_NE(text.find(bad.value), std::string::npos) << text;
  EXPECT_NE(text.find(bad.expectation), std::string::npos) << text;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadSettings,
    testing::Values(Bad{"NCCL_MIN_NCHANNELS", "four", "expected an integer"},
                    Bad{"NCCL_MIN_NCHANNELS", "4x", "expected an integer"},
                    Bad{"NCCL_MIN_NCHANNELS", "0", "must be from 1 to 64"},
                    Bad{"NCCL_MAX_NCHANNELS", "99999999999999999999", "expected an integer"},
                    Bad{"RAILCCL_CHUNK_SIZE", "12Q", "expected a size"},
                    Bad{"RAILCCL_CHUNK_SIZE", "-1", "expected a size"},
                    Bad{"RAILCCL_CHUNK_SIZE", "99999999999G", "expected a size"},
                    Bad{"RAILCCL_CHUNK_SIZE", "2G", "must be from 0"},
                    Bad{"NCCL_SHM_DISABLE", "maybe", "expected 0 or 1"}));

TEST(Settings, EveryRowIsDocumentedOnce) {
  std::set<std::string> seen;
  for (const SettingRow& row : setting_rows()) {
    EXPECT_TRUE(seen.insert(row.variable).second) << row.variable;
    EXPECT_GT(std::string(row.meaning).size(), 10u) << row.variable;
  }
  EXPECT_GE(seen.size(), 15u);
}

}  // namespace
}  // namespace railccl
