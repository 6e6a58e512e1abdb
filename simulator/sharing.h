// Sharing: how fast flows go that share links, max-min fairly, kept up to date as they come and go.
//
// A flow moves bytes at one rate over several links and uses up `weight` bytes of a link's capacity
// for each of its own. Rates are max-min fair (Bertsekas & Gallager, Data Networks, 1992, 6.5.2):
// no flow could go faster without slowing down one that is not faster. That is so exactly when each
// link l has a level m(l) such that
//
//   rate of a flow = the least m(l) of its links, and
//   m(l) fills l:  sum over its flows of weight * min(m(l), what their other links let through) =
//                  capacity, or is infinite where even that does not fill it
//
// so a change is followed from link to link, only as far as levels change (as the switches of
// Charny, Clark & Jain, Congestion control with explicit rate indication, 1995, do among
// themselves), and costs little in a large network where most of it stays as it is.
//
//   const int a = sharing.add_link(10e9);
//   const int flow = sharing.start(uses);      // any number of changes
//   sharing.settle([](int changed_flow, double bytes_per_s) { ... });
//
// Deterministic. Not thread-safe.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace railccl::simulator {

struct Use {
  int link = 0;
  double weight = 1;
};

class Sharing {
 public:
  /// Capacity in bytes per second, 0 or more.
  int add_link(double capacity);
  double capacity(int link) const { return links_[static_cast<size_t>(link)].capacity; }
  void set_capacity(int link, double capacity);

  /// Each link at most once in `uses`, of which there is at least one; weights above 0. The flow's
  /// rate is known after the next settle(). Numbers of finished flows are given again.
  int start(std::span<const Use> uses);
  void finish(int flow);

  /// Brings all rates up to date, and tells the new ones: changed(flow, bytes per second).
  template <typename Changed>
  void settle(const Changed& changed) {
    find_levels();
    for (const int flow : touched_) {
      Flow& f = flows_[static_cast<size_t>(flow)];
      f.touched = false;
      if (!f.active) continue;
      const double rate = least_level(f);
      if (rate == f.rate) continue;
      f.rate = rate;
      changed(flow, rate);
    }
    touched_.clear();
  }
  double rate(int flow) const { return flows_[static_cast<size_t>(flow)].rate; }

  /// All levels at once, by progressive filling: what settle() must agree with. Also its way out
  /// should following the changes take too long, so that every wait for it ends.
  void fill();

 private:
  static constexpr double kUnlimited = std::numeric_limits<double>::infinity();

  struct Place {
    int link = 0;
    double weight = 1;
    uint32_t at = 0;  // index into the link's members
  };
  struct Flow {
    std::vector<Place> places;
    double rate = -1;
    bool active = false;
    bool touched = false;
  };
  struct Member {
    int flow = 0;
    uint32_t place = 0;  // index into the flow's places
  };
  struct Link {
    double capacity = 0;
    double level = kUnlimited;
    bool dirty = false;
    std::vector<Member> members;
  };

  void touch(int flow);
  void mark(int link);
  void find_levels();
  double least_level(const Flow& flow) const;
  double level_of(const Link& link);
  void set_level(int link, double level);

  std::vector<Link> links_;
  std::vector<Flow> flows_;
  std::vector<int> free_flows_;
  std::vector<int> dirty_;
  size_t next_dirty_ = 0;
  std::vector<int> touched_;
  struct Cap {
    double rate, weight;
  };
  std::vector<Cap> caps_;  // of one link's flows, while its level is computed
};

}  // namespace railccl::simulator
