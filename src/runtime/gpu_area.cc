// Pinning, and giving back only what no stream will write to any more.
#include "runtime/gpu_area.h"

#include <mutex>
#include <vector>

#include "base/log.h"

namespace railccl::runtime {
namespace {

using gpu::Driver;
using transport::MemoryFile;

constexpr unsigned kPortableAndMapped = 0x1 | 0x2;
constexpr unsigned kDisableTiming = 0x2;
constexpr unsigned kUntilNotLess = 0x0;  // the difference, as a signed number, is not below 0
constexpr unsigned kAfterAllBefore = 0x0;

/// What a stream may still write to.
struct Left {
  const Driver* driver;
  gpu::Context context;
  std::shared_ptr<MemoryFile> file;
  gpu::EventHandle done, join;
  bool registered;
};
struct Parked {
  std::mutex mutex;
  std::vector<Left> areas;
};
Parked& parked() {
  static auto* instance = new Parked;  // never destroyed: communicators may end late
  return *instance;
}

/// Gives it back if its streams have passed. What fails here fails because the driver is shutting
/// down or the context is lost: then nothing is left to give back.
bool give_back(const Left& left) {
  const Driver& driver = *left.driver;
  const gpu::WithContext with(driver, left.context);
  const gpu::BesideCaptures beside(driver);
  constexpr int kNotReady = 600;
  if (left.done != nullptr && driver.event_query(left.done) == kNotReady) return false;
  if (left.done != nullptr) (void)driver.event_destroy(left.done);
  if (left.join != nullptr) (void)driver.event_destroy(left.join);
  if (left.registered) (void)driver.host_unregister(left.file->data());
  return true;
}

void sweep() {
  std::lock_guard lock(parked().mutex);
  std::erase_if(parked().areas, give_back);
}

}  // namespace

Result<std::shared_ptr<GpuArea>> GpuArea::make(const Driver& driver, gpu::Context context) {
  sweep();
  const std::shared_ptr<GpuArea> area(new GpuArea(driver, context));
  RAILCCL_TRY(area->file_, MemoryFile::create(kGpuAreaBytes + 4 * kWordBytes));
  const gpu::WithContext with(driver, context);
  RAILCCL_CHECK(with.status());
  const gpu::BesideCaptures beside(driver);
  std::byte* const data = area->data();
  RAILCCL_CHECK(
      RAILCCL_CUDA_CALL(driver, host_register, data, area->file_->size(), kPortableAndMapped)
          .context("cannot pin {} bytes to stage buffers of a GPU", area->file_->size()));
  area->registered_ = true;
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, host_address, &area->address_, data, 0));
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, event_create, &area->done_, kDisableTiming));
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, event_create, &area->join_, kDisableTiming));
  return area;
}

GpuArea::~GpuArea() {
  if (file_ == nullptr) return;
  MemoryFile::release(file_->data());
  Left left{&driver_, context_, std::move(file_), done_, join_, registered_};
  if (give_back(left)) return;
  std::lock_guard lock(parked().mutex);
  parked().areas.push_back(std::move(left));
}

Status GpuArea::set_by(gpu::StreamHandle stream, Word word, uint32_t value) const {
  return RAILCCL_CUDA_CALL(driver_, stream_write_value, stream,
                           address_ + kGpuAreaBytes + word * kWordBytes, value, kAfterAllBefore);
}

Status GpuArea::wait_by(gpu::StreamHandle stream, Word word, uint32_t value) const {
  return RAILCCL_CUDA_CALL(driver_, stream_wait_value, stream,
                           address_ + kGpuAreaBytes + word * kWordBytes, value, kUntilNotLess);
}

}  // namespace railccl::runtime
