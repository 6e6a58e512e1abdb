// Shows that the flight recorder keeps the last operations as they were, while it is being read by
// others, and what real operations leave in it.
#include "runtime/recorder.h"

#include <gmock/gmock.h>

#include <thread>

#include "ranks.h"
#include "runtime/member.h"
#include "runtime/observed.h"
#include "runtime/picture_text.h"

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

/// A recorder of a communicator that is not there.
struct Alone {
  explicit Alone(uint64_t capacity) : recorder(capacity, entered) {}
  Recorder::Entry* begin(const Subject& subject) {
    const uint64_t number = entered++;
    return recorder.begin(number, recorder.keep(subject).get(), Record::Kind::collective);
  }
  /// A small one; `waits`: it has to.
  void small(const Subject* subject, bool waits) {
    const uint64_t number = entered++;
    recorder.end_small(waits ? recorder.begin_small(number, subject) : nullptr, number, subject, 0);
    finished = entered.load();
  }
  std::atomic<uint64_t> entered{0}, finished{0};
  Recorder recorder;
};

TEST(Recorder, KeepsTheLastOnes) {
  Alone alone(5);  // so 8
  for (uint64_t i = 0; i < 20; i++)
    alone.recorder.end(alone.begin(subject_of(i)), Record::State::done);
  const std::vector<Record> records = alone.recorder.records(alone.finished);
  ASSERT_EQ(records.size(), 8u);
  for (uint64_t i = 0; i < 8; i++) {
    EXPECT_EQ(records[i].number, 12 + i);
    EXPECT_EQ(records[i].subject.request, sum_request(12 + i));
    EXPECT_EQ(records[i].state, Record::State::done);
  }
  EXPECT_EQ(alone.recorder.bytes(), 4u * 190);
  EXPECT_EQ(alone.recorder.records(20, 3).size(), 3u);
  // One that got a number and failed before it was recorded: its place has another one's words.
  alone.entered++;
  EXPECT_EQ(alone.recorder.records(alone.finished).size(), 7u);
}

TEST(Recorder, KeepsNothingWhenToldSo) {
  Alone alone(0);
  Recorder& recorder = alone.recorder;
  const Subject subject = subject_of(1);
  Recorder::Entry* entry = alone.begin(subject);
  EXPECT_EQ(entry, nullptr);
  recorder.end(entry, Record::State::done);
  alone.small(&subject, true);
  alone.small(&subject, false);
  recorder.name(entry, &subject);
  recorder.stands(entry, "nowhere");
  EXPECT_EQ(recorder.begin_transfers(recorder.remember(subject, Record::Kind::transfers)), nullptr);
  EXPECT_TRUE(recorder.records(alone.finished).empty());
  // What was chosen last is known all the same.
  recorder.note_last(recorder.keep(subject).get());
  EXPECT_EQ(recorder.last().request, sum_request(1));
}

constexpr double kSlackNs = 5'000'000;  // another thread may have had the core between two stamps

TEST(Recorder, StampsAreTimes) {
  Alone alone(4);
  usleep(20'000);  // for the rate of the ticks
  const int64_t before = now_ns();
  Recorder::Entry* entry = alone.begin(subject_of(1));
  usleep(30'000);
  alone.recorder.end(entry, Record::State::failed);
  const int64_t after = now_ns();
  usleep(20'000);
  const Record record = alone.recorder.records(alone.finished).at(0);
  EXPECT_NEAR(static_cast<double>(record.start_ns), static_cast<double>(before), kSlackNs);
  EXPECT_NEAR(static_cast<double>(record.end_ns), static_cast<double>(after), kSlackNs);
  EXPECT_EQ(record.state, Record::State::failed);
}

/// Operations that find all they need there: swift ones mostly have no stamp, others do.
TEST(Recorder, SwiftOperationsLieBetweenTheirNeighbours) {
  Alone alone(512);
  const auto subject = alone.recorder.keep(subject_of(1));
  const auto other = alone.recorder.keep(subject_of(2));
  const int64_t before = now_ns();
  // Of every ten, five are like their neighbours, and others alternate.
  const auto is_other = [](size_t i) { return i % 10 >= 5 && i % 2 == 1; };
  for (size_t i = 0; i < 200; i++) alone.small(is_other(i) ? other.get() : subject.get(), false);
  const int64_t between = now_ns();
  for (int i = 0; i < 140; i++) {
    usleep(500);
    alone.small(subject.get(), false);
  }
  const int64_t after = now_ns();
  usleep(10'000);
  const std::vector<Record> records = alone.recorder.records(alone.finished);
  ASSERT_EQ(records.size(), 340u);
  int stamped = 0, row = 0;
  int64_t last_ns = before - static_cast<int64_t>(kSlackNs);
  for (size_t i = 0; i < records.size(); i++) {
    EXPECT_EQ(records[i].subject.request.count, i < 200 && is_other(i) ? 2u : 1u) << i;
    EXPECT_EQ(records[i].end_ns, 0);
    EXPECT_GE(records[i].start_ns, last_ns) << i;
    last_ns = records[i].start_ns;
    row = records[i].stamped ? 0 : row + 1;
    EXPECT_LE(row, 127);
    if (i < 200) stamped += records[i].stamped ? 1 : 0;
    // As soon as one has shown that they are not swift any more.
    EXPECT_TRUE(i < 328 || records[i].stamped) << i;
  }
  EXPECT_LT(stamped, 100);
  EXPECT_TRUE(records[0].stamped);
  EXPECT_LT(static_cast<double>(records[100].start_ns), static_cast<double>(between) + kSlackNs);
  EXPECT_NEAR(static_cast<double>(records[339].start_ns), static_cast<double>(after), kSlackNs);
}

TEST(Recorder, WhereItStandsBelongsToOneRecord) {
  Alone alone(4);
  alone.recorder.end(alone.begin(subject_of(1)), Record::State::done);
  alone.recorder.stands(alone.begin(subject_of(1)), "step 3");
  alone.recorder.begin_transfers(alone.recorder.remember(subject_of(1), Record::Kind::transfers));
  const std::vector<Record> records = alone.recorder.records(alone.finished);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(alone.recorder.standing(records[0]), "");
  EXPECT_EQ(alone.recorder.standing(records[1]), "step 3");
  EXPECT_EQ(alone.recorder.standing(records[2]), "");
}

/// A record whose words do not belong together would show.
TEST(Recorder, ReadersSeeWholeRecordsOnly) {
  // Kept before: whoever keeps one waits until nobody reads.
  constexpr uint64_t kSubjects = 1 << 12;
  Alone alone(4);
  Recorder& recorder = alone.recorder;
  std::vector<std::shared_ptr<const Subject>> subjects;
  for (uint64_t i = 0; i < kSubjects; i++) {
    Subject subject = subject_of(i);
    subject.media = static_cast<uint32_t>(i);
    subjects.push_back(recorder.keep(subject));
  }
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t number = alone.entered.load();
      const Subject* subject = subjects[number % kSubjects].get();
      if (number % 3 == 0) {
        alone.entered++;
        recorder.end(recorder.begin(number, subject, Record::Kind::collective),
                     Record::State::done);
      } else {
        alone.small(subject, number % 3 == 1);
      }
    }
  });
  size_t seen = 0;
  const Deadline deadline = Deadline::after_ms(200);
  while (!deadline.passed() || seen == 0) {
    uint64_t next = 0;
    for (const Record& record : recorder.records(alone.finished)) {
      seen++;
      ASSERT_EQ(record.subject.request.count, record.number % kSubjects);
      ASSERT_EQ(record.subject.media, static_cast<uint32_t>(record.number % kSubjects));
      ASSERT_TRUE(record.state != Record::State::done || record.number % 3 == 0);
      ASSERT_GE(record.number, next);
      next = record.number + 1;
    }
  }
  stop.store(true, std::memory_order_relaxed);
  writer.join();
}

/// What nobody holds any more stays for readers as long as a record has it.
TEST(Recorder, SubjectsStayWithTheirRecords) {
  Alone alone(4);
  for (uint64_t i = 0; i < 2000; i++) {
    alone.small(alone.recorder.keep(subject_of(i)).get(), i % 2 == 0);
    const std::vector<Record> records = alone.recorder.records(alone.finished);
    for (const Record& record : records) ASSERT_EQ(record.subject.request.count, record.number);
  }
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
      const std::vector<Record> records = member.recorder().records(member.control().finished());
      ASSERT_EQ(records.size(), 5u);
      int64_t last_ns = 0;
      for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(records[i].number, i);
        EXPECT_LT(records[i].number, member.control().finished());
        EXPECT_EQ(records[i].subject.request, sum_request(i < 3 ? 2 : 100'000));
        ASSERT_NE(records[i].subject.algorithm, nullptr);
        EXPECT_GE(records[i].start_ns, last_ns);
        last_ns = records[i].start_ns;
      }
      EXPECT_NE(records[3].subject.media, 0u);
      EXPECT_EQ(records[3].state, Record::State::done);
      EXPECT_GT(records[3].end_ns, records[3].start_ns);
      EXPECT_EQ(records[4].kind, Record::Kind::transfers);
      EXPECT_EQ(records[4].subject.request.count, 2u);
      EXPECT_EQ(records[4].state, Record::State::done);
      EXPECT_EQ(member.recorder().bytes(), 3u * 8 + 400'000 + 16);
    });
  }
}

/// Of communicators that are made, run, fail and go away meanwhile: nothing of them is touched that
/// is not theirs to show, as the sanitizers would tell.
TEST(Recorder, PicturesAreTakenAtAnyTime) {
  std::atomic<bool> stop{false};
  size_t seen = 0;
  std::thread reader([&] {
    while (!stop) {
      const auto pictures = runtime::Observed::all(20);
      for (const runtime::Picture& picture : pictures) seen += picture.operations.size();
      EXPECT_LT(runtime::process_text(pictures, 20, 1 << 16).size(), 1u << 17);
    }
  });
  for (int round = 0; round < 4; round++) {
    std::atomic<int> over{0};
    with_communicator(2, settings_with(), [&](const CommunicatorPtr& communicator) {
      for (int i = 0; i < 20; i++) {
        expect_exact(*communicator, sum_request(2));
        expect_exact(*communicator, sum_request(5000));
      }
      auto half = communicator->split(communicator->rank(), 0, {});
      ASSERT_TRUE(half.is_ok()) << half.status().text();
      expect_exact(**half, sum_request(3));
      for (over++; over < 2;) usleep(100);  // who aborts early disturbs the other one
      if (round % 2 == 1) communicator->abort("enough");
    });
  }
  stop = true;
  reader.join();
  EXPECT_GT(seen, 0u);
}

TEST(Recorder, SaysWhereAnOperationHangsAndThatItFailed) {
  std::atomic<bool> seen{false};
  with_communicator(
      2, settings_with({"RAILCCL_STALL_MS=20"}), [&](const CommunicatorPtr& communicator) {
        auto& member = static_cast<Member&>(*communicator);
        expect_exact(*communicator, sum_request(2));
        if (communicator->rank() == 1) {
          for (const Deadline end = Deadline::after_ms(10'000); !seen && !end.passed();)
            usleep(1000);
          communicator->abort("the test says so");
          return;
        }
        std::thread reader([&] {
          const Deadline deadline = Deadline::after_ms(10'000);
          std::string where;
          std::vector<Record> records;
          while (where.empty() && !deadline.passed()) {
            usleep(1000);
            records = member.recorder().records(member.control().finished());
            if (records.size() == 2) where = member.recorder().standing(records[1]);
          }
          EXPECT_THAT(where, ::testing::HasSubstr("rank 1"));
          ASSERT_EQ(records.size(), 2u);
          EXPECT_EQ(records[1].state, Record::State::running);
          EXPECT_EQ(records[1].end_ns, 0);
          seen = true;
        });
        Buffers buffers(sum_request(2), 2, 0);
        EXPECT_FALSE(communicator->start(call_of(sum_request(2), buffers), nullptr).is_ok());
        reader.join();
        const std::vector<Record> records = member.recorder().records(member.control().finished());
        ASSERT_EQ(records.size(), 2u);
        EXPECT_EQ(records[1].state, Record::State::failed);
        EXPECT_NE(records[1].end_ns, 0);
      });
}

}  // namespace
}  // namespace railccl::test
