// Shows that the flight recorder keeps the last operations as they were, while it is being read by
// others, and what real operations leave in it.
#include "runtime/recorder.h"

#include <gmock/gmock.h>

#include <thread>

#include "ranks.h"
#include "runtime/member.h"

namespace railccl::test {
namespace {

using runtime::group_end;
using runtime::group_start;
using runtime::Member;
using runtime::Record;
using runtime::Recorder;
using runtime::Subject;

Subject subject_of(uint64_t count) {
  Subject subject;
  subject.request = sum_request(count);
  subject.bytes = 4 * count;
  return subject;
}

TEST(Recorder, KeepsTheLastOnes) {
  Recorder recorder(5);  // so 7
  for (uint64_t i = 0; i < 20; i++)
    recorder.end(recorder.begin(100 + i, subject_of(i)), Record::State::done);
  const std::vector<Record> records = recorder.records();
  ASSERT_EQ(records.size(), 7u);
  for (uint64_t i = 0; i < 7; i++) {
    EXPECT_EQ(records[i].number, 13 + i);
    EXPECT_EQ(records[i].sequence, 113 + i);
    EXPECT_EQ(records[i].subject.request, sum_request(13 + i));
    EXPECT_EQ(records[i].state, Record::State::done);
  }
  EXPECT_EQ(recorder.operations(), 20u);
  EXPECT_EQ(recorder.bytes(), 4u * 190);
}

TEST(Recorder, KeepsNothingWhenToldSo) {
  Recorder recorder(0);
  Recorder::Entry* entry = recorder.begin(1, subject_of(1));
  EXPECT_EQ(entry, nullptr);
  recorder.end(entry, Record::State::done);
  const auto kept = recorder.keep(subject_of(1));
  recorder.end_small(recorder.begin_small(1, kept.get()), 1, kept.get(), 0);
  recorder.end_small(nullptr, 2, kept.get(), 0);
  recorder.stands(entry, "nowhere");
  EXPECT_TRUE(recorder.records().empty());
}

TEST(Recorder, StampsAreTimes) {
  Recorder recorder(4);
  usleep(20'000);  // for the rate of the ticks
  const int64_t before = now_ns();
  Recorder::Entry* entry = recorder.begin(0, subject_of(1));
  usleep(30'000);
  recorder.end(entry, Record::State::failed);
  const int64_t after = now_ns();
  usleep(20'000);
  const Record record = recorder.records().at(0);
  constexpr int64_t kSlackNs = 5'000'000;  // another thread may have had the core between the two
  EXPECT_NEAR(static_cast<double>(record.start_ns), static_cast<double>(before), kSlackNs);
  EXPECT_NEAR(static_cast<double>(record.end_ns), static_cast<double>(after), kSlackNs);
  EXPECT_EQ(record.state, Record::State::failed);
}

TEST(Recorder, WhereItStandsBelongsToOneRecord) {
  Recorder recorder(4);
  recorder.end(recorder.begin(0, subject_of(1)), Record::State::done);
  recorder.stands(recorder.begin(1, subject_of(1)), "step 3");
  EXPECT_EQ(recorder.standing(0), "");
  EXPECT_EQ(recorder.standing(1), "step 3");
}

/// A record whose words do not belong together would show.
TEST(Recorder, ReadersSeeWholeRecordsOnly) {
  Recorder recorder(4);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t i = 0; !stop.load(std::memory_order_relaxed); i++) {
      Subject subject = subject_of(3 * i);
      subject.request.root = static_cast<int>(i & 0xffff);
      subject.media = static_cast<uint32_t>(i);
      if (i % 3 == 0) {
        recorder.end(recorder.begin(i, subject), Record::State::done);
        continue;
      }
      // What is let go of at once stays for readers as long as its record is there.
      const auto kept = recorder.keep(subject);
      Recorder::Entry* entry = i % 3 == 1 ? recorder.begin_small(i, kept.get()) : nullptr;
      recorder.end_small(entry, i, kept.get(), 0);
    }
  });
  size_t seen = 0;
  const Deadline deadline = Deadline::after_ms(200);
  while (!deadline.passed() || seen == 0) {
    uint64_t last = 0;
    for (const Record& record : recorder.records()) {
      seen++;
      ASSERT_EQ(record.sequence, record.number);
      ASSERT_EQ(record.subject.request.count, 3 * record.number);
      ASSERT_EQ(record.subject.request.root, static_cast<int>(record.number & 0xffff));
      ASSERT_EQ(record.subject.media, static_cast<uint32_t>(record.number));
      ASSERT_GE(record.number, last);
      last = record.number;
    }
  }
  stop.store(true, std::memory_order_relaxed);
  writer.join();
}

TEST(Recorder, HasWhatACommunicatorDid) {
  for (const char* medium : {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"}) {
    with_communicator(2, settings_with({medium}), [&](const CommunicatorPtr& communicator) {
      auto& member = static_cast<Member&>(*communicator);
      const int rank = communicator->rank();
      for (int i = 0; i < 3; i++) expect_exact(*communicator, sum_request(2));
      expect_exact(*communicator, sum_request(100'000));
      int32_t data[4] = {};
      group_start();
      ASSERT_TRUE(communicator->start(send_of(1 - rank, data, 2), nullptr).is_ok());
      ASSERT_TRUE(communicator->start(recv_of(1 - rank, data + 2, 2), nullptr).is_ok());
      ASSERT_TRUE(group_end().is_ok());
      const std::vector<Record> records = member.recorder().records();
      ASSERT_EQ(records.size(), 5u);
      int64_t last_ns = 0;
      for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(records[i].sequence, i);
        EXPECT_LT(records[i].sequence, member.control().finished());
        EXPECT_EQ(records[i].subject.request, sum_request(i < 3 ? 2 : 100'000));
        ASSERT_NE(records[i].subject.algorithm, nullptr);
        EXPECT_GE(records[i].start_ns, last_ns);
        last_ns = records[i].start_ns;
      }
      EXPECT_NE(records[3].subject.media, 0u);
      EXPECT_EQ(records[3].state, Record::State::done);
      EXPECT_GT(records[3].end_ns, records[3].start_ns);
      EXPECT_EQ(records[4].subject.kind, Subject::Kind::transfers);
      EXPECT_EQ(records[4].subject.request.count, 2u);
      EXPECT_EQ(records[4].state, Record::State::done);
      EXPECT_EQ(member.recorder().bytes(), 3u * 8 + 400'000 + 16);
    });
  }
}

TEST(Recorder, SaysWhereAnOperationHangsAndThatItFailed) {
  with_communicator(
      2, settings_with({"RAILCCL_STALL_MS=20"}), [&](const CommunicatorPtr& communicator) {
        auto& member = static_cast<Member&>(*communicator);
        expect_exact(*communicator, sum_request(2));
        if (communicator->rank() == 1) {
          usleep(300'000);
          communicator->abort("the test says so");
          return;
        }
        std::thread reader([&] {
          const Deadline deadline = Deadline::after_ms(10'000);
          std::string where;
          while (where.empty() && !deadline.passed()) {
            usleep(1000);
            where = member.recorder().standing(1);
          }
          EXPECT_THAT(where, ::testing::HasSubstr("rank 1"));
          const std::vector<Record> records = member.recorder().records();
          ASSERT_EQ(records.size(), 2u);
          EXPECT_EQ(records[1].state, Record::State::running);
          EXPECT_EQ(records[1].end_ns, 0);
        });
        Buffers buffers(sum_request(2), 2, 0);
        EXPECT_FALSE(communicator->start(call_of(sum_request(2), buffers), nullptr).is_ok());
        reader.join();
        const std::vector<Record> records = member.recorder().records();
        ASSERT_EQ(records.size(), 2u);
        EXPECT_EQ(records[1].state, Record::State::failed);
        EXPECT_NE(records[1].end_ns, 0);
      });
}

}  // namespace
}  // namespace railccl::test
