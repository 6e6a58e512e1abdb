// Sharing: levels of links, followed from change to change.
#include "simulator/sharing.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace railccl::simulator {

namespace {

// Levels that differ by less are the same: what remains of rounding must not travel on.
constexpr double kSame = 1e-12;

// Following changes reaches the answer from any beginning, but nothing bounds its way there well.
// Beyond so many recomputations per link, filling everything at once is cheaper.
constexpr size_t kVisitsPerLink = 64;

bool same(double a, double b) {
  return a == b ||
         (std::isfinite(a) && std::isfinite(b) && std::abs(a - b) <= kSame * std::max(a, b));
}

}  // namespace

int Sharing::add_link(double capacity) {
  Link& link = links_.emplace_back();
  link.capacity = capacity;
  return static_cast<int>(links_.size()) - 1;
}

void Sharing::set_capacity(int link, double capacity) {
  links_[static_cast<size_t>(link)].capacity = capacity;
  mark(link);
}

int Sharing::start(std::span<const Use> uses) {
  assert(!uses.empty());
  if (free_flows_.empty()) {
    free_flows_.push_back(static_cast<int>(flows_.size()));
    flows_.emplace_back();
  }
  const int id = free_flows_.back();
  free_flows_.pop_back();
  Flow& flow = flows_[static_cast<size_t>(id)];
  flow.active = true;
  flow.rate = -1;
  for (const Use& use : uses) {
    Link& link = links_[static_cast<size_t>(use.link)];
    flow.places.push_back({use.link, use.weight, static_cast<uint32_t>(link.members.size())});
    link.members.push_back({id, static_cast<uint32_t>(flow.places.size() - 1)});
    mark(use.link);
  }
  touch(id);
  return id;
}

void Sharing::finish(int id) {
  Flow& flow = flows_[static_cast<size_t>(id)];
  for (const Place& place : flow.places) {
    std::vector<Member>& members = links_[static_cast<size_t>(place.link)].members;
    const Member last = members.back();
    members[place.at] = last;
    flows_[static_cast<size_t>(last.flow)].places[last.place].at = place.at;
    members.pop_back();
    mark(place.link);
  }
  flow.places.clear();
  flow.active = false;
  free_flows_.push_back(id);
}

void Sharing::touch(int flow) {
  Flow& f = flows_[static_cast<size_t>(flow)];
  if (f.touched) return;
  f.touched = true;
  touched_.push_back(flow);
}

void Sharing::mark(int link) {
  Link& l = links_[static_cast<size_t>(link)];
  if (l.dirty) return;
  l.dirty = true;
  dirty_.push_back(link);
}

double Sharing::least_level(const Flow& flow) const {
  double least = kUnlimited;
  for (const Place& place : flow.places)
    least = std::min(least, links_[static_cast<size_t>(place.link)].level);
  return least;
}

/// The level that fills the link, given what the other links of its flows let through.
double Sharing::level_of(const Link& link) {
  caps_.clear();
  double wanted = 0, weights = 0;
  for (const Member& member : link.members) {
    const Flow& flow = flows_[static_cast<size_t>(member.flow)];
    double cap = kUnlimited;
    for (size_t p = 0; p < flow.places.size(); p++)
      if (p != member.place)
        cap = std::min(cap, links_[static_cast<size_t>(flow.places[p].link)].level);
    const double weight = flow.places[member.place].weight;
    caps_.push_back({cap, weight});
    wanted += cap * weight;
    weights += weight;
  }
  if (caps_.empty() || wanted < link.capacity) return kUnlimited;
  // Who gets less than an equal share leaves more to the others: the level only rises.
  double left = link.capacity, level = left / weights;
  for (;;) {
    size_t open = 0;
    bool more = false;
    for (const Cap& cap : caps_) {
      if (cap.rate < level) {
        left -= cap.rate * cap.weight;
        weights -= cap.weight;
        more = true;
      } else {
        caps_[open++] = cap;
      }
    }
    caps_.resize(open);
    if (!more) return level;
    if (open == 0) return kUnlimited;
    level = std::max(level, left / weights);
  }
}

/// Marks the other links of the link's flows for which the change can matter: not those that
/// hold the flow lower before and after.
void Sharing::set_level(int id, double level) {
  Link& link = links_[static_cast<size_t>(id)];
  const double before = link.level;
  link.level = level;
  for (const Member& member : link.members) {
    touch(member.flow);
    const Flow& flow = flows_[static_cast<size_t>(member.flow)];
    // Least level and second least among the other links.
    double least = kUnlimited, second = kUnlimited;
    int holder = -1;
    for (size_t p = 0; p < flow.places.size(); p++) {
      if (p == member.place) continue;
      const double other = links_[static_cast<size_t>(flow.places[p].link)].level;
      if (other < least) {
        second = least;
        least = other;
        holder = static_cast<int>(p);
      } else {
        second = std::min(second, other);
      }
    }
    for (size_t p = 0; p < flow.places.size(); p++) {
      if (p == member.place) continue;
      const int other = flow.places[p].link;
      const double rest = static_cast<int>(p) == holder ? second : least;
      const double cap_before = std::min(rest, before), cap = std::min(rest, level);
      if (cap_before == cap) continue;
      const double theirs = links_[static_cast<size_t>(other)].level;
      // A level of infinity means that the caps decide.
      if (theirs < kUnlimited && std::min(cap_before, cap) > theirs) continue;
      mark(other);
    }
  }
}

void Sharing::find_levels() {
  const size_t visits_max = kVisitsPerLink * links_.size() + dirty_.size();
  size_t visits = 0;
  for (; next_dirty_ < dirty_.size(); next_dirty_++) {
    const int id = dirty_[next_dirty_];
    Link& link = links_[static_cast<size_t>(id)];
    link.dirty = false;
    const double level = level_of(link);
    if (!same(level, link.level)) set_level(id, level);
    if (++visits > visits_max) {
      fill();
      break;
    }
  }
  dirty_.clear();
  next_dirty_ = 0;
}

void Sharing::fill() {
  for (const int id : dirty_) links_[static_cast<size_t>(id)].dirty = false;
  dirty_.clear();
  next_dirty_ = 0;
  std::vector<double> left(links_.size()), weights(links_.size(), 0);
  std::vector<bool> fixed(flows_.size(), false);
  for (size_t l = 0; l < links_.size(); l++) {
    left[l] = links_[l].capacity;
    links_[l].level = kUnlimited;
    for (const Member& member : links_[l].members)
      weights[l] += flows_[static_cast<size_t>(member.flow)].places[member.place].weight;
  }
  for (;;) {
    // The link that is full first, at this level, holds the flows that are not held yet.
    size_t next = links_.size();
    double level = kUnlimited;
    for (size_t l = 0; l < links_.size(); l++) {
      if (links_[l].level < kUnlimited) continue;
      const bool open =
          std::any_of(links_[l].members.begin(), links_[l].members.end(),
                      [&](const Member& m) { return !fixed[static_cast<size_t>(m.flow)]; });
      if (open && std::max(0.0, left[l]) / weights[l] < level) {
        level = std::max(0.0, left[l]) / weights[l];
        next = l;
      }
    }
    if (next == links_.size()) break;
    links_[next].level = level;
    for (const Member& member : links_[next].members) {
      if (fixed[static_cast<size_t>(member.flow)]) continue;
      fixed[static_cast<size_t>(member.flow)] = true;
      touch(member.flow);
      for (const Place& place : flows_[static_cast<size_t>(member.flow)].places) {
        left[static_cast<size_t>(place.link)] -= level * place.weight;
        weights[static_cast<size_t>(place.link)] -= place.weight;
      }
    }
  }
}

}  // namespace railccl::simulator
