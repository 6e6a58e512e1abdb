// Communicator: one rank's membership in a set of ranks that call collectives together.
//
// Sole owner of the topology, transports, plan cache, control plane and scratch memory. Calls are
// ordered per communicator; every rank must make the same calls in the same order. Any thread may
// call, one at a time per communicator except abort() and async_error(), which are always safe.
//
// Life cycle: join / split -> start()... -> finalize -> destruction; abort() at any point ends all
// waits in bounded time. With Config::blocking false, join and split return at once and the work
// goes on in a thread: state() says in progress until it is over.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "base/settings.h"
#include "base/status.h"
#include "kernels/kernels.h"
#include "plan/plan.h"
#include "runtime/rendezvous.h"
#include "runtime/stream.h"
#include "topology/topology.h"

namespace railccl::runtime {

/// Where a rank's GPU buffers are: what the thread that makes the communicator finds.
struct GpuPlace {
  bool driver = false;      // a CUDA driver is loaded: pointers may be of a GPU
  void* context = nullptr;  // the CUcontext; null: that of the first call with such buffers
  int device = -1;

  /// As the calling thread has it. Loads and starts nothing.
  static GpuPlace here();
  /// The primary context of a device, which is started.
  static Result<GpuPlace> of(int device);
  /// Is it of a GPU (or managed by CUDA), so that the host must not touch it?
  Result<bool> holds(const void* pointer) const;
};

struct Config {
  bool blocking = true;
  int min_channels = 0;  // 0: from the settings
  int max_channels = 0;
  std::string name;  // for logs and errors
  bool split_share = false;
  int contexts = 1;  // of one-sided operations: orders of signals that know nothing of each other
  int signals = 1;   // per context and peer
  GpuPlace gpu;
};

/// One call of the API, checked as far as one rank can, not yet run.
struct Call {
  enum class Kind : uint8_t { collective, send, recv };
  Kind kind = Kind::collective;
  bool staged = false;    // input and output are copies of buffers of a GPU
  plan::Request request;  // for send and recv: datatype and count
  int peer = -1;          // send, recv
  const void* input = nullptr;
  void* output = nullptr;
  kernels::Scale factor;              // pre_mul_sum
  const void* late_factor = nullptr;  // not null: where the factor is when the call runs
};

/// The factor of pre_mul_sum, when the call runs.
inline kernels::Scale factor_of(const Call& call) {
  return call.late_factor == nullptr
             ? call.factor
             : kernels::factor_from(call.late_factor, call.request.datatype);
}

/// What the last finished collective ran with: for benchmarks and logs.
struct Choice {
  std::string algorithm;  // "ring"
  std::string transport;  // "shm", "tcp", "shm+tcp", "self"
  int channels = 0;
  uint64_t chunk_bytes = 0;
  double predicted_s = 0;  // by the cost model
  double bound_s = 0;      // no algorithm can be faster on this topology
};

/// How the ranks of a communicator found each other.
struct Joining {
  double seconds = 0;  // from the call of join() to its end; of a split, of its own part only
  Traffic traffic;     // out of band, until now
};

/// What the programs of all ranks for one request were proven to do together.
struct Proof {
  std::string algorithm;
  uint64_t rounds = 0;    // longest chain of messages that wait for each other
  uint64_t messages = 0;  // signals included
  uint64_t bytes = 0;
  uint64_t bytes_between_hosts = 0;
  uint64_t bytes_across_rails = 0;      // between hosts, from one rail to another
  std::vector<uint64_t> bytes_of_rail;  // between hosts, along each rail
};

class Window;

/// A write into a peer's window, and the signal that tells the peer.
struct Put {
  std::shared_ptr<const Window> window;  // null: the signal alone
  const void* data = nullptr;
  uint64_t bytes = 0;
  uint64_t offset = 0;  // in the window
  int peer = -1;
  int context = 0;
  int signal = 0;
};

/// So many signals of a peer are to be waited for.
struct SignalWait {
  int64_t count = 0;
  int peer = -1;
  int context = 0;
  int signal = 0;
};

/// What a communicator holds for its operations, in bytes of this rank.
struct Memory {
  uint64_t releasable = 0;  // suspend() gives it back
  uint64_t persistent = 0;
  bool suspended = false;
};

/// What became of the collectives that a failure interrupted; the same on all ranks.
enum class CallsFate : uint8_t {
  none,      // there were none, or nobody asked for it
  finished,  // all ranks have their results
  torn,      // some ranks had success from calls that others will never have the result of
  spoiled,   // none of the interrupted calls was repeated: it cannot be, or not among these ranks
};

class Communicator;

/// A communicator made of what a failure has left.
struct Recovery {
  std::shared_ptr<Communicator> communicator;
  std::vector<int> old_ranks;  // index = new rank
  CallsFate fate = CallsFate::none;
  uint64_t from = 0, until = 0;  // torn: the numbers of the collectives [from, until)
  std::string why;               // torn, spoiled
  int kept = 0;                  // of this rank's interrupted calls, those that were complete
  int repeated = 0;
};

class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  static Result<std::shared_ptr<Communicator>> join(const UniqueId& id, int rank, int ranks,
                                                    const Config& config);
  /// With settings from elsewhere than the environment.
  static Result<std::shared_ptr<Communicator>> join(const UniqueId& id, int rank, int ranks,
                                                    const Config& config, Settings settings);
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const Config& config() const = 0;
  /// As the ranks see it now: speeds of rails may change with later calls.
  virtual std::shared_ptr<const topology::Topology> topology() const = 0;

  /// Runs `call`: on a null stream it is finished on return, else it is queued. Between
  /// group_start() and group_end() of this thread it is only recorded. Arguments are checked at
  /// once in any case. With a buffer of a GPU, on a stream of CUDA's or on the null stream: queued
  /// there (gpu_staging.h).
  virtual Status start(const Call& call, Queue queue) = 0;
  /// Checks a collective that will be started again and again, and makes its plan. Concerns this
  /// rank only; waits for the communicator's turn.
  virtual Status prepare(const Call& call) = 0;
  /// Like start(), for a call that prepare() has accepted on this communicator.
  virtual Status start_prepared(const Call& call, Queue queue) = 0;

  /// Collective. color < 0: no new communicator (the result is a null pointer).
  virtual Result<std::shared_ptr<Communicator>> split(int color, int key, const Config& config) = 0;

  /// Called by the ranks that stay, `survivors` (ascending, this one among them): a new
  /// communicator without the others, who need not take part. Of one that has failed, or with
  /// `abort`, which ends what runs on it, also of ranks that were interrupted anywhere; fails on
  /// all when one of the survivors is found gone.
  virtual Result<std::shared_ptr<Communicator>> shrink(const std::vector<int>& survivors,
                                                       const Config& config, bool abort) = 0;
  /// Called by all ranks that live, after a failure or to end what runs: agrees on who is left,
  /// makes a communicator of these, and finishes the interrupted collectives there if asked to
  /// (docs/operations.md says which, and what is guaranteed). Blocks; ranks that do not call in
  /// init_timeout_ms are left out. The buffers of interrupted calls must be untouched.
  virtual Result<Recovery> recover(const Config& config, bool finish_calls) = 0;
  /// From now on a collective ends only when all ranks know that all have its result, and a copy is
  /// kept of inputs of up to `save_bytes_max` that it overwrites: so that recover() can finish it.
  /// All ranks have to do the same, between the same calls.
  virtual Status protect(uint64_t save_bytes_max) = 0;
  /// After a failure: the ranks that the verdict, or a recovery, has found gone. Any thread.
  virtual std::vector<int> lost() const = 0;
  /// Collective: a new communicator of `ranks` ranks, in which these keep their numbers and the
  /// rest join() by the id. Exactly one of the old ranks gives that; the others a null pointer.
  virtual Result<std::shared_ptr<Communicator>> grow(const UniqueId* id, int ranks,
                                                     const Config& config) = 0;

  /// Collective: [buffer, buffer + bytes) of every rank becomes a window, alike in size and flags.
  /// Of a non-blocking communicator the window is of use when nothing is in progress any more.
  virtual Result<std::shared_ptr<Window>> register_window(void* buffer, uint64_t bytes,
                                                          uint64_t flags) = 0;
  /// Checks at once, then writes in the order of `stream` (null: on return). Does not count as a
  /// call in which the peer takes part. Code::unsupported where the peer's window is out of reach.
  virtual Status put(const Put& put, Queue queue) = 0;
  virtual Status wait_signals(const std::vector<SignalWait>& waits, Queue queue) = 0;

  /// Gives memory back that operations need; until resume() calls are refused. Waits for the
  /// operations before it. Concerns this rank only.
  virtual Status suspend() = 0;
  virtual Status resume() = 0;
  /// Waits for the operations before it.
  virtual Result<Memory> memory() = 0;

  /// in progress / ok / the failure. Any thread, never blocks.
  virtual bool in_progress() const = 0;
  virtual Status async_error() const = 0;

  /// Flushes outstanding work; collective in effect, like ncclCommFinalize. Idempotent.
  virtual Status finalize() = 0;
  /// Ends everything in bounded time; any thread, any state. Idempotent.
  virtual void abort(const std::string& why) = 0;

  virtual Choice last_choice() const = 0;
  /// Fails before the end of join().
  virtual Result<Joining> joining() const = 0;
  /// What this rank knows of its rails and paths, as JSON (path_text.h). Any thread, also while an
  /// operation runs and after a failure.
  virtual Result<std::string> paths() const = 0;
  /// Proves the plan that `request` would get now, with buffers that all ranks can reach so far.
  /// Fails where it is wrong. Takes as long as many operations.
  virtual Result<Proof> prove(const plan::Request& request, algorithms::Reach reach) const = 0;
  /// Seconds that `request` would take by the cost model.
  virtual Result<double> predict(const plan::Request& request) const = 0;
};

/// Groups, per thread, nestable. group_end() of the outermost level runs all recorded calls of all
/// communicators together, so that one thread may drive several ranks, and sends and receives make
/// progress concurrently. Fails with the first failure; calls recorded by a failed group did not
/// run or were aborted. With any non-blocking communicator involved it may return before the end.
void group_start();
Status group_end();
int group_depth();
/// A call inside the open group was refused by whoever checked its arguments: the group will not
/// run, and its end fails with the first such reason.
void refuse(const Status& why);
/// Ends a group like group_end(), but drops what it recorded; seconds that the collectives of the
/// outermost group would have taken by the cost model, on the communicator that takes longest.
Result<double> group_simulate_end();

}  // namespace railccl::runtime
