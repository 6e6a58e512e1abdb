// Report: rows as nccl-tests' table or as JSON lines.
#pragma once

#include <cstdio>

#include "measure.h"

namespace railccl::bench {

class Report {
 public:
  Report(const Options& options, int ranks) : options_(options), ranks_(ranks) {}
  void header(const char* version, const std::string& how);
  /// One size: out of place, and in place where it exists (else null).
  void rows(const Row& out_of_place, const Row* in_place);
  void footer();
  /// "3 of 20 sizes" on a terminal's last line.
  void progress(int done, int of);
  int64_t wrong() const { return wrong_; }

 private:
  void json(const Row& row);
  const Options& options_;
  int ranks_;
  double busbw_sum_ = 0;
  int row_count_ = 0;
  int64_t wrong_ = 0;
};

}  // namespace railccl::bench
