// Session: the order of turns in one cell, and what is kept of them.
//
// A cell is one collective at one size. After a short turn that finds out how long a call takes,
// each repeat gives every contender one turn, starting with another one each time, so that noise of
// the machine and what a predecessor left in the caches hit all alike. Peers' settings that are far
// from the best peer after three repeats drop out. A turn's figure is the median of its samples
// (with more ranks than cores the mean, because waits then come in two kinds); a cell's figure is
// the median over its repeats.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "contenders.h"

namespace railccl::compare {

struct Cell {
  Operation operation = Operation::all_reduce;
  uint64_t bytes = 0;
};

struct Rules {
  int repeats = 10;
  double turn_ms = 8;           // aimed at per turn
  bool crowded = false;         // more ranks than cores
  bool limits = true;           // measure the machine's limits in the rounds where they are quoted
  int timeout_s = 60;           // of one turn
  double dropped_beyond = 1.5;  // times the best peer
  uint64_t single_bytes = 64ull << 20;  // from here one sample a turn may do
  double hopeless_single = 20;  // there: times the best peer at first sight that shut a peer out
};

/// What one contender did in one cell.
struct Result {
  std::string label;  // the contender's, as its family and type
  std::string family;
  Type type = Type::float32;
  std::vector<double> us;  // one figure per repeat
  double median_us = 0;
  uint64_t wrong = 0;
  std::string refused;  // not offered, or failed
};

struct CellResult {
  Cell cell;
  int ranks = 0;
  std::vector<Result> results;
  double round_trip_ns = 0;  // median of this cell's rounds; 0: not measured here
  double stream_bytes_per_s = 0;
  double foreign_percent = 0;  // of all cores, used by others meanwhile

  const Result* find(const std::string& label) const;
  /// The fastest of a family, or of all peers for "". Null when none took part.
  const Result* best(const std::string& family) const;
};

CellResult play_cell(const Cell& cell, int ranks, const std::vector<Contender>& contenders,
                     const Rules& rules);

/// False once an interrupt asked to stop; turns are then skipped.
bool going_on();
void stop_on_interrupt();

}  // namespace railccl::compare
