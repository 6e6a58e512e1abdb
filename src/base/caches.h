// What the library assumes about caches when it lays memory out.
#pragma once

#include <cstddef>

namespace railccl {

/// A core that writes this much on the way has forgotten the first of it: twice the second-level
/// cache of today's processors (1 MiB, 2 MiB on some). Memory through which one core passes data to
/// another should come around no sooner. A line that the writer still holds, and the reader too,
/// has to be taken back from the reader at every store; one that both have forgotten comes from the
/// cache behind. Where the cores share no cache it makes no difference (transport/ring.h has
/// figures).
inline constexpr size_t kForgottenBytes = 2 << 20;

}  // namespace railccl
