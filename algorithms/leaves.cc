// Leaves: tries the weakest hosts as leaves, one more each time, and keeps the best.
#include "algorithms/leaves.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace railccl::algorithms {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kGain = 1.03;                    // that is worth more messages per chunk
constexpr size_t kLeavesMax = 8;                  // each costs its neighbours messages
constexpr double kFine = 256;                     // the largest weight
constexpr double kEqual = 0.94, kNothing = 0.02;  // of the best speed, as rails have it

using Speeds = std::vector<double>;  // by rail

double sum(const Speeds& speeds) { return std::accumulate(speeds.begin(), speeds.end(), 0.0); }

Speeds least(const Speeds& a, const Speeds& b) {
  Speeds speeds(a.size());
  std::transform(a.begin(), a.end(), b.begin(), speeds.begin(),
                 [](double x, double y) { return std::min(x, y); });
  return speeds;
}

/// What each host's ranks of each rail can carry, where 1 is the best: 0 where there are none or
/// one's NIC is down or hardly works.
std::vector<Speeds> speeds_of(const topology::Topology& topology) {
  const size_t rails = topology.rails().size();
  std::vector<Speeds> speeds(topology.hosts().size(), Speeds(rails, -1));
  double best = 0;
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    if (rank.rail < 0 || rank.nic < 0) continue;
    const topology::Nic& nic = topology.host_of(r).nics[static_cast<size_t>(rank.nic)];
    const double known = nic.bytes_per_s > 0 ? nic.bytes_per_s : kInfinite;
    double& speed = speeds[static_cast<size_t>(rank.host)][static_cast<size_t>(rank.rail)];
    speed = std::min(speed < 0 ? kInfinite : speed, nic.up ? known : 0);
    if (nic.up && known < kInfinite) best = std::max(best, known);
  }
  for (Speeds& host : speeds) {
    for (double& speed : host) {
      if (speed < kInfinite) speed = best > 0 ? std::max(0.0, speed / best) : 0;
      if (speed >= kEqual) speed = 1;
      if (speed < kNothing) speed = 0;
    }
  }
  return speeds;
}

Leaves::Weights weights_of(const Speeds& speeds) {
  const double most = *std::max_element(speeds.begin(), speeds.end());
  Leaves::Weights weights;
  for (const double speed : speeds)
    weights.push_back(most > 0 ? static_cast<uint64_t>(std::lround(kFine * speed / most)) : 0);
  return weights;
}

/// One choice of leaves: how long it takes the busiest NIC, and the shares of all rails.
struct Division {
  double seconds = kInfinite, without = 0;
  Speeds rings;
  std::vector<Speeds> passes;
};

Division divide(const std::vector<Speeds>& leaves, const std::vector<Speeds>& others) {
  const auto k = static_cast<double>(leaves.size()), m = static_cast<double>(others.size());
  const double neighbours = std::min<double>(m, Leaves::kNeighbours);
  const double ring = 2 * (m + k - 1) / (m + k);          // of data without leaves, per host
  const double other = 2 * (m - 1) / m + k / neighbours;  // of data with leaves
  Speeds of_others = others.front();
  for (const Speeds& host : others) of_others = least(of_others, host);
  std::vector<Speeds> of_leaves;
  Speeds common = of_others;
  double weakest = kInfinite;
  for (const Speeds& host : leaves) {
    of_leaves.push_back(least(host, of_others));
    common = least(common, host);
    weakest = std::min(weakest, sum(of_leaves.back()));
  }
  const double rest = sum(of_others), all = sum(common);
  Division best;
  if (weakest <= 0) return best;
  const auto try_share = [&](double x) {
    if (!(x >= 0 && x <= 1) || (x > 0 && all <= 0)) return;
    const double seconds =
        std::max({(ring * x + 1 - x) / weakest, (ring * x + other * (1 - x)) / rest,
                  x > 0 ? ring * x / all : 0});
    if (seconds >= best.seconds) return;
    best.seconds = seconds;
    best.without = x;
  };
  // The longest of three times that are linear in X is least at an end or where two are equal: of
  // the leaves' and the others' NICs, and of those of common rails alone.
  try_share(0);
  try_share(1);
  try_share((weakest * other - rest) / (rest * (ring - 1) - weakest * (ring - other)));
  try_share(all * other / (ring * rest - all * (ring - other)));
  try_share(all / (ring * weakest - all * (ring - 1)));

  best.rings = of_others;
  for (size_t r = 0; r < common.size(); r++) {
    const double carried = best.without > 0 ? ring * best.without * common[r] / all : 0;
    for (Speeds& speeds : of_leaves) speeds[r] = std::max(0.0, speeds[r] * best.seconds - carried);
    best.rings[r] = of_others[r] * best.seconds - carried;
  }
  for (const Speeds& speeds : of_leaves) {
    const double passed = sum(speeds);
    if (passed <= 0) continue;
    for (size_t r = 0; r < common.size(); r++)
      best.rings[r] -= (1 - best.without) * speeds[r] / passed / neighbours;
  }
  for (double& share : best.rings) share = std::max(0.0, share);
  best.passes = of_leaves;
  return best;
}

}  // namespace

Leaves leaves_of(const topology::Topology& topology) {
  std::vector<int> hosts = topology.used_hosts();
  Leaves leaves;
  if (hosts.size() < 3 || topology.rails().size() < 2) return leaves;
  const std::vector<Speeds> speeds = speeds_of(topology);
  const auto of = [&](int host) -> const Speeds& { return speeds[static_cast<size_t>(host)]; };
  Speeds common = of(hosts[0]);
  for (const int host : hosts) common = least(common, of(host));
  const bool all_alike =
      std::all_of(hosts.begin(), hosts.end(), [&](int h) { return of(h) == common; });
  if (all_alike) return leaves;
  const auto n = static_cast<double>(hosts.size());
  const double usual = sum(common) > 0 ? 2 * (n - 1) / n / sum(common) : kInfinite;

  std::stable_sort(hosts.begin(), hosts.end(),
                   [&](int a, int b) { return sum(of(a)) < sum(of(b)); });
  Division best;
  size_t count = 0;
  std::vector<Speeds> weak, others;
  for (const int host : hosts) others.push_back(of(host));
  for (size_t k = 1; k <= std::min(kLeavesMax, hosts.size() - 2); k++) {
    weak.push_back(others.front());
    others.erase(others.begin());
    Division division = divide(weak, others);
    if (division.seconds >= best.seconds) continue;
    best = std::move(division);
    count = k;
  }
  const auto without = static_cast<uint64_t>(std::lround(best.without * Leaves::kUnits));
  if (!(best.seconds * kGain < usual) || without == Leaves::kUnits) return leaves;
  const auto first_other = hosts.begin() + static_cast<std::ptrdiff_t>(count);
  // passes are in the order of hosts, which stays that of their strength.
  leaves.hosts.assign(hosts.begin(), first_other);
  leaves.others.assign(first_other, hosts.end());
  std::sort(leaves.others.begin(), leaves.others.end());
  leaves.without = without;
  leaves.rings = weights_of(best.rings);
  for (const Speeds& passes : best.passes) leaves.passes.push_back(weights_of(passes));
  leaves.gain = usual / best.seconds;
  return leaves;
}

}  // namespace railccl::algorithms
