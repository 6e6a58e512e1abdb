// Staged: stages of a hierarchy on channels of their own, so that they overlap chunk by chunk.
//
//   channel 0   reduce-scatter of chunk 0 | of chunk 1    | of chunk 2 ...
//   channel 1                             | all-reduce of 0 | of 1 ...
//   channel 2                                             | all-gather of 0 ...
//
// A stage starts a chunk when the stage before has finished it (signals between channels of one
// rank). Stages are written with flat patterns for single chunks; what differs between two chunks
// are offsets only, so all full chunks become one loop, and a program's length does not depend on
// the amount of data.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "plan/builder.h"

namespace railccl::algorithms {

/// Writes one stage's steps for elements [from, from + n) on `channel` of `b`, and on no other. Its
/// steps must depend on n and on the offset `from` only, and without loops of several iterations
/// whose number depends on `from`. Scratch that it takes from `b` is the same for every chunk.
using StageBody = std::function<void(plan::Builder& b, int channel, uint64_t from, uint64_t n)>;

/// A stage whose work on each chunk several channels share, side by side: where messages of other
/// stages pass through the same port, a stage gets as much of it as it has messages under way.
struct WideStage {
  std::vector<int> channels;
  /// As StageBody; writes part `part` of channels.size() of the chunk's work.
  std::function<void(plan::Builder& b, int channel, size_t part, uint64_t from, uint64_t n)> body;
};

/// Writes the stages, each on its channels, for `count` elements in chunks of `chunk`. Ranks whose
/// stages come in different orders give equal channels to those that talk to each other.
void write_stages(plan::Builder& b, uint64_t count, uint64_t chunk,
                  const std::vector<WideStage>& stages);

/// The same with one channel for each stage.
void write_stages(plan::Builder& b, const std::vector<int>& channels, uint64_t count,
                  uint64_t chunk, const std::vector<StageBody>& stages);

/// The same on channels first_channel, first_channel + 1, ...
void write_stages(plan::Builder& b, int first_channel, uint64_t count, uint64_t chunk,
                  const std::vector<StageBody>& stages);

}  // namespace railccl::algorithms
