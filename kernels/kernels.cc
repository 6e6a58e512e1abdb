// The public face: prepares a Job and hands it to the file of its datatype family.
#include "kernels/kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "kernels/job.h"

namespace railccl::kernels {
namespace {

Reduction combining(Reduction op) {
  switch (op) {
    case Reduction::prod:
    case Reduction::max:
    case Reduction::min:
      return op;
    default:
      return Reduction::sum;
  }
}

void run(const Job& job, Datatype type, Reduction op) {
  switch (type) {
    case Datatype::float32:
    case Datatype::float64:
      return reduce_float(job, type, op);
    case Datatype::float16:
    case Datatype::bfloat16:
      return reduce_half(job, type, op);
    case Datatype::float8e4m3:
    case Datatype::float8e5m2:
      return reduce_float8(job, type, op);
    default:
      return reduce_integer(job, type, op);
  }
}

constexpr size_t kTileBytes = 8192;  // on the stack, and in the first-level cache

/// Integers have no vector division: tile by tile, so that the quotients are taken in cache.
void run_dividing(const Job& job, Datatype type, Reduction op) {
  constexpr int kPointers = 64;
  const size_t element = size_of(type);
  const size_t tile_count = kTileBytes / element;
  const bool divide_first = job.pre.kind == Scale::Kind::divide;
  const bool divide_last = job.post.kind == Scale::Kind::divide;
  alignas(64) std::array<uint8_t, kTileBytes> divided;  // the pre-divided first source
  alignas(64) std::array<uint8_t, kTileBytes> partial;  // the result so far
  std::array<const void*, kPointers> rest;

  for (size_t at = 0; at < job.count; at += tile_count) {
    const size_t count = std::min(tile_count, job.count - at);
    const size_t offset = at * element;
    const uint8_t* first = job.first + offset;
    if (divide_first) {
      divide_integers(divided.data(), first, count, type, job.pre.integer);
      first = divided.data();
    }
    // dst may be a source that is still to be read: it is written after the last group only.
    int done = 0;
    do {
      const int group = std::min(job.n_rest - done, kPointers);
      for (int s = 0; s < group; s++)
        rest[s] = static_cast<const uint8_t*>(job.rest[done + s]) + offset;
      Job tile{partial.data(), first, rest.data(), group, count, {}, {}, false};
      if (done == 0 && !divide_first) tile.pre = job.pre;
      done += group;
      if (done == job.n_rest && !divide_last) tile.post = job.post;
      run(tile, type, op);
      first = partial.data();
    } while (done < job.n_rest);
    if (divide_last)
      divide_integers(job.dst + offset, partial.data(), count, type, job.post.integer);
    else
      copy(job.dst + offset, partial.data(), count * element, Store::cached);
  }
}

bool among(const void* const* srcs, int n_srcs, const void* pointer) {
  return std::find(srcs, srcs + n_srcs, pointer) != srcs + n_srcs;
}

/// Several destinations that cannot all be written alike: tile by tile, so that the result is still
/// in the first-level cache when it is written out. A tile has been read from all sources before
/// any destination is touched.
void run_by_tiles(void* const* dsts, int n_dsts, const void* const* srcs, int n_srcs,
                  const Job& job, Datatype type, Reduction op, bool streaming) {
  constexpr int kPointers = 64;
  const size_t element = size_of(type);
  const size_t bytes = job.count * element;
  if (n_srcs > kPointers) {
    // Too many pointers to move along: the first destination takes the result, the others copy it.
    reduce(dsts[0], srcs, n_srcs, job.count, type, op, job.pre, job.post, Store::cached);
    return copy_to(dsts + 1, n_dsts - 1, dsts[0], bytes, Store::cached);
  }
  std::optional<Streaming> order;
  if (streaming) order.emplace();
  alignas(64) std::array<uint8_t, kTileBytes> result;
  std::array<const void*, kPointers> here;
  for (size_t at = 0; at < bytes; at += kTileBytes) {
    const size_t tile = std::min(kTileBytes, bytes - at);
    for (int s = 0; s < n_srcs; s++)
      here[static_cast<size_t>(s)] = static_cast<const uint8_t*>(srcs[s]) + at;
    reduce(result.data(), here.data(), n_srcs, tile / element, type, op, job.pre, job.post,
           Store::cached);
    for (int d = 0; d < n_dsts; d++) {
      void* const to = static_cast<uint8_t*>(dsts[d]) + at;
      if (order && !among(srcs, n_srcs, dsts[d]))
        stream(&to, 1, result.data(), tile, *order);
      else
        std::memcpy(to, result.data(), tile);
    }
  }
}

}  // namespace

Scale factor_from(const void* scalar, Datatype type) {
  Scale factor;
  factor.kind = Scale::Kind::multiply;
  if (type == Datatype::float64) {
    std::memcpy(&factor.value, scalar, sizeof factor.value);
  } else if (is_float(type)) {
    float value = 0;
    convert(&value, Datatype::float32, scalar, type, 1);
    factor.value = double{value};
  } else if (type == Datatype::uint64) {
    std::memcpy(&factor.integer, scalar, sizeof factor.integer);  // the bit pattern
  } else {
    convert(&factor.integer, Datatype::int64, scalar, type, 1);
  }
  return factor;
}

Scaling scaling_of(Reduction op, Datatype type, int ranks, const Scale& factor) {
  Scaling scaling;
  if (op == Reduction::pre_mul_sum) scaling.pre = factor;
  if (op != Reduction::avg) return scaling;
  Scale divide;
  divide.kind = Scale::Kind::divide;
  divide.value = ranks;
  divide.integer = ranks;
  (is_float(type) ? scaling.pre : scaling.post) = divide;
  return scaling;
}

void reduce(void* dst, const void* const* srcs, int n_srcs, size_t count, Datatype type,
            Reduction op, const Scale& pre, const Scale& post, Store store) {
  reduce_to(&dst, 1, srcs, n_srcs, count, type, op, pre, post, store);
}

void reduce_to(void* const* dsts, int n_dsts, const void* const* srcs, int n_srcs, size_t count,
               Datatype type, Reduction op, const Scale& pre, const Scale& post, Store store) {
  if (count == 0) return;
  const size_t bytes = count * size_of(type);
  const bool unscaled = pre.kind == Scale::Kind::none && post.kind == Scale::Kind::none;
  if (n_srcs == 1 && unscaled) return copy_to(dsts, n_dsts, srcs[0], bytes, store);
  const bool big =
      store == Store::streaming || (store == Store::by_size && bytes >= streaming_bytes());
  const bool divides =
      !is_float(type) && (pre.kind == Scale::Kind::divide || post.kind == Scale::Kind::divide);
  // Streaming evicts what it writes, so it never pays when the same lines were just read.
  const auto in_place =
      big ? std::count_if(dsts, dsts + n_dsts, [&](void* dst) { return among(srcs, n_srcs, dst); })
          : 0;
  const bool alike = !big || in_place == n_dsts || (in_place == 0 && lie_alike(dsts, n_dsts));
  const Job job{static_cast<uint8_t*>(dsts[0]),
                static_cast<const uint8_t*>(srcs[0]),
                srcs + 1,
                n_srcs - 1,
                count,
                pre,
                post,
                big && in_place == 0,
                dsts + 1,
                n_dsts - 1};
  if (n_dsts == 1 && divides)
    run_dividing(job, type, combining(op));
  else if (divides || (big && !alike))
    run_by_tiles(dsts, n_dsts, srcs, n_srcs, job, type, op, big);
  else
    run(job, type, combining(op));
}

void scale(void* dst, const void* src, size_t count, Datatype type, const Scale& scale) {
  reduce(dst, &src, 1, count, type, Reduction::sum, scale);
}

}  // namespace railccl::kernels
