// Execution at home: its copies and reductions, and how their results are stored.
#include <algorithm>

#include "base/clock.h"
#include "runtime/execute.h"
#include "transport/process_memory.h"

namespace railccl::runtime {

using plan::Buffer;
using plan::Slice;
using plan::Step;
using plan::Verb;

Result<Execution::Progress> Execution::perform_local(Cursor& cursor, const Step& step) {
  const uint64_t i = cursor.iteration;
  const uint64_t count = step.dst.count_at(i);
  const uint64_t piece =
      std::min<uint64_t>(count - cursor.elements, std::max<size_t>(1, cursor.budget / element_));
  const size_t at = cursor.elements * element_;
  const kernels::Scale& post = step.post ? scaling_.post : kNoScale;
  inputs_[0] = address(step.src, i) + at;
  for (uint32_t s = 0; s < step.source_count; s++)
    inputs_[s + 1] = address(program_.sources[step.first_source + s], i) + at;
  outputs_[0] = address(step.dst, i) + at;
  for (uint32_t t = 0; t < step.target_count; t++)
    outputs_[t + 1] = address(program_.targets[step.first_target + t], i) + at;
  transport::StoreHabit::Way way;
  if (shared_bulk(step, piece * element_)) way = habit_.next();
  scratch_store_ = way.streaming ? kernels::Store::streaming : kernels::Store::cached;
  const int64_t start = way.timed ? now_ns() : 0;
  if (is_fetch(step)) {
    RAILCCL_CHECK(fetch(step, piece * element_));
  } else if (step.source_count > 0 && step.pre && reaches_buffers_ &&
             scaling_.pre.kind != kernels::Scale::Kind::none) {
    combine_scaled(step, piece, post);
  } else {
    combine(step, piece, post);
  }
  if (way.timed) habit_.took(piece * element_, now_ns() - start);
  scratch_store_ = kernels::Store::cached;
  cursor.elements += piece;
  cursor.budget -= std::min<size_t>(cursor.budget, piece * element_);
  return cursor.elements == count ? Progress::finished : Progress::partial;
}

/// Is its source to be had from the system only?
bool Execution::is_fetch(const Step& step) const {
  return reaches_buffers_ && elsewhere(step.src) && step.src.buffer != Buffer::scratch &&
         open_peers_[step.src.owner].process != 0;
}

/// A copy of `bytes` from inputs_[0], which is in another process, to outputs_[0]: plans that fetch
/// make no other step out of such memory, and have one place for the result.
Status Execution::fetch(const Step& step, size_t bytes) {
  return transport::read_process_memory(open_peers_[step.src.owner].process, outputs_[0],
                                        reinterpret_cast<uintptr_t>(inputs_[0]), bytes)
      .context("a buffer of rank {}", step.src.owner);
}

/// The operator's scaling of what `slice` holds: of its owner's contribution.
const kernels::Scale& Execution::pre_of(const Step& step, const Slice& slice) const {
  if (!step.pre) return kNoScale;
  return elsewhere(slice) && slice.buffer == Buffer::input ? open_peers_[slice.owner].pre
                                                           : scaling_.pre;
}

bool Execution::shared_bulk(const Step& step, size_t bytes) const {
  if (!shares_scratch_ || bytes < transport::StoreHabit::kLeastBytes) return false;
  if (step.dst.buffer == Buffer::scratch) return true;
  for (uint32_t t = 0; t < step.target_count; t++)
    if (program_.targets[step.first_target + t].buffer == Buffer::scratch) return true;
  return false;
}

/// `count` elements from inputs_ to outputs_. Where some outputs are to be streamed and others are
/// not, those get a copy from the cache.
void Execution::combine(const Step& step, uint64_t count, const kernels::Scale& post) {
  const kernels::Scale& pre = pre_of(step, step.src);
  const int sources = static_cast<int>(step.source_count) + 1;
  const int outputs = static_cast<int>(step.target_count) + 1;
  int cached = 0;
  for (int i = 0; i < outputs; i++) {
    const Slice& slice =
        i == 0 ? step.dst : program_.targets[step.first_target + static_cast<uint32_t>(i) - 1];
    if (store_in(slice) == kernels::Store::cached) std::swap(outputs_[cached++], outputs_[i]);
  }
  const bool mixed = cached > 0 && cached < outputs;
  const kernels::Store store = cached > 0 ? kernels::Store::cached : kernels::Store::streaming;
  const int first = mixed ? cached : outputs;
  const bool scaled =
      pre.kind != kernels::Scale::Kind::none || post.kind != kernels::Scale::Kind::none;
  if (step.verb == Verb::reduce || scaled) {
    kernels::reduce_to(outputs_.data(), first, inputs_.data(), sources, count,
                       program_.request.datatype, program_.request.op, pre, post, store);
  } else {
    copy_input(outputs_.data(), first, count * element_, store);
  }
  if (!mixed) return;
  inputs_[0] = outputs_[0];
  copy_input(outputs_.data() + first, outputs - first, count * element_, kernels::Store::streaming);
}

/// inputs_[0] to all of those. Of a call in place, what is there already stays.
void Execution::copy_input(void** to, int outputs, size_t bytes, kernels::Store store) {
  void** const end = std::remove(to, to + outputs, inputs_[0]);
  if (end != to) kernels::copy_to(to, static_cast<int>(end - to), inputs_[0], bytes, store);
}

/// The same where contributions of several ranks are to be scaled, each by its own factor: kernels
/// scale their first source only, so the others are scaled on the way, in pieces that stay cached.
void Execution::combine_scaled(const Step& step, uint64_t count, const kernels::Scale& post) {
  const Datatype type = program_.request.datatype;
  const size_t piece = kScaledPiece / element_;
  for (uint64_t done = 0; done < count; done += piece) {
    const uint64_t n = std::min<uint64_t>(piece, count - done);
    for (uint32_t s = 0; s <= step.source_count; s++) {
      pieces_[s] = static_cast<const std::byte*>(inputs_[s]) + done * element_;
      if (s == 0) continue;
      const Slice& source = program_.sources[step.first_source + s - 1];
      if (!elsewhere(source) || source.buffer != Buffer::input) continue;
      std::byte* const scaled = scaled_.data() + s * kScaledPiece;
      kernels::scale(scaled, pieces_[s], n, type, pre_of(step, source));
      pieces_[s] = scaled;
    }
    kernels::reduce_to(outputs_.data(), static_cast<int>(step.target_count) + 1, pieces_.data(),
                       static_cast<int>(step.source_count) + 1, n, type, program_.request.op,
                       pre_of(step, step.src), post, store_in(step.dst));
    for (uint32_t t = 0; t <= step.target_count; t++)
      outputs_[t] = static_cast<std::byte*>(outputs_[t]) + n * element_;
  }
}

}  // namespace railccl::runtime
