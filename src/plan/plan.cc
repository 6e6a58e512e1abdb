// Requests: buffer sizes, hash and text; names of the verbs.
#include "plan/plan.h"

#include <fmt/format.h>

#include <array>

#include "base/random.h"

namespace railccl::plan {
namespace {

/// Which ranks hold a buffer of `blocks` blocks: all, or the root when `root_only`.
uint64_t elements(const Request& request, int ranks, int rank, bool n_blocks, bool root_only) {
  if (root_only && rank != request.root) return 0;
  return request.count * (n_blocks ? static_cast<uint64_t>(ranks) : 1);
}

}  // namespace

uint64_t input_elements(const Request& request, int ranks, int rank) {
  const Collective c = request.collective;
  const bool n_blocks =
      c == Collective::reduce_scatter || c == Collective::all_to_all || c == Collective::scatter;
  const bool root_only = c == Collective::broadcast || c == Collective::scatter;
  return elements(request, ranks, rank, n_blocks, root_only);
}

uint64_t output_elements(const Request& request, int ranks, int rank) {
  const Collective c = request.collective;
  const bool n_blocks =
      c == Collective::all_gather || c == Collective::all_to_all || c == Collective::gather;
  const bool root_only = c == Collective::reduce || c == Collective::gather;
  return elements(request, ranks, rank, n_blocks, root_only);
}

uint64_t hash_of(const Request& request) {
  // Field by field, because the padding of the struct is not part of its value.
  uint64_t hash = 0;
  for (const uint64_t field :
       {static_cast<uint64_t>(request.collective) | static_cast<uint64_t>(request.datatype) << 8 |
            static_cast<uint64_t>(request.op) << 16 | uint64_t{request.in_place} << 24 |
            uint64_t{static_cast<uint32_t>(request.root)} << 32,
        request.count}) {
    // The finaliser of MurmurHash3 (Appleby): a multiplication alone leaves the low bits poor.
    hash = (hash ^ field) * 0xff51afd7ed558ccd;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
    hash ^= hash >> 33;
  }
  return hash;
}

std::string text_of(const Request& request) {
  std::string text = fmt::format("{}(count={}, {}", name_of(request.collective), request.count,
                                 name_of(request.datatype));
  if (request.op != Reduction::none) text += fmt::format(", {}", name_of(request.op));
  if (rooted(request.collective)) text += fmt::format(", root={}", request.root);
  if (request.in_place) text += ", in place";
  return text + ")";
}

const char* name_of(Verb verb) {
  switch (verb) {
    case Verb::copy:
      return "copy";
    case Verb::reduce:
      return "reduce";
    case Verb::send:
      return "send";
    case Verb::recv:
      return "recv";
    case Verb::recv_reduce:
      return "recv_reduce";
    case Verb::signal:
      return "signal";
    case Verb::wait:
      return "wait";
  }
  return "invalid";
}

}  // namespace railccl::plan
