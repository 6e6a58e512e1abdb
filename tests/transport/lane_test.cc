// Shows that a lane carries every message unchanged, once and in order: payloads of every size,
// full lanes, credits in halves, a peer that attaches late, sleepers that are woken by ring() and
// by nothing less, a million messages both ways between threads, and the same between processes.
#include "transport/lane.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <new>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "build_kind.h"

namespace railccl::transport {
namespace {

/// Two ranks' lanes and bells in zero-filled memory that forked processes share.
struct Shared {
  LaneMemory into[2];  // [r]: read by rank r
  Doorbell bells[2];
};

class SharedMemory {
 public:
  SharedMemory() {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    shared_ = static_cast<Shared*>(memory);
  }
  ~SharedMemory() { munmap(shared_, sizeof(Shared)); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  Shared* operator->() { return shared_; }
  Shared& operator*() { return *shared_; }

 private:
  Shared* shared_;
};

Lane lane_of(Shared& shared, int rank, bool attached = true) {
  Lane lane(&shared.into[rank]);
  if (attached) lane.attach(&shared.into[1 - rank], &shared.bells[1 - rank]);
  return lane;
}

/// Message `index` from `sender`: its header, and byte i of its payload.
std::array<std::byte, kLaneHeaderBytes> header_of(int sender, uint64_t index, uint64_t bytes) {
  const uint64_t words[3] = {index * 2 + static_cast<uint64_t>(sender), ~index, bytes};
  std::array<std::byte, kLaneHeaderBytes> header;
  static_assert(sizeof words == kLaneHeaderBytes);
  std::memcpy(header.data(), words, sizeof words);
  return header;
}
std::byte payload_byte(int sender, uint64_t index, size_t i) {
  return static_cast<std::byte>((index * 31 + i * 7 + (i >> 8) + static_cast<uint64_t>(sender)) &
                                0xff);
}

void write_message(Lane& lane, int sender, uint64_t index, size_t bytes) {
  std::byte* place = lane.place(bytes);
  for (size_t i = 0; i < bytes; i++) place[i] = payload_byte(sender, index, i);
  lane.publish(header_of(sender, index, bytes).data());
}
/// Is what has arrived exactly that message?
bool is_message(const Lane& lane, int sender, uint64_t index, size_t bytes) {
  const auto header = header_of(sender, index, bytes);
  if (std::memcmp(lane.header(), header.data(), kLaneHeaderBytes) != 0) return false;
  const std::byte* payload = lane.payload(bytes);
  for (size_t i = 0; i < bytes; i++)
    if (payload[i] != payload_byte(sender, index, i)) return false;
  return true;
}

TEST(Lane, CarriesPayloadsOfEverySizeAndTouchesNoOtherSlot) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0), reader = lane_of(*shared, 1);
  const LaneMemory& memory = shared->into[1];
  std::vector<std::byte> before(sizeof memory);
  uint64_t index = 0;
  for (size_t bytes = 0; bytes <= kLaneBytesMax; bytes++) {
    // Past the small ones: those around the sizes of lines and vectors.
    if (bytes > 600 && (bytes + 1) % 32 > 2) continue;
    ASSERT_TRUE(writer.has_room());
    ASSERT_EQ(reinterpret_cast<uintptr_t>(writer.place(bytes)) % 32, 0u) << bytes;
    std::memcpy(before.data(), static_cast<const void*>(&memory), sizeof memory);
    ASSERT_FALSE(reader.arrived());
    write_message(writer, 0, bytes, bytes);
    ASSERT_TRUE(reader.arrived());
    ASSERT_TRUE(is_message(reader, 0, bytes, bytes)) << bytes;
    // Apart from its slot the lane is as it was.
    const size_t slot = index++ % kLaneSlots;
    const auto* after = reinterpret_cast<const std::byte*>(&memory);
    const size_t head = offsetof(LaneMemory, heads) + slot * sizeof(LaneMemory::Head);
    const size_t body = offsetof(LaneMemory, bodies) + slot * kLaneBytesMax;
    std::memcpy(before.data() + head, after + head, sizeof(LaneMemory::Head));
    if (bytes > kLaneInline) std::memcpy(before.data() + body, after + body, bytes);
    ASSERT_EQ(std::memcmp(before.data(), after, sizeof memory), 0) << bytes;
    reader.consume();
  }
}

TEST(Lane, SmallPayloadsTravelInOneCacheLineWithTheirNumber) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0);
  const auto* head = reinterpret_cast<std::byte*>(&shared->into[1].heads[0]);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(head) % 64, 0u);
  EXPECT_TRUE(writer.place(kLaneInline) >= head);
  EXPECT_TRUE(writer.place(kLaneInline) + kLaneInline <= head + 64);
  EXPECT_FALSE(writer.place(kLaneInline + 1) < head + 64);
}

constexpr uint64_t kHalf = kLaneSlots / 2;

TEST(Lane, AFullLaneHasRoomAgainWhenHalfOfItWasConsumed) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0), reader = lane_of(*shared, 1);
  uint64_t sent = 0, received = 0;
  // Starts at every position of the lane.
  for (int round = 0; round < 200; round++) {
    while (writer.has_room()) write_message(writer, 0, sent++, 40);
    ASSERT_EQ(sent, received / kHalf * kHalf + kLaneSlots);
    ASSERT_FALSE(writer.has_room()) << "a second look finds no more room";
    for (int i = 0; i < 1 + round % 5; i++) {
      ASSERT_TRUE(reader.arrived());
      ASSERT_TRUE(is_message(reader, 0, received, 40)) << "message " << received;
      reader.consume();
      received++;
      ASSERT_EQ(shared->into[1].consumed.load(), received / kHalf * kHalf);
    }
  }
  while (received < sent) {
    ASSERT_TRUE(reader.arrived() && is_message(reader, 0, received, 40));
    reader.consume();
    received++;
  }
  EXPECT_FALSE(reader.arrived());
}

TEST(Lane, HasNewsForThePeerAfterAMessageAndAfterHalfALane) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0), reader = lane_of(*shared, 1);
  EXPECT_FALSE(writer.unrung());
  for (uint64_t i = 0; i < kLaneSlots; i++) {
    write_message(writer, 0, i, 8);
    EXPECT_TRUE(writer.unrung());
    reader.consume();
    EXPECT_EQ(reader.unrung(), (i + 1) % kHalf == 0) << i;
    writer.ring();
    reader.ring();
    EXPECT_FALSE(writer.unrung() || reader.unrung());
  }
}

TEST(Lane, NonsenseInThePeersCountGivesNoRoom) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0);
  for (uint64_t i = 0; i < kLaneSlots; i++) write_message(writer, 0, i, 8);
  for (const uint64_t nonsense : {uint64_t{kLaneSlots + 1}, uint64_t{1} << 40, ~uint64_t{0}}) {
    shared->into[1].consumed.store(nonsense);
    EXPECT_FALSE(writer.has_room()) << nonsense;
  }
}

TEST(Lane, ReadsBeforeItIsAttachedAndWritesAfterwards) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0), late = lane_of(*shared, 1, false);
  for (uint64_t i = 0; i < kLaneSlots; i++) write_message(writer, 0, i, 100);
  EXPECT_FALSE(writer.has_room());
  EXPECT_FALSE(late.has_room());
  for (uint64_t i = 0; i < kLaneSlots; i++) {
    ASSERT_TRUE(late.arrived() && is_message(late, 0, i, 100));
    late.consume();
    full_fence();
    late.ring();  // nobody to ring for yet: no more than forgotten
  }
  EXPECT_TRUE(writer.has_room());
  late.attach(&shared->into[0], &shared->bells[0]);
  ASSERT_TRUE(late.has_room());
  write_message(late, 1, 0, 7);
  EXPECT_TRUE(writer.arrived() && is_message(writer, 1, 0, 7));
}

TEST(Lane, AWriterThatSleepsForRoomIsWokenByALateAttachment) {
  SharedMemory shared;
  Lane late = lane_of(*shared, 1, false);
  std::thread sleeper([&] {
    Lane writer = lane_of(*shared, 0);
    Sleeper bed(&shared->bells[0]);
    for (uint64_t i = 0; i < kLaneSlots; i++) write_message(writer, 0, i, 0);
    while (!writer.has_room()) ASSERT_TRUE(bed.wait(20'000'000)) << "the wake-up was lost";
  });
  for (uint64_t i = 0; i < kLaneSlots; i++) {
    while (!late.arrived()) usleep(100);
    late.consume();
  }
  full_fence();
  late.ring();
  usleep(20'000);  // most of the time it sleeps by now; the outcome must not depend on it
  late.attach(&shared->into[0], &shared->bells[0]);
  shared->bells[0].ring();
  sleeper.join();
}

TEST(Lane, ASleeperIsWokenByRingAndByNothingLess) {
  SharedMemory shared;
  Lane writer = lane_of(*shared, 0);
  Lane reader = lane_of(*shared, 1);
  Sleeper bed(&shared->bells[1]);
  EXPECT_TRUE(bed.wait(1'000'000)) << "the first call only raises the flag";
  write_message(writer, 0, 0, 8);
  EXPECT_FALSE(bed.wait(20'000)) << "nobody rang";
  ASSERT_TRUE(reader.arrived());
  reader.consume();
  std::thread late([&] {
    usleep(50'000);
    write_message(writer, 0, 1, 8);
    full_fence();
    writer.ring();
  });
  const int64_t start = now_ns();
  while (!reader.arrived()) ASSERT_TRUE(bed.wait(20'000'000)) << "the wake-up was lost";
  EXPECT_LT(now_ns() - start, 10'000'000'000);
  late.join();
  EXPECT_TRUE(is_message(reader, 0, 1, 8));
}

TEST(Doorbell, ARingBetweenTheFlagAndTheSleepEndsTheSleep) {
  SharedMemory shared;
  Sleeper bed(&shared->bells[0]);
  for (int i = 0; i < 3; i++) {
    ASSERT_TRUE(bed.wait(0));
    shared->bells[0].ring_if_sleeping();
    const int64_t start = now_ns();
    ASSERT_TRUE(bed.wait(20'000'000));
    ASSERT_LT(now_ns() - start, 10'000'000'000);
    ASSERT_FALSE(bed.wait(1000)) << "nobody rang since";
  }
}

TEST(Doorbell, AnOwnerThatIsAwakeIsNotRung) {
  SharedMemory shared;
  Sleeper bed(&shared->bells[0]);
  shared->bells[0].ring_if_sleeping();
  ASSERT_TRUE(bed.wait(0));
  EXPECT_FALSE(bed.wait(1000)) << "it rang although nobody slept";
  shared->bells[0].ring_if_sleeping();  // the flag is down again after a sleep
  ASSERT_TRUE(bed.wait(0));
  EXPECT_FALSE(bed.wait(1000));
}

/// How one side of a conversation behaves while it waits.
struct Manners {
  int looks = 200;        // fruitless ones before it sleeps
  bool pauses = false;    // now and then it falls behind
  size_t bytes_max = 64;  // of payloads
};

/// Sends and receives `messages`, as room and arrivals allow, and sleeps when neither moves. 0, or
/// a number that tells what went wrong.
int converse(Shared& shared, int rank, uint64_t messages, const Manners& manners) {
  Lane lane = lane_of(shared, rank);
  Sleeper bed(&shared.bells[rank]);
  // Both sides know the sizes.
  Random sizes_out(100 + static_cast<uint64_t>(rank)), sizes_in(101 - static_cast<uint64_t>(rank));
  Random moods(static_cast<uint64_t>(rank) + 5);
  uint64_t sent = 0, received = 0;
  const auto size = [&](Random& random) {
    return static_cast<size_t>(random.below(4) == 0 ? random.below(manners.bytes_max + 1)
                                                    : random.below(40));
  };
  size_t next_out = size(sizes_out), next_in = size(sizes_in);
  int idle = 0;
  while (sent < messages || received < messages) {
    bool moved = false;
    while (sent < messages && lane.has_room()) {
      write_message(lane, rank, sent++, next_out);
      next_out = size(sizes_out);
      moved = true;
      if (moods.below(4) == 0) break;
    }
    while (received < messages && lane.arrived()) {
      if (!is_message(lane, 1 - rank, received, next_in)) return 2;
      lane.consume();
      received++;
      next_in = size(sizes_in);
      moved = true;
      if (moods.below(4) == 0) break;
    }
    // Pauses are long enough for the peer to fall asleep.
    if (manners.pauses && moods.below(500) == 0) usleep(300);
    idle = moved ? 0 : idle + 1;
    if (moved || idle < manners.looks) continue;
    if (lane.unrung()) {
      full_fence();
      lane.ring();
    }
    if (!bed.wait(20'000'000)) return 3;
  }
  full_fence();
  lane.ring();
  return lane.arrived() ? 4 : 0;
}

constexpr uint64_t kMany = test::by_build(1'000'000, 200'000, 200'000);

void converse_by_threads(uint64_t messages, const Manners& one, const Manners& two) {
  SharedMemory shared;
  int outcome[2] = {-1, -1};
  std::thread first([&] { outcome[0] = converse(*shared, 0, messages, one); });
  std::thread second([&] { outcome[1] = converse(*shared, 1, messages, two); });
  first.join();
  second.join();
  EXPECT_EQ(outcome[0], 0);
  EXPECT_EQ(outcome[1], 0);
}

TEST(LaneConversation, AMillionMessagesBothWaysBetweenThreads) {
  converse_by_threads(kMany, {}, {});
}

TEST(LaneConversation, SidesThatSleepAtOnceLoseNoWakeUp) {
  converse_by_threads(kMany / 20, {.looks = 0}, {.looks = 0});
}

TEST(LaneConversation, ASideThatPausesAndASideThatSleeps) {
  converse_by_threads(kMany / 50, {.looks = 1, .pauses = true}, {.looks = 2, .pauses = true});
}

TEST(LaneConversation, LargePayloads) {
  converse_by_threads(kMany / 20, {.bytes_max = kLaneBytesMax}, {.bytes_max = kLaneBytesMax});
}

TEST(LaneConversation, BetweenProcesses) {
  SharedMemory shared;
  std::vector<pid_t> children;
  for (int rank = 0; rank < 2; rank++) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0)
      _exit(converse(*shared, rank, kMany / 5,
                     {.looks = rank == 0 ? 200 : 0, .bytes_max = kLaneBytesMax}));
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << (WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
}

}  // namespace
}  // namespace railccl::transport
