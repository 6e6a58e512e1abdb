// Options of compare_host: parsing.
#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "launches.h"
#include "report.h"

namespace railccl::compare {
namespace {

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
  PeerChoice choice{false, false, false, true};
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

}  // namespace

bool parse_options(int argc, char** argv, Options* options, int* code) {
  CLI::App app("railccl beside Open MPI, MPICH and Gloo on this machine");
  std::string operations = "all_reduce", ranks = "2", begin = "8", end = "256M", sizes;
  std::string peers = "ompi,mpich,gloo", types = "float32";
  std::vector<std::string> own;
  std::string launches;
  uint64_t factor = 4;
  bool quick = false, defaults = false, no_registered = false, no_limits = false;
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
  app.add_option("--bind", options->bind,
                 "auto (one core per rank, if there are enough), cores, none")
      ->check(CLI::IsMember({"auto", "cores", "none"}))
      ->capture_default_str();
  app.add_option("--json", options->json, "also write a JSON line per cell to this file");
  app.add_option("--svg", options->svg, "draw bus bandwidth against size into this file");
  app.add_option("--replay", options->replay,
                 "show and draw what earlier runs wrote with --json, measure nothing")
      ->check(CLI::ExistingFile);
  app.add_option("--launches", launches,
                 "compare the groups of processes that this file describes, which talk over a "
                 "network (see bench/compare_rails)");
  app.add_flag("--defaults", defaults, "each peer with its default settings only");
  app.add_flag("--details", options->details, "show every contender of every cell");
  app.add_flag("--no-registered", no_registered, "leave out buffers from ncclMemAlloc");
  app.add_flag("--no-limits", no_limits, "do not measure the machine's limits");
  app.add_flag("--quick", quick, "2 ranks, 3 sizes, 3 repeats, default settings: does it work?");
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
    options->peers.all_settings = !quick && !defaults;
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
    if (!launches.empty()) {
      std::string error;
      if (!read_launches(launches, &options->planned, &error)) {
        throw CLI::ValidationError("--launches", error);
      }
      // From here on a call takes tens of milliseconds, and the links decide, not chance.
      constexpr uint64_t kSlowBytes = 256 << 10;
      options->rules.single_bytes = kSlowBytes;
      options->rules.hopeless_single = 2;
    }
    options->registered = !no_registered;
    options->rules.limits = !no_limits;
    return true;
  } catch (const CLI::ParseError& error) {
    *code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
}

}  // namespace railccl::compare
