// Ranks as people read them: "rank 3", "ranks 2, 5-7". Private to this room.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

namespace railccl::runtime {

/// `ranks` ascending and distinct; long lists are cut and say how many more there are.
inline std::string rank_list(const std::vector<int>& ranks) {
  constexpr int kRangesMax = 16;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  int ranges = 0;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i;
    while (end + 1 < ranks.size() && ranks[end + 1] == ranks[end] + 1) end++;
    if (ranges++ == kRangesMax) return text + fmt::format(" and {} more", ranks.size() - i);
    text += fmt::format("{}{}", i == 0 ? "" : ", ", ranks[i]);
    if (end == i + 1) text += fmt::format(", {}", ranks[end]);
    if (end > i + 1) text += fmt::format("-{}", ranks[end]);
    i = end + 1;
  }
  return text;
}

}  // namespace railccl::runtime
