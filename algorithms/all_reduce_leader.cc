// All-reduce, leader: one rank of each host adds up its host's contributions, the leaders
// all-reduce on one rail, and each hands the result to its host.
//
//   hosts {0,1} and {2,3}:  1 sends its data to 0 and 3 to 2, which add their own;
//                           0 <-> 2 reduce;  0 sends the result to 1 and 2 to 3
//
// As many rounds as all_reduce_rail, but a host has one message under way between hosts where that
// has one for each NIC, and only the leaders ever look at the network. One NIC carries all of the n
// log2 N bytes, and the leader takes in (G-1) n in its host: for messages so small that their
// number counts and not their bytes, and never for others: where NICs carry less than they promise,
// as virtual ones do, the model does not know how much longer one takes than all together. Scratch:
// that of the pattern between hosts.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/port_meter.h"

namespace railccl::algorithms {
namespace {

constexpr uint64_t kBytesMax = 1024;

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && has_rails(topology) &&
         plan::bytes_of(request) <= kBytesMax;
}

/// Owners of a shard: one rank of each host, on a rail that all have if there is one.
std::vector<int> leaders_of(const Shards& shards) { return shards.across(0); }

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const Shards shards(topology, Group::everyone(topology.size(), 0).members, host_parts(topology));
  const std::vector<int> leaders = leaders_of(shards);
  const double n = static_cast<double>(plan::bytes_of(request));
  const int hosts = shards.parts(), most = topology.ranks_per_host_max();
  const AllReducePattern& outer = all_reduce_across(hosts, plan::bytes_of(request));
  plan::Cost cost;
  PortMeter meter(topology);
  for (size_t i = 0; i < leaders.size(); i++)
    meter.add(leaders[i], leaders[(i + 1) % leaders.size()], outer.bytes(hosts, n));
  meter.charge(cost);
  cost.outer_rounds = outer.rounds(hosts);
  cost.outer_senders = 1;
  cost.inner_rounds = 2;
  cost.inner_extra = 2.0 * (most - 2);
  cost.inner_bytes = 2 * n * (most - 1);
  cost.local_bytes = n * most;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  const Shards shards(topology, Group::everyone(topology.size(), rank).members,
                      host_parts(topology));
  const std::vector<int> leaders = leaders_of(shards);
  const int part = shards.part_with(rank);
  const std::vector<int>& locals = shards.part(part);
  const int leader = leaders[static_cast<size_t>(part)];
  plan::Builder b(request, topology.size(), rank, "leader");
  b.channel(0);
  const Region input = b.input(), output = b.output();
  if (input.count == 0) return std::move(b).take();
  if (rank != leader) {
    b.send(leader, input.slice(), Pre::yes);
    b.recv(leader, output.slice());
    return std::move(b).take();
  }
  const Stage across{b, group_of(leaders, rank), 0, input.count, Pre::no, Post::yes};
  if (locals.size() == 1) place(across, input, output, Pre::yes, Post::no);
  bool first = true;
  for (const int local : locals) {
    if (local == rank) continue;
    b.recv_reduce(local, first ? input.slice() : output.slice(), output.slice(),
                  first ? Pre::yes : Pre::no);
    first = false;
  }
  all_reduce_across(shards.parts(), plan::bytes_of(request)).all_reduce(across, output, output);
  for (const int local : locals)
    if (local != rank) b.send(local, output.slice());
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_leader){Collective::all_reduce, "leader", supports, cost, build};

}  // namespace railccl::algorithms
