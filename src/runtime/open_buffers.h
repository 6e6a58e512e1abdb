// OpenBuffers: how the ranks of a host find out, call by call, how far all of them can reach into
// all input and output buffers, and where these are.
//
// A buffer is open when every rank's process can load and store it: it belongs to a thread of the
// same process, or lies wholly in one memory file (transport/memory_file.h) that its owner has
// offered. Whether that is so depends on pointers, which each rank knows for itself only. So ranks
// exchange a small record each: all see the same records and decide alike, open or not. The
// exchange is also the meeting in which everyone learns that all have entered the call. Its
// messages carry the header of the call, hence ranks that make different calls find out here.
//
// Who never has open buffers should not pay for the question: after some closed calls of a kind in
// a row the ranks ask ever more rarely, unless the call is large. They have all seen the same calls
// and the same outcomes, so they need not talk about that.
//
// Where not all are open, the system may copy out of each of them for everyone
// (transport/process_memory.h): buffers can be fetched from. Whether it does is tried once, between
// all processes, after the first call that is not open; all ranks then know of all others.
//
// A file that was not used before gets a second exchange: could everyone map it? Where one could
// not, its owner never names it again.
//
//   if (buffers.worth_asking(request)) ...
//   RAILCCL_CHECK(buffers.begin({.request = request, .sequence = 7, .input = in, .output = out}));
//   ... buffers.step() until it is done ...
//   plan for buffers.reach(), with buffers.peers()
//
// The steady state neither allocates nor locks for buffers in memory files and threads of one
// process. Driven by the thread whose turn it is.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "algorithms/algorithm.h"
#include "runtime/execute.h"
#include "runtime/wires.h"
#include "transport/memory_file.h"
#include "transport/process_memory.h"

namespace railccl::runtime {

class OpenBuffers {
 public:
  struct Question {
    plan::Request request;
    uint64_t sequence = 0;
    const void* input = nullptr;
    void* output = nullptr;
    kernels::Scale pre;      // of this rank's contribution
    bool may_fetch = false;  // is there a way to make use of that?
  };

  /// `crowded`: there are more ranks than cores, so that every exchange waits for turns.
  explicit OpenBuffers(Wires& wires, bool crowded = false);

  /// Is it time to ask for a call of this kind? To be asked once for every call that may be open;
  /// gives the same answer on all ranks.
  bool worth_asking(const plan::Request& request);
  /// Starts the exchange for a call; the previous one must be done.
  Status begin(const Question& question);
  /// Does what it can, without blocking.
  Outcome step();
  /// Called now and then while step() brings nothing: fails when a peer's message shows that it
  /// makes another call.
  Status look_aside();

  const plan::Request& request() const { return question_.request; }
  /// After the exchange: what all ranks can do with all buffers. The same on all ranks.
  algorithms::Reach reach() const { return reach_; }
  /// By rank, unless the reach is none. Valid until the next begin(); until then peers may release
  /// open memory without harm to this process.
  const Execution::PeerBuffers* peers() const { return peers_.data(); }
  /// Set when step() or look_aside() failed because the ranks' calls differ.
  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  /// What the exchange waits for, for people.
  std::string waiting_for() const;

 private:
  enum class Phase : uint8_t { offering, describing, confirming, introducing, trying, done };

  /// A buffer of this rank.
  struct Place {
    uint64_t file = 0;  // 0: none that peers can map
    uint64_t offset = 0;
    uintptr_t address = 0;
    uint64_t flags = 0;
  };
  static constexpr uint64_t kHeld = 1;   // the call gives the rank such a buffer
  static constexpr uint64_t kFresh = 2;  // not everyone is known to have mapped the file

  /// What goes over the wire: both places, where the input is for who fetches it, and what the
  /// operator multiplies the contribution with where ranks may differ in that.
  struct Message {
    struct Packed {
      uint64_t file;
      uint64_t where;  // address for ranks of this process, else offset; flags in the highest byte
    };
    Packed input;
    Packed output;
    uint64_t input_address;
    uint64_t scale_kind;
    double scale_value;
    int64_t scale_integer;
  };
  static constexpr uint64_t kPlacesBytes = 32, kAddressBytes = 40;
  static_assert(offsetof(Message, scale_kind) == kAddressBytes);

  /// One message each way per peer, in each phase.
  struct Talk {
    Wire* wire = nullptr;
    bool same_process = false;
    Message out{};
    Message in{};
    transport::Landmark landmark;  // of the peer's process
    uint64_t answer = 0;           // the peer's, in confirming and trying
    bool posted = false;
    uint64_t got = 0;  // bytes of `in`
    bool heard = false;
    std::shared_ptr<const Mapping> input_memory, output_memory;  // kept while they may be used
    uint64_t input_file = 0, output_file = 0;
  };

  /// A memory file of this process, as this communicator knows it.
  struct Known {
    std::weak_ptr<transport::MemoryFile> file;
    uint64_t id = 0;
    uintptr_t end = 0;
    bool confirmed = false;  // every rank has mapped it
    bool refused = false;    // somebody cannot
  };

  // Beside a call of that size the question costs nothing that could be measured.
  static constexpr uint64_t kAlwaysBytes = 64 << 10, kAlwaysCrowdedBytes = 1 << 20;

  /// How a kind of call has fared.
  struct Experience {
    uint32_t closed = 0;  // times in a row
    uint32_t skip = 0;    // calls to come that are not worth asking
  };
  struct Hash {
    size_t operator()(const plan::Request& request) const { return plan::hash_of(request); }
  };
  static constexpr uint32_t kClosedFew = 4;  // that change nothing
  static constexpr uint32_t kSkipMax = 64;   // calls between two questions
  static constexpr size_t kKindsMax = 1024;  // then all is forgotten, on all ranks alike

  Experience& experience(plan::Request request);
  void learn();
  Place describe(const void* buffer, uint64_t bytes);
  Known* known_file(uintptr_t start, uint64_t bytes, uint64_t* offset = nullptr);
  Result<bool> offer(Place* place);
  void start_talk(Phase phase);
  Result<bool> talk();
  Result<bool> hear(Talk& talk);
  Status decide();
  Status decide_by_places();
  Status decide_otherwise();
  bool all_agree() const;
  bool may_fetch() const {
    return question_.may_fetch && !one_process_ && fetching_ != Fetching::impossible;
  }
  const std::byte* outgoing(const Talk& talk) const;
  std::byte* incoming(Talk& talk) const;
  Result<bool> bind();
  void bind_own();
  void bind_to_fetch();
  Result<bool> bind(int rank, Talk& talk);
  Result<std::byte*> reach(int rank, const Message::Packed& packed, uint64_t bytes,
                           std::shared_ptr<const Mapping>* memory, uint64_t* file);
  void settle(bool mapped);
  Header header() const;

  Wires& wires_;
  uint64_t always_bytes_;
  bool one_process_ = true;
  std::vector<Talk> talks_;  // by rank; the own one is not used
  std::vector<Execution::PeerBuffers> peers_;
  std::map<uintptr_t, Known> files_;  // by start
  uint64_t generation_ = 0;           // of the registry when files_ was last right
  std::unordered_map<plan::Request, Experience, Hash> experience_;

  Question question_;
  Place input_, output_;
  Phase phase_ = Phase::done;
  uint64_t message_bytes_ = 0;
  uint64_t answer_ = 0;  // this rank's, in confirming and trying: 1 is yes
  algorithms::Reach reach_ = algorithms::Reach::none;
  enum class Fetching : uint8_t { untried, works, impossible };
  Fetching fetching_ = Fetching::untried;
  uint64_t word_ = 0;  // that is to be found at landmark_
  transport::Landmark landmark_;
  std::optional<Mismatch> mismatch_;
};

}  // namespace railccl::runtime
