// A libcuda.so.1 for machines without a GPU: streams are threads, and memory of a device is a range
// of addresses that nobody may touch, whose bytes lie elsewhere. So host code that reads or writes
// a device pointer faults, and what is not ordered by streams and events comes in any order.
//
// Only what railccl and its tests call is here, with the checks that the real driver makes: a
// context must be current, and be the stream's.
#include "fake_cuda.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "fake_kernels.h"

namespace {

enum Code : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kAlreadyRegistered = 712,
  kNotRegistered = 713,
  kCaptureUnsupported = 900,
};

using Address = unsigned long long;

struct Device;

/// One stream: its queue and its thread, which ends when the stream is destroyed and empty.
struct Stream {
  Device* device = nullptr;
  bool blocking = true;  // ordered with the null stream
  unsigned long long number = 0;
  bool capturing = false;
  std::deque<std::function<void()>> queue;
  uint64_t queued = 0, done = 0;
  bool ended = false;
};

struct Device {
  int number = 0;
  std::vector<std::shared_ptr<Stream>> streams;
  std::shared_ptr<Stream> null_stream;
};

struct Event {
  std::shared_ptr<Stream> stream;
  uint64_t after = 0;
};

struct Block {
  size_t bytes = 0;
  char* real = nullptr;  // null: the address itself
  bool managed = false;
};

struct State {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<int> version{12080}, devices{2};
  std::atomic<bool> started{false};
  std::map<int, std::unique_ptr<Device>> opened;
  std::map<Address, Block> device_memory;
  std::map<Address, Block> pinned;
  std::map<void*, std::shared_ptr<Stream>> handles;
  std::map<void*, Event> events;
  unsigned long long next_number = 1;
  fakeCudaFigures_t figures{};
};

State& state() {
  static State* instance = new State;  // threads outlive static destruction
  return *instance;
}

thread_local std::vector<Device*> current;
thread_local int capture_mode = 0;  // 2: relaxed
thread_local std::map<Device*, std::shared_ptr<Stream>> of_this_thread;

void run(std::shared_ptr<Stream> stream) {
  State& s = state();
  std::unique_lock lock(s.mutex);
  while (true) {
    s.changed.wait(lock, [&] { return stream->ended || !stream->queue.empty(); });
    if (stream->queue.empty()) return;
    std::function<void()> work = std::move(stream->queue.front());
    stream->queue.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
    stream->done++;
    s.changed.notify_all();
  }
}

/// With the lock.
std::shared_ptr<Stream> open_stream(Device* device, bool blocking) {
  auto stream = std::make_shared<Stream>();
  stream->device = device;
  stream->blocking = blocking;
  stream->number = state().next_number++;
  std::thread(run, stream).detach();
  device->streams.push_back(stream);
  return stream;
}

/// With the lock.
int stream_of(void* handle, std::shared_ptr<Stream>* found) {
  State& s = state();
  if (current.empty() || current.back() == nullptr) return kInvalidContext;
  Device* const device = current.back();
  const auto value = reinterpret_cast<uintptr_t>(handle);
  if (value <= 1) {
    *found = device->null_stream;
  } else if (value == 2) {
    std::shared_ptr<Stream>& own = of_this_thread[device];
    if (own == nullptr) own = open_stream(device, true);
    *found = own;
  } else {
    const auto known = s.handles.find(handle);
    if (known == s.handles.end()) return kInvalidHandle;
    if (known->second->device != device) return kInvalidContext;
    *found = known->second;
  }
  return kSuccess;
}

struct After {
  std::shared_ptr<Stream> stream;
  uint64_t done = 0;
};

int queue_to(void* handle, std::function<void()> work, std::vector<After> after = {}) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  s.figures.launches++;
  if (stream->capturing) {
    s.figures.callsWhileCapturing++;
    return kCaptureUnsupported;
  }
  // The null stream and the blocking ones wait for what was queued before to each other.
  Device* const device = stream->device;
  if (stream == device->null_stream) {
    for (const auto& other : device->streams)
      if (other != stream && other->blocking) after.push_back({other, other->queued});
  } else if (stream->blocking) {
    after.push_back({device->null_stream, device->null_stream->queued});
  }
  stream->queue.push_back([work = std::move(work), after = std::move(after)] {
    {
      std::unique_lock waiting(state().mutex);
      for (const After& one : after)
        state().changed.wait(waiting, [&] { return one.stream->done >= one.done; });
    }
    work();
  });
  stream->queued++;
  s.changed.notify_all();
  return kSuccess;
}

/// The block that holds all of [address, address + bytes), or null. With the lock.
const std::pair<const Address, Block>* find(const std::map<Address, Block>& blocks, Address address,
                                            size_t bytes) {
  auto next = blocks.upper_bound(address);
  if (next == blocks.begin()) return nullptr;
  const auto& found = *--next;
  return address + bytes <= found.first + found.second.bytes ? &found : nullptr;
}

/// Where the bytes really are; null: half outside of a block. With the lock.
char* real(Address address, size_t bytes, bool* pageable) {
  State& s = state();
  if (const auto* block = find(s.device_memory, address, bytes))
    return block->second.real + (address - block->first);
  if (find(s.device_memory, address, 1) != nullptr) return nullptr;
  *pageable = find(s.pinned, address, bytes) == nullptr;
  return reinterpret_cast<char*>(address);
}

int copy(Address to, Address from, size_t bytes, void* stream, bool asynchronous) {
  char *target = nullptr, *source = nullptr;
  {
    std::lock_guard lock(state().mutex);
    bool pageable_to = false, pageable_from = false;
    target = real(to, bytes, &pageable_to);
    source = real(from, bytes, &pageable_from);
    if (target == nullptr || source == nullptr) return kInvalidValue;
    if (asynchronous && (pageable_to || pageable_from)) state().figures.pageableCopies++;
  }
  return queue_to(stream, [target, source, bytes] { std::memcpy(target, source, bytes); });
}

std::atomic_ref<uint32_t> word_at(Address address) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(address));
}

/// With the lock.
void note_pinned(size_t bytes) {
  fakeCudaFigures_t& figures = state().figures;
  figures.pinned += bytes;
  figures.pinnedMost = std::max(figures.pinnedMost, figures.pinned);
}

int synchronize(const std::vector<After>& all) {
  State& s = state();
  std::unique_lock lock(s.mutex);
  for (const After& one : all) s.changed.wait(lock, [&] { return one.stream->done >= one.done; });
  return kSuccess;
}

/// Is a graph being captured that an allocation by this thread would end? With the lock.
bool ends_a_capture() {
  if (capture_mode == 2) return false;
  for (const auto& [number, device] : state().opened)
    for (const auto& stream : device->streams)
      if (stream->capturing) return true;
  return false;
}

int alloc(Address* address, size_t bytes, bool managed) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  if (ends_a_capture()) return kCaptureUnsupported;
  if (bytes == 0) return kInvalidValue;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t whole = (bytes + page - 1) / page * page;
  void* const shown =
      ::mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void* const hidden =
      ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (shown == MAP_FAILED || hidden == MAP_FAILED) return kOutOfMemory;
  *address = reinterpret_cast<uintptr_t>(shown);
  s.device_memory[*address] = {bytes, static_cast<char*>(hidden), managed};
  return kSuccess;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void fakeCudaSet(int version, int devices) {
  state().version = version;
  state().devices = devices;
}
EXPORTED void fakeCudaFigures(fakeCudaFigures_t* figures) {
  std::lock_guard lock(state().mutex);
  *figures = state().figures;
  state().figures.pinnedMost = figures->pinned;
}

EXPORTED int cuInit(unsigned) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (s.devices == 0) return kNoDevice;
  s.started = true;
  return kSuccess;
}
EXPORTED int cuDriverGetVersion(int* version) {
  *version = state().version;
  return kSuccess;
}
EXPORTED int cuGetErrorName(int error, const char** text) {
  static const std::map<int, const char*> names = {
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
      {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
      {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
      {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  const auto found = names.find(error);
  *text = found == names.end() ? nullptr : found->second;
  return found == names.end() ? kInvalidValue : kSuccess;
}
EXPORTED int cuGetErrorString(int, const char** text) {
  *text = "of the driver that stands in for CUDA's";
  return kSuccess;
}
EXPORTED int cuDeviceGetCount(int* count) {
  if (!state().started) return kNotInitialized;
  *count = state().devices;
  return kSuccess;
}
EXPORTED int cuDeviceGetAttribute(int* value, int, int) {
  *value = 4;  // multiprocessors: all that is asked for
  return kSuccess;
}
EXPORTED int cuDevicePrimaryCtxRetain(void** context, int device) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (!s.started) return kNotInitialized;
  if (device < 0 || device >= s.devices) return kInvalidDevice;
  std::unique_ptr<Device>& opened = s.opened[device];
  if (opened == nullptr) {
    opened = std::make_unique<Device>();
    opened->number = device;
    opened->null_stream = open_stream(opened.get(), true);
  }
  *context = opened.get();
  return kSuccess;
}
EXPORTED int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  *flags = 0;
  *active = s.opened.contains(device);
  return kSuccess;
}
EXPORTED int cuCtxPushCurrent_v2(void* context) {
  if (context == nullptr) return kInvalidContext;
  current.push_back(static_cast<Device*>(context));
  return kSuccess;
}
EXPORTED int cuCtxPopCurrent_v2(void** context) {
  if (current.empty()) return kInvalidContext;
  *context = current.back();
  current.pop_back();
  return kSuccess;
}
EXPORTED int cuCtxSetCurrent(void* context) {
  if (!current.empty()) current.pop_back();
  if (context != nullptr) current.push_back(static_cast<Device*>(context));
  return kSuccess;
}
EXPORTED int cuCtxGetCurrent(void** context) {
  if (!state().started) return kNotInitialized;
  *context = current.empty() ? nullptr : current.back();
  return kSuccess;
}
EXPORTED int cuCtxGetDevice(int* device) {
  if (current.empty()) return kInvalidContext;
  *device = current.back()->number;
  return kSuccess;
}

EXPORTED int cuMemAlloc_v2(Address* address, size_t bytes) { return alloc(address, bytes, false); }
EXPORTED int cuMemAllocManaged(Address* address, size_t bytes, unsigned) {
  return alloc(address, bytes, true);
}
EXPORTED int cuMemFree_v2(Address address) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  const auto found = s.device_memory.find(address);
  if (found == s.device_memory.end()) return kInvalidValue;
  ::munmap(found->second.real, found->second.bytes);
  ::munmap(reinterpret_cast<void*>(address), found->second.bytes);
  s.device_memory.erase(found);
  return kSuccess;
}
EXPORTED int cuMemHostRegister_v2(void* memory, size_t bytes, unsigned) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  if (ends_a_capture()) return kCaptureUnsupported;
  const auto address = reinterpret_cast<uintptr_t>(memory);
  if (find(s.pinned, address, 1) != nullptr) return kAlreadyRegistered;
  s.pinned[address] = {bytes, nullptr, false};
  note_pinned(bytes);
  return kSuccess;
}
EXPORTED int cuMemHostUnregister(void* memory) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const auto found = s.pinned.find(reinterpret_cast<uintptr_t>(memory));
  if (found == s.pinned.end()) return kNotRegistered;
  s.figures.pinned -= found->second.bytes;
  s.pinned.erase(found);
  return kSuccess;
}
EXPORTED int cuMemHostGetDevicePointer_v2(Address* address, void* memory, unsigned) {
  std::lock_guard lock(state().mutex);
  *address = reinterpret_cast<uintptr_t>(memory);
  return find(state().pinned, *address, 1) == nullptr ? kInvalidValue : kSuccess;
}
EXPORTED int cuPointerGetAttributes(unsigned count, int* attributes, void** values,
                                    Address address) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  const auto* device = find(s.device_memory, address, 1);
  const bool pinned = find(s.pinned, address, 1) != nullptr;
  for (unsigned i = 0; i < count; i++) {
    unsigned value = 0;
    if (attributes[i] == 2) value = device != nullptr ? 2 : pinned ? 1 : 0;
    if (attributes[i] == 8) value = device != nullptr && device->second.managed;
    if (attributes[i] != 2 && attributes[i] != 8) return kInvalidValue;
    std::memcpy(values[i], &value, sizeof value);
  }
  return kSuccess;
}

EXPORTED int cuStreamCreate(void** handle, unsigned flags) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  const std::shared_ptr<Stream> stream = open_stream(current.back(), (flags & 1) == 0);
  s.handles[stream.get()] = stream;
  *handle = stream.get();
  return kSuccess;
}
EXPORTED int cuStreamDestroy_v2(void* handle) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const auto found = s.handles.find(handle);
  if (found == s.handles.end()) return kInvalidHandle;
  found->second->ended = true;
  std::erase(found->second->device->streams, found->second);
  s.handles.erase(found);
  s.changed.notify_all();
  return kSuccess;
}
EXPORTED int cuStreamGetCtx(void* handle, void** context) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const auto found = s.handles.find(handle);
  if (found == s.handles.end()) return kInvalidHandle;
  *context = found->second->device;
  return kSuccess;
}
EXPORTED int cuStreamGetId(void* handle, unsigned long long* number) {
  std::lock_guard lock(state().mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  *number = stream->number;
  return kSuccess;
}
EXPORTED int cuStreamIsCapturing(void* handle, int* capturing) {
  std::lock_guard lock(state().mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  *capturing = stream->capturing ? 1 : 0;
  return kSuccess;
}
EXPORTED int cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, capture_mode);
  return kSuccess;
}
EXPORTED int cuStreamBeginCapture_v2(void* handle, int) {
  std::lock_guard lock(state().mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  stream->capturing = true;
  return kSuccess;
}
EXPORTED int cuStreamEndCapture(void* handle, void** graph) {
  std::lock_guard lock(state().mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  stream->capturing = false;
  *graph = nullptr;
  return kSuccess;
}
EXPORTED int cuStreamSynchronize(void* handle) {
  std::vector<After> all(1);
  {
    std::lock_guard lock(state().mutex);
    if (const int code = stream_of(handle, &all[0].stream); code != kSuccess) return code;
    all[0].done = all[0].stream->queued;
  }
  return synchronize(all);
}
EXPORTED int cuStreamQuery(void* handle) {
  std::lock_guard lock(state().mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  return stream->done == stream->queued ? kSuccess : kNotReady;
}
EXPORTED int cuStreamWaitValue32_v2(void* stream, Address address, uint32_t value, unsigned) {
  return queue_to(stream, [address, value] {
    while (static_cast<int32_t>(word_at(address).load(std::memory_order_acquire) - value) < 0)
      std::this_thread::sleep_for(std::chrono::microseconds(20));
  });
}
EXPORTED int cuStreamWriteValue32_v2(void* stream, Address address, uint32_t value, unsigned) {
  return queue_to(stream,
                  [address, value] { word_at(address).store(value, std::memory_order_release); });
}
EXPORTED int cuLaunchHostFunc(void* stream, void (*function)(void*), void* argument) {
  return queue_to(stream, [function, argument] { function(argument); });
}
EXPORTED int cuMemcpyAsync(Address to, Address from, size_t bytes, void* stream) {
  return copy(to, from, bytes, stream, true);
}
EXPORTED int cuMemcpy(Address to, Address from, size_t bytes) {
  if (const int code = copy(to, from, bytes, nullptr, false); code != kSuccess) return code;
  return cuStreamSynchronize(nullptr);
}

EXPORTED int cuModuleLoadData(void** module, const void*) {
  if (current.empty()) return kInvalidContext;
  *module = current.back();  // whatever the image: fake_kernels.cc has them all
  return kSuccess;
}
EXPORTED int cuModuleGetFunction(void** function, void*, const char* name) {
  *function = const_cast<railccl::fake::Kernel*>(railccl::fake::find_kernel(name));
  return *function == nullptr ? kNotFound : kSuccess;
}
EXPORTED int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                            unsigned block_x, unsigned block_y, unsigned block_z, unsigned,
                            void* stream, void** parameters, void**) {
  const auto* const kernel = static_cast<const railccl::fake::Kernel*>(function);
  const auto* const bytes = static_cast<const char*>(parameters[0]);
  const uint64_t threads = uint64_t{grid_x} * grid_y * grid_z * block_x * block_y * block_z;
  return queue_to(
      stream,
      [kernel, argument = std::vector<char>(bytes, bytes + kernel->argument_bytes), threads] {
        kernel->run(argument.data(), threads, [](void* address) -> void* {
          bool pageable = false;
          std::lock_guard lock(state().mutex);
          return real(reinterpret_cast<uintptr_t>(address), 0, &pageable);
        });
      });
}

EXPORTED int cuEventCreate(void** event, unsigned) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (current.empty()) return kInvalidContext;
  *event = new char;
  s.events[*event] = {};
  return kSuccess;
}
EXPORTED int cuEventDestroy_v2(void* event) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (s.events.erase(event) == 0) return kInvalidHandle;
  delete static_cast<char*>(event);
  return kSuccess;
}
EXPORTED int cuEventRecord(void* event, void* handle) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  std::shared_ptr<Stream> stream;
  if (const int code = stream_of(handle, &stream); code != kSuccess) return code;
  if (!s.events.contains(event)) return kInvalidHandle;
  s.events[event] = {stream, stream->queued};
  return kSuccess;
}
EXPORTED int cuEventQuery(void* event) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const auto found = s.events.find(event);
  if (found == s.events.end()) return kInvalidHandle;
  const Event& one = found->second;
  return one.stream == nullptr || one.stream->done >= one.after ? kSuccess : kNotReady;
}
EXPORTED int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  Event one;
  {
    std::lock_guard lock(state().mutex);
    const auto found = state().events.find(event);
    if (found == state().events.end()) return kInvalidHandle;
    one = found->second;
  }
  if (one.stream == nullptr) return kSuccess;
  return queue_to(stream, [] {}, {{one.stream, one.after}});
}
