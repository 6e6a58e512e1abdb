// What tests need of CUDA: the driver's functions, buffers and streams. Private to these tests.
//
// The programs are linked with the driver that stands in for CUDA's (fake/); where the loader finds
// a real libcuda.so.1 first (run_all sees to that), the same programs run on the GPU.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <future>
#include <numeric>
#include <vector>

#include "fake/fake_cuda.h"
#include "nccl.h"

extern "C" {
int cuInit(unsigned flags);
int cuDeviceGetCount(int* count);
int cuDevicePrimaryCtxRetain(void** context, int device);
int cuCtxSetCurrent(void* context);
int cuMemAlloc_v2(unsigned long long* address, size_t bytes);
int cuMemAllocManaged(unsigned long long* address, size_t bytes, unsigned flags);
int cuMemFree_v2(unsigned long long address);
int cuMemcpy(unsigned long long to, unsigned long long from, size_t bytes);
int cuMemcpyAsync(unsigned long long to, unsigned long long from, size_t bytes, void* stream);
int cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags);
int cuMemHostUnregister(void* memory);
int cuStreamCreate(void** stream, unsigned flags);
int cuStreamDestroy_v2(void* stream);
int cuStreamQuery(void* stream);
int cuStreamSynchronize(void* stream);
int cuStreamBeginCapture_v2(void* stream, int mode);
int cuStreamEndCapture(void* stream, void** graph);
int cuModuleLoadData(void** module, const void* image);
int cuModuleGetFunction(void** function, void* module, const char* name);
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void* stream, void** parameters, void** extra);
int cuLaunchHostFunc(void* stream, void (*function)(void*), void* argument);
}

namespace railccl::test {

#define CU(call) ASSERT_EQ(call, 0) << #call

/// The stand-in's functions; null on a real driver.
inline auto* fake_set() {
  return reinterpret_cast<decltype(&fakeCudaSet)>(dlsym(RTLD_DEFAULT, "fakeCudaSet"));
}
inline auto* fake_figures() {
  return reinterpret_cast<decltype(&fakeCudaFigures)>(dlsym(RTLD_DEFAULT, "fakeCudaFigures"));
}

/// Makes a device's primary context current in this thread; the machine may have fewer devices.
inline int use_device(int device) {
  int count = 0;
  EXPECT_EQ(cuInit(0), 0);
  EXPECT_EQ(cuDeviceGetCount(&count), 0);
  void* context = nullptr;
  EXPECT_EQ(cuDevicePrimaryCtxRetain(&context, device % count), 0);
  EXPECT_EQ(cuCtxSetCurrent(context), 0);
  return device % count;
}

enum class Where { host, device, managed };

/// `count` numbers, of a device or of the host. Set and read in the calling thread's context, and
/// in no order with streams that the null stream knows nothing of.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count, Where where = Where::device) : count_(count), where_(where) {
    if (where == Where::host) {
      host_.resize(std::max<size_t>(count, 1));
      return;
    }
    const size_t bytes = std::max<size_t>(count, 1) * sizeof(T);
    EXPECT_EQ(where == Where::device ? cuMemAlloc_v2(&address_, bytes)
                                     : cuMemAllocManaged(&address_, bytes, 1),
              0);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (where_ != Where::host) {
      EXPECT_EQ(cuMemFree_v2(address_), 0);
    }
  }
  T* data() { return where_ == Where::host ? host_.data() : reinterpret_cast<T*>(address_); }
  size_t size() const { return count_; }
  void set(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), count_);
    if (count_ == 0) return;
    if (where_ == Where::host) {
      host_ = values;
      return;
    }
    CU(cuMemcpy(address_, reinterpret_cast<uintptr_t>(values.data()), count_ * sizeof(T)));
  }
  std::vector<T> get() {
    std::vector<T> values(count_);
    if (where_ == Where::host) {
      std::copy_n(host_.begin(), count_, values.begin());
    } else if (count_ > 0) {
      EXPECT_EQ(cuMemcpy(reinterpret_cast<uintptr_t>(values.data()), address_, count_ * sizeof(T)),
                0);
    }
    return values;
  }

 private:
  size_t count_;
  Where where_;
  unsigned long long address_ = 0;
  std::vector<T> host_;
};

/// A stream that the null stream is in no order with.
class CudaStream {
 public:
  CudaStream() { EXPECT_EQ(cuStreamCreate(&stream_, 1), 0); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream() { EXPECT_EQ(cuStreamDestroy_v2(stream_), 0); }
  operator cudaStream_t() const { return static_cast<cudaStream_t>(stream_); }
  void* handle() const { return stream_; }
  void synchronize() const { EXPECT_EQ(cuStreamSynchronize(stream_), 0); }

 private:
  void* stream_ = nullptr;
};

/// Holds up a stream until it is opened.
class Gate {
 public:
  explicit Gate(void* stream) {
    EXPECT_EQ(cuLaunchHostFunc(
                  stream, [](void* gate) { static_cast<Gate*>(gate)->opened_.get_future().wait(); },
                  this),
              0);
  }
  void open() { opened_.set_value(); }

 private:
  std::promise<void> opened_;
};

}  // namespace railccl::test
