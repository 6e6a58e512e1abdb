// Group::queue, for the files that Group is in.
#pragma once

#include "group.h"

namespace railccl_torch {

template <typename CallOptions>
WorkPointer Group::queue(const CallOptions& options, Job::Facts facts, Job::Body body) {
  facts.timeout = or_usual(options.timeout);
  facts.waited_for = waits_at_once(options, 0);
  auto job = c10::make_intrusive<Job>(rank_, std::move(facts), std::move(body), collectives_);
  calls_++;
  collectives_->add(job);
  return job;
}

}  // namespace railccl_torch
