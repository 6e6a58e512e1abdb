// Member: the Communicator that ranks on host memory have. Private to this room.
//
// Threads. The user's threads call start() and the rest; one thread at a time, the one whose ticket
// has its turn (turnstile.h), runs operations and touches wires, plans and the sequence number.
// abort(), async_error() and the control thread may come in at any time: they touch only atomics
// and what life_ and failure_mutex_ guard.
#pragma once

#include <mutex>

#include "base/clock.h"
#include "runtime/caretaker.h"
#include "runtime/communicator.h"
#include "runtime/control.h"
#include "runtime/dump.h"
#include "runtime/gpu_staging.h"
#include "runtime/observed.h"
#include "runtime/one_sided.h"
#include "runtime/open_buffers.h"
#include "runtime/patience.h"
#include "runtime/plan_cache.h"
#include "runtime/profiler.h"
#include "runtime/recorder.h"
#include "runtime/replay.h"
#include "runtime/roll_call.h"
#include "runtime/turnstile.h"
#include "runtime/weigh.h"
#include "runtime/wires.h"

namespace railccl::runtime {

/// What an established communicator begins with; made by join.cc.
struct Parts {
  topology::Topology topology;
  std::unique_ptr<Wires> wires;
  std::shared_ptr<Control> control;
  std::unique_ptr<Chooser> chooser;
  uint64_t job = 0;
  UniqueFd door;                    // where this rank's roll call (roll_call.h) listens
  std::vector<std::string> doors;   // and everyone's
  std::vector<std::string> who;     // "rank 3 (host, pid 12)"
  std::vector<uint64_t> processes;  // their numbers, by rank
};

class Member final : public Communicator {
 public:
  Member(int rank, int ranks, Config config, Settings settings);
  ~Member() override;

  int rank() const override { return rank_.load(std::memory_order_relaxed); }
  int size() const override { return ranks_.load(std::memory_order_relaxed); }
  const Config& config() const override { return config_; }
  std::shared_ptr<const topology::Topology> topology() const override {
    std::lock_guard lock(life_);
    return topology_;
  }
  Status start(const Call& call, Queue queue) override;
  Status prepare(const Call& call) override;
  Status start_prepared(const Call& call, Queue queue) override;
  Result<std::shared_ptr<Communicator>> split(int color, int key, const Config& config) override;
  Result<std::shared_ptr<Communicator>> shrink(const std::vector<int>& survivors,
                                               const Config& config, bool abort) override;
  Result<Recovery> recover(const Config& config, bool finish_calls) override;
  Status protect(uint64_t save_bytes_max) override;
  std::vector<int> lost() const override;
  Result<std::shared_ptr<Communicator>> grow(const UniqueId* id, int ranks,
                                             const Config& config) override;
  Result<std::shared_ptr<Window>> register_window(void* buffer, uint64_t bytes,
                                                  uint64_t flags) override;
  Status put(const Put& put, Queue queue) override;
  Status wait_signals(const std::vector<SignalWait>& waits, Queue queue) override;
  Status suspend() override;
  Status resume() override;
  Result<Memory> memory() override;
  bool in_progress() const override;
  Status async_error() const override;
  Status finalize() override;
  void abort(const std::string& why) override;
  Choice last_choice() const override;
  Result<Joining> joining() const override;
  Result<std::string> paths() const override;
  /// Of this rank and its communicator, as they are just now. Any thread.
  Picture picture(size_t operations) const;
  Result<Proof> prove(const plan::Request& request, Reach reach) const override;
  Result<double> predict(const plan::Request& request) const override;

  /// join()'s work. Blocks until all ranks are there, or fails and leaves a failed communicator.
  Status enter(const UniqueId& id);

  // For batches (batch.h), by the thread whose turn it is.
  Turnstile& turns() { return turns_; }
  Wires& wires() { return *parts_.wires; }
  Control& control() { return *parts_.control; }
  const Settings& settings() const { return settings_; }
  uint64_t next_sequence() {
    const uint64_t sequence = sequence_.load(std::memory_order_relaxed);
    sequence_.store(sequence + 1, std::memory_order_relaxed);  // one thread at a time
    return sequence;
  }
  /// For buffers that the ranks have found they can reach so far.
  Result<ReadyPlan*> plan_for(const plan::Request& request, Reach reach);
  /// For the recorder, as far as the request says it.
  Subject subject_of(const plan::Request& request) const;
  /// Is it worth to find that out? The same on all ranks.
  bool may_reach(const plan::Request& request) const {
    if (best_reach(request.collective, Reach::open) == Reach::none || request.count == 0)
      return false;
    const bool blocks = request.collective != Collective::all_reduce &&
                        request.collective != Collective::broadcast &&
                        request.collective != Collective::reduce;
    return plan::bytes_of(request) * (blocks ? static_cast<uint64_t>(size()) : 1) >=
           settings_.open_bytes;
  }
  /// The most that algorithms for that collective can make of what the buffers allow.
  Reach best_reach(Collective collective, Reach allowed) const {
    const auto has = [&](Reach reach) {
      return reaching_[static_cast<size_t>(reach)][static_cast<size_t>(collective)];
    };
    if (allowed == Reach::open && has(Reach::open)) return Reach::open;
    return allowed != Reach::none && has(Reach::fetched) ? Reach::fetched : Reach::none;
  }
  bool may_fetch(Collective collective) const {
    return best_reach(collective, Reach::fetched) == Reach::fetched;
  }
  OpenBuffers& open_buffers() { return *open_buffers_; }
  /// The plan of a weighing (weigh.h) that all ranks make before this collective, or null. Counts
  /// calls: ask once for each collective, in their order, whether it was called alone or in a
  /// group, since another rank may have called it otherwise.
  Result<ReadyPlan*> weighing_before(const plan::Request& request) {
    if (!weigh_->may_matter(request)) return nullptr;
    return weighing_due(request);
  }
  Weigh& weigh() { return *weigh_; }
  /// A weighing is over: plans anew where it brought news. No plan may be running.
  void weighed();
  Patience& patience() { return patience_; }
  Recorder& recorder() { return recorder_; }

  /// Null: there is none.
  Profiler* profiler() { return profiler_.get(); }

  // For recovery (recover.cc), by the thread whose turn it is.
  /// A caller will have success from the collective that is over.
  void count_success() {
    collectives_.store(collectives_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    complete_.store(false, std::memory_order_relaxed);
  }
  bool is_protected() const { return protected_; }
  /// Before a collective of a protected communicator.
  void save_input(const Call& call);
  /// The collective is over here; what is started is the commit, whose end is its success.
  Result<ReadyPlan*> begin_commit(uint64_t sequence);
  /// A collective failed with the communicator. `begun`: it may have written.
  void note_interrupted(const Call& call, uint64_t order, bool begun);
  /// The same of a call that was refused: comes after all that have tickets. In a group it is noted
  /// at the group's end.
  void note_refused(const Call& call, Queue queue);

  /// Has this rank failed or been aborted? One load.
  bool failed_here() const { return failed_.load(std::memory_order_acquire); }  // partner: fail()
  /// Has anything made this communicator useless? Two loads while all is well.
  bool troubled() const {
    // Acquire, partner: the release in fail().
    return failed_.load(std::memory_order_acquire) || parts_.control->failed();
  }
  /// Why; the first reason that came up.
  Status trouble();
  /// Makes the communicator useless, here and by and by everywhere.
  void fail(const Status& why);
  /// The operation that fails just now, for the verdict: as all ranks describe it (empty: only this
  /// rank and its peer know of it), where this rank stands in it, and what the failure says
  /// besides.
  void describe(uint64_t sequence, const std::string& call, const std::string& where,
                const std::string& brief);
  /// What to say of a failure: where all ranks look for a verdict together, that, as soon as it is
  /// known; bounded.
  Status settle(const Status& why);

  /// Work that start() or group_end() put off: counted until done, for in_progress().
  Stream& background();
  void pending(int change) { pending_.fetch_add(change, std::memory_order_acq_rel); }
  bool blocking() const { return config_.blocking; }
  /// For calls with buffers of a GPU: made with the first. By the thread that makes the call.
  Result<Staging*> staging(void* cuda_stream);
  std::string title() const;

 private:
  enum class Phase : uint8_t { joining, ready, suspended, finalized, failed };
  static const char* state_text(Phase phase);

  Status enter(std::unique_ptr<Meeting> meeting, const topology::Topology* known);
  Status open_roll_call();
  void open_profiler();
  std::optional<std::string> account(bool last);
  void hear(const RollResult& roll);
  void replace_failure(const Verdict& verdict);
  void dump();
  void give_in(const Status& why);
  Status check(const Call& call) const;
  Status begin(const Call& call, Queue queue);
  Status begin_on_gpu(const Call& call, Queue queue, bool* taken);
  void prepare_gpu();
  Status run_small(const Call& call, uint64_t ticket);
  Status usable() const;
  /// Is usable() ok? The short answer, for most calls.
  bool fine() const {
    // Acquire, partner: the release in enter().
    return phase_.load(std::memory_order_acquire) == Phase::ready && !troubled();
  }
  Status finalize_now(uint64_t ticket);
  Status found(const Config& config, const std::shared_ptr<Member>& child,
               const std::function<Status()>& work);
  Status in_order_of(Queue queue, const std::function<Status()>& work);
  Status split_now(int color, int key, Member& child);
  Result<std::shared_ptr<Communicator>> shrink_failed(const std::vector<int>& survivors,
                                                      const Config& config);
  struct Regrouped;
  Result<Regrouped> regroup(const std::string& wish, const std::vector<int>* only,
                            const Config& config, std::shared_ptr<Member>* child);
  Status found_among(const std::vector<int>& old_ranks, const std::vector<std::string>& addresses,
                     UniqueFd listener, uint64_t round, Member& child);
  std::string own_tally();
  Status finish(const std::map<int, Tally>& tallies, Recovery* recovery);
  void note_lost(int rank, Gone how);
  Result<ReadyPlan*> weighing_due(const plan::Request& request);

  std::atomic<int> rank_;
  std::atomic<int> ranks_;
  const Config config_;
  const Settings settings_;

  std::atomic<Phase> phase_{Phase::joining};
  std::atomic<bool> cancel_{false};  // watched by the rendezvous
  const int64_t started_ns_ = now_ns();
  double joining_s_ = 0;  // set before phase_ becomes ready
  mutable std::mutex failure_mutex_;
  std::atomic<bool> failed_{false};
  Status failure_;
  // The operation in which this rank was when it failed; see describe().
  struct Standing {
    uint64_t sequence = 0;
    std::string call;
    std::string where;
    std::string brief;
  };
  std::optional<Standing> standing_;
  std::vector<Suspect> suspects_;  // by the verdict
  std::shared_ptr<Dump> dump_;     // null: none has been begun

  // Guards the pointers in parts_ while they are set, topology_ and background_. The thread whose
  // turn it is may read topology_, which nobody else sets, without it.
  mutable std::mutex life_;
  Parts parts_;
  std::shared_ptr<const topology::Topology> topology_;  // parts_' at first
  struct Alarm;  // how the control thread wakes sleepers, safely also during destruction
  std::shared_ptr<Alarm> alarm_;
  std::shared_ptr<Observed> observed_;
  std::shared_ptr<Caretaker> caretaker_;  // null: there is nothing to look after
  std::shared_ptr<RollCall> roll_call_;   // null: there is nobody else
  std::unique_ptr<Stream> background_;
  std::atomic<int> pending_{0};

  // Recovery. An interrupted call, and the input that it would have overwritten.
  struct Kept {
    uint64_t order = 0;
    Call call;
    bool intact = false;
    std::vector<std::byte> saved;
  };
  std::atomic<uint64_t> collectives_{0};  // that callers have had success from
  std::atomic<bool> complete_{false};     // the next one is complete here
  bool protected_ = false;
  bool watched_ = false;  // protected, or profiled: small calls take the long way
  uint64_t save_bytes_max_ = 0;
  std::vector<std::byte> saved_;  // the input of the collective that runs
  bool has_saved_ = false;
  uint8_t commit_in_ = 1, commit_out_ = 0;
  std::mutex interrupted_mutex_;
  std::vector<Kept> interrupted_;
  bool forgotten_ = false;   // some calls are not in interrupted_
  uint64_t next_round_ = 1;  // of the roll call
  mutable std::mutex lost_mutex_;
  std::set<int> lost_;
  std::set<int> founders_;  // of the communicator that is being made
  std::weak_ptr<Member> founding_;
  uint64_t founding_round_ = 0;  // in which they tell whether it came about
  static constexpr size_t kInterruptedMax = 1024;

  Turnstile turns_;
  std::atomic<uint64_t> sequence_{0};
  Recorder recorder_;
  uint64_t splits_ = 0;
  std::array<PlanCache, algorithms::kReachCount> plans_{PlanCache(kPlansMax), PlanCache(kPlansMax),
                                                        PlanCache(kPlansMax)};  // by reach
  std::unique_ptr<Weigh> weigh_;
  std::unique_ptr<OpenBuffers> open_buffers_;
  std::unique_ptr<OneSided> one_sided_;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Profiler> profiler_;
  // By reach and collective: are there algorithms with just that?
  std::array<std::array<bool, kCollectiveCount>, algorithms::kReachCount> reaching_{};
  Patience patience_{false};
  static constexpr size_t kPlansMax = 128;
  static constexpr int64_t kVerdictMsMax = 5000;
  static constexpr char kCalled[] = "another rank has found a failure";
  static constexpr int kRingAfter = 8;  // fruitless looks
};

/// Takes a ready meeting to a working communicator. `known`: the topology, when the ranks have one
/// already (split); else facts are gathered. All ranks fail together, with the same reason, when
/// their settings disagree or one of them cannot take part.
Result<Parts> establish(std::unique_ptr<Meeting> meeting, const Config& config,
                        const Settings& settings, const topology::Topology* known,
                        std::function<void()> on_failure);

}  // namespace railccl::runtime
