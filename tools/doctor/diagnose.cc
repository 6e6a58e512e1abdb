// Blame: by rail, then by host on it, then by pair.
#include "doctor/diagnose.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

namespace railccl::doctor {
namespace {

using Outcome = PairResult::Outcome;
using Severity = Finding::Severity;

// Probes of one rail share the machine's moods; what differs from the usual by less says
// nothing.
constexpr double kSlow = 0.6;       // of the usual speed
constexpr double kLongWay = 4;      // times the usual round trip ...
constexpr double kLongWayUs = 200;  // ... and so much longer
constexpr double kLossy = 0.015;    // of the packets

/// What a failure looks like from outside, with its usual causes.
struct Symptom {
  const char* cause;
  const char* what;
  const char* advice;
};
Symptom symptom_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::good:
      break;
    case Outcome::no_route:
      return {"no-route", "cannot be reached: the system has no way there",
              "look at ip route get ADDRESS from ADDRESS, and at rules of an outgoing firewall"};
    case Outcome::refused:
      return {"refused", "refuses connections though somebody listens",
              "a firewall rejects them, or another host has the same address (arping shows it)"};
    case Outcome::no_answer:
      return {"no-answer", "does not answer",
              "look at cable and switch port, at a firewall that drops packets (nft list ruleset), "
              "and at a switch that keeps the ports apart (VLAN)"};
    case Outcome::another_host:
      return {"address-taken", "is answered for by somebody else",
              "two hosts have one address, or one answers for another's NIC: arping ADDRESS; "
              "net.ipv4.conf.all.arp_ignore=1 and arp_announce=2 help within a host"};
    case Outcome::silent:
      return {
          "silent", "accepts connections and then falls silent",
          "packets get lost one way: look for a failing link, asymmetric routes (rp_filter) and "
          "firewalls that follow connections"};
    case Outcome::large_swallowed:
      return {"mtu", "lets small packets pass, but no full ones",
              "MTUs differ on the way: a switch port or tunnel takes less than the NICs send (ping "
              "-M do -s 8972 ADDRESS for 9000); set both alike"};
    case Outcome::broken:
      return {"broken", "breaks connections", "look for resets by firewalls and for link flaps"};
  }
  return {"good", "", ""};
}

/// The value that so many of `values` are below: one bad NIC of four is an end of half of the
/// probes.
double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size()));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

class Rail {
 public:
  Rail(const std::vector<std::string>& hosts, std::string subnet,
       std::vector<const PairResult*> pairs)
      : hosts_(hosts), subnet_(std::move(subnet)), pairs_(std::move(pairs)) {
    for (const PairResult* pair : pairs_) {
      nics_[pair->from] = pair->nic;
      nics_[pair->to] = pair->far_nic;
    }
  }

  void judge(Findings* found) const {
    blame([](const PairResult& pair) { return pair.outcome != Outcome::good; },
          [](const PairResult& pair) { return failure(pair); }, found);
    judge_speed(found);
    judge_round_trips(found);
  }

 private:
  struct Verdict {
    Severity severity;
    std::string cause, what, why, advice;
  };

  std::string name(int host) const {
    return fmt::format("host {}, {}", hosts_[static_cast<size_t>(host)], nics_.at(host));
  }
  std::string text(const PairResult& pair) const {
    return fmt::format("{} to {}", hosts_[static_cast<size_t>(pair.from)],
                       hosts_[static_cast<size_t>(pair.to)]);
  }
  static Verdict failure(const PairResult& pair) {
    const Symptom symptom = symptom_of(pair.outcome);
    return {Severity::error, symptom.cause, symptom.what, pair.text, symptom.advice};
  }

  /// What single pairs say that nobody else confirms.
  enum class Lone : bool { counts, may_be_chance };

  /// Puts bad pairs down to the rail, to as few NICs as can be, or to the pairs themselves.
  template <typename Bad, typename Explain>
  void blame(const Bad& bad, const Explain& explain, Findings* found,
             Lone lone = Lone::counts) const {
    std::vector<const PairResult*> left;
    for (const PairResult* pair : pairs_)
      if (bad(*pair)) left.push_back(pair);
    if (left.empty()) return;
    if (left.size() == pairs_.size() && nics_.size() > 2)
      return tell("rail " + subnet_ + ": every NIC", left, explain, found);
    while (!left.empty()) {
      std::map<int, size_t> accused;
      for (const PairResult* pair : left) accused[pair->from]++, accused[pair->to]++;
      const auto most =
          std::max_element(accused.begin(), accused.end(),
                           [](const auto& a, const auto& b) { return a.second < b.second; });
      const int host = most->first;
      const auto concerns = [host](const PairResult* pair) {
        return pair->from == host || pair->to == host;
      };
      const auto probes =
          static_cast<size_t>(std::count_if(pairs_.begin(), pairs_.end(), concerns));
      std::vector<const PairResult*> its, others;
      for (const PairResult* pair : left) (concerns(pair) ? its : others).push_back(pair);
      // Both ends of a single pair are as much to blame.
      const bool single = its.size() == 1 && (probes == 1 || lone == Lone::may_be_chance);
      if (2 * its.size() < probes || nics_.size() == 2 || single) {
        if (lone == Lone::counts)
          tell(fmt::format("rail {}: {}", subnet_, text(*left.front())), {left.front()}, explain,
               found);
        left.erase(left.begin());
        continue;
      }
      tell(name(host), its, explain, found);
      left = std::move(others);
    }
  }
  template <typename Explain>
  void tell(const std::string& who, const std::vector<const PairResult*>& pairs,
            const Explain& explain, Findings* found) const {
    // Different probes may see different symptoms of one thing: most of them count.
    std::map<std::string, std::pair<int, Verdict>> verdicts;
    for (const PairResult* pair : pairs) {
      const Verdict verdict = explain(*pair);
      verdicts.try_emplace(verdict.cause, 0, verdict).first->second.first++;
    }
    const auto most = std::max_element(
        verdicts.begin(), verdicts.end(),
        [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
    const Verdict& verdict = most->second.second;
    std::vector<std::string> seen;
    for (const PairResult* pair : pairs) seen.push_back(text(*pair));
    found->push_back({verdict.severity, verdict.cause, fmt::format("{} {}", who, verdict.what),
                      fmt::format("seen from {}{}{}", fmt::join(seen, ", "),
                                  verdict.why.empty() ? "" : ": ", verdict.why),
                      verdict.advice});
  }

  std::vector<double> of_good(double PairResult::*figure) const {
    std::vector<double> values;
    for (const PairResult* pair : pairs_)
      if (pair->outcome == Outcome::good) values.push_back(pair->*figure);
    return values;
  }
  static bool lossy(const PairResult& pair) {
    return pair.outcome == Outcome::good && pair.lost_share >= kLossy;
  }
  /// Who loses packets is slow for that.
  void judge_speed(Findings* found) const {
    const std::vector<double> speeds = of_good(&PairResult::bytes_per_s);
    const double usual = speeds.size() < 3 ? 0 : quantile(speeds, 0.6);
    const auto figures = [](const PairResult& pair) {
      return fmt::format("{:.3g} MB/s, {:.1f}% of small packets sent again",
                         pair.bytes_per_s * 1e-6, 100 * pair.lost_share);
    };
    blame(
        [&](const PairResult& pair) {
          return pair.outcome == Outcome::good && !lossy(pair) && pair.bytes_per_s < kSlow * usual;
        },
        [&](const PairResult& pair) {
          return Verdict{
              Severity::error, "slow", "is slow",
              fmt::format("{}, where others have {:.3g} MB/s", figures(pair), usual * 1e-6),
              "has the link fallen back to a lower speed (ethtool NAME), is a PCI slot "
              "narrower than the NIC (lspci -vv, LnkSta), or do packets get lost "
              "(ethtool -S NAME)?"};
        },
        found);
    blame(
        lossy,
        [&](const PairResult& pair) {
          return Verdict{
              Severity::warning, "loss", "loses packets", figures(pair),
              "look for errors on NIC and switch port (ethtool -S NAME), a bad cable or a "
              "full queue"};
        },
        found, Lone::may_be_chance);
  }
  void judge_round_trips(Findings* found) const {
    const std::vector<double> trips = of_good(&PairResult::round_trip_us);
    if (trips.size() < 3) return;
    const double usual = quantile(trips, 0.4);
    blame(
        [&](const PairResult& pair) {
          return pair.outcome == Outcome::good && pair.round_trip_us > kLongWay * usual &&
                 pair.round_trip_us > usual + kLongWayUs;
        },
        [&](const PairResult& pair) {
          return Verdict{
              Severity::warning, "long-way", "is far away",
              fmt::format("{:.0f} us there and back, where others take {:.0f}", pair.round_trip_us,
                          usual),
              "is it cabled to another leaf switch, or routed by way of a slower network?"};
        },
        found, Lone::may_be_chance);
  }

  const std::vector<std::string>& hosts_;
  const std::string subnet_;
  const std::vector<const PairResult*> pairs_;
  std::map<int, std::string> nics_;  // by host
};

}  // namespace

Findings diagnose(const std::vector<std::string>& hosts, const std::vector<PairResult>& results) {
  std::map<std::string, std::vector<const PairResult*>> rails;
  for (const PairResult& pair : results) rails[pair.subnet].push_back(&pair);
  Findings found;
  for (auto& [subnet, pairs] : rails) Rail(hosts, subnet, std::move(pairs)).judge(&found);
  return found;
}

}  // namespace railccl::doctor
