// Shows that the protocol of lanes and doorbells is right in every interleaving: a model of writer
// and reader, one step per memory access of lane.h and doorbell.cc, is explored exhaustively
// (explicit states, depth first). Stores pass through a buffer per thread that drains at any time,
// in order (x86) or, on the weak machine, in any order that release stores allow. No message may be
// lost, repeated, read before it is complete or overwritten before it is read; nobody may sleep for
// ever. Versions of the protocol with one thing taken away must each be found faulty.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "build_kind.h"

namespace railccl::transport {
namespace {

constexpr int kSlotsMax = 4;
constexpr int kBufferMax = 3 * kSlotsMax + 4;

// Memory: one byte per word that both threads see.
constexpr int kNumber = 0;                // heads[slot].number
constexpr int kFirst = kSlotsMax;         // the first and the last byte of header and payload
constexpr int kLast = 2 * kSlotsMax;      //
constexpr int kConsumed = 3 * kSlotsMax;  // consumed
constexpr int kSequence = kConsumed + 1;  // [owner]: Doorbell::sequence_
constexpr int kSleeping = kSequence + 2;  // [owner]: Doorbell::sleeping_
constexpr int kWords = kSleeping + 2;

enum class At : uint8_t {
  // Lane, writing
  room,        // has_room(): what is known
  room_again,  // has_room(): known_consumed_ = consumed.load(acquire)
  first,       // the caller fills place(), publish() copies the header
  last,        //
  number,      // publish(): number.store(++sent_, release)
  // Lane, reading
  arrived,     // arrived(): number.load(acquire) == received_ + 1
  read_first,  // header() and payload()
  read_last,   //
  consume,     // consume(): consumed.store(received_, release), in halves
  // Wires::ring_all(), Lane::ring() and Doorbell
  fence,         // full_fence()
  look_at_flag,  // ring_if_sleeping(): sleeping_.load(seq_cst)
  lower_flag,    // ring(): sleeping_.exchange(0)
  count_ring,    // ring(): sequence_.fetch_add(1)
  wake,          // ring(): FUTEX_WAKE
  // Sleeper::wait()
  wait,         // if (!armed_ || sleeping_.load(seq_cst) == 0)
  expect,       // expected_ = sequence_.load(acquire)
  raise_flag,   // sleeping_.store(1, seq_cst): less is asked for here, the fence comes next
  raise_fence,  // full_fence()
  futex,        // FUTEX_WAIT compares with expected_
  asleep,       //
  get_up,       // sleeping_.store(0)
  done,
};

/// What is taken away from the protocol or from the machine.
struct Variant {
  const char* name = "";
  int slots = 2;
  int messages = 3;
  bool weak_machine = false;  // stores leave in any order that release allows
  bool no_release = false;    // of the number
  bool no_ring_fence = false;
  bool no_sleep_fence = false;
  bool no_second_look = false;   // sleeps without looking again after the flag went up
  bool uncounted_rings = false;  // ring() does not change the futex word
  bool no_ring_for_room = false;
  bool one_slot_too_many = false;
  bool consumes_before_reading = false;
};

struct Store {
  uint8_t word;
  uint8_t value;
  bool release;
};

struct Thread {
  At at;
  At after_ring;
  uint8_t count;  // sent_ or received_
  uint8_t known;  // known_consumed_
  uint8_t expected;
  bool armed;
  bool unrung;
  uint8_t buffered;
  std::array<Store, kBufferMax> buffer;
};

struct State {
  std::array<uint8_t, kWords> memory;
  std::array<Thread, 2> threads;  // the writer and the reader
};
static_assert(std::has_unique_object_representations_v<State>);

struct Key {
  size_t operator()(const State& state) const {
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(&state), sizeof state});
  }
};
struct Same {
  bool operator()(const State& a, const State& b) const {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
};

class Explorer {
 public:
  explicit Explorer(const Variant& variant) : variant_(variant) {}

  /// The first fault found, or nothing.
  std::string run() {
    State start;
    std::memset(static_cast<void*>(&start), 0, sizeof start);
    start.threads[0].at = At::room;
    start.threads[1].at = At::arrived;
    visit(start);
    while (!open_.empty() && fault_.empty()) {
      const State state = open_.back();
      open_.pop_back();
      moves_ = 0;
      for (int t = 0; t < 2; t++) {
        step(state, t);
        drain(state, t);
      }
      if (moves_ == 0) judge_standstill(state);
      // A sleep may end without a ring; what is judged above must not rely on that.
      for (size_t t = 0; t < 2; t++) {
        if (state.threads[t].at != At::asleep) continue;
        State next = state;
        next.threads[t].at = At::get_up;
        visit(next);
      }
    }
    return fault_;
  }
  size_t states() const { return seen_.size(); }

 private:
  void visit(const State& state) {
    if (seen_.insert(state).second) open_.push_back(state);
  }
  void move_to(const State& state) {
    moves_++;
    visit(state);
  }
  void report(const char* fault) {
    if (fault_.empty()) fault_ = fault;
  }

  /// What a thread reads: its own latest store of the word, or memory.
  static uint8_t load(const State& state, int t, int word) {
    const Thread& thread = state.threads[static_cast<size_t>(t)];
    for (int i = thread.buffered - 1; i >= 0; i--)
      if (thread.buffer[static_cast<size_t>(i)].word == word)
        return thread.buffer[static_cast<size_t>(i)].value;
    return state.memory[static_cast<size_t>(word)];
  }
  static void store(State& state, int t, int word, int value, bool release = false) {
    Thread& thread = state.threads[static_cast<size_t>(t)];
    ASSERT_LT(thread.buffered, kBufferMax);
    thread.buffer[thread.buffered++] = {static_cast<uint8_t>(word), static_cast<uint8_t>(value),
                                        release};
  }

  /// Stores that may leave the buffer now reach memory.
  void drain(const State& state, int t) {
    const Thread& thread = state.threads[static_cast<size_t>(t)];
    for (size_t i = 0; i < thread.buffered; i++) {
      if (i > 0 && !variant_.weak_machine) return;
      const Store& leaving = thread.buffer[i];
      bool waits = leaving.release && i > 0;
      for (size_t before = 0; before < i; before++)
        waits = waits || thread.buffer[before].word == leaving.word;
      if (waits) continue;
      // Payload of message m overwrites that of m - slots.
      if (leaving.word >= kFirst && leaving.word < kConsumed &&
          leaving.value > state.threads[1].count + variant_.slots)
        return report("overwritten before it was read");
      State next = state;
      Thread& owner = next.threads[static_cast<size_t>(t)];
      next.memory[leaving.word] = leaving.value;
      for (size_t k = i; k + 1 < owner.buffered; k++) owner.buffer[k] = owner.buffer[k + 1];
      owner.buffer[--owner.buffered] = {};
      move_to(next);
    }
  }

  void judge_standstill(const State& state) {
    const Thread& writer = state.threads[0];
    const Thread& reader = state.threads[1];
    if (writer.at == At::done && reader.at == At::done) {
      if (reader.count != variant_.messages) report("a message was lost");
      return;
    }
    const bool room =
        writer.at == At::asleep && writer.count - state.memory[kConsumed] < variant_.slots;
    const bool news = reader.at == At::asleep &&
                      state.memory[static_cast<size_t>(kNumber + reader.count % variant_.slots)] ==
                          reader.count + 1;
    report(room || news ? "lost wake-up" : "deadlock");
  }

  void step(const State& state, int t) {
    State next = state;
    Thread& me = next.threads[static_cast<size_t>(t)];
    const bool drained = me.buffered == 0;
    const int slot = me.count % variant_.slots;
    switch (me.at) {
      case At::room:
      case At::room_again: {
        if (me.count == variant_.messages) return finish(next, me, At::done);
        const int limit = variant_.slots + (variant_.one_slot_too_many ? 1 : 0);
        if (me.at == At::room_again) me.known = load(state, t, kConsumed);
        if (me.count - me.known < limit) {
          me.at = At::first;
        } else if (me.at == At::room) {
          me.at = At::room_again;
        } else {
          return finish(next, me, At::wait);
        }
        return move_to(next);
      }
      case At::first:
      case At::last:
        store(next, t, (me.at == At::first ? kFirst : kLast) + slot, me.count + 1);
        me.at = me.at == At::first ? At::last : At::number;
        return move_to(next);
      case At::number:
        me.count++;
        store(next, t, kNumber + slot, me.count, !variant_.no_release);
        me.unrung = true;
        return go_on(next, me, At::room);
      case At::arrived:
        if (me.count == variant_.messages) return finish(next, me, At::done);
        if (load(state, t, kNumber + slot) != me.count + 1) return finish(next, me, At::wait);
        me.at = variant_.consumes_before_reading ? At::consume : At::read_first;
        return move_to(next);
      case At::read_first:
      case At::read_last: {
        const int message = variant_.consumes_before_reading ? me.count : me.count + 1;
        const int from = (message - 1) % variant_.slots;
        const int word = (me.at == At::read_first ? kFirst : kLast) + from;
        if (load(state, t, word) != message) return report("not the message it should be");
        me.at = me.at == At::read_first            ? At::read_last
                : variant_.consumes_before_reading ? At::arrived
                                                   : At::consume;
        return move_to(next);
      }
      case At::consume: {
        me.count++;
        const At after = variant_.consumes_before_reading ? At::read_first : At::arrived;
        if (me.count % (variant_.slots / 2) != 0) {
          me.at = after;
          return move_to(next);
        }
        store(next, t, kConsumed, me.count, true);
        me.unrung = me.unrung || !variant_.no_ring_for_room;
        return go_on(next, me, after);
      }
      default:
        return step_bell(state, next, t, drained);
    }
  }

  /// The caller rings now or later.
  void go_on(State& next, Thread& me, At where) {
    me.at = where;
    move_to(next);
    if (me.unrung) finish(next, me, where);
  }
  /// Rings if there is something to ring for, then goes to `where`.
  void finish(State& next, Thread& me, At where) {
    me.at = !me.unrung ? where : variant_.no_ring_fence ? At::look_at_flag : At::fence;
    me.after_ring = me.unrung ? where : At{};
    move_to(next);
  }
  void end_ring(Thread& me) {
    me.at = me.after_ring;
    me.after_ring = At{};
  }

  void step_bell(const State& state, State& next, int t, bool drained) {
    Thread& me = next.threads[static_cast<size_t>(t)];
    Thread& peer = next.threads[static_cast<size_t>(1 - t)];
    const int my_flag = kSleeping + t, my_sequence = kSequence + t;
    const At look = t == 0 ? At::room : At::arrived;
    switch (me.at) {
      case At::fence:
        if (!drained) return;
        me.at = At::look_at_flag;
        break;
      case At::look_at_flag:
        me.unrung = false;
        if (load(state, t, kSleeping + 1 - t) != 0) {
          me.at = At::lower_flag;
        } else {
          end_ring(me);
        }
        break;
      case At::lower_flag:
        if (!drained) return;
        next.memory[static_cast<size_t>(kSleeping + 1 - t)] = 0;
        me.at = At::count_ring;
        break;
      case At::count_ring:
        if (!drained) return;
        if (!variant_.uncounted_rings) next.memory[static_cast<size_t>(kSequence + 1 - t)]++;
        me.at = At::wake;
        break;
      case At::wake:
        if (peer.at == At::asleep) peer.at = At::get_up;
        end_ring(me);
        break;
      case At::wait:
        me.at = me.armed && load(state, t, my_flag) != 0 ? At::futex : At::expect;
        break;
      case At::expect:
        me.expected = load(state, t, my_sequence);
        me.at = At::raise_flag;
        break;
      case At::raise_flag:
        store(next, t, my_flag, 1, true);
        me.at = At::raise_fence;
        break;
      case At::raise_fence:
        if (!drained && !variant_.no_sleep_fence) return;
        me.armed = true;
        me.at = variant_.no_second_look ? At::futex : look;
        break;
      case At::futex:
        // The kernel has full barriers of its own, so this is a fence, too late for the look.
        if (!drained) return;
        me.at =
            state.memory[static_cast<size_t>(my_sequence)] == me.expected ? At::asleep : At::get_up;
        break;
      case At::get_up:
        me.armed = false;
        store(next, t, my_flag, 0, true);
        me.at = look;
        break;
      default:  // asleep or done
        return;
    }
    move_to(next);
  }

  const Variant variant_;
  std::unordered_set<State, Key, Same> seen_;
  std::vector<State> open_;
  int moves_ = 0;
  std::string fault_;
};

std::string explore(const Variant& variant, size_t* states = nullptr) {
  Explorer explorer(variant);
  std::string fault = explorer.run();
  if (states != nullptr) *states = explorer.states();
  return fault;
}

class LaneModel : public ::testing::Test {
  void SetUp() override { RAILCCL_SKIP_WITHOUT_THREADS(); }
};

TEST_F(LaneModel, NoInterleavingOnX86IsFaulty) {
  size_t states = 0;
  EXPECT_EQ(explore({}, &states), "");
  EXPECT_GT(states, 10'000u) << "this is hardly all";
}

TEST_F(LaneModel, NoInterleavingOnX86IsFaultyWithCreditsInHalves) {
  EXPECT_EQ(explore({.slots = 4, .messages = 5}), "");
}

TEST_F(LaneModel, NoInterleavingOnAWeakMachineIsFaulty) {
  EXPECT_EQ(explore({.weak_machine = true}), "");
}

TEST_F(LaneModel, WithoutTheFenceBeforeRingingAWakeUpIsLost) {
  EXPECT_EQ(explore({.no_ring_fence = true}), "lost wake-up");
}

TEST_F(LaneModel, WithoutTheFenceAfterTheFlagAWakeUpIsLost) {
  EXPECT_EQ(explore({.no_sleep_fence = true}), "lost wake-up");
}

TEST_F(LaneModel, WithoutASecondLookAWakeUpIsLost) {
  EXPECT_EQ(explore({.no_second_look = true}), "lost wake-up");
}

TEST_F(LaneModel, WhenRingsAreNotCountedAWakeUpIsLost) {
  EXPECT_EQ(explore({.uncounted_rings = true}), "lost wake-up");
}

TEST_F(LaneModel, WhenNobodyRingsForRoomAWriterSleepsForEver) {
  EXPECT_EQ(explore({.no_ring_for_room = true}), "lost wake-up");
}

TEST_F(LaneModel, ANumberThatOvertakesItsPayloadIsFound) {
  EXPECT_EQ(explore({.weak_machine = true, .no_release = true}), "not the message it should be");
  // Where stores leave in order the hardware gives what release asks for.
  EXPECT_EQ(explore({.no_release = true}), "");
}

TEST_F(LaneModel, ACreditTooManyOverwritesWhatIsUnread) {
  EXPECT_EQ(explore({.one_slot_too_many = true}), "overwritten before it was read");
}

TEST_F(LaneModel, CreditGivenBeforeReadingIsFound) {
  EXPECT_EQ(explore({.consumes_before_reading = true}), "not the message it should be");
}

}  // namespace
}  // namespace railccl::transport
