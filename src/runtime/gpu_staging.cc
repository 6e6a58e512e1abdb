// From calls with buffers of a GPU to calls with copies; see gpu_staging.h.
#include "runtime/gpu_staging.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "runtime/group.h"
#include "runtime/member.h"
#include "runtime/patience.h"

namespace railccl::runtime {
namespace {

using gpu::Driver;
using gpu::Home;
using transport::MemoryFile;

constexpr uint64_t kPieces = 4;  // of the area, for what passes through it
constexpr uint64_t kPieceBytes = kGpuAreaBytes / kPieces;
constexpr uint64_t kAlignment = 256;

struct Extent {
  uint64_t input = 0, output = 0;  // bytes
};

Extent extent_of(const Call& call, int ranks, int rank) {
  const uint64_t unit = size_of(call.request.datatype);
  switch (call.kind) {
    case Call::Kind::send:
      return {call.request.count * unit, 0};
    case Call::Kind::recv:
      return {0, call.request.count * unit};
    case Call::Kind::collective:
      break;
  }
  return {plan::input_elements(call.request, ranks, rank) * unit,
          plan::output_elements(call.request, ranks, rank) * unit};
}

gpu::Address address_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

/// One of CUDA's streams that stand for others: they say nothing of a context.
bool is_default(const void* stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }

/// Waits for a stream of CUDA's: it may be busy for as long as the application likes.
Status wait_for(const GpuArea& area, GpuArea::Word word, uint32_t value, Member& member) {
  constexpr int kSpins = 2000, kYields = 200, kSleepUs = 50;
  for (int looks = 0; !area.reached(word, value); looks++) {
    if (looks < kSpins) {
      relax_core();
      continue;
    }
    if (member.troubled()) return member.trouble();
    if (looks < kSpins + kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(kSleepUs));
    }
  }
  return ok();
}

Status check_stream(const Driver& driver, void* stream) {
  int state = 0;
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, stream_capturing, stream, &state));
  if (state == 0) return ok();
  return Status(Code::unsupported,
                "the stream is being captured into a graph: collectives in graphs are not "
                "supported yet");
}

}  // namespace

GpuPlace GpuPlace::here() {
  GpuPlace place;
  const Driver* const driver = Driver::loaded();
  if (driver == nullptr) return place;
  place.driver = true;
  place.context = driver->current();
  place.device = driver->current_device();
  return place;
}

Result<GpuPlace> GpuPlace::of(int device) {
  const Driver* const driver = Driver::loaded();
  const int devices = driver != nullptr ? driver->devices() : 0;
  if (devices == 0) return here();
  if (device >= devices)
    return Status(Code::invalid_argument, "device {} is none of the {} there are", device, devices);
  RAILCCL_CHECK(driver->usable());
  GpuPlace place{true, nullptr, device};
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(*driver, primary_retain, &place.context, device));
  return place;
}

Result<bool> GpuPlace::holds(const void* pointer) const {
  const Driver* const loaded = driver ? Driver::loaded() : nullptr;
  if (loaded == nullptr) return false;
  RAILCCL_TRY(const Home home, loaded->home_of(pointer, context));
  return home == Home::device;
}

Result<OnGpu> look_at(const Call& call, Queue queue, const GpuPlace& place, int ranks, int rank) {
  OnGpu places;
  const Driver* const driver = Driver::loaded();
  if (driver == nullptr) return places;
  const Extent extent = extent_of(call, ranks, rank);
  Home input = Home::host, output = Home::host;
  if (extent.input > 0) {
    RAILCCL_TRY(input, driver->home_of(call.input, place.context));
  }
  if (extent.output > 0) {
    RAILCCL_TRY(output, driver->home_of(call.output, place.context));
  }
  places.input = input == Home::device;
  places.output = output == Home::device;
  places.stream = queue.cuda;
  const bool device = places.input || places.output || call.late_factor != nullptr;
  if (queue.host != nullptr) {
    if (!device) return OnGpu();
    return Status(Code::invalid_argument,
                  "a buffer of a GPU on a stream made by railcclStreamCreate, which orders work of "
                  "the host only: use a stream of CUDA");
  }
  places.any = device || queue.cuda != nullptr || input == Home::pinned || output == Home::pinned;
  return places;
}

// ---- One communicator's -------------------------------------------------------------------------

Result<std::unique_ptr<Staging>> Staging::make(gpu::Context context, void* stream) {
  const Driver* const driver = Driver::loaded();
  if (driver == nullptr) return Status(Code::unsupported, "no CUDA driver is loaded");
  RAILCCL_CHECK(driver->usable());
  if (context == nullptr && !is_default(stream))
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(*driver, stream_context, stream, &context));
  if (context == nullptr) context = driver->current();
  if (context == nullptr)
    return Status(Code::invalid_usage,
                  "no CUDA context is current in the calling thread (choose a device first: "
                  "cudaSetDevice)");
  {
    // Nothing of what follows is allowed while a graph is captured.
    const gpu::WithContext with(*driver, context);
    RAILCCL_CHECK(with.status());
    RAILCCL_CHECK(check_stream(*driver, stream));
  }
  std::unique_ptr<Staging> staging(new Staging);
  RAILCCL_TRY(staging->area_, GpuArea::make(*driver, context));
  staging->worker_ = std::make_unique<Stream>();
  return staging;
}

Staging::~Staging() { release_spool(); }

/// Calls that still use it keep it.
void Staging::release_spool() {
  if (spool_ != nullptr) MemoryFile::release(spool_->data());
  spool_.reset();
}

/// The worker runs one call after the other, so all use the same.
Result<std::shared_ptr<MemoryFile>> Staging::spool(uint64_t bytes) {
  if (spool_bytes() >= bytes) return spool_;
  release_spool();
  RAILCCL_TRY(spool_, MemoryFile::create(bytes));
  return spool_;
}

// ---- A group ------------------------------------------------------------------------------------

/// One communicator's calls in a group.
struct StagedGroup::Batch {
  /// Bytes of a GPU and where their copy is.
  struct Move {
    gpu::Address address = 0;
    uint64_t offset = 0, bytes = 0;
  };

  std::shared_ptr<Member> member;
  Staging* staging = nullptr;
  std::shared_ptr<GpuArea> area;
  std::shared_ptr<MemoryFile> spool;  // null: all copies lie in the area
  std::vector<void*> streams;         // the first one does it all; the others wait for it
  std::vector<Recorded*> calls;       // while they are being planned
  std::vector<Move> inputs, outputs;  // with a spool each is one piece
  uint32_t filled = 0, produced = 0;  // the words before it

  uint32_t fills() const { return spool == nullptr ? 1 : pieces(inputs); }
  uint32_t produces() const { return spool == nullptr ? 1 : pieces(outputs); }
  Status queue_inputs() const;
  Status queue_outputs() const;
  Status fill();
  Status finish();

 private:
  /// At least one, which tells that the stream has come to it.
  static uint32_t pieces(const std::vector<Move>& moves) {
    return static_cast<uint32_t>(std::max<size_t>(moves.size(), 1));
  }
  static uint64_t place_of(size_t piece) { return piece % kPieces * kPieceBytes; }
  static uint32_t after(uint32_t before, size_t pieces) {
    return before + static_cast<uint32_t>(pieces);
  }
};

StagedGroup::StagedGroup() = default;
StagedGroup::~StagedGroup() = default;

Status StagedGroup::begin(std::span<Recorded> calls) {
  RAILCCL_CHECK(plan(calls));
  const Status status = queue();
  if (status.is_ok()) {
    for (const auto& batch : batches_)
      batch->staging->worker().enqueue([batch] { return batch->fill(); });
    return ok();
  }
  // Some streams have work that others lack, and peers may have it too.
  for (const auto& batch : batches_) batch->member->fail(status);
  end();
  return status;
}

void StagedGroup::end() {
  for (const auto& batch : batches_)
    batch->staging->worker().enqueue([batch] { return batch->finish(); });
  batches_.clear();
}

namespace {

/// Where copies lie, one after the other.
class Layout {
 public:
  uint64_t take(uint64_t bytes) {
    const uint64_t at = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  uint64_t bytes_ = 0;
};

constexpr uint64_t kNowhere = ~uint64_t{0};

struct Offsets {
  uint64_t input = kNowhere, output = kNowhere, factor = kNowhere;
};

/// Buffers in place overlap, so their copies do.
Offsets place(const Call& call, const OnGpu& places, const Extent& extent, Layout& layout) {
  Offsets offsets;
  if (places.input && places.output && call.request.in_place) {
    const gpu::Address input = address_of(call.input), output = address_of(call.output);
    const gpu::Address begin = std::min(input, output);
    const uint64_t at = layout.take(std::max(input + extent.input, output + extent.output) - begin);
    offsets.input = at + (input - begin);
    offsets.output = at + (output - begin);
  } else {
    if (places.input) offsets.input = layout.take(extent.input);
    if (places.output) offsets.output = layout.take(extent.output);
  }
  if (call.late_factor != nullptr) offsets.factor = layout.take(size_of(call.request.datatype));
  return offsets;
}

}  // namespace

/// Decides where everything goes. Queues nothing.
Status StagedGroup::plan(std::span<Recorded> calls) {
  for (Recorded& recorded : calls) {
    if (!recorded.places.any) continue;
    auto found = std::find_if(batches_.begin(), batches_.end(),
                              [&](const auto& batch) { return batch->member == recorded.member; });
    if (found == batches_.end()) {
      auto batch = std::make_shared<Batch>();
      batch->member = recorded.member;
      RAILCCL_TRY(batch->staging, recorded.member->staging(recorded.places.stream));
      batch->area = batch->staging->area_;
      found = batches_.insert(found, std::move(batch));
    }
    Batch& batch = **found;
    batch.calls.push_back(&recorded);
    if (std::find(batch.streams.begin(), batch.streams.end(), recorded.places.stream) ==
        batch.streams.end())
      batch.streams.push_back(recorded.places.stream);
  }
  for (const auto& batch : batches_) {
    const gpu::WithContext with(batch->area->driver(), batch->area->context());
    RAILCCL_CHECK(with.status());
    for (void* stream : batch->streams) RAILCCL_CHECK(check_stream(batch->area->driver(), stream));
    Layout layout;
    std::vector<Offsets> all;
    for (const Recorded* recorded : batch->calls) {
      const Member& member = *recorded->member;
      all.push_back(place(recorded->call, recorded->places,
                          extent_of(recorded->call, member.size(), member.rank()), layout));
    }
    if (layout.bytes() > kGpuAreaBytes) {
      RAILCCL_TRY(batch->spool, batch->staging->spool(layout.bytes()));
    }
    std::byte* const base = batch->spool != nullptr ? batch->spool->data() : batch->area->data();
    const auto add = [&](std::vector<Batch::Move>& moves, const void* buffer, uint64_t offset,
                         uint64_t bytes) {
      const uint64_t most = batch->spool != nullptr ? kPieceBytes : bytes;
      for (uint64_t at = 0; at < bytes; at += most)
        moves.push_back({address_of(buffer) + at, offset + at, std::min(most, bytes - at)});
    };
    for (size_t i = 0; i < all.size(); i++) {
      Recorded& recorded = *batch->calls[i];
      Call& call = recorded.call;
      const Extent extent = extent_of(call, recorded.member->size(), recorded.member->rank());
      if (all[i].input != kNowhere) {
        add(batch->inputs, call.input, all[i].input, extent.input);
        call.input = base + all[i].input;
      }
      if (all[i].output != kNowhere) {
        add(batch->outputs, call.output, all[i].output, extent.output);
        call.output = base + all[i].output;
      }
      if (all[i].factor != kNowhere) {
        add(batch->inputs, call.late_factor, all[i].factor, size_of(call.request.datatype));
        call.late_factor = base + all[i].factor;
      }
      call.staged = true;
      recorded.stream = &batch->staging->worker();
    }
    batch->calls.clear();
    batch->filled = batch->staging->filled_;
    batch->produced = batch->staging->produced_;
    batch->staging->filled_ += batch->fills();
    batch->staging->produced_ += batch->produces();
  }
  return ok();
}

/// All inputs before the first wait: communicators of one group may share a stream.
Status StagedGroup::queue() {
  for (const auto& batch : batches_) {
    const gpu::WithContext with(batch->area->driver(), batch->area->context());
    RAILCCL_CHECK(with.status());
    RAILCCL_CHECK(batch->queue_inputs());
  }
  for (const auto& batch : batches_) {
    const gpu::WithContext with(batch->area->driver(), batch->area->context());
    RAILCCL_CHECK(with.status());
    RAILCCL_CHECK(batch->queue_outputs());
  }
  return ok();
}

Status StagedGroup::Batch::queue_inputs() const {
  const Driver& driver = area->driver();
  void* const stream = streams.front();
  unsigned long long number = 0;
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, stream_id, stream, &number));
  if (staging->used_ && number != staging->last_stream_)
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, stream_wait_event, stream, area->done(), 0));
  staging->used_ = true;
  staging->last_stream_ = number;
  for (size_t i = 1; i < streams.size(); i++) {
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, event_record, area->join(), streams[i]));
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, stream_wait_event, stream, area->join(), 0));
  }
  for (size_t i = 0; i < inputs.size(); i++) {
    const Move& move = inputs[i];
    if (spool != nullptr && i >= kPieces)
      RAILCCL_CHECK(area->wait_by(stream, GpuArea::drained, after(filled, i + 1 - kPieces)));
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(
        driver, copy, area->address() + (spool != nullptr ? place_of(i) : move.offset),
        move.address, move.bytes, stream));
    if (spool != nullptr)
      RAILCCL_CHECK(area->set_by(stream, GpuArea::filled, after(filled, i + 1)));
  }
  if (spool == nullptr || inputs.empty())
    RAILCCL_CHECK(area->set_by(stream, GpuArea::filled, after(filled, 1)));
  return ok();
}

Status StagedGroup::Batch::queue_outputs() const {
  const Driver& driver = area->driver();
  void* const stream = streams.front();
  if (spool == nullptr || outputs.empty())
    RAILCCL_CHECK(area->wait_by(stream, GpuArea::produced, after(produced, 1)));
  for (size_t i = 0; i < outputs.size(); i++) {
    const Move& move = outputs[i];
    if (spool != nullptr)
      RAILCCL_CHECK(area->wait_by(stream, GpuArea::produced, after(produced, i + 1)));
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(
        driver, copy, move.address,
        area->address() + (spool != nullptr ? place_of(i) : move.offset), move.bytes, stream));
    if (spool != nullptr)
      RAILCCL_CHECK(area->set_by(stream, GpuArea::consumed, after(produced, i + 1)));
  }
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, event_record, area->done(), stream));
  for (size_t i = 1; i < streams.size(); i++)
    RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, stream_wait_event, streams[i], area->done(), 0));
  return ok();
}

/// By the worker: returns when all input is here.
Status StagedGroup::Batch::fill() {
  if (spool == nullptr || inputs.empty())
    return wait_for(*area, GpuArea::filled, after(filled, 1), *member);
  for (size_t i = 0; i < inputs.size(); i++) {
    RAILCCL_CHECK(wait_for(*area, GpuArea::filled, after(filled, i + 1), *member));
    kernels::copy(spool->data() + inputs[i].offset, area->data() + place_of(i), inputs[i].bytes);
    area->set(GpuArea::drained, after(filled, i + 1));
  }
  return ok();
}

/// By the worker, also of calls that failed: lets the stream go on.
Status StagedGroup::Batch::finish() {
  Status status;
  for (size_t i = 0; spool != nullptr && i < outputs.size() && status.is_ok(); i++) {
    if (member->failed_here()) break;
    if (i >= kPieces)
      status = wait_for(*area, GpuArea::consumed, after(produced, i + 1 - kPieces), *member);
    if (!status.is_ok()) break;
    kernels::copy(area->data() + place_of(i), spool->data() + outputs[i].offset, outputs[i].bytes);
    area->set(GpuArea::produced, after(produced, i + 1));
  }
  area->set(GpuArea::drained, after(filled, fills()));
  area->set(GpuArea::produced, after(produced, produces()));
  return status;
}

}  // namespace railccl::runtime
