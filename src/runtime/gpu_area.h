// GpuArea: the pinned memory through which a communicator's data pass on their way from and to a
// GPU, and the words by which a stream of CUDA's and a thread of ours tell each other how far they
// are. Private to this room.
//
// The memory is a memory file, so that ranks of a host read each other's copies in place, and of
// fixed size: kGpuAreaBytes, all that a communicator pins. Streams may still be writing to it when
// its communicator is gone (an abort leaves what is queued to the stream): then it is kept until
// they have passed.
#pragma once

#include <atomic>
#include <memory>

#include "gpu/driver.h"
#include "transport/memory_file.h"

namespace railccl::runtime {

inline constexpr uint64_t kGpuAreaBytes = uint64_t{16} << 20;

class GpuArea {
 public:
  static Result<std::shared_ptr<GpuArea>> make(const gpu::Driver& driver, gpu::Context context);
  ~GpuArea();
  GpuArea(const GpuArea&) = delete;
  GpuArea& operator=(const GpuArea&) = delete;

  /// Words on cache lines of their own. They count pieces (gpu_staging.h), and only ever grow,
  /// apart from wrapping around.
  enum Word : int {
    filled,    // by the stream: pieces of input that are here
    drained,   // by the host: those whose place may be used again
    produced,  // by the host: pieces of output that are here
    consumed,  // by the stream: those whose place may be used again
  };
  /// Has the word come to `value`? What its writer did before is visible then.
  bool reached(Word word, uint32_t value) const {
    return static_cast<int32_t>(at(word).load(std::memory_order_acquire) - value) >= 0;
  }
  void set(Word word, uint32_t value) { at(word).store(value, std::memory_order_release); }
  /// The same by a stream, whose work before is complete and visible then; and by one that waits.
  Status set_by(gpu::StreamHandle stream, Word word, uint32_t value) const;
  Status wait_by(gpu::StreamHandle stream, Word word, uint32_t value) const;

  const gpu::Driver& driver() const { return driver_; }
  gpu::Context context() const { return context_; }
  std::byte* data() const { return file_->data(); }
  gpu::Address address() const { return address_; }
  uint64_t pinned_bytes() const { return file_->size(); }
  /// Recorded after everything that a stream does here.
  gpu::EventHandle done() const { return done_; }
  gpu::EventHandle join() const { return join_; }

 private:
  GpuArea(const gpu::Driver& driver, gpu::Context context) : driver_(driver), context_(context) {}
  std::atomic_ref<uint32_t> at(Word word) const {
    return std::atomic_ref<uint32_t>(
        *reinterpret_cast<uint32_t*>(data() + kGpuAreaBytes + word * kWordBytes));
  }
  static constexpr uint64_t kWordBytes = 128;

  const gpu::Driver& driver_;
  const gpu::Context context_;
  std::shared_ptr<transport::MemoryFile> file_;
  bool registered_ = false;
  gpu::Address address_ = 0;
  gpu::EventHandle done_ = nullptr;
  gpu::EventHandle join_ = nullptr;
};

}  // namespace railccl::runtime
