// Tuner plugins: every version of their interface is adapted to one class; what they want, of what
// is here, is chosen, and what is not here is left alone; all ranks ask one or none does. The
// plugins are tests/plugins/tuner.c.
#include "runtime/tuner.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <list>

#include "mortal_ranks.h"
#include "runtime/chooser.h"
#include "runtime/tuner_abi.h"
#include "shapes.h"
#include "summing.h"

namespace railccl::test {
namespace {

using runtime::Chooser;
using runtime::Tuner;
using testing::HasSubstr;
namespace abi = runtime::tuner_abi;

std::string file_of(int version) {
  return fmt::format("{}/libnccl-tuner-example{}.so", RAILCCL_PLUGINS, version);
}

Settings settings_of(int version, const std::vector<std::string>& more = {}) {
  std::vector<std::string> rows = more;
  rows.push_back("NCCL_TUNER_PLUGIN=" + file_of(version));
  return settings_with(rows);
}

/// An example plugin: what it shall want, and what it was asked. Wants nothing at the end.
class Example {
 public:
  explicit Example(int version) : library_(::dlopen(file_of(version).c_str(), RTLD_NOW)) {
    EXPECT_NE(library_, nullptr) << ::dlerror();
  }
  ~Example() { wish(""); }
  Example(const Example&) = delete;
  Example& operator=(const Example&) = delete;
  void wish(const std::string& what) { std::strncpy(find<char>("wish"), what.c_str(), 63); }
  template <typename T>
  T* find(const std::string& name) const {
    return static_cast<T*>(::dlsym(library_, ("example_" + name).c_str()));
  }

 private:
  void* library_;
};

/// A chooser that asks the plugin.
Chooser asking(const Settings& settings, const topology::Topology& topology) {
  auto tuner = Tuner::find(settings);
  EXPECT_TRUE(tuner.is_ok()) << tuner.status().text();
  EXPECT_TRUE((*tuner)->begin(4711, topology).is_ok());
  return Chooser::make(settings, 0, 0, true, std::move(tuner).value()).value();
}

runtime::Chosen choose(const Chooser& chooser, const Request& request,
                       const topology::Topology& topology) {
  auto chosen = chooser.choose(request, topology);
  EXPECT_TRUE(chosen.is_ok()) << chosen.status().text();
  return *chosen;
}

class TunerVersion : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, TunerVersion, testing::Range(Tuner::kOldest, Tuner::kNewest + 1));

TEST_P(TunerVersion, IsAskedAndIsGivenWhatItWants) {
  Example example(GetParam());
  const topology::Topology topology = hosts_with({2, 3});
  const Request sum = sum_request(100'000);
  const runtime::Chosen own =
      choose(Chooser::make(settings_with(), 0, 0, true).value(), sum, topology);
  {
    const Chooser chooser = asking(settings_of(GetParam()), topology);
    EXPECT_EQ(*example.find<int>("contexts"), 1);
    EXPECT_EQ(*example.find<size_t>("ranks"), 5u);
    EXPECT_EQ(*example.find<size_t>("hosts"), 2u);
    // Of no opinion.
    const int asked = *example.find<int>("asked");
    runtime::Chosen chosen = choose(chooser, sum, topology);
    EXPECT_EQ(*example.find<int>("asked"), asked + 1);
    EXPECT_EQ(*example.find<int>("function"), abi::kAllReduce);
    EXPECT_EQ(*example.find<size_t>("bytes"), 400'000u);
    EXPECT_EQ(chosen.algorithm, own.algorithm);
    EXPECT_EQ(chosen.tuning, own.tuning);
    for (const char* algorithm : {"ring", "tree"}) {
      example.wish(fmt::format("{}:3", algorithm));
      chosen = choose(chooser, sum, topology);
      EXPECT_STREQ(chosen.algorithm->name, algorithm);
      EXPECT_EQ(chosen.tuning.channels, 3);
      EXPECT_GT(chosen.predicted_s, 0) << "our own prediction, not its price";
    }
    example.wish("pat");
    chosen = choose(chooser, sum_request(1000, Collective::all_gather), topology);
    EXPECT_STREQ(chosen.algorithm->name, "pat");
    EXPECT_EQ(*example.find<int>("function"), abi::kAllGather);
    EXPECT_EQ(*example.find<size_t>("bytes"), 5 * 4000u) << "of the larger buffer";
    // Channels alone, and more of them than there may be.
    example.wish(":1000");
    chosen = choose(chooser, sum, topology);
    EXPECT_EQ(chosen.tuning.channels, 8);
    // Collectives that it does not know.
    const int before = *example.find<int>("asked");
    (void)choose(chooser, sum_request(1000, Collective::all_to_all), topology);
    EXPECT_EQ(*example.find<int>("asked"), before);
  }
  EXPECT_EQ(*example.find<int>("contexts"), 0);
}

TEST_P(TunerVersion, WhatIsNotHereAndWhatFailsLeavesOurOwnChoice) {
  Example example(GetParam());
  const topology::Topology topology = hosts_with({4, 4});
  const Request sum = sum_request(100'000);
  const runtime::Chosen own =
      choose(Chooser::make(settings_with(), 0, 0, true).value(), sum, topology);
  const Chooser chooser = asking(settings_of(GetParam()), topology);
  for (const char* wish : {"nvls", "pat", "collnet_chain", "fail", "absurd", ":-5"}) {
    example.wish(wish);
    const runtime::Chosen chosen = choose(chooser, sum, topology);
    EXPECT_EQ(chosen.algorithm, own.algorithm) << wish;
    EXPECT_EQ(chosen.tuning, own.tuning) << wish;
  }
  // Who forbids everything, or gives figures that are none, has forbidden what it knows.
  for (const char* wish : {"none", "no_numbers"}) {
    if (GetParam() < 3) break;
    example.wish(wish);
    const runtime::Chosen chosen = choose(chooser, sum, topology);
    EXPECT_STRNE(chosen.algorithm->name, "ring") << wish;
    EXPECT_STRNE(chosen.algorithm->name, "tree") << wish;
    const Chooser only = asking(settings_of(GetParam(), {"NCCL_ALGO=ring"}), topology);
    EXPECT_STREQ(choose(only, sum, topology).algorithm->name, "ring") << wish;
  }
  example.wish("tree");
  const Chooser only = asking(settings_of(GetParam(), {"NCCL_ALGO=ring"}), topology);
  EXPECT_STREQ(choose(only, sum, topology).algorithm->name, "ring") << "NCCL_ALGO is the user's";
}

// Microseconds, the same under each protocol, and nothing for what is not here.
TEST_P(TunerVersion, TheTableHasOurPrices) {
  if (GetParam() < 3) GTEST_SKIP() << "has no table";
  Example example(GetParam());
  const topology::Topology topology = hosts_with({4});
  const Request sum = sum_request(100'000);
  (void)choose(asking(settings_of(GetParam()), topology), sum, topology);
  const auto* const table = example.find<float>("table");
  for (int row = 0; row < abi::kAlgorithms; row++) {
    double us = -1;
    for (const char* name : {"tree", "ring"}) {
      if (row != (std::string_view(name) == "tree" ? abi::kTree : abi::kRing)) continue;
      const Settings settings = settings_with({fmt::format("NCCL_ALGO={}", name)});
      us = 1e6 * choose(Chooser::make(settings, 0, 0, true).value(), sum, topology).predicted_s;
    }
    for (int column = 0; column < abi::kProtocols; column++)
      EXPECT_NEAR(table[row * abi::kProtocols + column], us, 1e-4 * std::abs(us)) << row;
  }
}

TEST_P(TunerVersion, ThatFailsAtItsBeginningIsNone) {
  Example example(GetParam());
  example.wish("fail_init");
  auto tuner = Tuner::find(settings_of(GetParam()));
  ASSERT_TRUE(tuner.is_ok());
  EXPECT_EQ((*tuner)->begin(1, hosts_with({2})).text(),
            fmt::format("tuner Example (v{}): init returned 2 (ncclSystemError)", GetParam()));
}

TEST(Tuner, IsFoundAsNcclFindsIt) {
  const auto text_of = [](const std::vector<std::string>& rows) {
    const auto found = Tuner::find(settings_with(rows));
    return found.is_ok() ? (*found)->text() : found.status().text();
  };
  EXPECT_EQ(text_of({"NCCL_TUNER_PLUGIN=" + file_of(4)}), "Example (v4)");
  EXPECT_THAT(text_of({}), HasSubstr("libnccl-tuner.so"));
  EXPECT_THAT(text_of({"NCCL_TUNER_PLUGIN=nosuch"}), HasSubstr("libnccl-tuner-nosuch.so"));
  EXPECT_THAT(text_of({"NCCL_TUNER_PLUGIN=" RAILCCL_PLUGINS "/libnccl-net-nothing.so"}),
              HasSubstr("has no ncclTunerPlugin_v2 to v5"));
  // A network plugin may be a tuner, too.
  EXPECT_EQ(text_of({"NCCL_NET_PLUGIN=" + file_of(3)}), "Example (v3)");
  EXPECT_THAT(text_of({"NCCL_TUNER_PLUGIN=NONE", "NCCL_NET_PLUGIN=" + file_of(3)}),
              HasSubstr("NCCL_TUNER_PLUGIN is none"));
}

// Three processes sum; what each chose.
std::vector<std::string> choices(const std::function<Settings(int)>& settings_of_rank) {
  MortalRanks ranks(3);
  ranks.start(settings_of_rank, [](const CommunicatorPtr& communicator, Slot& slot) {
    std::vector<int32_t> input(3000, communicator->rank() + 1), output(3000);
    const Status status = communicator->start(sum_call(input.data(), output.data(), 3000), nullptr);
    if (!status.is_ok()) return MortalRanks::note(slot, status.text());
    if (std::count(output.begin(), output.end(), 6) != 3000)
      return MortalRanks::note(slot, "wrong sums");
    const runtime::Choice choice = communicator->last_choice();
    MortalRanks::note(slot, fmt::format("{} {}", choice.algorithm, choice.channels));
  });
  ranks.expect_all_done({});
  std::vector<std::string> texts;
  for (int r = 0; r < 3; r++) texts.emplace_back(ranks[r].text);
  return texts;
}

TEST(Tuner, AllRanksAskOrNoneDoes) {
  const auto with_wish = [](int version, const char* wish) {
    static std::list<Example> kept;  // in the rank's process, to its end
    kept.emplace_back(version).wish(wish);
    return settings_of(version);
  };
  const std::vector<std::string> own = choices([](int) { return settings_with(); });
  const std::vector<std::string> rings(3, "ring 2");
  EXPECT_NE(own, rings);
  for (const int version : {2, 5}) {
    EXPECT_EQ(choices([&](int) { return with_wish(version, "ring:2"); }), rings);
  }
  EXPECT_EQ(choices([&](int r) { return r == 1 ? settings_with() : with_wish(5, "ring:2"); }), own);
  EXPECT_EQ(choices([&](int r) { return with_wish(r == 1 ? 4 : 5, "ring:2"); }), own);
  EXPECT_EQ(choices([&](int r) { return with_wish(5, r == 2 ? "fail_init" : "ring:2"); }), own);
}

}  // namespace
}  // namespace railccl::test
