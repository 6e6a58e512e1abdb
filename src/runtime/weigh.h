// Weigh: the ranks agree from time to time on what the NICs of each host and rail really carry.
//
// What a NIC is said to carry is often wrong, and changes: a virtual link promises 10 Gbit/s, a
// cable is bad, a link fails and comes back. The media find out while they work; each rank knows
// its own NICs only, and plans must be the same on all. So before a large collective now and then
// the ranks reduce what they have found out, one number per host and rail, to the least of all, and
// plan on with a topology that says so. Whether it is time follows from what all ranks know alike:
// the calls made so far and their prices, no clock and no measurement.
//
// When nothing passes between two hosts on a rail, either one's link may be broken. So both are
// suspected, and who is seen to reach any other host by the rail is cleared: what remains is the
// host whose link it is, which reaches none. As numbers, of which the least wins:
//
//   1 to 1e15   it works, and carries so many bytes per second, as one of the host's ranks measured
//   1e16        it works: something got across between this host and another one
//   1e17        something does not get across any more between this host and another one
//   infinite    nobody has tried
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
  /// NICs are weighed where several hosts have several rails in common.
  explicit Weigh(const topology::Topology& topology);

  /// May `request` be large enough to be worth the question? If so, ask due().
  bool may_matter(const plan::Request& request) const;
  /// Counts a collective that will take `call_s` where a weighing takes `weighing_s`: shall the
  /// ranks weigh before it? Ask once for each collective that may_matter(), on all ranks alike.
  /// Until all rails have been measured it may be, a bounded number of times, though it is short.
  bool due(double call_s, double weighing_s);
  /// No weighing from now on: it cannot be planned.
  void give_up() { common_.clear(); }

  /// The collective that agrees, from input() to output().
  plan::Request request() const;
  /// What `rank` puts in. Figures that no NIC can have are as good as none.
  void put(const std::vector<transport::NicSpeed>& found, const topology::Topology& topology,
           int rank);
  const float* input() const { return mine_.data(); }
  float* output() { return agreed_.data(); }

  /// What is different of a rail, and on which hosts.
  struct Change {
    int rail = -1;
    std::vector<int> hosts;  // ascending
    double was = 0;          // as Topology::rail_bytes_per_s
    double now = 0;          // infinite: works again, at the speed that it had
    bool used = true;        // or is it so slow beside the others that they take its share?
  };
  struct News {
    std::vector<Change> changes;              // by rail; none: there is nothing to do
    std::vector<std::vector<double>> speeds;  // by host and rail, for Topology::with_nic_speeds
  };
  /// Heeds what came out.
  void take();
  /// What differs by more than noise from what `topology` says, by what came out lately. Until all
  /// common rails have been measured only failures and returns count: what is measured of one rail
  /// and promised of another does not compare.
  News news(const topology::Topology& topology) const;
  /// "rail 3 (eth3) of host n2 carries 6.25 MB/s now, was 25 MB/s": the NIC's name is that of the
  /// first host; hosts are named unless it is all of them.
  static std::string text_of(const Change& change, const topology::Topology& topology);

 private:
  /// The last believable answers for one host's part of a rail, as long as they were about alike.
  struct Answers {
    std::array<double, 3> speeds{};
    size_t count = 0;
    bool down = false;

    void add(double speed);
    /// The middle one, or larger one of two: single measurements stray. Infinite where there is
    /// none, 0 while it is down.
    double speed() const;
  };
  bool possible() const { return !common_.empty(); }
  /// Is something known of each common rail?
  bool measured() const;
  /// Where in the vectors the figure of the n-th used host and m-th common rail is.
  size_t place(size_t host, size_t rail) const { return host * common_.size() + rail; }
  void put(int host, int rail, double figure);
  /// What each host carries on the n-th common rail, by the answers: 0, infinite where nobody
  /// knows. Hosts that are alike have one figure, that of the slowest of them: a rail is as good as
  /// its worst part. One that is much slower has its own once it has been so three times in a row.
  std::vector<double> speeds_on(size_t rail) const;

  std::vector<int> hosts_;   // with ranks
  std::vector<int> common_;  // rails on which all of them have ranks; empty: nothing to weigh
  uint64_t ranks_;
  std::vector<float> mine_, agreed_;
  std::vector<Answers> answers_;
  int calls_ = 0;     // large ones since the last weighing
  int unpriced_ = 0;  // weighings before calls that were too short to be worth one
  bool weighed_ = false;
};

}  // namespace railccl::runtime
