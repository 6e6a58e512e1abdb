// Simulation: options checked, programs gathered, one run made.
#include "simulator/simulation.h"

#include <algorithm>
#include <cmath>

#include "plan/checker.h"
#include "simulator/compiled.h"
#include "simulator/run.h"

namespace railccl::simulator {

namespace {

Status check(const Options& options, const topology::Topology& topology) {
  const auto wrong = [](const char* what, double value, const char* range) {
    return Status(Code::invalid_argument, "{} is {}, but must be {}", what, value, range);
  };
  if (!(options.step_s >= 0 && options.step_s <= 1))
    return wrong("the time of a step", options.step_s, "from 0 to 1 s");
  if (!(options.jitter >= 0 && options.jitter <= 100))
    return wrong("the jitter", options.jitter, "from 0 to 100");
  for (const SlowRank& slow : options.slow) {
    if (slow.rank < 0 || slow.rank >= topology.size())
      return Status(Code::invalid_argument, "there is no rank {} to be slow: there are {}",
                    slow.rank, topology.size());
    if (!(slow.factor >= 1 && slow.factor <= 1e6))
      return wrong("the factor of a slow rank", slow.factor, "from 1 to 1000000");
  }
  for (const Fault& fault : options.faults) {
    if (!(fault.time_s >= 0 && std::isfinite(fault.time_s)))
      return wrong("the time of a fault", fault.time_s, "0 s or later");
    if (!(fault.factor >= 0 && fault.factor <= 1))
      return wrong("the factor of a fault", fault.factor, "from 0 to 1");
    const auto& ranks = topology.ranks();
    if (std::none_of(ranks.begin(), ranks.end(), [&](const topology::Rank& rank) {
          return rank.host == fault.host && rank.nic == fault.nic && rank.nic >= 0;
        }))
      return Status(Code::invalid_argument,
                    "a fault of NIC {} of host {}, which does not exist or serves no rank",
                    fault.nic, fault.host);
  }
  return ok();
}

/// Slices of others can be reached where the runtime could: on the own host.
Status check_reach(const plan::Program& program, const topology::Topology& topology) {
  const auto check_slice = [&](const plan::Slice& slice) {
    if (slice.owner == plan::kHere) return ok();
    if (slice.owner < 0 || slice.owner >= topology.size())
      return Status(Code::invalid_argument, "rank {}: there is no rank {} to own a buffer",
                    program.rank, slice.owner);
    if (topology.rank(slice.owner).host != topology.rank(program.rank).host)
      return Status(Code::invalid_argument,
                    "rank {}: rank {}'s memory cannot be reached from another host", program.rank,
                    slice.owner);
    return ok();
  };
  for (const plan::Channel& channel : program.channels)
    for (const plan::Step& step : channel.steps) {
      RAILCCL_CHECK(check_slice(step.dst));
      RAILCCL_CHECK(check_slice(step.src));
    }
  for (const std::vector<plan::Slice>* table : {&program.sources, &program.targets})
    for (const plan::Slice& slice : *table) RAILCCL_CHECK(check_slice(slice));
  return ok();
}

}  // namespace

const LinkLoad* Report::most_loaded() const {
  const auto most =
      std::max_element(links.begin(), links.end(),
                       [](const LinkLoad& a, const LinkLoad& b) { return a.used < b.used; });
  return most == links.end() ? nullptr : &*most;
}

Result<Report> simulate(const plan::Request& request, const topology::Topology& topology,
                        const MakeProgram& make, const Options& options) {
  RAILCCL_CHECK(check(options, topology));
  Folding folding;
  if (options.fold && options.slow.empty() && options.faults.empty() && options.jitter == 0)
    folding = find_folding(topology, make);
  Compiled programs(topology.size(), folding);
  for (int rank = 0; rank < topology.size(); rank++) {
    if (folding.stand_in(rank) != rank) continue;
    auto program = make(rank);
    if (!program.is_ok()) return program.status().context("rank {}: no program", rank);
    if (program->rank != rank || program->ranks != topology.size())
      return Status(Code::invalid_argument, "rank {} of {}: the program is for rank {} of {}", rank,
                    topology.size(), program->rank, program->ranks);
    if (program->request != request)
      return Status(Code::invalid_argument, "rank {}: the program is for {}, not for {}", rank,
                    plan::text_of(program->request), plan::text_of(request));
    RAILCCL_CHECK(plan::validate(*program));
    RAILCCL_CHECK(check_reach(*program, topology));
    programs.add(*program);
  }
  programs.finish();
  return Run(request, topology, programs, folding, options).run();
}

}  // namespace railccl::simulator
