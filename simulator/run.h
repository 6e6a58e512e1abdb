// Run: one simulation, from the first event to the last. Private to this room; see simulation.h for
// what is modelled.
//
// Every channel of every rank is a thread with a position in its program. A thread performs steps
// until one has to wait: for a message, for room in a queue, for a send to have left, for its own
// work. Events at one instant are taken together, then the threads that they woke run, then the
// rates of flows are brought up to date.
#pragma once

#include <functional>
#include <queue>
#include <string>
#include <vector>

#include "base/random.h"
#include "simulator/compiled.h"
#include "simulator/fabric.h"
#include "simulator/sharing.h"
#include "simulator/simulation.h"

namespace railccl::simulator {

class Run {
 public:
  /// All must outlive the run, which is made once. `programs` are folded as `folding` says.
  Run(const plan::Request& request, const topology::Topology& topology, const Compiled& programs,
      const Folding& folding, const Options& options);
  Result<Report> run();

 private:
  static constexpr uint32_t kNone = Compiled::kNone;

  enum class State : uint8_t { ready, message, window, source, overhead, working, done };
  struct Thread {
    uint32_t loop = 0;
    uint32_t step = 0;
    uint64_t iteration = 0;
    State state = State::ready;
    bool paid = false;  // the overhead of the current step
  };
  struct Message {
    uint32_t next = kNone;
    bool signal = false;
    uint64_t count = 0;  // elements
    int owner = 0;       // of its source
    uint64_t start = 0;  // of its source, as an address in the owner's buffers
  };
  struct Queue {
    uint32_t first = kNone;  // not taken yet
    uint32_t last = kNone;
    uint32_t leaving = kNone;  // the message whose bytes go now, or next
    uint32_t held = 0;         // posted, not taken
    uint32_t arrived = 0;      // of these
    bool flowing = false;
    double last_arrival = 0;
    uint64_t messages = 0;
    uint64_t bytes = 0;
  };
  enum class Kind : uint8_t { flow, arrival, thread, fault };
  struct Event {
    double time = 0;
    uint64_t number = 0;  // of two at one time the one made first comes first
    uint32_t what = 0;    // flow, queue, thread, fault
    uint32_t version = 0;
    Kind kind = Kind::flow;
    bool operator>(const Event& other) const {
      return time != other.time ? time > other.time : number > other.number;
    }
  };
  struct Flow {
    double left = 0;  // bytes, at `since`
    double rate = 0;
    double since = 0;
    uint32_t version = 0;
    bool message = false;
    uint32_t owner = 0;  // queue of a message, thread of local work
  };
  /// Elements that sends of a rank have yet to read, each range once.
  struct InFlight {
    int owner = 0;
    uint64_t start = 0, count = 0;
    int sends = 0;
  };
  /// What a slice is in one iteration.
  struct Range {
    int owner = 0;
    uint64_t start = 0;
    uint64_t count = 0;
  };

  /// Where a rank's buffers begin in its elements, which in place overlap as NCCL defines it.
  struct Layout {
    uint64_t input = 0, output = 0, scratch = 0;
  };

  void prepare();
  Layout layout_of(int rank) const;
  void take_events();
  void take(const Event& event);
  Status run_threads();
  Status run_thread(uint32_t t);
  Result<bool> perform(uint32_t t, const Compiled::Op& op);
  Result<bool> perform_recv(uint32_t t, const Compiled::Op& op);
  Result<bool> perform_wait(uint32_t t, const Compiled::Op& op);
  bool perform_send(uint32_t t, const Compiled::Op& op);
  bool perform_signal(uint32_t t, const Compiled::Op& op);
  bool perform_local(uint32_t t, const Compiled::Op& op);
  bool pay(uint32_t t);
  bool wait_for(uint32_t t, State state);
  void next_step(uint32_t t);

  void post(uint32_t queue, const Message& message);
  void send_next(uint32_t queue);
  void left(uint32_t queue);
  void taken(uint32_t queue);
  void wake(uint32_t t, State waiting);
  void start_flow(double bytes, bool message, uint32_t owner);
  void settle();
  void schedule(double time, Kind kind, uint32_t what, uint32_t version = 0);

  const Compiled::Op& op_of(uint32_t t) const;
  Range range_of(uint32_t t, uint32_t slice) const;
  InFlight* reading(int rank, const Range& written);
  double jittered(double seconds);
  Status stuck() const;
  std::string text_of(uint32_t t) const;
  Report report() const;

  const plan::Request& request_;
  const topology::Topology& topology_;
  const Compiled& programs_;
  const Folding& folding_;
  const Options& options_;
  const double element_;  // bytes
  Fabric fabric_;
  Sharing sharing_;
  Random random_;
  std::vector<double> slowness_;  // by rank
  std::vector<Layout> layouts_;   // by rank
  std::vector<Thread> threads_;
  std::vector<Queue> queues_;
  std::vector<Message> messages_;
  std::vector<uint32_t> free_messages_;
  std::vector<Flow> flows_;
  std::vector<std::vector<InFlight>> in_flight_;  // by rank
  std::vector<double> carried_;                   // by link
  std::vector<uint32_t> ready_;
  size_t next_ready_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Use> uses_;
  double now_ = 0;
  uint64_t event_count_ = 0;
  uint64_t step_count_ = 0;
  size_t threads_done_ = 0;
};

}  // namespace railccl::simulator
