// View: what one host's processes tell of their communicators, read and put together.
//
// parse_process() takes any bytes: what it returns has passed all checks that the rest relies on.
// Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace railccl::status {

struct Operation {
  uint64_t number = 0;
  std::string kind;
  std::optional<uint64_t> operation;  // none: sends and receives
  std::string call;
  uint64_t bytes = 0;
  std::string state;
  int64_t start_ns = 0;  // since 1970
  bool stamped = true;   // else it began between its neighbours
  std::optional<int64_t> end_ns;
  std::string algorithm, transport;
  int channels = 0;
  std::string where;
  int64_t for_ms = 0;  // in flight
};

struct News {
  int rank = 0;
  std::optional<uint64_t> left_after;
  std::optional<uint64_t> waits_in;
  std::string call;
  int64_t since_ms = 0;
};

struct Suspect {
  int rank = 0;
  std::string what;
};

struct Rail {
  int rail = 0;
  std::string nic;
  double bytes_per_s = 0;
  bool in_use = false;
};

struct Path {
  int peer = 0;
  int channel = 0;
  std::string peer_host, nic, far, state;
  bool home = false;
  double bytes_per_s = 0;
  uint64_t bytes_sent = 0;
};

struct Event {
  int64_t unix_ms = 0;
  std::string text;
};

struct Place {
  std::string host;
  int process = 0;
};

/// A communicator, as one of its ranks sees it.
struct Communicator {
  std::string id, name, host, state;
  int rank = 0, ranks = 0;
  int64_t age_ms = 0;
  uint64_t entered = 0, finished = 0, queued = 0, collectives = 0, recorded = 0, bytes = 0;
  double operations_per_s = 0, bytes_per_s = 0;
  std::vector<Operation> in_flight, operations;
  std::string verdict;  // empty: none
  std::vector<Suspect> suspects;
  std::vector<News> news;
  std::vector<Place> members;  // by rank; may be fewer than there are
  std::vector<Rail> rails;
  std::vector<Path> paths;
  std::vector<Event> events;
};

struct Process {
  std::string host, version;
  int process = 0;
  int64_t unix_ns = 0;
  std::vector<Communicator> communicators;
  uint64_t left_out = 0;
};

Result<Process> parse_process(std::string_view text);

/// A communicator, as all of its ranks see it that are here.
struct Together {
  std::string id, name;
  int ranks = 0;
  std::map<int, std::pair<const Process*, const Communicator*>> here;  // by rank
  std::vector<int> stragglers;        // have not entered `operation`
  std::vector<int> unheard;           // of whom nothing is known here
  std::optional<uint64_t> operation;  // the latest in which a rank waits
  std::string call;
};

/// By communicator; `processes` has to outlive them. A communicator that is still being made is one
/// for each rank.
std::vector<Together> put_together(const std::vector<Process>& processes);

}  // namespace railccl::status
