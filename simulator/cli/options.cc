// Options of railccl-sim: parsing with CLI11.
#include "options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "topology/synthetic.h"
#include "topology/text.h"

namespace railccl::simulator {

namespace {

template <typename Number>
bool parse_number(std::string_view text, Number* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

/// "8", "4K", "1.5M", "128MB": nccl-tests' sizes, powers of 1024.
bool parse_bytes(std::string_view text, uint64_t* bytes) {
  double scale = 1;
  if (!text.empty() && (text.back() == 'B' || text.back() == 'b')) text.remove_suffix(1);
  if (const size_t unit = text.empty() ? text.npos : std::string_view("KMGkmg").find(text.back());
      unit != text.npos) {
    scale = static_cast<double>(uint64_t{1} << 10 * (unit % 3 + 1));
    text.remove_suffix(1);
  }
  double number = 0;
  if (!parse_number(text, &number) || !(number >= 0) || !(number * scale <= 1e15)) return false;
  *bytes = static_cast<uint64_t>(number * scale);
  return true;
}

CLI::Validator bytes_validator() {
  return CLI::Validator(
      [](std::string& text) {
        uint64_t bytes = 0;
        if (!parse_bytes(text, &bytes)) return "expected a size like 8, 4K, 128M, not " + text;
        text = std::to_string(bytes);
        return std::string();
      },
      "SIZE");
}

/// The index of the one called `name`, or of that index.
template <typename Parts>
Result<int> find(const Parts& parts, const std::string& name, const char* what) {
  for (size_t i = 0; i < parts.size(); i++)
    if (parts[i].name == name) return static_cast<int>(i);
  int index = 0;
  if (parse_number(name, &index) && index >= 0 && static_cast<size_t>(index) < parts.size())
    return index;
  return Status(Code::invalid_argument, "there is no {} \"{}\"; there are {}, by name or from 0",
                what, name.substr(0, 40), parts.size());
}

template <typename Value>
bool pick(const std::string& word, int count, const char* what, Value* value) {
  for (int i = 0; i < count; i++)
    if (word == name_of(static_cast<Value>(i))) {
      *value = static_cast<Value>(i);
      return true;
    }
  std::fprintf(stderr, "railccl-sim: unknown %s '%s'; known:", what, word.c_str());
  for (int i = 0; i < count; i++) std::fprintf(stderr, " %s", name_of(static_cast<Value>(i)));
  std::fprintf(stderr, "\n");
  return false;
}

/// What the parser leaves to be understood with the topology at hand.
struct Words {
  std::string collective, type = "float", op = "sum", synthetic, topology;
  std::string step;
  std::vector<std::string> slow, faults;
};

Status understand(const Words& words, SimOptions* options) {
  auto topology = words.topology.empty() ? topology::synthetic(words.synthetic)
                                         : topology::load_topology(words.topology);
  if (!topology.is_ok()) return topology.status();
  options->topology = std::move(topology).value();
  if (!words.step.empty()) {
    RAILCCL_TRY(options->simulation.step_s, topology::parse_duration(words.step));
  }
  for (const std::string& text : words.slow) {
    RAILCCL_TRY(const SlowRank slow, parse_slow(text));
    options->simulation.slow.push_back(slow);
  }
  for (const std::string& text : words.faults) {
    RAILCCL_TRY(const Fault fault, parse_fault(text, options->topology));
    options->simulation.faults.push_back(fault);
  }
  if (options->root < 0 || options->root >= options->topology.size())
    return Status(Code::invalid_argument, "root {} is not one of {} ranks", options->root,
                  options->topology.size());
  if (options->max_bytes > options->min_bytes && options->factor == 0 && options->step_bytes == 0)
    return Status(Code::invalid_argument, "give -f or -i to get from -b to -e");
  return ok();
}

}  // namespace

std::vector<uint64_t> SimOptions::sizes() const {
  std::vector<uint64_t> result;
  for (uint64_t bytes = min_bytes;;) {
    result.push_back(bytes);
    const auto next = factor > 0 ? static_cast<uint64_t>(static_cast<double>(bytes) * factor)
                                 : bytes + step_bytes;
    if (next > max_bytes || next <= bytes) return result;
    bytes = next;
  }
}

Result<SlowRank> parse_slow(const std::string& text) {
  const size_t colon = text.find(':');
  SlowRank slow;
  if (colon == text.npos || !parse_number(std::string_view(text).substr(0, colon), &slow.rank) ||
      !parse_number(std::string_view(text).substr(colon + 1), &slow.factor))
    return Status(Code::invalid_argument, "--slow: expected RANK:FACTOR such as 3:1.5, got \"{}\"",
                  text.substr(0, 40));
  return slow;
}

Result<Fault> parse_fault(const std::string& text, const topology::Topology& topology) {
  const size_t first = text.find(':'), last = text.rfind(':');
  const size_t slash = text.find('/');
  Fault fault;
  if (slash == text.npos || first >= slash || last <= slash ||
      !parse_number(std::string_view(text).substr(last + 1), &fault.factor))
    return Status(Code::invalid_argument,
                  "--fault: expected TIME:HOST/NIC:FACTOR such as 2ms:node-0/nic1:0.5, got \"{}\"",
                  text.substr(0, 80));
  const std::string time = text.substr(0, first);
  if (time != "0") {
    auto seconds = topology::parse_duration(time);
    if (!seconds.is_ok()) return seconds.status().context("--fault");
    fault.time_s = *seconds;
  }
  const auto host = find(topology.hosts(), text.substr(first + 1, slash - first - 1), "host");
  if (!host.is_ok()) return host.status().context("--fault");
  fault.host = *host;
  const auto nic = find(topology.hosts()[static_cast<size_t>(*host)].nics,
                        text.substr(slash + 1, last - slash - 1), "NIC");
  if (!nic.is_ok()) return nic.status().context("--fault");
  fault.nic = *nic;
  return fault;
}

bool parse_options(int argc, char** argv, SimOptions* options, int* exit_code) {
  CLI::App app(
      "Simulates collectives on clusters that need not exist: the library's own plans, step for "
      "step, over links that flows share max-min fairly.",
      "railccl-sim");
  app.set_version_flag("--version", std::string("railccl-sim ") + RAILCCL_VERSION);
  Words words;
  app.add_option("collective", words.collective, "all_reduce, all_gather, ...")->required();
  auto* source = app.add_option_group("topology", "the cluster");
  source->add_option("--synthetic", words.synthetic,
                     "from a description, as for railccl-topo: dgx-h100:4, hosts=4,gpus=8,...");
  source->add_option("--topology", words.topology, "from a file (railccl-topo --save)");
  source->require_option(1);
  auto* smallest = app.add_option("-b,--minbytes", options->min_bytes, "smallest size (1M)")
                       ->transform(bytes_validator());
  auto* largest = app.add_option("-e,--maxbytes", options->max_bytes, "largest size (as -b)")
                      ->transform(bytes_validator());
  app.add_option("-i,--stepbytes", options->step_bytes, "increment between sizes")
      ->transform(bytes_validator());
  app.add_option("-f,--stepfactor", options->factor, "factor between sizes (instead of -i)")
      ->check(CLI::Range(1.01, 1e6));
  app.add_option("-d,--datatype", words.type, "datatype: float, half, bfloat16, ...");
  app.add_option("-o,--op", words.op, "operator: sum, max, ...");
  app.add_option("-r,--root", options->root, "root of rooted collectives");
  app.add_option("--algorithm", options->algorithm,
                 "by name as in NCCL_ALGO, or auto: what the cost model chooses");
  app.add_option("--channels", options->channels, "channels instead of what the model chooses")
      ->check(CLI::Range(1, 64));
  app.add_option("--chunk", options->chunk_bytes, "chunk size instead of what the model chooses")
      ->transform(bytes_validator());
  app.add_option("--step", words.step, "time of a step besides its bytes (200ns)");
  app.add_option("--slow", words.slow, "RANK:FACTOR, a rank that takes longer; repeatable");
  app.add_option("--fault", words.faults,
                 "TIME:HOST/NIC:FACTOR, from when on a NIC carries less; repeatable");
  app.add_option("--jitter", options->simulation.jitter,
                 "latencies and steps take longer by a random share, with this mean");
  app.add_option("--seed", options->simulation.seed, "of the jitter");
  bool unfolded = false;
  app.add_flag("--unfolded", unfolded,
               "simulate every rank, also those that do the same at the same time");
  app.add_flag("--json", options->json, "one JSON object per row on standard output");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    *exit_code = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
  *exit_code = 2;
  options->simulation.fold = !unfolded;
  if (largest->count() == 0) options->max_bytes = options->min_bytes;
  if (largest->count() > 0 && smallest->count() == 0)
    options->min_bytes = std::min(options->min_bytes, options->max_bytes);
  if (!pick(words.collective, kCollectiveCount, "collective", &options->collective) ||
      !pick(words.type, kDatatypeCount, "datatype", &options->type) ||
      !pick(words.op, kReductionCount, "operator", &options->op))
    return false;
  if (const Status status = understand(words, options); !status.is_ok()) {
    std::fprintf(stderr, "railccl-sim: %s\n", status.text().c_str());
    return false;
  }
  return true;
}

}  // namespace railccl::simulator
