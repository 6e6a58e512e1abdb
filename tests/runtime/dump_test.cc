// Shows what processes leave behind when one of them is killed: a file each that says what
// happened, whom the ranks suspect, and what they did before; and that a sentence says it once.
// That the files are JSON is shown by tests/status, which reads the same text.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "mortal_ranks.h"
#include "runtime/verdict.h"

namespace railccl::test {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

int times(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) found++;
  return found;
}

/// A folder of its own, gone at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "railccl-dump-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  /// By process.
  std::map<pid_t, std::string> dumps() const {
    std::map<pid_t, std::string> all;
    for (const auto& entry : fs::directory_iterator(path_)) {
      EXPECT_EQ(entry.status().permissions(), fs::perms::owner_read | fs::perms::owner_write);
      const std::string name = entry.path().stem().string();
      EXPECT_THAT(entry.path().filename().string(), ::testing::EndsWith(".json"));
      std::stringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      all[std::stoi(name.substr(name.rfind('-') + 1))] = text.str();
    }
    return all;
  }

 private:
  fs::path path_;
};

TEST(Dump, SurvivorsOfAKillLeaveTheVerdictAndTheirLastOperations) {
  Folder folder;
  MortalRanks ranks(3);
  const Settings settings = settings_with({"RAILCCL_DUMP_DIR=" + folder.path().string()});
  ranks.start(settings, [](const CommunicatorPtr& communicator, Slot& slot) {
    for (int i = 0; i < 5; i++) {
      Buffers buffers(sum_request(10), 3, communicator->rank());
      if (!communicator->start(call_of(sum_request(10), buffers), nullptr).is_ok()) return;
    }
    slot.values[0] = 1;
    if (communicator->rank() == 2) pause();
    Buffers buffers(sum_request(5000), 3, communicator->rank());
    const Status status = communicator->start(call_of(sum_request(5000), buffers), nullptr);
    std::strncpy(slot.verdict, status.text().c_str(), sizeof slot.verdict - 1);
  });
  const Deadline deadline = Deadline::after_ms(20'000);
  while (ranks[2].values[0] == 0 && !deadline.passed()) usleep(1000);
  usleep(100'000);  // the others wait for it
  const pid_t killed = ranks.process(2), survivors[] = {ranks.process(0), ranks.process(1)};
  ranks.end(2, SIGKILL);
  ranks.expect_all_done({2});
  const auto dumps = folder.dumps();
  ASSERT_EQ(dumps.size(), 2u);
  for (int rank : {0, 1}) {
    ASSERT_TRUE(dumps.contains(survivors[rank]));
    const std::string& dump = dumps.at(survivors[rank]);
    // The sentence of the call, which is that of all.
    EXPECT_STREQ(ranks[0].verdict, ranks[1].verdict);
    EXPECT_NE(ranks[rank].verdict[0], 0);
    EXPECT_THAT(dump, HasSubstr(fmt::format("\"text\":\"{}\"", ranks[rank].verdict)));
    EXPECT_THAT(dump, HasSubstr("\"state\":\"failed\""));
    EXPECT_THAT(dump, HasSubstr(R"("suspects":[{"rank":2,"what":"died"}])"));
    EXPECT_THAT(dump, HasSubstr(fmt::format("\"pid\":{}}}]", killed)));  // of the members the last
    const std::string operations = dump.substr(dump.find("\"operations\":"));
    EXPECT_EQ(times(operations, "{\"number\":"), 6) << operations;
    EXPECT_EQ(times(operations, "all_reduce(count=10, float, sum)"), 5) << operations;
    EXPECT_EQ(times(operations, "\"state\":\"done\""), 5) << operations;
    const std::string last = operations.substr(operations.find("{\"number\":5,"));
    EXPECT_THAT(last, HasSubstr("all_reduce(count=5000, float, sum)"));
    EXPECT_THAT(last, HasSubstr("\"state\":\"failed\""));
    EXPECT_THAT(last.substr(last.find("\"where\":")), HasSubstr("rank "));
  }
}

TEST(Dump, ATimeoutSaysOnceWhatItSays) {
  Folder folder;
  const Settings settings = settings_with({"RAILCCL_STALL_MS=50", "RAILCCL_TIMEOUT_MS=400",
                                           "RAILCCL_DUMP_DIR=" + folder.path().string()});
  std::atomic<int> over{0};
  with_communicator(3, settings, [&](const CommunicatorPtr& communicator) {
    const Deadline deadline = Deadline::after_ms(10'000);
    while (communicator->rank() == 2 && communicator->async_error().is_ok() && !deadline.passed())
      usleep(1000);
    Buffers buffers(sum_request(100), 3, communicator->rank());
    const std::string text =
        communicator->start(call_of(sum_request(100), buffers), nullptr).text();
    EXPECT_EQ(times(text, "no progress for "), 1) << text;
    EXPECT_EQ(times(text, "all_reduce(count=100"), 1) << text;
    EXPECT_EQ(times(text, "rank 2 has not entered"), 1) << text;
    EXPECT_EQ(times(text, "not entered"), 1) << text;
    // The last one to dump still finds all of them.
    for (over++; over < 3 && !deadline.passed();) usleep(1000);
  });
  // One process, three ranks: one file, which knows of all.
  const auto dumps = folder.dumps();
  ASSERT_EQ(dumps.size(), 1u);
  const std::string& dump = dumps.begin()->second;
  EXPECT_THAT(dump, HasSubstr("has not entered all_reduce(count=100, float, sum) as operation 0"));
  EXPECT_EQ(times(dump, R"("suspects":[{"rank":2,"what":"has not entered all_reduce(count=100)"), 3)
      << dump;
}

/// A rank that heard of a timeout by another one, before its own: whose account comes first.
TEST(Dump, AVerdictDoesNotRepeatWhatAnotherRankHasToldAll) {
  const std::string brief = "rank 1 of 3: no progress for 400 ms";
  const std::string call = "all_reduce(count=100, float, sum)";
  runtime::Account heard, told, late;
  heard.entered = told.entered = 1;
  heard.call = told.call = call;
  heard.where = "step 1 recv from rank 2";
  told.where = "step 1 recv from rank 0";
  heard.code = told.code = static_cast<uint64_t>(Code::timeout);
  heard.failure = brief + "; waiting: " + call + " as operation 0 (" + told.where +
                  "); rank 2 of 3 has not entered operation 0";
  told.failure = brief;
  runtime::RollResult roll;
  roll.texts = {encode(heard), encode(told), encode(late)};
  roll.gone.resize(3);
  const Status status = verdict_of(roll, {"rank 0", "rank 1", "rank 2"}).status;
  EXPECT_EQ(status.code(), Code::timeout);
  EXPECT_EQ(status.text(), brief + "; " + call +
                               " as operation 0: ranks 0, 1 are in it (rank 0: " + heard.where +
                               " | rank 1: " + told.where + "), rank 2 has not entered it");
  // What it said is lost with it: then all that is known of it is told.
  roll.texts[1].reset();
  roll.gone[1] = runtime::Gone::died;
  EXPECT_THAT(verdict_of(roll, {"rank 0", "rank 1", "rank 2"}).status.text(), HasSubstr(brief));
}

TEST(Dump, NoneIsLeftOfAnAbortNorWhereItCannotBeWritten) {
  Folder folder;
  with_communicator(2, settings_with({"RAILCCL_DUMP_DIR=" + folder.path().string()}),
                    [](const CommunicatorPtr& communicator) {
                      expect_exact(*communicator, sum_request(10));
                      communicator->abort("enough");
                    });
  EXPECT_TRUE(folder.dumps().empty());
  with_communicator(
      2, settings_with({"RAILCCL_STALL_MS=50", "RAILCCL_DUMP_DIR=/nonexistent/folder"}),
      [](const CommunicatorPtr& communicator) {
        Buffers buffers(sum_request(5), 2, communicator->rank());
        const Request request = sum_request(communicator->rank() == 0 ? 5 : 4);
        EXPECT_EQ(communicator->start(call_of(request, buffers), nullptr).code(), Code::mismatch);
      });
}

}  // namespace
}  // namespace railccl::test
