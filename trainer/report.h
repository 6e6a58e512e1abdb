// Report: what the person or program that started the training sees.
#pragma once

#include <cstddef>
#include <string>

namespace railccl::train {

struct EpochResult {
  int epoch = 0;  // from 1
  double train_loss = 0;
  double test_loss = 0;
  double test_accuracy = 0;  // of 1
  double samples_per_s = 0;
  double seconds = 0;               // training, without the test
  double exposed_comm_seconds = 0;  // of the rank that waited longest
};

/// Prints to stdout: a table for people, or one JSON object per line. Only rank 0 prints. On a
/// terminal a bar on stderr shows how far the epoch is; elsewhere nothing moves.
class Report {
 public:
  Report(bool json, int epochs);
  /// One line in front of the table; nothing in JSON.
  void introduce(const std::string& text) const;
  void progress(int epoch, size_t done, size_t total);
  void epoch(const EpochResult& result, int ranks);
  /// Ranks were lost, and `ranks` are left; in JSON a line of its own.
  void recovered(size_t step, int ranks_before, int ranks, double seconds);

 private:
  void clear_bar();
  bool json_;
  int epochs_;
  bool bar_;
  int shown_per_mille_ = -1;
  double epoch_begin_ = 0;
};

}  // namespace railccl::train
