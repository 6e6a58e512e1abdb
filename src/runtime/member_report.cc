// Member: what a communicator tells of itself: to profilers, the recorder and whoever asks:
// choices, meeting, paths, proofs, prices, memory.
#include "base/log.h"
#include "runtime/member.h"
#include "runtime/path_text.h"
#include "runtime/prove.h"

namespace railccl::runtime {

/// Whether there is one, and which, concerns this rank alone.
void Member::open_profiler() {
  auto opened = Profiler::open(
      settings_,
      {config_.name, parts_.job, static_cast<int>(topology_->used_hosts().size()), size(), rank()});
  if (!opened.is_ok()) {
    // That nobody has one is no news.
    log::info("rank {}: no profiler: {}", rank(), opened.status().text());
    return;
  }
  profiler_ = std::move(opened).value();
  watched_ = true;
  log::info("rank {}: tells profiler {} of {}", rank(), profiler_->text(), profiler_->file());
}

Subject Member::subject_of(const plan::Request& request) const {
  Subject subject;
  subject.request = request;
  const uint64_t elements = std::max(plan::input_elements(request, size(), rank()),
                                     plan::output_elements(request, size(), rank()));
  subject.bytes = elements * size_of(request.datatype);
  return subject;
}

Choice Member::last_choice() const {
  const Subject last = recorder_.last();
  if (last.algorithm == nullptr) return {};
  return {last.algorithm->name, parts_.wires->media_text(last.media),
          last.channels,        last.chunk_bytes,
          last.predicted_s,     last.bound_s};
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

Picture Member::picture(size_t operations) const {
  Picture picture;
  picture.name = config_.name;
  picture.taken_ns = now_ns();
  picture.made_ns = started_ns_;
  picture.rank = rank();
  picture.ranks = size();
  const uint64_t waiting = turns_.waiting();
  picture.queued = waiting > 0 ? waiting - 1 : 0;  // the first one has its turn
  picture.collectives = collectives_.load(std::memory_order_relaxed);
  picture.topology = topology();
  const bool met = picture.topology != nullptr;
  // What parts_ points to stays until this rank is not observed any more.
  const uint64_t finished = met ? parts_.control->finished() : 0;
  for (Record& record : recorder_.records(finished, operations)) {
    std::string transport = record.subject.media == 0 || !met
                                ? std::string()
                                : parts_.wires->media_text(record.subject.media);
    std::string where = recorder_.standing(record);
    picture.operations.push_back({std::move(record), std::move(transport), std::move(where)});
  }
  if (met) {
    picture.job = parts_.job;
    picture.host = picture.topology->host_of(rank()).name;
    picture.finished = parts_.control->finished();  // of those that are remembered, maybe more
    picture.news = parts_.control->news();
    picture.processes = parts_.processes;
    picture.paths = parts_.wires->report();
  }
  picture.entered = sequence_.load(std::memory_order_relaxed);
  picture.transfers = recorder_.transfers();
  picture.bytes = recorder_.bytes();
  picture.state = state_text(phase_.load(std::memory_order_acquire));
  picture.failure = met ? parts_.control->verdict() : Status();
  {
    std::lock_guard lock(failure_mutex_);
    if (failed_.load(std::memory_order_relaxed)) picture.failure = failure_;
    picture.suspects = suspects_;
    // More exact than where it stood when it last said so.
    if (standing_ && !standing_->call.empty())
      for (Picture::Operation& operation : picture.operations)
        if (operation.record.number == standing_->sequence &&
            operation.record.kind != Record::Kind::transfers)
          operation.where = standing_->where;
  }
  if (!picture.failure.is_ok()) picture.state = "failed";
  return picture;
}

const char* Member::state_text(Phase phase) {
  switch (phase) {
    case Phase::joining:
      return "joining";
    case Phase::ready:
      return "works";
    case Phase::suspended:
      return "suspended";
    case Phase::finalized:
      return "finalized";
    case Phase::failed:
      return "failed";
  }
  return "?";
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
