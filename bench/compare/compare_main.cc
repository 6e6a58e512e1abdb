// compare_host: railccl beside the Open MPI, MPICH and Gloo found on this machine, in one call.
//
//   build/bin/compare_host --ranks 2 -b 8 -e 256M
//   build/bin/compare_host --op reduce_scatter,all_gather --ranks 2,4 --sizes 1K,64K,1M,16M
//
// Every contender's processes are started first and sleep; then each cell is played in rounds, see
// session.h. Exit code 0: every verified result was right; 1: one was wrong or ours failed; 2: bad
// options.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "limits.h"
#include "report.h"

namespace railccl::compare {
namespace {

struct Options {
  std::vector<Operation> operations;
  std::vector<int> ranks{2};
  std::vector<uint64_t> sizes;
  std::vector<Type> types{Type::float32};
  std::vector<OwnSetting> own;
  PeerChoice peers;
  Rules rules;
  bool registered = true;
  bool details = false;
  std::string json;
};

/// Words of "a,b,c".
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> words;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// The enumerators whose names are listed in `text`; throws CLI's error for an unknown one.
template <typename Enum>
std::vector<Enum> named(const std::string& text, int count) {
  std::vector<Enum> list;
  for (const std::string& word : split(text, ',')) {
    int found = -1;
    for (int i = 0; i < count; ++i) {
      if (word == "all" || word == name_of(static_cast<Enum>(i))) {
        list.push_back(static_cast<Enum>(i));
        found = i;
      }
    }
    if (found < 0) throw CLI::ValidationError(word, "unknown");
  }
  return list;
}

uint64_t size_or_throw(const std::string& text) {
  const uint64_t bytes = parse_size(text);
  if (bytes < 8 || bytes > 1ull << 30) {
    throw CLI::ValidationError(text, "not a size from 8 to 1G");
  }
  return bytes;
}

OwnSetting own_setting(const std::string& text) {
  OwnSetting setting;
  const size_t colon = text.find(':');
  setting.label = text.substr(0, colon);
  if (colon == std::string::npos || setting.label.empty()) {
    throw CLI::ValidationError(text, "not of the form label:NAME=value");
  }
  for (const std::string& word : split(text.substr(colon + 1), ' ')) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) throw CLI::ValidationError(word, "not of the form NAME=value");
    setting.environment.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return setting;
}

PeerChoice peer_choice(const std::string& text) {
  PeerChoice choice{false, false, false};
  for (const std::string& word : split(text, ',')) {
    if (word == "ompi") {
      choice.open_mpi = true;
    } else if (word == "mpich") {
      choice.mpich = true;
    } else if (word == "gloo") {
      choice.gloo = true;
    } else if (word != "none") {
      throw CLI::ValidationError(word, "unknown peer: ompi, mpich, gloo or none");
    }
  }
  return choice;
}

bool parse(int argc, char** argv, Options* options, int* code) {
  CLI::App app("railccl beside Open MPI, MPICH and Gloo on this machine");
  std::string operations = "all_reduce", ranks = "2", begin = "8", end = "256M", sizes;
  std::string peers = "ompi,mpich,gloo", types = "float32";
  std::vector<std::string> own;
  uint64_t factor = 4;
  bool quick = false, no_registered = false, no_limits = false;
  app.add_option("--op", operations, "collectives, comma between, or all")->capture_default_str();
  app.add_option("--ranks", ranks, "numbers of ranks, comma between")->capture_default_str();
  app.add_option("-b,--begin", begin, "least bytes of a rank's larger buffer")
      ->capture_default_str();
  app.add_option("-e,--end", end, "most bytes")->capture_default_str();
  app.add_option("-f,--factor", factor, "from one size to the next")
      ->check(CLI::Range(2, 1024))
      ->capture_default_str();
  app.add_option("--sizes", sizes, "these sizes instead, comma between");
  app.add_option("--repeats", options->rules.repeats, "turns of each contender per cell")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--turn-ms", options->rules.turn_ms, "length aimed at for one turn")
      ->check(CLI::Range(0.1, 10000.0))
      ->capture_default_str();
  app.add_option("--peers", peers, "ompi, mpich, gloo, comma between, or none")
      ->capture_default_str();
  app.add_option("--types", types, "of ours: float32, bfloat16, float16; peers take float32")
      ->capture_default_str();
  app.add_option("--ours", own, "one more setting of ours: \"label:NAME=value NAME=value\"");
  app.add_option("--json", options->json, "also write a JSON line per cell to this file");
  app.add_flag("--details", options->details, "show every contender of every cell");
  app.add_flag("--no-registered", no_registered, "leave out buffers from ncclMemAlloc");
  app.add_flag("--no-limits", no_limits, "do not measure the machine's limits");
  app.add_flag("--quick", quick, "2 ranks, 3 sizes, 3 repeats: does it work at all?");
  try {
    app.parse(argc, argv);
    if (quick) {
      sizes = "8,16K,1M";
      ranks = "2";
      options->rules.repeats = 3;
      options->rules.turn_ms = 2;
    }
    options->operations = named<Operation>(operations, kOperationCount);
    options->types = named<Type>(types, kTypeCount);
    options->peers = peer_choice(peers);
    options->ranks.clear();
    for (const std::string& word : split(ranks, ',')) {
      const int value = std::atoi(word.c_str());
      if (value < 2 || value > kRanksMax) {
        throw CLI::ValidationError(word, "ranks must be 2 to " + std::to_string(kRanksMax));
      }
      options->ranks.push_back(value);
    }
    for (const std::string& word : split(sizes, ',')) options->sizes.push_back(size_or_throw(word));
    if (sizes.empty()) {
      const uint64_t last = size_or_throw(end);
      for (uint64_t bytes = size_or_throw(begin); bytes <= last; bytes *= factor) {
        options->sizes.push_back(bytes);
      }
    }
    for (const std::string& text : own) options->own.push_back(own_setting(text));
    options->registered = !no_registered;
    options->rules.limits = !no_limits;
    return true;
  } catch (const CLI::ParseError& error) {
    *code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
}

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

int run(const Options& options) {
  const int cores = allowed_cores();
  const std::string programs = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  std::ofstream json;
  if (!options.json.empty()) {
    json.open(options.json);
    if (!json) {
      fprintf(stderr, "compare_host: cannot write %s\n", options.json.c_str());
      return 2;
    }
  }
  printf("%s\n", machine_name().c_str());
  if (options.rules.limits) {
    printf(
        "cache line there and back %.0f ns; streaming copy over all cores %.1f GB/s; "
        "reduce in L2 %.1f GB/s per core (read + written)\n",
        line_round_trip_ns(), stream_copy_bytes_per_s() / 1e9, cached_reduce_bytes_per_s() / 1e9);
  }
  uint64_t wrong = 0;
  bool ours_failed = false;
  for (const int ranks : options.ranks) {
    Rules rules = options.rules;
    rules.crowded = ranks > cores;
    const Scratch scratch;
    Field field(programs, scratch.path(), ranks, cores, options.peers, options.own, options.types,
                options.registered);
    for (const std::string& reason : field.left_out) printf("left out: %s\n", reason.c_str());
    for (const Operation operation : options.operations) {
      print_header({operation, 0}, ranks);
      std::vector<CellResult> table;
      for (const uint64_t bytes : options.sizes) {
        if (!going_on()) break;
        if (isatty(2) != 0) fprintf(stderr, "\r%s...\033[K\r", size_text(bytes).c_str());
        table.push_back(play_cell({operation, bytes}, ranks, field.contenders, rules));
        print_cell(table.back(), options.details);
        if (json.is_open()) json << json_of(table.back()) << std::endl;
        ours_failed = ours_failed || table.back().find("railccl") == nullptr;
      }
      print_means(table);
      wrong += wrong_in(table);
    }
  }
  printf("%s\n", wrong == 0 ? "verified: no element wrong" : "WRONG RESULTS");
  return wrong == 0 && !ours_failed && going_on() ? 0 : 1;
}

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  railccl::compare::Options options;
  int code = 0;
  if (!railccl::compare::parse(argc, argv, &options, &code)) return code;
  railccl::compare::stop_on_interrupt();
  return railccl::compare::run(options);
}
