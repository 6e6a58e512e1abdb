// Profiler plugins: every version of their interface is laid out as documented; groups,
// collectives, sends and receives are told with their parents, and what collectives move over a
// network; every event that has begun ends, also when a call fails; one that fails, or is not
// there, changes nothing. The plugins are tests/plugins/profiler.c.
#include "runtime/profiler.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/interfaces.h"
#include "ranks.h"
#include "runtime/group.h"
#include "runtime/profiler_abi.h"

namespace railccl::test {
namespace {

using runtime::Profiler;
using testing::ElementsAre;
using testing::HasSubstr;
namespace abi = runtime::profiler_abi;

std::string file_of(int version) {
  return fmt::format("{}/libnccl-profiler-example{}.so", RAILCCL_PLUGINS, version);
}

Settings settings_of(int version, const std::vector<std::string>& more = {}) {
  std::vector<std::string> rows = more;
  rows.push_back("NCCL_PROFILER_PLUGIN=" + file_of(version));
  return settings_with(rows);
}

template <typename T>
const T* example(int version, const char* name) {
  void* const library = ::dlopen(file_of(version).c_str(), RTLD_NOW);
  EXPECT_NE(library, nullptr) << ::dlerror();
  return static_cast<const T*>(::dlsym(library, name));
}

// The plugin is C, declared apart from ours.
template <typename Event>
std::vector<size_t> layout_of() {
  return {sizeof(Event),
          offsetof(Event, parent),
          offsetof(Event, rank),
          offsetof(Event, collective.sequence),
          offsetof(Event, collective.function),
          offsetof(Event, collective.output),
          offsetof(Event, collective.root),
          offsetof(Event, collective.datatype),
          offsetof(Event, collective.warps),
          offsetof(Event, collective.protocol),
          offsetof(Event, transfer.buffer),
          offsetof(Event, transfer.peer),
          offsetof(Event, proxy_op.pid),
          offsetof(Event, proxy_op.sends)};
}

TEST(ProfilerAbi, EventsAreWhereTheDocumentationHasThem) {
  const std::vector<std::vector<size_t>> documented = {
      {120, 8, 16, 40, 48, 64, 80, 84, 105, 107, 48, 72, 24, 44},
      {128, 8, 16, 40, 48, 64, 80, 88, 105, 120, 48, 72, 24, 44},
      {120, 8, 16, 40, 48, 64, 80, 88, 97, 112, 48, 72, 24, 44},
      {104, 8, 16, 24, 32, 48, 64, 72, 81, 96, 32, 56, 24, 44},
      {112, 8, 16, 24, 32, 48, 64, 72, 81, 96, 32, 56, 24, 44}};
  const std::vector<std::vector<size_t>> ours = {layout_of<abi::Event1>(), layout_of<abi::Event2>(),
                                                 layout_of<abi::Event3>(), layout_of<abi::Event4>(),
                                                 layout_of<abi::Event5>()};
  for (int version = Profiler::kOldest; version <= Profiler::kNewest; version++) {
    const auto row = static_cast<size_t>(version - 1);
    EXPECT_EQ(ours[row], documented[row]) << "version " << version;
    const int* const theirs = example<int>(version, "example_layout");
    EXPECT_EQ(std::vector<size_t>(theirs, theirs + ours[row].size()), ours[row])
        << "version " << version;
  }
  EXPECT_EQ(offsetof(abi::Event5, collective.group), 104u);
  EXPECT_EQ(offsetof(abi::Event5, transfer.group), 64u);
  EXPECT_EQ(offsetof(abi::Event5, collective_api.stream), 56u);
  EXPECT_EQ(offsetof(abi::Event5, transfer_api.stream), 48u);
  EXPECT_EQ(offsetof(abi::Event5, group_api.depth), 28u);
}

/// What the plugin writes, and where.
class Notes {
 public:
  explicit Notes(const char* mask = nullptr, const char* fault = nullptr)
      : base_(testing::TempDir() + "profiler.XXXXXX") {
    EXPECT_NE(::mkdtemp(base_.data()), nullptr);
    ::setenv("EXAMPLE_PROFILER_FILE", (base_ + "/notes").c_str(), 1);
    if (mask != nullptr) ::setenv("EXAMPLE_PROFILER_MASK", mask, 1);
    if (fault != nullptr) ::setenv("EXAMPLE_PROFILER_FAULT", fault, 1);
  }
  ~Notes() {
    for (const char* name :
         {"EXAMPLE_PROFILER_FILE", "EXAMPLE_PROFILER_MASK", "EXAMPLE_PROFILER_FAULT"})
      ::unsetenv(name);
    std::filesystem::remove_all(base_);
  }
  Notes(const Notes&) = delete;
  Notes& operator=(const Notes&) = delete;

  /// The lines of whoever was the first to begin (from version 4 on: rank 0).
  std::vector<std::string> lines() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(base_)) {
      std::ifstream file(entry.path());
      all.clear();
      for (std::string line; std::getline(file, line);) all.push_back(line);
      if (entry.path().string().ends_with(".0")) return all;
    }
    return all;
  }
  /// The starts: "group", "coll AllReduce ..." and so on, each below its parent.
  std::vector<std::string> tree() const {
    std::map<int, int> depths{{0, -1}};
    std::vector<std::string> starts;
    for (const std::string& line : lines()) {
      int number = 0, parent = 0, at = 0;
      if (std::sscanf(line.c_str(), "start %d %d %n", &number, &parent, &at) != 2) continue;
      depths[number] = depths[parent] + 1;
      starts.push_back(std::string(static_cast<size_t>(depths[number]), ' ') +
                       line.substr(static_cast<size_t>(at)));
    }
    return starts;
  }
  /// Every start has one stop, and the end comes last.
  void expect_whole() const {
    std::map<int, int> open;
    const std::vector<std::string> all = lines();
    for (const std::string& line : all) {
      int number = 0;
      if (std::sscanf(line.c_str(), "start %d", &number) == 1) open[number]++;
      if (std::sscanf(line.c_str(), "stop %d", &number) == 1) open[number]--;
      if (std::sscanf(line.c_str(), "state %d", &number) == 1) {
        EXPECT_EQ(open[number], 1) << line;
      }
    }
    for (const auto& [number, count] : open) EXPECT_EQ(count, 0) << "event " << number;
    ASSERT_FALSE(all.empty());
    EXPECT_EQ(all.back(), "end");
  }

 private:
  std::string base_;
};

Status sum(const CommunicatorPtr& communicator, uint64_t count) {
  const Request request = sum_request(count);
  Buffers buffers(request, communicator->size(), communicator->rank());
  return communicator->start(call_of(request, buffers), nullptr);
}

class ProfilerVersion : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(All, ProfilerVersion,
                         testing::Range(Profiler::kOldest, Profiler::kNewest + 1));

TEST_P(ProfilerVersion, IsToldOfGroupsCollectivesAndTransfers) {
  const Notes notes("1799");  // no proxy operations
  runtime::Config config;
  config.name = "mine";
  with_communicator(
      2, settings_of(GetParam(), {"NCCL_ALGO=ring"}),
      [](const CommunicatorPtr& communicator) {
        EXPECT_TRUE(sum(communicator, 3).is_ok());
        EXPECT_TRUE(sum(communicator, 3).is_ok());  // by the short way, were there no profiler
        float out[5] = {}, in[5] = {};
        runtime::group_start();
        for (const auto kind : {Call::Kind::send, Call::Kind::recv}) {
          Call call;
          call.kind = kind;
          call.request = sum_request(5);
          call.peer = 1 - communicator->rank();
          call.input = kind == Call::Kind::send ? out : nullptr;
          call.output = kind == Call::Kind::recv ? in : nullptr;
          EXPECT_TRUE(communicator->start(call, nullptr).is_ok());
        }
        EXPECT_TRUE(runtime::group_end().is_ok());
      },
      config);
  notes.expect_whole();
  EXPECT_EQ(*example<int>(GetParam(), "example_contexts"), 0);
  // Before version 4 nobody says whose file it is.
  const auto to = [](const std::string& what) {
    return testing::MatchesRegex(" p2p " + what + " 5 [01]");
  };
  if (GetParam() == 1) {
    EXPECT_THAT(notes.tree(), ElementsAre("group", " coll 4 7 1 3 0 0 1", "group",
                                          " coll 4 7 1 3 0 1 1", "group", to("6 7"), to("7 7")));
  } else if (GetParam() <= 4) {
    EXPECT_THAT(notes.tree(), ElementsAre("group", " coll AllReduce ncclFloat32 RING 3 0 0 1",
                                          "group", " coll AllReduce ncclFloat32 RING 3 0 1 1",
                                          "group", to("Send ncclFloat32"), to("Recv ncclFloat32")));
  } else {
    EXPECT_THAT(notes.tree(),
                ElementsAre("group_api 1", " group", " coll_api AllReduce ncclFloat32 3",
                            "  coll AllReduce ncclFloat32 RING 3 0 0 1", "group_api 1", " group",
                            " coll_api AllReduce ncclFloat32 3",
                            "  coll AllReduce ncclFloat32 RING 3 0 1 1", "group_api 1", " group",
                            " p2p_api Send ncclFloat32 5", "  p2p Send ncclFloat32 5 1",
                            " p2p_api Recv ncclFloat32 5", "  p2p Recv ncclFloat32 5 1"));
  }
  if (GetParam() < 4) return;
  EXPECT_EQ(notes.lines()[0], "init mine 1 2 0");
}

// What goes over TCP: of a ring of two each sends and receives as much as the buffers hold.
TEST_P(ProfilerVersion, IsToldWhatCollectivesMoveOverANetwork) {
  const Notes notes("10");
  with_communicator(
      2,
      settings_of(GetParam(), {"NCCL_SHM_DISABLE=1", "NCCL_ALGO=ring", "NCCL_NET=Socket",
                               "NCCL_MAX_NCHANNELS=1"}),
      [](const CommunicatorPtr& communicator) { EXPECT_TRUE(sum(communicator, 1000).is_ok()); });
  notes.expect_whole();
  const std::vector<std::string> tree = notes.tree();
  ASSERT_EQ(tree.size(), 3u);
  EXPECT_THAT(tree[1], testing::MatchesRegex(" proxy 0 [01] 2 2000 0"));
  EXPECT_THAT(tree[2], testing::MatchesRegex(" proxy 0 [01] 2 2000 1"));
  std::vector<std::string> states;
  for (const std::string& line : notes.lines())
    if (line.starts_with("state")) states.push_back(line);
  if (GetParam() <= 3) {
    ASSERT_EQ(states.size(), 4u);
    EXPECT_EQ(states[0], "state 2 4 0 0");
    EXPECT_EQ(states[1], "state 3 0 0 0");
    EXPECT_THAT(states[2], testing::StartsWith("state 3 3 4000 "));
    EXPECT_THAT(states[3], testing::StartsWith("state 2 7 4000 "));
  } else {
    EXPECT_THAT(states, ElementsAre("state 2 19 0 0", "state 3 19 0 0"));
  }
}

TEST(ProfilerPlugin, EventsOfACallThatFailsEnd) {
  const Notes notes;
  with_communicator(2, settings_of(5, {"NCCL_SHM_DISABLE=1"}),
                    [](const CommunicatorPtr& communicator) {
                      EXPECT_TRUE(sum(communicator, 100).is_ok());
                      EXPECT_FALSE(sum(communicator, communicator->rank() == 0 ? 7 : 8).is_ok());
                    });
  notes.expect_whole();
  EXPECT_THAT(notes.tree(), testing::Contains(HasSubstr("coll AllReduce ncclFloat32")));
}

TEST(ProfilerPlugin, OneThatFailsOrIsNotThereChangesNothing) {
  for (const char* fault : {"init", "start"}) {
    const Notes notes(nullptr, fault);
    with_communicator(2, settings_of(4), [](const CommunicatorPtr& communicator) {
      EXPECT_TRUE(sum(communicator, 100).is_ok());
    });
    EXPECT_EQ(*example<int>(4, "example_contexts"), 0) << fault;
  }
  const auto refusal = [](const char* name) {
    return Profiler::open(settings_with({std::string("NCCL_PROFILER_PLUGIN=") + name}), {})
        .status()
        .text();
  };
  EXPECT_THAT(refusal("none"), HasSubstr("is none"));
  EXPECT_THAT(refusal("absent"), HasSubstr("libnccl-profiler-absent.so"));
  EXPECT_THAT(refusal(RAILCCL_PLUGINS "/libnccl-net-nothing.so"),
              HasSubstr("has no ncclProfiler_v1 to v5"));
}

TEST(ProfilerPlugin, WhatItDoesNotWantIsNotTold) {
  const Notes notes("1");
  with_communicator(1, settings_of(5), [](const CommunicatorPtr& communicator) {
    EXPECT_TRUE(sum(communicator, 100).is_ok());
  });
  EXPECT_THAT(notes.tree(), ElementsAre("group"));
}

}  // namespace
}  // namespace railccl::test
