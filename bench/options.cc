// Options of railccl-bench: parsing with CLI11.
#include "options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <sstream>

namespace railccl::bench {
namespace {

/// "8", "4K", "1.5M", "128MB": nccl-tests' sizes, powers of 1024.
bool parse_bytes(const std::string& text, size_t* bytes) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || number < 0) return false;
  std::string suffix(end);
  if (!suffix.empty() && (suffix.back() == 'B' || suffix.back() == 'b')) suffix.pop_back();
  double scale = 1;
  if (suffix == "K" || suffix == "k") {
    scale = 1 << 10;
  } else if (suffix == "M" || suffix == "m") {
    scale = 1 << 20;
  } else if (suffix == "G" || suffix == "g") {
    scale = 1 << 30;
  } else if (!suffix.empty()) {
    return false;
  }
  if (number * scale > 1e15) return false;
  *bytes = static_cast<size_t>(number * scale);
  return true;
}

CLI::Validator bytes_validator() {
  return CLI::Validator(
      [](std::string& text) {
        size_t bytes = 0;
        if (!parse_bytes(text, &bytes)) return "expected a size like 8, 4K, 128M, not " + text;
        text = std::to_string(bytes);
        return std::string();
      },
      "SIZE");
}

template <typename Value, typename Count>
bool pick(const std::string& list, Count count, std::vector<Value>* out, const char* what) {
  out->clear();
  std::stringstream stream(list);
  std::string word;
  while (std::getline(stream, word, ',')) {
    bool found = false;
    for (int i = 0; i < count; i++) {
      const auto value = static_cast<Value>(i);
      if (word == "all" || word == name_of(value)) {
        out->push_back(value);
        found = true;
      }
    }
    if (!found) {
      std::cerr << "railccl-bench: unknown " << what << " '" << word << "'; known: all";
      for (int i = 0; i < count; i++) std::cerr << ", " << name_of(static_cast<Value>(i));
      std::cerr << "\n";
      return false;
    }
  }
  return !out->empty();
}

}  // namespace

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = [] {
    std::vector<Kind> rows;
    for (int i = 0; i < kCollectiveCount; i++) {
      const auto collective = static_cast<Collective>(i);
      rows.push_back({name_of(collective), false, collective});
    }
    rows.push_back({"sendrecv", true, Collective::all_reduce});
    return rows;
  }();
  return all;
}

bool parse_options(int argc, char** argv, Options* options, int* exit_code) {
  CLI::App app("Measures collectives as nccl-tests does, with verified results.", "railccl-bench");
  app.set_version_flag("--version", std::string("railccl-bench ") + RAILCCL_VERSION);
  app.require_subcommand(1);
  app.fallthrough();

  std::string types = "float", ops = "sum", root = "0", transport, device = "host";
  int check = 1, parallel_init = 0, blocking = 1, registered = 0;
  app.add_option("-b,--minbytes", options->min_bytes, "smallest size")
      ->transform(bytes_validator());
  app.add_option("-e,--maxbytes", options->max_bytes, "largest size")->transform(bytes_validator());
  app.add_option("-i,--stepbytes", options->step_bytes, "increment between sizes")
      ->transform(bytes_validator());
  app.add_option("-f,--stepfactor", options->factor, "factor between sizes (instead of -i)")
      ->check(CLI::Range(1.01, 1e6));
  app.add_option("-n,--iters", options->iterations, "measured iterations")
      ->check(CLI::Range(1, 1000000));
  app.add_option("-w,--warmup_iters", options->warmup, "iterations that are not measured")
      ->check(CLI::Range(0, 1000000));
  app.add_option("-m,--agg_iters", options->aggregate, "operations grouped into one iteration")
      ->check(CLI::Range(1, 1000));
  app.add_option("-c,--check", check, "verify results (0 or 1)")->check(CLI::Range(0, 1));
  app.add_option("-o,--op", ops,
                 "operators: sum, prod, max, min, avg, mulsum, all; comma-separated");
  app.add_option("-d,--datatype", types, "datatypes: float, half, bfloat16, fp8_e4m3, ..., all");
  app.add_option("-r,--root", root, "root of rooted collectives, or all");
  app.add_option("-t,--nthreads", options->threads, "ranks per process, as threads")
      ->check(CLI::Range(1, 1024));
  app.add_option("-p,--parallel_init", parallel_init, "threads initialise by themselves (0 or 1)")
      ->check(CLI::Range(0, 1));
  app.add_option("-z,--blocking", blocking, "1: calls return when done; 0: through a host stream")
      ->check(CLI::Range(0, 1));
  app.add_option("-a,--average", options->average,
                 "time over ranks: 0 rank 0, 1 mean, 2 min, 3 max")
      ->check(CLI::Range(0, 3));
  app.add_option("-T,--timeout", options->timeout_s, "give up after so many seconds; 0: never")
      ->check(CLI::Range(0, 864000));
  app.add_option("-R,--local_register", registered, "1: buffers from ncclMemAlloc")
      ->check(CLI::Range(0, 1));
  app.add_option("--ranks", options->ranks, "start this many processes on this machine")
      ->check(CLI::Range(1, 1024));
  app.add_option("--transport", transport, "shm or tcp between ranks of one host (default: best)")
      ->check(CLI::IsMember({"shm", "tcp"}));
  app.add_option("--device", device,
                 "where buffers are: host, or cuda (ranks share the GPUs in turn)")
      ->check(CLI::IsMember({"host", "cuda"}));
  app.add_flag("--each", options->each,
               "verify every iteration, not only the last; JSON rows tell start and time of each");
  app.add_flag("--prove", options->prove,
               "prove each row's plan: all contributions once, no deadlock; bytes by rail");
  app.add_flag("--json", options->json, "one JSON object per row on standard output");
  app.add_flag("--quiet", options->quiet, "no progress line");
  for (const Kind& kind : kinds())
    app.add_subcommand(kind.name, std::string("measure ") + kind.name)->callback([options, kind] {
      options->kind = kind;
    });

  app.add_subcommand("init", "measure how communicators come about: time, messages, memory")
      ->callback([options] { options->init = true; });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    *exit_code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
  *exit_code = 2;
  if (!pick(types, kDatatypeCount, &options->types, "datatype")) return false;
  if (!pick(ops, kReductionCount, &options->ops, "operator")) return false;
  if (options->kind.send_recv || !reduces(options->kind.collective)) {
    options->ops = {Reduction::none};
  }
  if (root == "all") {
    options->roots = {-1};
  } else {
    char* end = nullptr;
    const long value = std::strtol(root.c_str(), &end, 10);
    if (end == root.c_str() || *end != 0 || value < 0 || value > 1 << 24) {
      std::cerr << "railccl-bench: -r " << root << ": expected a rank or all\n";
      return false;
    }
    options->roots = {static_cast<int>(value)};
  }
  if (options->kind.send_recv || !rooted(options->kind.collective)) options->roots = {0};
  if (options->max_bytes < options->min_bytes) options->max_bytes = options->min_bytes;
  if (options->factor == 0 && options->step_bytes == 0 && options->max_bytes > options->min_bytes) {
    std::cerr << "railccl-bench: give -f or a positive -i to get from -b to -e\n";
    return false;
  }
  if (options->prove && (options->init || options->kind.send_recv)) {
    std::cerr << "railccl-bench: --prove: only collectives have plans\n";
    return false;
  }
  if (options->init && app.count("--iters") == 0) options->iterations = 3;
  options->check = check == 1;
  options->parallel_init = parallel_init == 1;
  options->blocking_streams = blocking == 1;
  options->registered = registered == 1;
  options->cuda = device == "cuda";
  // The library reads its settings from the environment; this is the documented one.
  if (transport == "tcp") setenv("NCCL_SHM_DISABLE", "1", 1);
  return true;
}

}  // namespace railccl::bench
