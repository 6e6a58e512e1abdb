// Contributions: what an element is made of while the checker runs a plan.
//
// A Content is a set of ranks (whose input elements were combined) and two marks: pre-scaled and
// post-scaled. Sets are interned, so that a Content is one word, comparison is equality of words
// and a union that was formed before costs one lookup. A Piece gives the Content of a run of
// consecutive elements together with the position of their contributions in the ranks' inputs:
// element k of the piece is made of element base + k of every contributor's input.
//
// Private to the plan room. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace railccl::plan {

struct Content {
  uint32_t set = 0;
  bool pre = false;
  bool post = false;
  bool written = false;
  friend bool operator==(const Content&, const Content&) = default;
};

struct Piece {
  uint64_t length = 0;
  uint64_t base = 0;
  Content content;
};

/// Appends `piece`, as an extension of the last piece where it continues it.
void append(std::vector<Piece>& pieces, const Piece& piece);

/// The interned sets of ranks 0 .. ranks-1.
class ContributionSets {
 public:
  static constexpr uint32_t kOverlap = ~uint32_t{0};

  explicit ContributionSets(int ranks);
  uint32_t single(int rank) const { return static_cast<uint32_t>(rank); }
  uint32_t everyone() const { return everyone_; }
  /// The union of two disjoint sets; kOverlap when a rank is in both.
  uint32_t join(uint32_t a, uint32_t b);
  /// Lowest rank in both sets, -1 if none.
  int common(uint32_t a, uint32_t b) const;
  /// "rank 3", "ranks 0, 1, 2", shortened where long.
  std::string text(uint32_t set) const;

 private:
  const uint64_t* words(uint32_t set) const { return words_.data() + size_t{set} * width_; }
  uint32_t intern(const std::vector<uint64_t>& set);

  int ranks_;
  size_t width_;  // 64-bit words per set
  uint32_t everyone_ = 0;
  std::vector<uint64_t> words_;  // all sets, one after the other
  std::unordered_multimap<uint64_t, uint32_t> by_hash_;
  std::unordered_map<uint64_t, uint32_t> joined_;  // (a, b) -> union
  std::vector<uint64_t> buffer_;
};

}  // namespace railccl::plan
