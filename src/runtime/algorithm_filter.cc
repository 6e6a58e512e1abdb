// AlgorithmFilter: the parser of NCCL_ALGO.
#include "runtime/algorithm_filter.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "algorithms/algorithm.h"

namespace railccl::runtime {

namespace {

constexpr std::string_view kForeign[] = {"collnetdirect", "collnetchain", "nvls", "nvlstree"};

std::string normal(std::string_view text) {
  std::string result;
  for (const char c : text)
    if (c != '_' && c != '-' && c != ' ')
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string known_names() {
  std::set<std::string> names;
  for (const auto* algorithm : algorithms::all()) names.insert(algorithm->name);
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool known(const std::string& name) {
  if (std::find(std::begin(kForeign), std::end(kForeign), name) != std::end(kForeign)) return true;
  return std::any_of(algorithms::all().begin(), algorithms::all().end(),
                     [&](const auto* algorithm) { return normal(algorithm->name) == name; });
}

}  // namespace

Result<AlgorithmFilter> AlgorithmFilter::parse(std::string_view text) {
  AlgorithmFilter filter;
  if (normal(text).empty()) return filter;
  for (std::string_view entry : split(text, ';')) {
    if (normal(entry).empty()) continue;
    Rule rule;
    rule.present = true;
    int only = -1;
    if (const size_t colon = entry.find(':'); colon != std::string_view::npos) {
      const std::string function = normal(entry.substr(0, colon));
      for (int c = 0; c < kCollectiveCount; c++)
        if (normal(name_of(static_cast<Collective>(c))) == function) only = c;
      if (only < 0)
        return Status(Code::invalid_argument, "NCCL_ALGO=\"{}\": \"{}\" is no collective", text,
                      entry.substr(0, colon));
      rule.own = true;
      entry.remove_prefix(colon + 1);
    }
    while (!entry.empty() && entry.front() == ' ') entry.remove_prefix(1);
    if (!entry.empty() && entry.front() == '^') {
      rule.exclude = true;
      entry.remove_prefix(1);
    }
    for (const std::string_view item : split(entry, ',')) {
      const std::string name = normal(item);
      if (!known(name))
        return Status(Code::invalid_argument,
                      "NCCL_ALGO=\"{}\": \"{}\" is no algorithm; known are {}", text, item,
                      known_names());
      rule.names.insert(name);
    }
    for (int c = 0; c < kCollectiveCount; c++)
      if (c == only || (only < 0 && !filter.rules_[static_cast<size_t>(c)].own))
        filter.rules_[static_cast<size_t>(c)] = rule;
  }
  return filter;
}

bool AlgorithmFilter::allows(Collective collective, std::string_view name) const {
  const Rule& its = rule(collective);
  if (!its.present) return true;
  return (its.names.count(normal(name)) > 0) != its.exclude;
}

bool AlgorithmFilter::silent_for(Collective collective) const {
  const Rule& its = rule(collective);
  if (!its.present) return true;
  return std::none_of(algorithms::all().begin(), algorithms::all().end(), [&](const auto* row) {
    return row->collective == collective && its.names.count(normal(row->name)) > 0;
  });
}

}  // namespace railccl::runtime
