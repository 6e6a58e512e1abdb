// Harness: checks any registered algorithm on any shape of cluster, and says which case failed.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "shapes.h"

namespace railccl::algorithms {

/// Everyone may load and store the scratch of ranks on his host, and nothing else; an
/// algorithm that reaches them all buffers.
inline plan::CheckOptions options_with_memory(const topology::Topology& topology, bool open) {
  plan::CheckOptions options = options_of(topology);
  options.load_store = [&topology, open](int reader, int owner, plan::Buffer buffer) {
    return (open || buffer == plan::Buffer::scratch) &&
           topology.rank(reader).host == topology.rank(owner).host;
  };
  options.all_entered = open;
  return options;
}

inline std::string text_of(const Algorithm& algorithm, const Shape& shape,
                           const plan::Request& request, const plan::Tuning& tuning) {
  return std::string(algorithm.name) + " on " + shape.name + ": " + plan::text_of(request) +
         (request.in_place ? " in place" : "") + ", root " + std::to_string(request.root) + ", " +
         std::to_string(tuning.channels) + " channels, chunk " +
         std::to_string(tuning.chunk_elements);
}

/// The checker's counts of a plan that it has proven; a test failure and empty counts otherwise.
inline plan::CheckReport proven(const Algorithm& algorithm, const Shape& shape,
                                const topology::Topology& topology, const plan::Request& request,
                                const plan::Tuning& tuning) {
  const auto report = plan::check(
      request, topology.size(),
      [&](int rank) { return algorithm.build(request, topology, tuning, rank); },
      options_with_memory(topology, algorithm.reach != Reach::none));
  if (report.is_ok()) return *report;
  ADD_FAILURE() << text_of(algorithm, shape, request, tuning) << ": " << report.status().text();
  return {};
}

inline bool in_place_exists(Collective collective) { return collective != Collective::all_to_all; }

/// What a sweep covers besides the registry.
struct Sweep {
  std::vector<Shape> shapes;
  std::vector<uint64_t> counts;
  std::vector<plan::Tuning> tunings;
  bool every_root = false;  // else one root per case, in turn
  bool both_places = true;  // in and out of place, else one of them, in turn
};

/// Proves every algorithm that supports the case, in and out of place; stops at the first failure
/// of an algorithm. Returns how many plans were proven.
inline int prove_all(const Sweep& sweep) {
  int plans = 0;
  for (const Algorithm* algorithm : all()) {
    for (const Shape& shape : sweep.shapes) {
      const topology::Topology topology = topology_of(shape);
      const int p = topology.size();
      for (const uint64_t count : sweep.counts) {
        for (const plan::Tuning& tuning : sweep.tunings) {
          const int turn = static_cast<int>((count + static_cast<uint64_t>(plans)) % 97);
          const int roots = sweep.every_root && rooted(algorithm->collective) ? p : 1;
          for (int root = 0; root < roots; root++) {
            for (const bool in_place : {false, true}) {
              if (in_place && !in_place_exists(algorithm->collective)) continue;
              if (!sweep.both_places && in_place_exists(algorithm->collective) &&
                  in_place != (turn % 2 == 0))
                continue;
              const plan::Request request =
                  request_of(algorithm->collective, count, in_place,
                             rooted(algorithm->collective) ? (root + turn) % p : 0);
              if (!algorithm->supports(request, topology)) continue;
              proven(*algorithm, shape, topology, request, tuning);
              if (testing::Test::HasFailure()) return plans;
              plans++;
            }
          }
        }
      }
    }
  }
  return plans;
}

}  // namespace railccl::algorithms
