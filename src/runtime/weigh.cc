// Weigh: when to ask, what to say, and what to make of the answer.
#include "runtime/weigh.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "topology/draw.h"

namespace railccl::runtime {

using topology::Topology;

namespace {

// A call that is worth a weighing takes at least so many times as long and moves so many bytes.
constexpr double kTimesAsLong = 50;
constexpr uint64_t kBytesMin = uint64_t{1} << 20;
// As long as a rail has not been measured the call's price is no more than a promise: so many
// weighings come whatever it is.
constexpr int kUnpriced = 16;
// Large calls between two weighings; the first comes as soon as there is something to say.
constexpr int kCallsBetween = 3;
constexpr int kCallsBeforeFirst = 1;
// Measurements of a rail that has not changed differ by less, or else by chance.
constexpr double kNoise = 0.1;
// Measurements that differ so much are not of the same rail any more, or not of hosts alike on it.
constexpr double kOther = 0.7;
// Rails so near the best carry as much as it. What little they are slower is for the media to
// balance, call by call; shares that follow each measurement would be worse.
constexpr double kAlike = 0.85;
// A rail that carries less than this share of the best one is more trouble than help.
constexpr double kUseful = 0.02;
// No NIC is slower, and none is faster.
constexpr double kLeast = 1, kMost = 1e15;
// What is known besides speeds: larger than these, so that who knows more has the say.
constexpr double kWorks = 1e16, kMissing = 1e17;
constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr size_t kNamesMax = 3;  // of hosts in a text

bool believable(double speed) { return speed >= kLeast && speed <= kMost; }
/// Of figures agreed on, which have come through arithmetic in float.
bool is(double figure, double code) { return std::abs(figure - code) < 0.01 * code; }

}  // namespace

Weigh::Weigh(const Topology& topology)
    : hosts_(topology.used_hosts()), ranks_(static_cast<uint64_t>(topology.size())) {
  std::vector<std::set<int>> hosts(topology.rails().size());
  for (const topology::Rank& rank : topology.ranks())
    if (rank.rail >= 0) hosts[static_cast<size_t>(rank.rail)].insert(rank.host);
  for (size_t rail = 0; rail < hosts.size(); rail++)
    if (hosts[rail].size() == hosts_.size()) common_.push_back(static_cast<int>(rail));
  if (hosts_.size() < 2 || common_.size() < 2) common_.clear();
  mine_.assign(hosts_.size() * common_.size(), static_cast<float>(kNone));
  agreed_ = mine_;
  answers_.resize(mine_.size());
}

bool Weigh::may_matter(const plan::Request& request) const {
  if (!possible()) return false;
  // Counted is what every rank has in its buffers: no rank may take the call for a small one, which
  // a strip serves that asks no questions.
  const bool all_blocks = request.collective == Collective::all_gather ||
                          request.collective == Collective::reduce_scatter ||
                          request.collective == Collective::all_to_all;
  return plan::bytes_of(request) * (all_blocks ? ranks_ : 1) >= kBytesMin;
}

bool Weigh::due(double call_s, double weighing_s) {
  const bool dear = call_s < kTimesAsLong * weighing_s;
  if (dear && (unpriced_ == kUnpriced || measured())) return false;
  const bool now = calls_ >= (weighed_ ? kCallsBetween : kCallsBeforeFirst);
  weighed_ = weighed_ || now;
  if (dear && now) unpriced_++;
  calls_ = now ? 1 : calls_ + 1;
  return now;
}

bool Weigh::measured() const {
  for (size_t rail = 0; rail < common_.size(); rail++) {
    const std::vector<double> speeds = speeds_on(rail);
    if (std::find(speeds.begin(), speeds.end(), kNone) != speeds.end()) return false;
  }
  return true;
}

plan::Request Weigh::request() const {
  plan::Request request;
  request.collective = Collective::all_reduce;
  request.datatype = Datatype::float32;
  request.op = Reduction::min;
  request.count = mine_.size();
  return request;
}

void Weigh::put(int host, int rail, double figure) {
  const auto h = std::lower_bound(hosts_.begin(), hosts_.end(), host);
  const auto r = std::lower_bound(common_.begin(), common_.end(), rail);
  if (h == hosts_.end() || *h != host || r == common_.end() || *r != rail) return;
  float& least = mine_[place(static_cast<size_t>(h - hosts_.begin()),
                             static_cast<size_t>(r - common_.begin()))];
  least = std::min(least, static_cast<float>(figure));
}

void Weigh::put(const std::vector<transport::NicSpeed>& found, const Topology& topology, int rank) {
  std::fill(mine_.begin(), mine_.end(), static_cast<float>(kNone));
  const int here = topology.rank(rank).host;
  for (const transport::NicSpeed& one : found) {
    for (const topology::Nic& nic : topology.host_of(rank).nics) {
      if (nic.name != one.nic) continue;
      const int rail = nic.rail;
      const auto told = [&](const std::vector<int>& peers, double figure) {
        for (const int peer : peers) {
          if (peer < 0 || peer >= topology.size() || topology.rank(peer).host == here) continue;
          put(here, rail, figure);
          put(topology.rank(peer).host, rail, figure);
        }
      };
      told(one.missing, kMissing);
      told(one.working, kWorks);
      // Of one that reaches nobody any more this is how it was.
      if (!one.working.empty() && believable(one.bytes_per_s)) put(here, rail, one.bytes_per_s);
    }
  }
}

void Weigh::Answers::add(double fresh) {
  const double known = count == 0 ? 0 : speed();
  if (std::min(fresh, known) < kOther * std::max(fresh, known)) count = 0;
  if (count == speeds.size()) std::shift_left(speeds.begin(), speeds.end(), 1);
  count = std::min(count + 1, speeds.size());
  speeds[count - 1] = fresh;
}

double Weigh::Answers::speed() const {
  if (down) return 0;
  if (count == 0) return kNone;
  if (count == 1) return speeds[0];
  const auto [less, more] = std::minmax(speeds[0], speeds[1]);
  return count == 2 ? more : std::clamp(speeds[2], less, more);
}

void Weigh::take() {
  for (size_t i = 0; i < answers_.size(); i++) {
    const double figure = agreed_[i];
    if (is(figure, kMissing)) answers_[i].down = true;
    if (is(figure, kWorks) || believable(figure)) answers_[i].down = false;
    if (believable(figure)) answers_[i].add(figure);
  }
}

std::vector<double> Weigh::speeds_on(size_t rail) const {
  std::vector<double> speeds, known;
  for (size_t h = 0; h < hosts_.size(); h++) {
    speeds.push_back(answers_[place(h, rail)].speed());
    if (speeds.back() > 0 && speeds.back() != kNone) known.push_back(speeds.back());
  }
  std::sort(known.begin(), known.end());
  // Beside the middle, not the best: one that strays upwards makes no other one slow.
  const double least = known.empty() ? 0 : kOther * known[known.size() / 2];
  const auto usual = std::lower_bound(known.begin(), known.end(), least);
  for (size_t h = 0; h < hosts_.size(); h++) {
    const bool steady = answers_[place(h, rail)].count == Answers().speeds.size();
    if (speeds[h] > 0 && (speeds[h] >= least || !steady))
      speeds[h] = usual == known.end() ? kNone : *usual;
  }
  return speeds;
}

Weigh::News Weigh::news(const Topology& topology) const {
  std::vector<std::vector<double>> speeds;  // by rail
  std::vector<double> sorted;
  for (size_t i = 0; i < common_.size(); i++) {
    speeds.push_back(speeds_on(i));
    sorted.insert(sorted.end(), speeds[i].begin(), speeds[i].end());
  }
  std::sort(sorted.begin(), sorted.end());
  const double best = sorted.empty() ? 0 : sorted.back();
  // Something carried what the ranks have just said to each other.
  if (best == 0) return {};
  const bool all_known = best != kNone;
  const auto alike = std::lower_bound(sorted.begin(), sorted.end(), kAlike * best);
  const double middle = *(alike + (sorted.end() - alike) / 2);

  News news;
  news.speeds.assign(topology.hosts().size(), std::vector<double>(topology.rails().size(), -1));
  for (size_t i = 0; i < common_.size(); i++) {
    const auto first = static_cast<std::ptrdiff_t>(news.changes.size());
    for (size_t h = 0; h < hosts_.size(); h++) {
      Change change{.rail = common_[i], .hosts = {}};
      change.was = topology.rail_bytes_per_s(common_[i], hosts_[h]);
      change.now = speeds[i][h] >= kAlike * best ? middle : speeds[i][h];
      if (!all_known && change.now != 0) {
        if (change.was != 0) continue;
        change.now = kNone;
      }
      change.used = change.now > 0 && (!all_known || change.now >= kUseful * best);
      news.speeds[static_cast<size_t>(hosts_[h])][static_cast<size_t>(common_[i])] =
          change.used ? change.now : 0;
      const bool differs =
          !change.used ? change.was != 0
                       : change.was <= 0 || std::abs(change.now - change.was) > kNoise * change.was;
      if (!differs) continue;
      const auto same =
          std::find_if(news.changes.begin() + first, news.changes.end(), [&](const Change& other) {
            return other.was == change.was && other.now == change.now && other.used == change.used;
          });
      if (same == news.changes.end()) {
        news.changes.push_back(std::move(change));
        news.changes.back().hosts.push_back(hosts_[h]);
      } else {
        same->hosts.push_back(hosts_[h]);
      }
    }
  }
  return news;
}

std::string Weigh::text_of(const Change& change, const Topology& topology) {
  std::string text = fmt::format("rail {}", change.rail);
  const auto host = [&](size_t i) -> const topology::Host& {
    return topology.hosts()[static_cast<size_t>(change.hosts[i])];
  };
  for (const topology::Nic& nic : host(0).nics)
    if (nic.rail == change.rail) {
      text += fmt::format(" ({})", nic.name);
      break;
    }
  const size_t hosts = change.hosts.size();
  if (hosts < topology.used_hosts().size()) {
    text += hosts == 1 ? " of host " : " of hosts ";
    for (size_t i = 0; i < std::min(hosts, kNamesMax); i++)
      text += (i > 0 ? ", " : "") + host(i).name;
    if (hosts > kNamesMax) text += fmt::format(" and {} more", hosts - kNamesMax);
  }
  if (change.now == kNone) return text + " works again";
  text += change.now > 0 ? " carries " + topology::speed_text(change.now) : " carries nothing";
  if (!change.used) return text + ": its share goes over the other rails";
  if (change.was == 0) return text + " again";
  return text + " now, was " +
         (change.was > 0 ? topology::speed_text(change.was) : std::string("of unknown speed"));
}

}  // namespace railccl::runtime
