// Member: what a communicator tells of itself: choices, meeting, paths, proofs, prices, memory.
#include "runtime/member.h"
#include "runtime/path_text.h"
#include "runtime/prove.h"

namespace railccl::runtime {

Choice Member::last_choice() const {
  Choice choice;
  const algorithms::Algorithm* algorithm = last_algorithm_.load(std::memory_order_acquire);
  if (algorithm == nullptr) return choice;
  choice.algorithm = algorithm->name;
  choice.transport = parts_.wires->media_text(last_media_);
  choice.channels = last_channels_;
  choice.chunk_bytes = last_chunk_bytes_;
  choice.predicted_s = last_predicted_s_;
  choice.bound_s = last_bound_s_;
  return choice;
}

Result<Joining> Member::joining() const {
  RAILCCL_CHECK(usable());
  return Joining{joining_s_, parts_.control->traffic()};
}

Result<std::string> Member::paths() const {
  const std::shared_ptr<const topology::Topology> topology = this->topology();
  if (topology == nullptr)
    return Status(Code::invalid_usage, "{} has not joined its peers", title());
  return text_of(parts_.wires->report(), *topology, rank());
}

Result<Proof> Member::prove(const plan::Request& request, Reach reach) const {
  RAILCCL_CHECK(usable());
  const auto topology = this->topology();
  RAILCCL_TRY(const Chosen chosen,
              parts_.chooser->choose(request, *topology, best_reach(request.collective, reach)));
  return runtime::prove(chosen, request, *topology);
}

Result<double> Member::predict(const plan::Request& request) const {
  RAILCCL_CHECK(usable());
  RAILCCL_TRY(const Chosen chosen, parts_.chooser->choose(request, *topology()));
  return chosen.predicted_s;
}

Result<Memory> Member::memory() {
  const bool suspended = phase_.load(std::memory_order_acquire) == Phase::suspended;
  if (!suspended) RAILCCL_CHECK(usable());
  const uint64_t ticket = turns_.take();
  turns_.wait(ticket);
  const uint64_t scratch = parts_.wires->scratch_bytes();
  const bool shared = parts_.wires->scratch_is_shared();
  turns_.leave(ticket);
  Memory memory{shared ? 0 : scratch, shared ? scratch : 0, suspended};
  if (staging_ != nullptr) {
    memory.persistent += staging_->pinned_bytes();
    memory.releasable += staging_->spool_bytes();
  }
  return memory;
}

}  // namespace railccl::runtime
