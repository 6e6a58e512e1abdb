// Report: printing.
#include "report.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace railccl::bench {
namespace {

void print_half(const Row* row) {
  if (row == nullptr) {
    std::printf("  %9s %7s %7s %6s", "N/A", "N/A", "N/A", "N/A");
    return;
  }
  const int digits = row->time_us >= 10000 ? 0 : row->time_us >= 1000 ? 1 : 2;
  std::printf("  %9.*f %7.2f %7.2f ", digits, row->time_us, row->algbw_gbs, row->busbw_gbs);
  if (row->wrong < 0) {
    std::printf("%5s", "N/A");
  } else {
    std::printf("%5lld", static_cast<long long>(row->wrong));
  }
}

int rails_of(const railcclProof_t& proof) {
  return std::min(proof.rails, static_cast<int>(std::size(proof.bytesOfRail)));
}

void print_proof(const Row& row) {
  const railcclProof_t& proof = *row.proof;
  std::printf(
      "# %s proven%s: every contribution once, no deadlock; rounds %llu, messages %llu, "
      "bytes %llu; between hosts %llu, across rails %llu",
      proof.algorithm, row.what.in_place ? " in place" : "", proof.rounds, proof.messages,
      proof.bytes, proof.bytesBetweenHosts, proof.bytesAcrossRails);
  for (int rail = 0; rail < rails_of(proof); rail++)
    std::printf(", rail %d %llu", rail, proof.bytesOfRail[rail]);
  std::printf("\n");
}

nlohmann::ordered_json json_of(const railcclProof_t& proof) {
  const std::vector<unsigned long long> rails(proof.bytesOfRail,
                                              proof.bytesOfRail + rails_of(proof));
  return {{"algorithm", proof.algorithm},
          {"rounds", proof.rounds},
          {"messages", proof.messages},
          {"bytes", proof.bytes},
          {"bytes_between_hosts", proof.bytesBetweenHosts},
          {"bytes_across_rails", proof.bytesAcrossRails},
          {"bytes_of_rails", rails}};
}

}  // namespace

void Report::header(const char* version, const std::string& how) {
  if (options_.json) return;
  std::printf("# railccl-bench %s  %s  ranks %d (%s, %d per process)\n", version,
              options_.kind.name, ranks_, how.c_str(), options_.threads);
  std::printf("# iterations %d, warm-up %d, median; inputs rewritten before every iteration; %s\n",
              options_.iterations, options_.warmup,
              options_.check ? "results verified" : "results not verified");
  std::printf("#\n#%65s  %39s\n", "out-of-place", "in-place");
  std::printf("#%11s %11s %9s %7s %5s %10s %7s %7s %6s  %9s %7s %7s %6s  %s\n", "size", "count",
              "type", "redop", "root", "time", "algbw", "busbw", "#wrong", "time", "algbw", "busbw",
              "#wrong", "algorithm");
  std::printf("#%11s %11s %9s %7s %5s %10s %7s %7s %6s  %9s %7s %7s %6s\n", "(B)", "(elements)", "",
              "", "", "(us)", "(GB/s)", "(GB/s)", "", "(us)", "(GB/s)", "(GB/s)", "");
  std::fflush(stdout);
}

void Report::rows(const Row& out_of_place, const Row* in_place) {
  for (const Row* row : {&out_of_place, in_place}) {
    if (row == nullptr) continue;
    busbw_sum_ += row->busbw_gbs;
    row_count_++;
    if (row->wrong > 0) wrong_ += row->wrong;
    if (options_.json) json(*row);
  }
  if (options_.json) {
    std::fflush(stdout);
    return;
  }
  const Case& what = out_of_place.what;
  const bool rooted_kind = !options_.kind.send_recv && rooted(options_.kind.collective);
  std::printf(" %11zu %11zu %9s %7s %5d", what.bytes, what.count, name_of(what.type),
              name_of(what.op), rooted_kind ? what.root : -1);
  print_half(&out_of_place);
  print_half(in_place);
  std::printf("  %s/%s", out_of_place.algorithm.c_str(), out_of_place.transport.c_str());
  if (out_of_place.bound_us > 0 && out_of_place.time_us > 0)
    std::printf(" %.0f%% of bound", 100 * out_of_place.bound_us / out_of_place.time_us);
  std::printf("\n");
  for (const Row* row : {&out_of_place, in_place})
    if (row != nullptr && row->proof) print_proof(*row);
  std::fflush(stdout);
}

void Report::json(const Row& row) {
  nlohmann::ordered_json line = {{"collective", options_.kind.name},
                                 {"bytes", row.what.bytes},
                                 {"count", row.what.count},
                                 {"type", name_of(row.what.type)},
                                 {"redop", name_of(row.what.op)},
                                 {"root", row.what.root},
                                 {"ranks", ranks_},
                                 {"in_place", row.what.in_place},
                                 {"time_us", row.time_us},
                                 {"time_min_us", row.time_min_us},
                                 {"algbw_gbs", row.algbw_gbs},
                                 {"busbw_gbs", row.busbw_gbs},
                                 {"wrong", row.wrong},
                                 {"algorithm", row.algorithm},
                                 {"transport", row.transport},
                                 {"channels", row.channels},
                                 {"predicted_us", row.predicted_us},
                                 {"bound_us", row.bound_us}};
  if (row.proof) line["proof"] = json_of(*row.proof);
  if (!row.times_us.empty()) {
    line["times_us"] = row.times_us;
    line["starts_us"] = row.starts_us;
  }
  std::printf("%s\n", line.dump().c_str());
}

void Report::footer() {
  if (options_.json) return;
  std::printf("# wrong elements: %lld %s\n", static_cast<long long>(wrong_),
              !options_.check ? "(not checked)"
              : wrong_ == 0   ? "OK"
                              : "FAILED");
  std::printf("# average bus bandwidth: %.4g GB/s\n",
              row_count_ == 0 ? 0.0 : busbw_sum_ / row_count_);
  std::fflush(stdout);
}

void Report::progress(int done, int of) {
  if (options_.quiet || isatty(STDERR_FILENO) == 0 || isatty(STDOUT_FILENO) != 0) return;
  std::fprintf(stderr, "\r%d of %d rows%s", done, of, done == of ? "\n" : "");
  std::fflush(stderr);
}

}  // namespace railccl::bench
