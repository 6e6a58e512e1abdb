// Train: data-parallel training of one network by all ranks of a job.
//
// Every rank holds the whole network and dataset. A global batch is cut into one piece per rank,
// as even as can be, and each rank's gradients are those of its piece's losses divided by the size
// of the whole batch: their sum over ranks is the gradient of the batch's mean loss, however uneven
// (or empty) the pieces. So the number of ranks changes the order of additions only, and the loss
// curves of 1, 2 and 4 ranks agree to the rounding of float32, which training amplifies slowly.
//
// The same makes it survive ranks that die: those that are left cut the batch anew among themselves
// and take the step again, so that every sample has its part in it exactly once, as before. Where
// some had finished the step already, the others get weights and momentum from one of them instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "dataset.h"
#include "launch/launch.h"

namespace railccl::train {

struct Options {
  std::string data = "/usr/share/datasets/fashion-mnist";
  int epochs = 4;
  size_t batch = 256;  // samples per step, over all ranks
  double rate = 0.05;  // at the beginning; falls linearly to zero
  double momentum = 0.9;
  uint64_t seed = 1;
  size_t bucket_bytes = size_t{256} << 10;
  size_t train_samples = 0;  // the first so many only; 0 is all
  bool json = false;
};

/// One rank's part of the job; collective. Returns the process's exit code.
int train(const Options& options, const Dataset& dataset, launch::Job& job);

/// Rank's piece of `count` things: [begin, end). Sizes differ by at most one.
struct Piece {
  size_t begin;
  size_t end;
  size_t size() const { return end - begin; }
};
Piece piece_of(size_t count, int rank, int ranks);

}  // namespace railccl::train
