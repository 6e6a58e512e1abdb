// Strip: a small program in a form that runs in tens of nanoseconds.
//
// A program whose loops all run once and whose messages all fit the lanes is a straight line of
// steps. A Strip has it with everything resolved that does not change from run to run: addresses as
// offsets, headers packed, lanes at hand. Two short cuts save copies where they change no result:
// what was only copied to scratch is used where it came from, and what was received for one
// reduction only is reduced straight out of the lane.
//
// Runs like an Execution (which owns it): begin(), then step() until it is done. Not thread-safe.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "kernels/kernels.h"
#include "plan/plan.h"
#include "runtime/wires.h"

namespace railccl::runtime {

/// When two ranks reduce what they have sent each other, both shall get the same bits, also where
/// operands do not commute bit by bit (NaN): the lower rank's operand comes first. Scaled operands
/// are added, and keep their places.
inline bool message_first(const plan::Step& step, bool scaled, int rank) {
  return step.peer < rank && !(step.pre && scaled);
}

class Strip {
 public:
  enum class State : uint8_t { done, blocked, differs };
  struct Buffers {
    const std::byte* input = nullptr;
    std::byte* output = nullptr;
    std::byte* scratch = nullptr;
  };

  /// The strip of `program`, whose step s goes over wires[s]; nothing when it is none. `scaled`:
  /// for runs whose operator scales the contributions.
  static std::optional<Strip> make(const plan::Program& program, const std::vector<Wire*>& wires,
                                   bool scaled);

  void begin(uint64_t sequence, const Buffers& buffers, const kernels::Scaling& scaling);
  /// Does what it can. differs: the message at wire_here() is not header_here()'s; the run is over.
  State step();

  /// The step that is waited for: its index in the program, its wire, and the header of the message
  /// that belongs to it.
  uint32_t step_here() const { return ops_[next_].step; }
  Wire* wire_here() const { return ops_[next_].wire; }
  Header header_here() const;

 private:
  struct Place {
    uint8_t base = 0;  // index in bases_, or kLane: what the wire shows
    uint32_t offset = 0;
    Wire* wire = nullptr;
  };
  static constexpr uint8_t kLane = 3;
  struct Op {
    plan::Verb verb = plan::Verb::copy;
    bool pre = false;
    bool post = false;
    bool message_first = false;  // recv_reduce
    bool keeps_open = false;     // recv: its reduction finishes the message
    uint32_t step = 0;
    uint32_t count = 0;  // elements
    uint32_t bytes = 0;
    uint32_t first_source = 0;
    uint32_t source_count = 0;
    Place dst;
    Place src;
    Wire* wire = nullptr;
    HeaderBytes header{};
  };

  Strip() = default;
  void forward_copies();
  void reduce_from_lanes();
  bool reads(const Op& op, uint8_t base, uint32_t offset, uint32_t bytes) const;
  std::byte* at(const Place& place) const {
    if (place.base == kLane) return const_cast<std::byte*>(place.wire->lane_payload());
    return bases_[place.base] + place.offset;
  }
  void combine(const Op& op);

  std::vector<Op> ops_;
  std::vector<Place> sources_;
  std::vector<const void*> inputs_;  // of one reduction
  plan::Request request_;
  size_t element_ = 1;
  std::array<std::byte*, 3> bases_{};
  kernels::Scaling scaling_;
  uint32_t sequence_ = 0;
  size_t next_ = 0;
};

}  // namespace railccl::runtime
