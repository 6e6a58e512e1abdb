// Shows what an operator sees of real processes: of a job that runs, of one that hangs, of a
// stopped rank; that nothing is left of killed ones, and that strangers get and disturb nothing.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/un.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/mortal_ranks.h"
#include "status/gather.h"
#include "status/show.h"
#include "status/trace.h"

namespace railccl::test {
namespace {

using runtime::StatusName;
using runtime::StatusQuestion;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;

constexpr int64_t kLimitMs = 5000;

std::string text_in(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
std::string table_now() { return text_in("/proc/net/unix"); }

std::vector<StatusName> names_of(pid_t process) {
  std::vector<StatusName> names = status::names_in(table_now());
  std::erase_if(names, [&](const StatusName& name) {
    return name.process != static_cast<uint64_t>(process);
  });
  return names;
}

/// Other tests' processes listen, too: only those of `ranks` count.
status::Gathered look(const MortalRanks& ranks, int count, StatusQuestion question,
                      int64_t limit_ms = kLimitMs) {
  auto answers = status::ask_all(question, limit_ms);
  EXPECT_TRUE(answers.is_ok()) << answers.status().text();
  std::erase_if(*answers, [&](const status::Answer& answer) {
    for (int r = 0; r < count; r++)
      if (ranks.process(r) == answer.process) return false;
    return true;
  });
  char host[256] = "?";
  ::gethostname(host, sizeof host - 1);
  return status::read(*answers, host);
}

/// Sums until slot.values[0] of rank 0 says that it is enough, which all ranks find alike.
void sum_until_told(const CommunicatorPtr& communicator, Slot& slot) {
  while (true) {
    Request request = sum_request(100);
    request.op = Reduction::max;
    Buffers buffers(request, communicator->size(), communicator->rank());
    int32_t stop = slot.values[0] != 0 ? 1 : 0, all = 0;
    Call call = call_of(request, buffers);
    if (!communicator->start(call, nullptr).is_ok()) return;
    Request last = sum_request(1);
    last.datatype = Datatype::int32;
    Call ask;
    ask.request = last;
    ask.input = &stop;
    ask.output = &all;
    if (!communicator->start(ask, nullptr).is_ok() || all != 0) return;
    slot.values[1]++;
  }
}

void wait_until(const std::function<bool()>& condition, int64_t ms = 20'000) {
  const Deadline deadline = Deadline::after_ms(ms);
  while (!condition() && !deadline.passed()) usleep(1000);
  ASSERT_TRUE(condition());
}

TEST(Status, OfARunningJob) {
  MortalRanks ranks(2);
  ranks.start(settings_with(), sum_until_told);
  wait_until([&] { return ranks[0].values[1] > 300 && ranks[1].values[1] > 300; });
  const status::Gathered gathered = look(ranks, 2, StatusQuestion::operations);
  EXPECT_TRUE(gathered.well()) << text_of(gathered);
  ASSERT_EQ(gathered.processes.size(), 2u);
  for (const status::Process& process : gathered.processes) {
    ASSERT_EQ(process.communicators.size(), 1u);
    const status::Communicator& communicator = process.communicators[0];
    EXPECT_EQ(process.process, ranks.process(communicator.rank));
    EXPECT_EQ(communicator.state, "works");
    EXPECT_GT(communicator.finished, 600u);
    EXPECT_GE(communicator.operations.size(), 200u);
    EXPECT_GT(communicator.operations_per_s, 0);
    EXPECT_GT(communicator.bytes_per_s, 0);
    EXPECT_EQ(communicator.operations.back().transport, "shm");
    EXPECT_EQ(communicator.members.size(), 2u);
  }
  const auto together = status::put_together(gathered.processes);
  ASSERT_EQ(together.size(), 1u);
  EXPECT_EQ(together[0].here.size(), 2u);
  EXPECT_EQ(together[0].id.size(), 8u);
  EXPECT_THAT(together[0].stragglers, IsEmpty());
  EXPECT_THAT(text_of(gathered), AllOf(HasSubstr(fmt::format("rank 0 (pid {})", ranks.process(0))),
                                       HasSubstr(fmt::format("rank 1 (pid {})", ranks.process(1))),
                                       HasSubstr("operations/s"), Not(HasSubstr("stragglers"))));
  const Json json = Json::parse(json_of(gathered));
  EXPECT_EQ(json["communicators"][0]["here"], Json({0, 1}));

  // The trace: a track for each rank, whose spans do not overlap.
  const Json trace = Json::parse(status::trace_of(gathered.processes));
  std::map<int, double> end_us;
  std::map<int, int> spans;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const int track = event["tid"];
    EXPECT_GE(event["ts"].get<double>(), end_us[track] - 1) << event.dump();
    end_us[track] = event["ts"].get<double>() + event["dur"].get<double>();
    spans[track]++;
  }
  EXPECT_GE(spans[0], 200);
  EXPECT_GE(spans[1], 200);

  ranks[0].values[0] = 1;
  ranks.expect_all_done({});
}

TEST(Status, OfAJobThatHangs) {
  MortalRanks ranks(3);
  ranks.start(settings_with({"RAILCCL_STALL_MS=50"}),
              [](const CommunicatorPtr& communicator, Slot& slot) {
                expect_exact(*communicator, sum_request(10));
                slot.values[0] = 1;
                if (communicator->rank() == 1)
                  while (slot.values[1] == 0) usleep(1000);
                expect_exact(*communicator, sum_request(12345));
              });
  // Until both have waited for long enough to say where, and rank 2 has told rank 0.
  status::Gathered gathered;
  const auto is_known = [&] {
    gathered = look(ranks, 3, StatusQuestion::status);
    int waiting = 0;
    for (const status::Process& process : gathered.processes)
      for (const status::Communicator& one : process.communicators)
        if (one.in_flight.size() == 1 && one.in_flight[0].for_ms >= 250 &&
            !one.in_flight[0].where.empty() && (one.rank != 0 || !one.news.empty()))
          waiting++;
    return waiting == 2;
  };
  wait_until(is_known);
  const std::string text = text_of(gathered);
  EXPECT_THAT(text, HasSubstr("in all_reduce(count=12345, float, sum) as operation 1 for"));
  EXPECT_THAT(text, HasSubstr("rank 1 (pid"));
  EXPECT_THAT(text, HasSubstr("in no operation since"));
  EXPECT_THAT(text, HasSubstr("stragglers: rank 1 has not entered all_reduce(count=12345, float, "
                              "sum) as operation 1"));
  for (const status::Process& process : gathered.processes)
    for (const status::Communicator& communicator : process.communicators) {
      if (communicator.rank == 1) continue;
      ASSERT_EQ(communicator.in_flight.size(), 1u);
      EXPECT_THAT(communicator.in_flight[0].where, HasSubstr("rank "));
      if (communicator.rank == 0) {
        // What rank 2 has told, as another host of rank 0 would see it.
        ASSERT_EQ(communicator.news.size(), 1u);
        EXPECT_EQ(communicator.news[0].rank, 2);
        EXPECT_EQ(communicator.news[0].waits_in, 1u);
      }
    }
  ranks[1].values[1] = 1;
  ranks.expect_all_done({});
}

TEST(Status, OfAStoppedRankAndOfAKilledOne) {
  MortalRanks ranks(3);
  ranks.start(settings_with({"RAILCCL_STALL_MS=50"}), sum_until_told);
  wait_until([&] { return ranks[1].values[1] > 100; });
  ranks.end(1, SIGSTOP);
  usleep(400'000);
  const int64_t start = now_ns();
  const status::Gathered gathered = look(ranks, 3, StatusQuestion::status, 500);
  EXPECT_LT(now_ns() - start, 3'000'000'000);
  EXPECT_FALSE(gathered.well());
  ASSERT_EQ(gathered.unread.size(), 1u);
  EXPECT_EQ(gathered.unread[0].process, ranks.process(1));
  EXPECT_EQ(gathered.unread[0].why, "its process does not answer (stopped)");
  EXPECT_EQ(gathered.processes.size(), 2u);
  EXPECT_THAT(text_of(gathered),
              HasSubstr(fmt::format("pid {}): its process does not answer", ranks.process(1))));
  ranks.end(1, SIGCONT);
  wait_until([&] { return look(ranks, 3, StatusQuestion::status).processes.size() == 3; });

  // Killed: nothing of it is left, and the others know.
  EXPECT_EQ(names_of(ranks.process(1)).size(), 1u);
  const pid_t killed = ranks.process(1);
  ranks.end(1, SIGKILL);
  ASSERT_TRUE(ranks.wait(1, 10'000));
  EXPECT_THAT(names_of(killed), IsEmpty());
  ranks.expect_all_done({1});
}

TEST(Status, AFailureShowsAsLongAsItsCommunicatorLivesAndInItsDump) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("railccl-dumps-{}", getpid());
  std::filesystem::create_directory(folder);
  MortalRanks ranks(2);
  ranks.start(settings_with({"RAILCCL_DUMP_DIR=" + folder.string()}),
              [](const CommunicatorPtr& communicator, Slot& slot) {
                sum_until_told(communicator, slot);
                slot.values[2] = 1;
                while (slot.values[3] == 0) usleep(1000);
              });
  wait_until([&] { return ranks[1].values[1] > 10; });
  ranks.end(1, SIGKILL);
  wait_until([&] { return ranks[0].values[2] == 1; });
  const status::Gathered gathered = look(ranks, 2, StatusQuestion::status);
  EXPECT_FALSE(gathered.well());
  EXPECT_THAT(text_of(gathered), AllOf(HasSubstr("failed, says rank 0: rank 1 ("),
                                       HasSubstr("died"), HasSubstr("rank 0 (pid")));
  ranks[0].values[3] = 1;
  ranks.expect_all_done({1});
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto dump = status::parse_process(text_in(file.path()));
    ASSERT_TRUE(dump.is_ok()) << dump.status().text();
    ASSERT_EQ(dump->communicators.size(), 1u);
    EXPECT_THAT(dump->communicators[0].verdict, HasSubstr("died"));
    EXPECT_GE(dump->communicators[0].operations.size(), 20u);
  }
  EXPECT_EQ(std::filesystem::remove_all(folder), 2u);  // the file and the folder
}

int connected(const StatusName& name) {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const std::string text = encode(name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, text.data(), text.size());
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  // Not to wait where many do.
  ::fcntl(socket, F_SETFL, O_NONBLOCK);
  (void)::connect(socket, reinterpret_cast<const sockaddr*>(&address), bytes);
  ::fcntl(socket, F_SETFL, 0);
  return socket;
}

/// What comes until the other side hangs up.
std::string rest(int socket) {
  const timeval limit{10, 0};
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string text;
  char bytes[4096];
  for (ssize_t got = 1; got > 0;) {
    got = ::recv(socket, bytes, sizeof bytes, 0);
    if (got > 0) text.append(bytes, static_cast<size_t>(got));
    if (got < 0 && errno == EAGAIN) text += "(nobody hangs up)";
  }
  return text;
}

TEST(Status, WhoAsksNonsenseOrTooMuchIsHungUpOn) {
  MortalRanks ranks(2);
  ranks.start(settings_with(), sum_until_told);
  wait_until([&] { return ranks[1].values[1] > 10; });
  const auto names = names_of(ranks.process(0));
  ASSERT_EQ(names.size(), 1u);
  for (const std::string& question :
       {std::string("what?\n"), std::string(200, 'x'), std::string("\0\n", 2), std::string("\n")}) {
    const int socket = connected(names[0]);
    (void)::send(socket, question.data(), question.size(), MSG_NOSIGNAL);
    EXPECT_EQ(rest(socket), "") << question;
    ::close(socket);
  }
  // Those that say nothing, and those that do not listen, are let go of after a while; the job goes
  // on meanwhile.
  std::vector<int> silent;
  for (int i = 0; i < 200; i++) silent.push_back(connected(names[0]));
  const int64_t before = ranks[0].values[1];
  wait_until([&] { return ranks[0].values[1] > before + 100; });
  wait_until([&] { return look(ranks, 2, StatusQuestion::status).processes.size() == 2; });
  for (const int socket : silent) {
    EXPECT_EQ(rest(socket), "");
    ::close(socket);
  }
  if (::geteuid() == 0) {  // another user
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setresuid(65534, 65534, 65534) != 0) _exit(3);
      const int socket = connected(names[0]);
      (void)::send(socket, "status\n", 7, MSG_NOSIGNAL);
      _exit(rest(socket).empty() ? 0 : 1);
    }
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    EXPECT_EQ(state, 0);
  }
  ranks[0].values[0] = 1;
  ranks.expect_all_done({});
}

TEST(Status, AForkedChildIsAProcessOfItsOwn) {
  with_communicator(1, settings_with(), [](const CommunicatorPtr& communicator) {
    expect_exact(*communicator, sum_request(3));
    ASSERT_EQ(names_of(::getpid()).size(), 1u);
    const pid_t child = ::fork();
    if (child == 0) {
      // Its parent's communicators are not its own.
      if (!names_of(::getpid()).empty()) _exit(1);
      int bad = 2;
      with_communicator(1, settings_with(), [&](const CommunicatorPtr&) {
        const auto answers = status::ask_all(StatusQuestion::status, kLimitMs);
        for (const status::Answer& answer : *answers) {
          if (answer.process != ::getpid()) continue;
          const auto process = status::parse_process(answer.text);
          bad = process.is_ok() && process->communicators.size() == 1 ? 0 : 3;
        }
      });
      _exit(bad);
    }
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    EXPECT_EQ(state, 0);
  });
}

TEST(Status, TheProgramWritesTextJsonAndTrace) {
  MortalRanks ranks(2);
  ranks.start(settings_with(), sum_until_told);
  wait_until([&] { return ranks[1].values[1] > 10; });
  const std::string trace =
      (std::filesystem::temp_directory_path() / fmt::format("railccl-trace-{}.json", getpid()))
          .string();
  const auto output_of = [](const std::string& options) {
    FILE* pipe = ::popen((RAILCCL_BIN "/railccl-status --limit-ms 5000 " + options).c_str(), "r");
    std::string text;
    char bytes[4096];
    while (const size_t got = std::fread(bytes, 1, sizeof bytes, pipe)) text.append(bytes, got);
    ::pclose(pipe);
    return text;
  };
  EXPECT_THAT(output_of("--trace " + trace),
              HasSubstr(fmt::format("rank 1 (pid {})", ranks.process(1))));
  std::ifstream file(trace);
  EXPECT_GT(Json::parse(file)["traceEvents"].size(), 20u);
  std::filesystem::remove(trace);
  const Json json = Json::parse(output_of("--json"));
  const auto ours = [&](const Json& process) { return process["pid"] == ranks.process(0); };
  EXPECT_TRUE(std::any_of(json["processes"].begin(), json["processes"].end(), ours));
  ranks[0].values[0] = 1;
  ranks.expect_all_done({});
}

TEST(Status, NamesAreReadStrictly) {
  const StatusName name{1000, 4711, 0x1f};
  EXPECT_EQ(encode(name), "railccl-status/1000/4711/1f");
  EXPECT_EQ(runtime::parse_status_name("railccl-status/1000/4711/1f"), name);
  for (const char* bad :
       {"", "railccl-status/", "railccl-status/1/2", "railccl-status/1/2/", "railccl-status/01/2/3",
        "railccl-status/-1/2/3", "railccl-status/1/2/3/", "railccl-status/1/2/0x3",
        "railccl-status/99999999999999999999/2/3", "other/1/2/3"})
    EXPECT_FALSE(runtime::parse_status_name(bad)) << bad;
  // Only sockets that listen.
  EXPECT_EQ(status::names_in("Num RefCount Protocol Flags Type St Inode Path\n"
                             "0: 00000002 00000000 00010000 0001 01 1 @railccl-status/1/2/3\n"
                             "0: 00000002 00000000 00000000 0001 03 2 @railccl-status/1/2/3\n"
                             "0: 00000002 00000000 00010000 0001 01 3 /railccl-status/1/2/3\n")
                .size(),
            1u);
}

TEST(Status, WhatIsNoStatusIsRefused) {
  for (const char* bad :
       {"", "{}", "[]", "{\"format\":1}", "{\"format\":\"1\"}", "{\"format\":1,\"railccl\":3}"})
    EXPECT_EQ(status::parse_process(bad).status().code(), Code::invalid_argument) << bad;
  EXPECT_EQ(status::parse_process("{\"format\":99}").status().code(), Code::unsupported);
}

TEST(Status, NothingThatProcessesSayMovesTheCursor) {
  std::string text = text_in(RAILCCL_TEST_DATA "/../fuzz/corpus/status/process");
  for (const std::string word : {"dp", "rank 1 died", "step 1"}) {
    const size_t at = text.find('"' + word + '"');
    ASSERT_NE(at, std::string::npos) << word;
    text.insert(at + 1, "\\u001b[2J\\nall is well\\u007f");
  }
  const auto shown =
      text_of(status::read({{12, status::Answer::Outcome::answered, text, ""}}, "n1"));
  EXPECT_THAT(shown, HasSubstr("\"?[2J?all is well?dp\""));
  EXPECT_THAT(shown, HasSubstr("?[2J?all is well?rank 1 died"));
  for (const char c : shown) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c != 0x7f)) << shown;
}

}  // namespace
}  // namespace railccl::test
