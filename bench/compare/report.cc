// Report: text and JSON.
#include "report.h"

#include <stdio.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace railccl::compare {
namespace {

constexpr const char* kOurs = "railccl";
constexpr const char* kOursRegistered = "railccl registered";
constexpr double kDisturbed = 5;  // percent of the machine used by others

std::string number(double value) {
  char text[32];
  const int digits = value <= 0 || value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3;
  snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string ratio(const Result* peer, const Result* ours) {
  if (peer == nullptr || ours == nullptr) return "-";
  char text[32];
  snprintf(text, sizeof text, "%.2f", peer->median_us / ours->median_us);
  return text;
}

std::string time_of(const Result* result) {
  return result == nullptr ? "-" : number(result->median_us) + (result->wrong > 0 ? "!" : "");
}

/// 2pn/S for an all-reduce: no copy through memory can be faster.
double memory_bound_us(const CellResult& result) {
  if (result.stream_bytes_per_s <= 0 || result.cell.operation != Operation::all_reduce) return 0;
  return 2.0 * result.ranks * static_cast<double>(result.cell.bytes) / result.stream_bytes_per_s *
         1e6;
}

/// "12% of 2pn/S" or "1.9 round trips" for the better of ours, where a limit was measured.
std::string limit_text(const CellResult& result, const Result* ours) {
  if (ours == nullptr) return "";
  char text[64] = "";
  const double bound = memory_bound_us(result);
  if (bound > 0) {
    snprintf(text, sizeof text, "%.0f%% of 2pn/S, S = %.1f GB/s", 100 * bound / ours->median_us,
             result.stream_bytes_per_s / 1e9);
  } else if (result.round_trip_ns > 0) {
    snprintf(text, sizeof text, "%.2f round trips of %.0f ns",
             ours->median_us * 1e3 / result.round_trip_ns, result.round_trip_ns);
  }
  return text;
}

double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

/// A line of its own for one contender; `compared`: with our usual setting or float32.
void print_contender(const CellResult& cell, const Result& one, bool compared) {
  printf("%9s   %-34s ", "", one.label.c_str());
  if (!one.refused.empty()) {
    printf("%s\n", one.refused.c_str());
    return;
  }
  if (one.us.empty()) {
    printf("not played\n");
    return;
  }
  const auto [least, most] = std::minmax_element(one.us.begin(), one.us.end());
  printf("%s us (%s to %s in %zu repeats)", number(one.median_us).c_str(), number(*least).c_str(),
         number(*most).c_str(), one.us.size());
  std::string plain = one.label;
  const std::string type = std::string(" ") + name_of(one.type);
  const size_t at = plain.find(type);
  if (compared && at != std::string::npos) {
    const Result* float32 = cell.find(plain.erase(at, type.size()));
    if (float32 != nullptr)
      printf(", %.0f%% of float32's rate", 100 * float32->median_us / one.median_us);
  } else if (compared) {
    const bool registered = plain.find("registered") != std::string::npos;
    const Result* usual = cell.find(registered ? kOursRegistered : kOurs);
    printf(", %s times the speed of the usual setting", ratio(usual, &one).c_str());
  }
  if (one.wrong > 0) printf(", %llu elements WRONG", static_cast<unsigned long long>(one.wrong));
  printf("\n");
}

/// The number called `name`, or 0 where there is none.
double number_in(const nlohmann::json& line, const char* name) {
  const auto at = line.find(name);
  return at != line.end() && at->is_number() ? at->get<double>() : 0;
}

}  // namespace

uint64_t parse_size(const std::string& text) {
  size_t used = 0;
  uint64_t value = 0;
  try {
    value = std::stoull(text, &used);
  } catch (const std::exception&) {
    return 0;
  }
  if (used == text.size()) return value;
  if (used + 1 != text.size()) return 0;
  switch (text.back() | 0x20) {
    case 'k':
      return value << 10;
    case 'm':
      return value << 20;
    case 'g':
      return value << 30;
    default:
      return 0;
  }
}

std::string size_text(uint64_t bytes) {
  if (bytes >= 1 << 20 && bytes % (1 << 20) == 0) return std::to_string(bytes >> 20) + " MiB";
  if (bytes >= 1 << 10 && bytes % (1 << 10) == 0) return std::to_string(bytes >> 10) + " KiB";
  return std::to_string(bytes) + " B";
}

void print_header(const Cell& cell, int ranks) {
  printf("\n%s, %d ranks, float32%s; times in us, ratios are peer / ours\n",
         name_of(cell.operation), ranks,
         cell.operation == Operation::all_reduce || cell.operation == Operation::reduce_scatter
             ? ", sum"
             : "");
  printf("%9s %10s %10s %10s %7s %7s  %-34s %s\n", "size", "ours", "registered", "best peer",
         "ratio", "ratio_r", "best peer's setting", "limit");
}

void print_cell(const CellResult& result, bool details) {
  const Result* ours = result.find(kOurs);
  const Result* registered = result.find(kOursRegistered);
  const Result* peer = result.best("");
  printf("%9s %10s %10s %10s %7s %7s  %-34s %s%s\n", size_text(result.cell.bytes).c_str(),
         time_of(ours).c_str(), time_of(registered).c_str(), time_of(peer).c_str(),
         ratio(peer, ours).c_str(), ratio(peer, registered).c_str(),
         peer == nullptr ? "-" : peer->label.c_str(),
         limit_text(result, registered != nullptr ? registered : ours).c_str(),
         result.foreign_percent > kDisturbed ? "  (disturbed)" : "");
  for (const Result& one : result.results) {
    const bool extra = one.family == "railccl" && &one != ours && &one != registered;
    const bool failed = !one.refused.empty() && one.refused.find("has no") == std::string::npos;
    if (details || extra || failed || one.wrong > 0) print_contender(result, one, extra);
  }
  fflush(stdout);
}

void print_means(const std::vector<CellResult>& table) {
  for (const char* label : {kOurs, kOursRegistered}) {
    std::vector<double> ratios;
    size_t behind = 0;
    double worst = 0;
    for (const CellResult& result : table) {
      const Result* ours = result.find(label);
      const Result* peer = result.best("");
      if (ours == nullptr || peer == nullptr) continue;
      ratios.push_back(peer->median_us / ours->median_us);
      if (ratios.back() < 1) ++behind;
      worst = worst == 0 ? ratios.back() : std::min(worst, ratios.back());
    }
    if (ratios.empty()) continue;
    printf("geometric mean of best peer / %s: %.2f over %zu cells; least %.2f, behind in %zu\n",
           label, geometric_mean(ratios), ratios.size(), worst, behind);
  }
  fflush(stdout);
}

std::string json_of(const CellResult& result, const std::string& machine) {
  nlohmann::json line;
  line["machine"] = machine;
  line["collective"] = name_of(result.cell.operation);
  line["bytes"] = result.cell.bytes;
  line["ranks"] = result.ranks;
  line["foreign_percent"] = result.foreign_percent;
  if (result.round_trip_ns > 0) line["line_round_trip_ns"] = result.round_trip_ns;
  if (result.stream_bytes_per_s > 0) {
    line["stream_copy_gbs"] = result.stream_bytes_per_s / 1e9;
    if (memory_bound_us(result) > 0) line["bound_us"] = memory_bound_us(result);
  }
  const Result* peer = result.best("");
  if (peer != nullptr) {
    line["best_peer"] = peer->label;
    if (const Result* ours = result.find(kOurs)) line["ratio"] = peer->median_us / ours->median_us;
    if (const Result* ours = result.find(kOursRegistered)) {
      line["ratio_registered"] = peer->median_us / ours->median_us;
    }
  }
  for (const Result& one : result.results) {
    nlohmann::json entry = {{"label", one.label},
                            {"family", one.family},
                            {"type", name_of(one.type)},
                            {"wrong", one.wrong}};
    if (!one.refused.empty()) entry["refused"] = one.refused;
    if (!one.us.empty()) {
      entry["time_us"] = one.median_us;
      entry["repeats_us"] = one.us;
      entry["busbw_gbs"] = bus_factor(result.cell.operation, result.ranks) *
                           static_cast<double>(result.cell.bytes) / one.median_us / 1e3;
    }
    line["contenders"].push_back(entry);
  }
  return line.dump();
}

bool cell_from_json(const std::string& text, CellResult* cell, std::string* machine) {
  try {
    const nlohmann::json line = nlohmann::json::parse(text);
    const std::string name = line.at("collective").get<std::string>();
    int operation = 0;
    while (operation < kOperationCount && name != name_of(static_cast<Operation>(operation))) {
      ++operation;
    }
    if (operation == kOperationCount) return false;
    CellResult read;
    read.cell = {static_cast<Operation>(operation), line.at("bytes").get<uint64_t>()};
    read.ranks = line.at("ranks").get<int>();
    read.foreign_percent = number_in(line, "foreign_percent");
    read.round_trip_ns = number_in(line, "line_round_trip_ns");
    read.stream_bytes_per_s = number_in(line, "stream_copy_gbs") * 1e9;
    for (const nlohmann::json& entry : line.at("contenders")) {
      Result result;
      result.label = entry.at("label").get<std::string>();
      result.family = entry.at("family").get<std::string>();
      result.wrong = entry.at("wrong").get<uint64_t>();
      result.median_us = number_in(entry, "time_us");
      if (entry.contains("repeats_us")) {
        result.us = entry.at("repeats_us").get<std::vector<double>>();
      }
      if (entry.contains("refused")) result.refused = entry.at("refused").get<std::string>();
      for (int type = 0; type < kTypeCount; ++type) {
        if (entry.at("type") == name_of(static_cast<Type>(type))) {
          result.type = static_cast<Type>(type);
        }
      }
      read.results.push_back(std::move(result));
    }
    *machine = line.value("machine", "");
    *cell = std::move(read);
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

uint64_t wrong_in(const std::vector<CellResult>& table) {
  uint64_t wrong = 0;
  for (const CellResult& result : table) {
    for (const Result& one : result.results) wrong += one.wrong;
  }
  return wrong;
}

}  // namespace railccl::compare
