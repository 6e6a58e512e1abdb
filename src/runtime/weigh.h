// Weigh: the ranks agree from time to time on what the rails really carry.
//
// What a NIC is said to carry is often wrong, and changes: a virtual link promises 10 Gbit/s, a
// cable is bad, a rail fails and comes back. The media measure while they work; each rank knows its
// own NICs' speeds only, and plans must be the same on all. So before a large collective now and
// then the ranks reduce what they have measured, one number per rail, to the least of all, and plan
// on with a topology that has these speeds. Whether it is time follows from what all ranks know
// alike: the calls made so far and their prices, no clock and no measurement.
//
// Not thread-safe: for the thread whose turn it is (member.h).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "topology/topology.h"
#include "transport/link.h"

namespace railccl::runtime {

class Weigh {
 public:
  /// Rails are weighed where several hosts have several in common.
  explicit Weigh(const topology::Topology& topology);

  /// May `request` be large enough to be worth the question? If so, ask due().
  bool may_matter(const plan::Request& request) const;
  /// Counts a collective that will take `call_s` where a weighing takes `weighing_s`: shall the
  /// ranks weigh before it? Ask once for each collective that may_matter(), on all ranks alike.
  bool due(double call_s, double weighing_s);
  /// No weighing from now on: it cannot be planned.
  void give_up() { common_.clear(); }

  /// The collective that agrees, from input() to output().
  plan::Request request() const;
  /// What `rank` puts in: for each common rail the least that its NICs there were measured to
  /// carry, infinity where none was. Figures that no NIC can have are as good as none.
  void put(const std::vector<transport::NicSpeed>& measured, const topology::Topology& topology,
           int rank);
  const double* input() const { return mine_.data(); }
  double* output() { return agreed_.data(); }

  struct Change {
    int rail = -1;
    double was = 0;  // as Topology::rail_bytes_per_s
    double now = 0;
    bool used = true;  // or is it so slow beside the others that they take its share?
  };
  /// Heeds what came out.
  void take();
  /// What differs by more than noise from what `topology` says, by what came out lately; in order.
  /// Until all common rails have been measured only failures count: what is measured of one rail
  /// and promised of another does not compare.
  std::vector<Change> changes(const topology::Topology& topology) const;
  /// `topology` with these changes.
  static topology::Topology changed(const topology::Topology& topology,
                                    const std::vector<Change>& changes);
  /// "rail 3 (eth3) carries 6.25 MB/s now, was 25 MB/s": `rank` names the NIC.
  static std::string text_of(const Change& change, const topology::Topology& topology, int rank);

 private:
  /// The last believable answers for one rail, as long as they were about alike.
  struct Answers {
    std::array<double, 3> speeds{};
    size_t count = 0;

    void add(double speed);
    /// The middle one, or larger one of two: single measurements stray. Infinite where there is
    /// none.
    double speed() const;
  };
  bool possible() const { return !common_.empty(); }

  std::vector<size_t> common_;  // rails on which all hosts have ranks; empty: nothing to weigh
  uint64_t ranks_;
  std::vector<double> mine_, agreed_;  // by rail
  std::vector<Answers> answers_;       // by rail
  int calls_ = 0;                      // large ones since the last weighing
  bool weighed_ = false;
};

}  // namespace railccl::runtime
