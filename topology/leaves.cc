// Leaves: relative values, thresholds, and two ways to join NICs.
#include "topology/leaves.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

namespace railccl::topology {

namespace {

// The slowest near sample must do this much of what its NICs do at best, and this many times as
// much as the fastest far one. Less is what other load on a machine does to a measurement.
constexpr double kNearLeast = 0.6;
constexpr double kNothing = 0.02;  // of the best: as good as no connection
constexpr double kFitLeast = 0.9;  // of the samples, near inside and far between leaves

struct Range {
  double least = INFINITY, most = 0;
  void add(double value) {
    least = std::min(least, value);
    most = std::max(most, value);
  }
  bool wide() const { return most > 0 && most >= kGap * least; }
};

/// Each value becomes a part of the best that its two NICs do. A NIC all of whose values are alike
/// may have no near partner at all, and is no measure. A pair is telling when one of its NICs does
/// better with some NICs of the other's host than with others: where all are alike the spine had
/// little to carry just then. Leaves telling pairs first, the best ones first.
void make_relative(const std::vector<int>& hosts_of_nics, std::vector<NicPair>* pairs) {
  std::vector<Range> of_nic(hosts_of_nics.size());
  std::map<std::pair<size_t, int>, Range> with_host;
  for (const NicPair& pair : *pairs)
    for (const auto& [own, other] : {std::pair(pair.a, pair.b), std::pair(pair.b, pair.a)}) {
      of_nic[own].add(pair.value);
      with_host[{own, hosts_of_nics[other]}].add(pair.value);
    }
  for (NicPair& pair : *pairs) {
    pair.telling = with_host[{pair.a, hosts_of_nics[pair.b]}].wide() ||
                   with_host[{pair.b, hosts_of_nics[pair.a]}].wide();
    double measure = INFINITY;
    for (const size_t nic : {pair.a, pair.b})
      if (of_nic[nic].wide()) measure = std::min(measure, of_nic[nic].most);
    pair.telling = pair.telling && measure < INFINITY;
    if (measure < INFINITY) pair.value = std::min(1.0, pair.value / measure);
    pair.value = std::max(kNothing, pair.value);
  }
  std::stable_sort(pairs->begin(), pairs->end(), [](const NicPair& a, const NicPair& b) {
    return a.telling != b.telling ? a.telling : a.value > b.value;
  });
}

/// What the least value of a near pair may be: above each clear gap.
std::vector<double> thresholds_of(const std::vector<NicPair>& pairs) {
  std::vector<double> values, thresholds;
  for (const NicPair& pair : pairs) values.push_back(pair.value);
  std::sort(values.begin(), values.end());
  for (size_t i = 1; i < values.size(); i++)
    if (values[i] >= kNearLeast && values[i] >= kGap * values[i - 1])
      thresholds.push_back(values[i]);
  return thresholds;
}

/// Sets of NICs that are joined, and the pairs that lead out of each.
class Leaves {
 public:
  Leaves(size_t nics, const std::vector<NicPair>& pairs, double least) : set_(nics), edges_(nics) {
    std::iota(set_.begin(), set_.end(), size_t{0});
    for (const NicPair& pair : pairs) {
      const bool near = pair.value >= least;
      edges_[pair.a].push_back({pair.b, near});
      edges_[pair.b].push_back({pair.a, near});
    }
  }
  size_t of(size_t nic) {
    while (set_[nic] != nic) nic = set_[nic] = set_[set_[nic]];
    return nic;
  }
  void join(size_t a, size_t b) {
    a = of(a), b = of(b);
    if (a == b) return;
    if (edges_[a].size() < edges_[b].size()) std::swap(a, b);
    int vote = 0;
    for (const Edge& edge : edges_[b])
      if (of(edge.to) == a) vote += edge.near ? 1 : -1;
    if (vote <= 0) return;
    set_[b] = a;
    edges_[a].insert(edges_[a].end(), edges_[b].begin(), edges_[b].end());
    edges_[b] = {};
  }

 private:
  struct Edge {
    size_t to;
    bool near;
  };
  std::vector<size_t> set_;
  std::vector<std::vector<Edge>> edges_;
};

/// The share of pairs that are near inside a leaf and far between leaves.
double fit_of(const LeafOf& leaf, const std::vector<NicPair>& pairs, double least) {
  size_t fit = 0;
  for (const NicPair& pair : pairs)
    fit += (leaf[pair.a] == leaf[pair.b]) == (pair.value >= least) ? 1 : 0;
  return static_cast<double>(fit) / static_cast<double>(pairs.size());
}

LeafOf by_threshold(size_t nics, const std::vector<NicPair>& pairs, double least) {
  Leaves leaves(nics, pairs, least);
  for (const NicPair& pair : pairs)
    if (pair.value >= least) leaves.join(pair.a, pair.b);
  LeafOf leaf(nics);
  for (size_t nic = 0; nic < nics; nic++) leaf[nic] = leaves.of(nic);
  return leaf;
}

/// On the assumption that a host has one NIC on each leaf, which needs no threshold: where a round
/// happens to load the spine little, far pairs do nearly as well as near ones.
LeafOf by_exclusion(const std::vector<int>& hosts_of_nics, const std::vector<NicPair>& pairs) {
  LeafOf leaf(hosts_of_nics.size());
  std::iota(leaf.begin(), leaf.end(), size_t{0});
  std::vector<std::vector<size_t>> members(hosts_of_nics.size());
  std::vector<std::set<int>> hosts(hosts_of_nics.size());
  for (size_t nic = 0; nic < hosts_of_nics.size(); nic++) {
    members[nic] = {nic};
    hosts[nic] = {hosts_of_nics[nic]};
  }
  for (const NicPair& pair : pairs) {
    size_t a = leaf[pair.a], b = leaf[pair.b];
    if (hosts[a].size() < hosts[b].size()) std::swap(a, b);
    if (a == b || std::any_of(hosts[b].begin(), hosts[b].end(),
                              [&](int host) { return hosts[a].count(host) > 0; }))
      continue;
    for (const size_t nic : members[b]) leaf[nic] = a;
    members[a].insert(members[a].end(), members[b].begin(), members[b].end());
    hosts[a].insert(hosts[b].begin(), hosts[b].end());
  }
  return leaf;
}

/// Puts first the pairs whose NICs are near to few others of each other's host: where a NIC is near
/// to one only, it is that one; where to several, the spine may have had little to carry.
void surest_first(const std::vector<int>& hosts_of_nics, double least,
                  std::vector<NicPair>* pairs) {
  std::map<std::pair<size_t, int>, int> near;
  for (const NicPair& pair : *pairs)
    if (pair.value >= least) {
      near[{pair.a, hosts_of_nics[pair.b]}]++;
      near[{pair.b, hosts_of_nics[pair.a]}]++;
    }
  const auto doubt = [&](const NicPair& pair) {
    return near[{pair.a, hosts_of_nics[pair.b]}] * near[{pair.b, hosts_of_nics[pair.a]}];
  };
  std::stable_sort(pairs->begin(), pairs->end(), [&](const NicPair& a, const NicPair& b) {
    const bool near_a = a.value >= least, near_b = b.value >= least;
    return near_a != near_b ? near_a : near_a && doubt(a) < doubt(b);
  });
}

}  // namespace

double quantile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const auto at = values.begin() +
                  static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

std::optional<LeafOf> leaves_of(const std::vector<int>& hosts_of_nics, std::vector<NicPair> pairs,
                                bool exclusive) {
  make_relative(hosts_of_nics, &pairs);
  std::vector<NicPair> telling = pairs;
  std::erase_if(telling, [](const NicPair& pair) { return !pair.telling; });
  std::optional<LeafOf> best;
  double best_fit = 0;
  for (const double least : thresholds_of(telling)) {
    surest_first(hosts_of_nics, least, &telling);
    for (const LeafOf& leaf : {by_exclusion(hosts_of_nics, telling),
                               by_threshold(hosts_of_nics.size(), telling, least)}) {
      const double fit = fit_of(leaf, telling, least);
      if (fit < kFitLeast || fit <= best_fit) continue;
      best_fit = fit;
      best = leaf;
    }
  }
  if (best || !exclusive) return best;
  const LeafOf excluding = by_exclusion(hosts_of_nics, pairs);
  std::vector<double> inside, across;
  for (const NicPair& pair : pairs)
    (excluding[pair.a] == excluding[pair.b] ? inside : across).push_back(pair.value);
  if (inside.empty() || median(inside) < kGap * median(across)) return std::nullopt;
  return excluding;
}

}  // namespace railccl::topology
