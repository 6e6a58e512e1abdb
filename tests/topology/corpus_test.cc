// Shows that the topology corpus (data/*.topo) is what today's code makes of its recipes, that each
// file reads back to an equal Topology and writes back to the same bytes, and that every picture of
// it is drawn. Recorded files have no recipe and are only read.
//
// After an intended change: RAILCCL_REGENERATE=1 test_topology --gtest_filter='Corpus.*', then
// review the diff.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "topology/draw.h"
#include "topology/merge.h"
#include "topology/synthetic.h"
#include "topology/text.h"

namespace railccl::topology {
namespace {

std::string path_of(const std::string& name) {
  return std::string(RAILCCL_TEST_DATA) + "/data/" + name + ".topo";
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Topology described(const char* description) {
  Result<Topology> made = synthetic(description);
  EXPECT_TRUE(made.is_ok()) << made.status().text();
  return made.is_ok() ? std::move(made).value() : Topology();
}

Nic nic(const char* name, double bytes_per_s, const std::string& address, bool up = true) {
  Nic made;
  made.name = name;
  made.bytes_per_s = bytes_per_s;
  made.up = up;
  if (!address.empty()) made.addresses = {address, "fe80::1/64"};
  return made;
}

/// `hosts` machines with a slow management port and two RoCE rails by subnet; the second rail's
/// cable of host 1 is pulled; ranks are dealt to hosts in turn, two to a process.
Topology roce_with_a_pulled_cable() {
  std::vector<Facts> facts;
  for (int r = 0; r < 12; r++) {
    const int h = r % 3;
    Facts fact;
    fact.host.name = fmt::format("cell-{}", h);
    fact.host.id = static_cast<uint64_t>(100 + h);
    fact.host.cores = 16;
    fact.host.numas = {{1 << 30, "0-7"}, {1 << 30, "8-15"}};
    fact.host.nics = {nic("eno1", 125e6, fmt::format("192.168.0.{}/16", h + 1)),
                      nic("ens1", 12.5e9, fmt::format("10.0.1.{}/24", h + 1)),
                      nic("ens2", 12.5e9, fmt::format("10.0.2.{}/24", h + 1), h != 1)};
    fact.host.nics[1].numa = 0;
    fact.host.nics[2].numa = 1;
    fact.process = static_cast<uint64_t>(1000 + h * 10 + r / 6);
    fact.numa = r % 2;
    facts.push_back(fact);
  }
  return merge(facts);
}

/// 6 threads of one process on one host without any network.
Topology threads_only() {
  Facts fact;
  fact.host.name = "laptop";
  fact.host.id = 5;
  fact.process = 77;
  return merge(std::vector<Facts>(6, fact));
}

struct Recipe {
  const char* name;
  Topology (*make)();
};
const Recipe kRecipes[] = {
    {"cpu-1x4", [] { return described("cpu:1x4"); }},
    {"cpu-4x8", [] { return described("cpu:4x8"); }},
    {"dgx-a100-4", [] { return described("dgx-a100:4"); }},
    {"dgx-h100-4-spine", [] { return described("dgx-h100:4,spine=1:4"); }},
    {"hgx-h200-2", [] { return described("hgx-h200:2"); }},
    {"nvl72-2", [] { return described("nvl72:2"); }},
    {"unequal-gpus", [] { return described("hosts=4,gpus=8:8:4:8,rails=8,nics=8:8:4:8"); }},
    {"lost-rail", [] { return described("hosts=4,gpus=4,nics=4:4:3:4,rails=4,spine=1:2"); }},
    {"shared-nics", [] { return described("hosts=3,gpus=8,nics=4,rails=4"); }},
    {"one-flat-network", [] { return described("hosts=3,gpus=4,nics=4,rails=1"); }},
    {"no-nics", [] { return described("hosts=3,gpus=2,nics=0"); }},
    {"no-rails", [] { return described("hosts=3,gpus=2,nics=2,rails=0"); }},
    {"primes", [] { return described("hosts=7,ranks=5:3:1:2:7:1:4,nics=2,rails=2"); }},
    {"one-rank", [] { return described("hosts=1,ranks=1,nics=1"); }},
    {"roce-pulled-cable", roce_with_a_pulled_cable},
    {"threads-only", threads_only},
};

TEST(Corpus, IsWhatItsRecipesMake) {
  const bool regenerate = std::getenv("RAILCCL_REGENERATE") != nullptr;
  for (const Recipe& recipe : kRecipes) {
    const Topology made = recipe.make();
    if (regenerate) {
      ASSERT_TRUE(save_topology(made, path_of(recipe.name)).is_ok());
    }
    EXPECT_EQ(to_text(made), contents(path_of(recipe.name))) << recipe.name;
  }
}

TEST(Corpus, EachFileRoundTripsAndIsDrawn) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RAILCCL_TEST_DATA "/data")) {
    const std::string path = entry.path().string();
    SCOPED_TRACE(path);
    files++;
    const Result<Topology> read = load_topology(path);
    ASSERT_TRUE(read.is_ok()) << read.status().text();
    const std::string text = to_text(*read);
    const Result<Topology> again = from_text(text);
    ASSERT_TRUE(again.is_ok()) << again.status().text();
    EXPECT_EQ(*again, *read);
    EXPECT_EQ(to_text(*again), text);
    EXPECT_NE(draw_svg(*read).find("</svg>"), std::string::npos);
    for (int r = 0; r < read->size(); r++) EXPECT_FALSE(why_nic(*read, r).empty());
  }
  EXPECT_GE(files, 16);
}

}  // namespace
}  // namespace railccl::topology
