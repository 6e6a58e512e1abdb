// PointToPoint: the sends and receives that one group makes on one communicator.
//
// All of them progress concurrently; those between the same pair in the same direction keep their
// order. Each message says its count and type, so that a receive which does not fit the send that
// meets it is an error that names both. Progress as with Execution: step() does what it can.
// Not thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/execute.h"
#include "runtime/wires.h"

namespace railccl::runtime {

class PointToPoint {
 public:
  explicit PointToPoint(Wires& wires) : wires_(&wires) {}

  Status add_send(int peer, const void* data, uint64_t count, Datatype datatype);
  Status add_recv(int peer, void* data, uint64_t count, Datatype datatype);
  bool empty() const { return lanes_.empty(); }

  Outcome step();
  /// Called now and then while step() brings nothing: fails when a peer's message shows that it
  /// makes another call.
  Status look_aside();
  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  std::string waiting_for() const;

 private:
  struct Transfer {
    std::byte* data = nullptr;
    Header header;  // its sequence number is given when the transfer begins
  };
  /// All transfers with one peer in one direction.
  struct Lane {
    Wire* wire = nullptr;
    bool sends = false;
    size_t next = 0;        // transfers[0, next) are posted or received
    uint64_t received = 0;  // bytes of transfers[next]
    std::vector<Transfer> transfers;
  };
  static constexpr size_t kBytesPerVisit = 256 << 10;

  Status add(int peer, std::byte* data, uint64_t count, Datatype datatype, bool sends);
  Result<bool> step_send(Lane& lane);
  Result<bool> step_recv(Lane& lane);
  Status differs(const Wire& wire, const Header& mine, const Header& theirs);

  Wires* wires_;
  std::vector<Lane> lanes_;
  std::optional<Mismatch> mismatch_;
};

}  // namespace railccl::runtime
