// Contributions: interned sets of ranks and runs of elements made of them.
#include "plan/contributions.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/random.h"

namespace railccl::plan {

void append(std::vector<Piece>& pieces, const Piece& piece) {
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    if (last.content == piece.content &&
        (!piece.content.written || last.base + last.length == piece.base)) {
      last.length += piece.length;
      return;
    }
  }
  pieces.push_back(piece);
}

ContributionSets::ContributionSets(int ranks)
    : ranks_(ranks), width_((static_cast<size_t>(ranks) + 63) / 64), buffer_(width_) {
  for (int r = 0; r < ranks; r++) {
    std::fill(buffer_.begin(), buffer_.end(), 0);
    buffer_[static_cast<size_t>(r) / 64] = uint64_t{1} << (r % 64);
    intern(buffer_);
  }
  for (int r = 0; r < ranks; r++) buffer_[static_cast<size_t>(r) / 64] |= uint64_t{1} << (r % 64);
  everyone_ = intern(buffer_);
}

uint32_t ContributionSets::join(uint32_t a, uint32_t b) {
  const uint64_t key = uint64_t{std::min(a, b)} << 32 | std::max(a, b);
  if (const auto found = joined_.find(key); found != joined_.end()) return found->second;
  uint32_t result = kOverlap;
  if (common(a, b) < 0) {
    for (size_t w = 0; w < width_; w++) buffer_[w] = words(a)[w] | words(b)[w];
    result = intern(buffer_);
  }
  joined_.emplace(key, result);
  return result;
}

int ContributionSets::common(uint32_t a, uint32_t b) const {
  for (size_t w = 0; w < width_; w++)
    if (const uint64_t both = words(a)[w] & words(b)[w]; both != 0)
      return static_cast<int>(w * 64) + std::countr_zero(both);
  return -1;
}

std::string ContributionSets::text(uint32_t set) const {
  constexpr int kNamed = 8;
  if (set == everyone_ && ranks_ > 1) return "all ranks";
  std::string list;
  int members = 0;
  for (int r = 0; r < ranks_; r++) {
    if ((words(set)[static_cast<size_t>(r) / 64] >> (r % 64) & 1) == 0) continue;
    if (members < kNamed) list += fmt::format("{}{}", members == 0 ? "" : ", ", r);
    members++;
  }
  if (members > kNamed) list += fmt::format(" and {} more", members - kNamed);
  return fmt::format("{} {}", members == 1 ? "rank" : "ranks", list);
}

uint32_t ContributionSets::intern(const std::vector<uint64_t>& set) {
  const uint64_t hash = hash_bytes(set.data(), set.size() * sizeof(uint64_t));
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it)
    if (std::equal(set.begin(), set.end(), words(it->second))) return it->second;
  const uint32_t id = static_cast<uint32_t>(words_.size() / width_);
  words_.insert(words_.end(), set.begin(), set.end());
  by_hash_.emplace(hash, id);
  return id;
}

}  // namespace railccl::plan
