// Picture: what a rank can tell of its communicator at one moment, to people and their tools:
// while it runs, while it hangs, and when it has failed. Plain values; made by Member::picture().
// Private to this room.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/control.h"
#include "runtime/recorder.h"
#include "runtime/verdict.h"
#include "topology/topology.h"
#include "transport/link.h"

namespace railccl::runtime {

struct Picture {
  struct Operation {
    Record record;
    std::string transport;  // as Wires::media_text()
    std::string where;      // it stands, if it waits long enough to have said so
  };

  uint64_t job = 0;  // secret: only a part of its hash is ever told
  std::string name;
  std::string host;
  int rank = 0;
  int ranks = 0;
  const char* state = "";  // joining, works, suspended, finalized, failed
  int64_t taken_ns = 0;    // as now_ns()
  int64_t made_ns = 0;
  uint64_t entered = 0;               // operations that have a number
  uint64_t finished = 0;              // of these
  uint64_t queued = 0;                // calls whose turn has not come
  uint64_t collectives = 0;           // that callers had success from
  uint64_t transfers = 0;             // groups of sends and receives
  uint64_t bytes = 0;                 // of all operations
  std::vector<Operation> operations;  // the last ones, oldest first; transfers behind the others

  Status failure;                   // ok: none
  std::vector<Suspect> suspects;    // by the ranks' verdict
  std::vector<RankNews> news;       // of other ranks
  std::vector<uint64_t> processes;  // their numbers, by rank; empty before they have met

  std::shared_ptr<const topology::Topology> topology;  // null: not known yet
  transport::PathReport paths;
};

}  // namespace railccl::runtime
