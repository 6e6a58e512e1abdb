// Shows what processes leave behind when one of them is killed: a file each that says what
// happened, whom the ranks suspect, and what they did before; and that the log and the errors say
// it once.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mortal_ranks.h"

namespace railccl::test {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

/// A folder of its own, gone at the end.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "railccl-dump-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  std::vector<Json> dumps() const {
    std::vector<Json> all;
    for (const auto& entry : fs::directory_iterator(path_)) {
      std::ifstream file(entry.path());
      all.push_back(Json::parse(file, nullptr, false));
      EXPECT_FALSE(all.back().is_discarded()) << entry.path();
      EXPECT_EQ(entry.status().permissions(), fs::perms::owner_read | fs::perms::owner_write);
      EXPECT_THAT(entry.path().filename().string(),
                  HasSubstr("-" + std::to_string(all.back().value("pid", 0)) + ".json"));
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
    slot.values[1] = getpid();
    slot.values[0] = 1;
    if (communicator->rank() == 2) pause();
    Buffers buffers(sum_request(5000), 3, communicator->rank());
    const Status status = communicator->start(call_of(sum_request(5000), buffers), nullptr);
    std::strncpy(slot.verdict, status.text().c_str(), sizeof slot.verdict - 1);
  });
  const Deadline deadline = Deadline::after_ms(20'000);
  while (ranks[2].values[0] == 0 && !deadline.passed()) usleep(1000);
  usleep(100'000);  // the others wait for it
  ranks.end(2, SIGKILL);
  ranks.expect_all_done({2});
  const std::vector<Json> dumps = folder.dumps();
  ASSERT_EQ(dumps.size(), 2u);
  for (const Json& dump : dumps) {
    ASSERT_EQ(dump["communicators"].size(), 1u);
    const Json& communicator = dump["communicators"][0];
    const int rank = communicator["rank"];
    EXPECT_EQ(dump["pid"], ranks[rank].values[1]);
    EXPECT_EQ(communicator["state"], "failed");
    // The sentence of the call, which is that of all.
    EXPECT_EQ(communicator["verdict"]["text"], ranks[rank].verdict);
    EXPECT_STREQ(ranks[0].verdict, ranks[1].verdict);
    EXPECT_EQ(communicator["verdict"]["suspects"][0]["rank"], 2);
    EXPECT_EQ(communicator["verdict"]["suspects"][0]["what"], "died");
    EXPECT_EQ(communicator["members"][2]["pid"], ranks[2].values[1]);
    ASSERT_EQ(communicator["operations"].size(), 6u);
    for (int i = 0; i < 6; i++) {
      const Json& operation = communicator["operations"][i];
      EXPECT_EQ(operation["operation"], i);
      EXPECT_EQ(operation["state"], i < 5 ? "done" : "failed");
      EXPECT_THAT(operation["call"].get<std::string>(), HasSubstr("all_reduce"));
    }
    EXPECT_THAT(communicator["operations"][5]["where"].get<std::string>(), HasSubstr("rank "));
  }
}

TEST(Dump, ATimeoutNamesWhoHasNotEntered) {
  Folder folder;
  const Settings settings = settings_with({"RAILCCL_STALL_MS=50", "RAILCCL_TIMEOUT_MS=400",
                                           "RAILCCL_DUMP_DIR=" + folder.path().string()});
  with_communicator(3, settings, [&](const CommunicatorPtr& communicator) {
    if (communicator->rank() == 2) {
      const Deadline deadline = Deadline::after_ms(10'000);
      while (communicator->async_error().is_ok() && !deadline.passed()) usleep(1000);
      usleep(400'000);
      return;
    }
    Buffers buffers(sum_request(100), 3, communicator->rank());
    const std::string text =
        communicator->start(call_of(sum_request(100), buffers), nullptr).text();
    EXPECT_THAT(text, HasSubstr("no progress for 4"));
    EXPECT_THAT(text, HasSubstr("all_reduce(count=100"));
    EXPECT_THAT(text, HasSubstr("rank 2 has not entered"));
    usleep(400'000);  // the last one to dump still finds all of them
  });
  // One process, three ranks: one file, which knows of all.
  const std::vector<Json> dumps = folder.dumps();
  ASSERT_EQ(dumps.size(), 1u);
  ASSERT_EQ(dumps[0]["communicators"].size(), 3u);
  for (const Json& communicator : dumps[0]["communicators"]) {
    ASSERT_EQ(communicator["verdict"]["suspects"].size(), 1u) << communicator.dump(1);
    EXPECT_EQ(communicator["verdict"]["suspects"][0]["rank"], 2);
    EXPECT_THAT(communicator["verdict"]["suspects"][0]["what"].get<std::string>(),
                HasSubstr("has not entered all_reduce(count=100, float, sum) as operation 0"));
  }
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
