// compare_host: railccl beside the Open MPI, MPICH and Gloo found on this machine, in one call.
//
//   build/bin/compare_host --ranks 2 -b 8 -e 256M
//   build/bin/compare_host --op reduce_scatter,all_gather --ranks 2,4 --sizes 1K,64K,1M,16M
//   build/bin/compare_host --replay a.json b.json --svg picture.svg
//
// Every contender's processes are started first and sleep; then each cell is played in rounds, see
// session.h. Exit code 0: every verified result was right; 1: one was wrong, ours failed or the run
// was interrupted; 2: bad options or files.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "machine.h"
#include "options.h"
#include "plot.h"
#include "report.h"

namespace railccl::compare {
namespace {

/// A scratch folder, removed with what is in it.
class Scratch {
 public:
  Scratch() {
    const std::filesystem::path base = std::filesystem::temp_directory_path();
    std::string name = (base / "railccl-compare-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool write_picture(const Options& options, const std::vector<std::vector<CellResult>>& tables,
                   const std::string& machine) {
  if (options.svg.empty()) return true;
  std::ofstream picture(options.svg);
  picture << plot_of(tables, machine);
  picture.flush();
  if (!picture) fprintf(stderr, "compare_host: cannot write %s\n", options.svg.c_str());
  return picture.good();
}

/// The tables of earlier runs: cells of one collective on so many ranks belong together, by size.
int replay(const Options& options) {
  std::vector<CellResult> cells;
  std::string machine;
  for (const std::string& name : options.replay) {
    std::ifstream file(name);
    for (std::string line; std::getline(file, line);) {
      CellResult cell;
      if (!cell_from_json(line, &cell, &machine)) {
        fprintf(stderr, "compare_host: %s holds a line that --json did not write\n", name.c_str());
        return 2;
      }
      cells.push_back(std::move(cell));
    }
  }
  std::stable_sort(cells.begin(), cells.end(), [](const CellResult& a, const CellResult& b) {
    return std::tuple(a.cell.operation, a.ranks, a.cell.bytes) <
           std::tuple(b.cell.operation, b.ranks, b.cell.bytes);
  });
  std::vector<std::vector<CellResult>> tables;
  for (const CellResult& cell : cells) {
    if (tables.empty() || tables.back().front().cell.operation != cell.cell.operation ||
        tables.back().front().ranks != cell.ranks) {
      tables.emplace_back();
    }
    tables.back().push_back(cell);
  }
  for (const auto& table : tables) {
    print_header(table.front().cell, table.front().ranks);
    for (const CellResult& cell : table) print_cell(cell, options.details);
    print_means(table);
  }
  return write_picture(options, tables, machine) ? 0 : 2;
}

/// One collective on the ranks of `field`, all sizes.
std::vector<CellResult> play_table(const Options& options, const Rules& rules, const Field& field,
                                   Operation operation, int ranks, std::ofstream& json,
                                   const std::string& machine) {
  std::vector<CellResult> table;
  print_header({operation, 0}, ranks);
  for (const uint64_t bytes : options.sizes) {
    if (!going_on()) break;
    if (isatty(2) != 0) fprintf(stderr, "\r%s...\033[K\r", size_text(bytes).c_str());
    CellResult played = play_cell({operation, bytes}, ranks, field.contenders, rules);
    if (!going_on()) break;  // half a cell is no result
    table.push_back(std::move(played));
    print_cell(table.back(), options.details);
    if (json.is_open()) json << json_of(table.back(), machine) << std::endl;
  }
  print_means(table);
  return table;
}

int run(const Options& options) {
  const int cores = allowed_cores();
  const std::string programs = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  std::ofstream json;
  if (!options.json.empty()) json.open(options.json);
  if (!options.json.empty() && !json) {
    fprintf(stderr, "compare_host: cannot write %s\n", options.json.c_str());
    return 2;
  }
  const std::string machine = machine_name();
  printf("%s\n", machine.c_str());
  if (options.rules.limits) {
    printf(
        "cache line there and back %.0f ns; streaming copy over all cores %.1f GB/s; "
        "reduce in L2 %.1f GB/s per core (read + written)\n",
        line_round_trip_ns(), stream_copy_bytes_per_s() / 1e9, cached_reduce_bytes_per_s() / 1e9);
  }
  std::vector<std::vector<CellResult>> tables;
  bool right = true;
  for (const int ranks : options.ranks) {
    Rules rules = options.rules;
    // Ranks that wait for a network seldom wait for each other's cores: the median tells more.
    rules.crowded = ranks > cores && options.planned.empty();
    const Scratch scratch;
    if (scratch.path().empty()) {
      fprintf(stderr, "compare_host: no scratch folder in %s\n",
              std::filesystem::temp_directory_path().c_str());
      return 2;
    }
    FieldOptions wanted;
    wanted.programs = programs;
    wanted.folder = scratch.path();
    wanted.ranks = ranks;
    wanted.crowded = ranks > cores;
    wanted.pin = options.bind == "cores" || (options.bind == "auto" && !wanted.crowded);
    wanted.planned = options.planned;
    wanted.peers = options.peers;
    wanted.own = options.own;
    wanted.types = options.types;
    wanted.registered = options.registered;
    const Field field(wanted);
    for (const std::string& reason : field.left_out) printf("left out: %s\n", reason.c_str());
    for (const Operation operation : options.operations) {
      tables.push_back(play_table(options, rules, field, operation, ranks, json, machine));
      right = right && wrong_in(tables.back()) == 0;
      for (const CellResult& cell : tables.back()) {
        right = right && cell.find("railccl") != nullptr;
      }
      if (tables.back().empty()) tables.pop_back();
    }
  }
  if (!going_on()) printf("interrupted: the cell at hand is left out\n");
  printf("%s\n", right ? "verified: no element wrong" : "WRONG OR MISSING RESULTS");
  if (!write_picture(options, tables, machine)) return 2;
  return right && going_on() ? 0 : 1;
}

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  railccl::compare::Options options;
  int code = 0;
  if (!railccl::compare::parse_options(argc, argv, &options, &code)) return code;
  railccl::compare::stop_on_interrupt();
  if (!options.replay.empty()) return railccl::compare::replay(options);
  return railccl::compare::run(options);
}
