// The public face: prepares a Job and hands it to the file of its datatype family.
#include "kernels/kernels.h"

#include <algorithm>
#include <array>

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

/// Integers have no vector division: tile by tile, so that the quotients are taken in cache.
void run_dividing(const Job& job, Datatype type, Reduction op) {
  constexpr size_t kTileBytes = 8192;
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

}  // namespace

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
  if (count == 0) return;
  const size_t bytes = count * size_of(type);
  const bool unscaled = pre.kind == Scale::Kind::none && post.kind == Scale::Kind::none;
  if (n_srcs == 1 && unscaled) return copy(dst, srcs[0], bytes, store);

  // Streaming evicts what it writes, so it never pays when the same lines were just read.
  const bool big =
      store == Store::streaming || (store == Store::by_size && bytes >= streaming_bytes());
  const bool in_place = std::find(srcs, srcs + n_srcs, dst) != srcs + n_srcs;
  const Job job{static_cast<uint8_t*>(dst),
                static_cast<const uint8_t*>(srcs[0]),
                srcs + 1,
                n_srcs - 1,
                count,
                pre,
                post,
                big && !in_place};
  const bool divides = pre.kind == Scale::Kind::divide || post.kind == Scale::Kind::divide;
  if (divides && !is_float(type))
    run_dividing(job, type, combining(op));
  else
    run(job, type, combining(op));
}

void reduce_to(void* const* dsts, int n_dsts, const void* const* srcs, int n_srcs, size_t count,
               Datatype type, Reduction op, const Scale& pre, const Scale& post, Store store) {
  const size_t element = size_of(type);
  const bool unscaled = pre.kind == Scale::Kind::none && post.kind == Scale::Kind::none;
  if (n_dsts == 1) return reduce(dsts[0], srcs, n_srcs, count, type, op, pre, post, store);
  if (n_srcs == 1 && unscaled) return copy_to(dsts, n_dsts, srcs[0], count * element, store);
  if (store == Store::by_size)
    store = count * element >= streaming_bytes() ? Store::streaming : Store::cached;

  // Tile by tile, so that the result is still in the first-level cache when it is written out. A
  // tile has been read from all sources before any destination is touched.
  constexpr size_t kTileBytes = 4096;
  constexpr int kPointers = 64;
  alignas(64) std::array<uint8_t, kTileBytes> result;
  std::array<const void*, kPointers> here;
  if (n_srcs > kPointers) {
    // Too many pointers to move along: the first destination takes the result, the others copy it.
    reduce(dsts[0], srcs, n_srcs, count, type, op, pre, post, Store::cached);
    return copy_to(dsts + 1, n_dsts - 1, dsts[0], count * element, store);
  }
  for (size_t at = 0; at < count; at += kTileBytes / element) {
    const size_t tile = std::min(kTileBytes / element, count - at);
    for (int s = 0; s < n_srcs; s++)
      here[static_cast<size_t>(s)] = static_cast<const uint8_t*>(srcs[s]) + at * element;
    reduce(result.data(), here.data(), n_srcs, tile, type, op, pre, post, Store::cached);
    for (int d = 0; d < n_dsts; d++)
      copy(static_cast<uint8_t*>(dsts[d]) + at * element, result.data(), tile * element, store);
  }
}

void scale(void* dst, const void* src, size_t count, Datatype type, const Scale& scale) {
  reduce(dst, &src, 1, count, type, Reduction::sum, scale);
}

}  // namespace railccl::kernels
