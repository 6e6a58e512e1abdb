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
// Large calls between two weighings; the first comes as soon as there is something to say.
constexpr int kCallsBetween = 3;
constexpr int kCallsBeforeFirst = 1;
// Measurements of a rail that has not changed differ by less, or else by chance.
constexpr double kNoise = 0.1;
// Measurements that differ so much are not of the same rail any more.
constexpr double kOther = 0.7;
// Rails so near the best carry as much as it. What little they are slower is for the media to
// balance, call by call; shares that follow each measurement would be worse.
constexpr double kAlike = 0.85;
// A rail that carries less than this share of the best one is more trouble than help.
constexpr double kUseful = 0.02;
// No NIC is slower, but for those that carry nothing, and none is faster.
constexpr double kLeast = 1, kMost = 1e15;
constexpr double kNone = std::numeric_limits<double>::infinity();

bool believable(double speed) { return speed == 0 || (speed >= kLeast && speed <= kMost); }

}  // namespace

Weigh::Weigh(const Topology& topology)
    : ranks_(static_cast<uint64_t>(topology.size())),
      mine_(topology.rails().size(), kNone),
      agreed_(mine_),
      answers_(mine_.size()) {
  std::vector<std::set<int>> hosts(topology.rails().size());
  for (const topology::Rank& rank : topology.ranks())
    if (rank.rail >= 0) hosts[static_cast<size_t>(rank.rail)].insert(rank.host);
  for (size_t rail = 0; rail < hosts.size(); rail++)
    if (hosts[rail].size() == topology.used_hosts().size()) common_.push_back(rail);
  if (topology.used_hosts().size() < 2 || common_.size() < 2) common_.clear();
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
  if (call_s < kTimesAsLong * weighing_s) return false;
  const bool now = calls_ >= (weighed_ ? kCallsBetween : kCallsBeforeFirst);
  weighed_ = weighed_ || now;
  calls_ = now ? 1 : calls_ + 1;
  return now;
}

plan::Request Weigh::request() const {
  plan::Request request;
  request.collective = Collective::all_reduce;
  request.datatype = Datatype::float64;
  request.op = Reduction::min;
  request.count = mine_.size();
  return request;
}

void Weigh::put(const std::vector<transport::NicSpeed>& measured, const Topology& topology,
                int rank) {
  std::fill(mine_.begin(), mine_.end(), kNone);
  for (const transport::NicSpeed& speed : measured) {
    if (!believable(speed.bytes_per_s)) continue;
    for (const topology::Nic& nic : topology.host_of(rank).nics) {
      if (nic.name != speed.nic) continue;
      for (const size_t rail : common_)
        if (nic.rail == static_cast<int>(rail))
          mine_[rail] = std::min(mine_[rail], speed.bytes_per_s);
    }
  }
}

void Weigh::Answers::add(double fresh) {
  const double known = speed();
  const bool alike = count > 0 && std::min(fresh, known) > 0 &&
                     std::min(fresh, known) >= kOther * std::max(fresh, known);
  if (!alike) count = 0;
  if (count == speeds.size()) std::shift_left(speeds.begin(), speeds.end(), 1);
  count = std::min(count + 1, speeds.size());
  speeds[count - 1] = fresh;
}

double Weigh::Answers::speed() const {
  if (count == 0) return kNone;
  if (count == 1) return speeds[0];
  const auto [less, more] = std::minmax(speeds[0], speeds[1]);
  return count == 2 ? more : std::clamp(speeds[2], less, more);
}

void Weigh::take() {
  for (const size_t rail : common_)
    if (believable(agreed_[rail])) answers_[rail].add(agreed_[rail]);
}

std::vector<Weigh::Change> Weigh::changes(const Topology& topology) const {
  std::vector<double> speeds;
  for (const size_t rail : common_) speeds.push_back(answers_[rail].speed());
  std::vector<double> sorted = speeds;
  std::sort(sorted.begin(), sorted.end());
  const double best = sorted.empty() ? 0 : sorted.back();
  std::vector<Change> changes;
  // Something carried what the ranks have just said to each other.
  if (best == 0) return changes;
  const bool all_known = best != kNone;
  const auto alike = std::lower_bound(sorted.begin(), sorted.end(), kAlike * best);
  const double middle = *(alike + (sorted.end() - alike) / 2);
  for (size_t i = 0; i < common_.size(); i++) {
    const int rail = static_cast<int>(common_[i]);
    const double was = topology.rail_bytes_per_s(rail);
    const double now = speeds[i] >= kAlike * best ? middle : speeds[i];
    if (!all_known && now != 0) continue;
    const bool used = now > 0 && now >= kUseful * best;
    const bool news = !used ? was != 0 : was <= 0 || std::abs(now - was) > kNoise * was;
    if (news) changes.push_back({rail, was, now, used});
  }
  return changes;
}

Topology Weigh::changed(const Topology& topology, const std::vector<Change>& changes) {
  std::vector<double> of_rails(topology.rails().size(), -1);
  for (const Change& change : changes)
    of_rails[static_cast<size_t>(change.rail)] = change.used ? change.now : 0;
  return topology.with_rail_speeds(of_rails);
}

std::string Weigh::text_of(const Change& change, const Topology& topology, int rank) {
  std::string text = fmt::format("rail {}", change.rail);
  for (const topology::Nic& nic : topology.host_of(rank).nics)
    if (nic.rail == change.rail) {
      text += fmt::format(" ({})", nic.name);
      break;
    }
  text += change.now > 0 ? " carries " + topology::speed_text(change.now) : " carries nothing";
  if (!change.used) return text + ": its share goes over the other rails";
  if (change.was == 0) return text + " again";
  return text + " now, was " +
         (change.was > 0 ? topology::speed_text(change.was) : std::string("of unknown speed"));
}

}  // namespace railccl::runtime
