// Table, JSON lines and progress bar.
#include "report.h"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "seconds.h"

namespace railccl::train {

Report::Report(bool json, int epochs) : json_(json), epochs_(epochs), bar_(isatty(2) == 1) {}

void Report::introduce(const std::string& text) const {
  if (json_) return;
  std::printf(
      "%s\n\n epoch  train loss   test loss  accuracy   samples/s   seconds  exposed comm\n",
      text.c_str());
  std::fflush(stdout);
}

void Report::progress(int epoch, size_t done, size_t total) {
  if (!bar_) return;
  if (done == 0) epoch_begin_ = seconds_now();
  const auto per_mille = static_cast<int>(done * 1000 / total);
  if (per_mille == shown_per_mille_) return;
  shown_per_mille_ = per_mille;
  constexpr int kWidth = 40;
  char filled[kWidth + 1];
  for (int i = 0; i < kWidth; i++) filled[i] = i * 1000 < per_mille * kWidth ? '#' : '.';
  filled[kWidth] = 0;
  const double passed = seconds_now() - epoch_begin_;
  const double left =
      done > 0 ? passed * static_cast<double>(total - done) / static_cast<double>(done) : 0;
  std::fprintf(stderr, "\r epoch %d/%d [%s] %3d%%  %.0f s left ", epoch, epochs_, filled,
               per_mille / 10, left);
}

void Report::clear_bar() {
  if (bar_) std::fprintf(stderr, "\r\033[K");
  shown_per_mille_ = -1;
}

void Report::epoch(const EpochResult& result, int ranks) {
  clear_bar();
  if (json_) {
    const nlohmann::ordered_json line = {{"epoch", result.epoch},
                                         {"train_loss", result.train_loss},
                                         {"test_loss", result.test_loss},
                                         {"test_accuracy", result.test_accuracy},
                                         {"samples_per_s", result.samples_per_s},
                                         {"seconds", result.seconds},
                                         {"exposed_comm_s", result.exposed_comm_seconds},
                                         {"ranks", ranks}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("%6d  %10.4f  %10.4f  %7.2f%%  %10.0f  %8.2f  %10.2f s\n", result.epoch,
                result.train_loss, result.test_loss, result.test_accuracy * 100,
                result.samples_per_s, result.seconds, result.exposed_comm_seconds);
  }
  std::fflush(stdout);
}

void Report::recovered(size_t step, int ranks_before, int ranks, double seconds) {
  clear_bar();
  if (json_) {
    const nlohmann::ordered_json line = {{"recovered_at_step", step},
                                         {"ranks_before", ranks_before},
                                         {"ranks", ranks},
                                         {"seconds", seconds}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  } else {
    std::fprintf(stderr, "railccl-train: %d of %d ranks go on with step %zu after %.0f ms\n", ranks,
                 ranks_before, step + 1, seconds * 1e3);
  }
}

}  // namespace railccl::train
