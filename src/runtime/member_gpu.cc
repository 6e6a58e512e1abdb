// Member: calls with buffers of a GPU, until they are staged (gpu_staging.h).
#include "base/log.h"
#include "runtime/group.h"
#include "runtime/member.h"

namespace railccl::runtime {

/// Where the rank's device is known, pins what calls will need. Where that fails the first call
/// with a buffer of a GPU will say so, if there is one.
void Member::prepare_gpu() {
  if (config_.gpu.context == nullptr) return;
  auto staging = Staging::make(config_.gpu.context, nullptr);
  if (staging.is_ok()) {
    staging_ = std::move(staging).value();
  } else {
    log::info("{}: device {}: {}", title(), config_.gpu.device, staging.status().text());
  }
}

/// A call with buffers of a GPU, or on a stream of CUDA's: `taken`, unless it is neither.
Status Member::begin_on_gpu(const Call& call, Queue queue, bool* taken) {
  RAILCCL_TRY(const OnGpu places, look_at(call, queue, config_.gpu, size(), rank()));
  *taken = places.any;
  if (!places.any) return ok();
  RAILCCL_CHECK(staging(queue.cuda).status());
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  return record_or_launch(std::move(self), call, places);
}

Result<Staging*> Member::staging(void* cuda_stream) {
  if (staging_ == nullptr) {
    RAILCCL_TRY(staging_, Staging::make(config_.gpu.context, cuda_stream));
  }
  return staging_.get();
}

}  // namespace railccl::runtime
