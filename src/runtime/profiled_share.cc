// Which events, with which parents.
#include "runtime/profiled_share.h"

namespace railccl::runtime {

using Kind = ProfiledEvent::Kind;

ProfiledShare::ProfiledShare(Profiler* profiler, const Wires* wires)
    : profiler_(profiler), wires_(wires) {
  group_api_ = start(&group_, {.kind = Kind::group_api});
  group_event_ = start(&group_, {.kind = Kind::group, .parent = group_api_});
}

ProfiledShare::~ProfiledShare() {
  stop(&collective_);
  stop(&transfers_);
  stop(&group_);
}

void* ProfiledShare::start(std::vector<Open>* into, const ProfiledEvent& event) {
  void* const handle = profiler_->start(event);
  if (handle != nullptr) into->push_back({event, handle});
  return handle;
}

void ProfiledShare::stop(std::vector<Open>* open) {
  for (; !open->empty(); open->pop_back()) profiler_->stop(open->back().event, open->back().handle);
}

void ProfiledShare::transfers_begin(std::span<const Call> calls) {
  for (const Call& call : calls) {
    if (call.kind == Call::Kind::collective) continue;
    void* const api =
        start(&transfers_, {.kind = Kind::transfer_api, .parent = group_api_, .call = &call});
    start(&transfers_, {.kind = Kind::transfer,
                        .parent = profiler_->has_api() ? api : group_event_,
                        .group = group_event_,
                        .call = &call});
  }
}

void ProfiledShare::collective_begins(const Call& call, uint64_t sequence, const ReadyPlan& plan) {
  void* const api =
      start(&collective_, {.kind = Kind::collective_api, .parent = group_api_, .call = &call});
  const bool proxies = profiler_->wants(Kind::proxy_op);
  std::vector<LinkLoad> loads;
  if (proxies || profiler_->wants(Kind::collective)) loads = plan.execution->loads();
  uint64_t bytes = 0;
  for (const LinkLoad& load : loads) bytes += load.sends ? load.bytes : 0;
  void* const event =
      start(&collective_, {.kind = Kind::collective,
                           .parent = profiler_->has_api() ? api : group_event_,
                           .group = group_event_,
                           .call = &call,
                           .sequence = sequence,
                           .channels = static_cast<int>(plan.execution->program().channels.size()),
                           .algorithm = plan.chosen.algorithm->name,
                           .bytes = bytes});
  if (!proxies) return;
  for (const LinkLoad& load : loads) {
    if (!wires_->crosses_hosts(load.medium)) continue;
    start(&collective_, {.kind = Kind::proxy_op,
                         .parent = event,
                         .channel = load.channel,
                         .peer = load.peer,
                         .messages = load.messages,
                         .bytes = load.bytes,
                         .message_bytes = load.message_bytes,
                         .sends = load.sends});
  }
}

}  // namespace railccl::runtime
