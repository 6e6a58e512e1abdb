// Folding: ranks that do the same at the same time, of which one is simulated for all.
//
// Hosts, and ranks within their hosts, are moved around: turned (h becomes h + k) or flipped (h
// becomes h xor k). Where such a move takes every program to that of the rank it comes to, with
// peers moved alike, and links to links that carry as much, all ranks that come to one place fare
// alike: what one of them sends to the third host after it, its stand-in sends to the third host
// after that. Flows of one kind cross each link of a kind equally often, so rates that are fair
// for the stand-ins' flows, each counted as often as that, are fair for all (links in fabric.h).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::simulator {

class Folding {
 public:
  enum class Move : uint8_t { none, turn, flip };

  /// Every rank stands for itself.
  Folding() = default;
  /// Of `hosts` hosts with `local` ranks each, in the order of their hosts. To flip, what is moved
  /// must be a power of 2 in number.
  Folding(int hosts, int local, Move move_hosts, Move move_local);

  /// How many ranks each stand-in stands for.
  int folds() const { return folds_; }
  int stand_in(int rank) const {
    return folds_ == 1 ? rank
                       : rank_at(move_hosts_ == Move::none ? rank / local_ : 0,
                                 move_local_ == Move::none ? rank % local_ : 0);
  }
  /// `other` as the stand-in of `rank` sees the rank that to it is what `other` is to `rank`.
  int seen(int rank, int other) const {
    return folds_ == 1 ? other
                       : rank_at(moved(move_hosts_, hosts_, rank / local_, other / local_),
                                 moved(move_local_, local_, rank % local_, other % local_));
  }

 private:
  int rank_at(int host, int local) const { return host * local_ + local; }
  static int moved(Move move, int size, int to_first, int place) {
    switch (move) {
      case Move::none:
        return place;
      case Move::turn:
        return place >= to_first ? place - to_first : place - to_first + size;
      case Move::flip:
        return place ^ to_first;
    }
    return place;
  }

  int hosts_ = 1, local_ = 1, folds_ = 1;
  Move move_hosts_ = Move::none, move_local_ = Move::none;
};

using MakeProgram = std::function<Result<plan::Program>(int rank)>;

/// The folding that leaves least to simulate. That programs are alike is looked at for some thirty
/// ranks, not for all; a plan of which that is not enough mostly ends in an error, for messages
/// then come where none is waited for. Fabrics must agree, too: Fabric::fold().
Folding find_folding(const topology::Topology& topology, const MakeProgram& make);

}  // namespace railccl::simulator
