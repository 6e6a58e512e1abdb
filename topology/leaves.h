// Leaves: which NICs share a leaf switch, judged from measurements between pairs of them.
//
// A pair is near or far by comparison with the best that its two NICs do with anybody. Near pairs
// are joined, those first that leave least doubt, unless more far pairs than near ones lie between
// what would be joined (correlation clustering, Bansal, Blum & Chawla 2004, in its greedy form).
// That is believed only if near and far are a clear gap apart and nearly all pairs fit. Pure
// functions.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace railccl::topology {

/// A near pair does so many times as much as a far one, at least. Less is what other load on a
/// machine does to a measurement.
inline constexpr double kGap = 1.25;

/// A measurement between two NICs: finite, not negative, more is nearer.
struct NicPair {
  size_t a = 0, b = 0;  // numbers of the NICs
  double value = 0;
  bool telling = false;  // leaves_of() sets it
};

/// The leaf of each NIC, as a number.
using LeafOf = std::vector<size_t>;

/// The leaves that the pairs fit best; nothing when they do not tell. `hosts_of_nics` by number of
/// the NIC. `exclusive`: that a host has one NIC on each leaf is believed without a gap, too, if
/// inside such leaves pairs do clearly better: for what is to be confirmed.
std::optional<LeafOf> leaves_of(const std::vector<int>& hosts_of_nics, std::vector<NicPair> pairs,
                                bool exclusive);

/// The value below which `part` of them are; 0 of none.
double quantile(std::vector<double> values, double part);
double median(std::vector<double> values);

}  // namespace railccl::topology
