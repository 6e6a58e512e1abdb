// Machine: what the machine itself can do, measured beside the libraries in the same rounds.
#pragma once

#include <string>

namespace railccl::compare {

/// Nanoseconds for one cache line to go to another core and back: two bound threads take turns at
/// incrementing one word. 0 when there is only one core.
double line_round_trip_ns();

/// Bytes per second, read plus written, of a copy by all cores at once, each between buffers of its
/// own far larger than the caches, with non-temporal stores where the processor has them.
double stream_copy_bytes_per_s();

/// Bytes per second, read plus written, of out[i] = a[i] + b[i] over float32 on one core in 96 KiB.
double cached_reduce_bytes_per_s();

/// "AMD EPYC, 2 cores, 32 MiB last-level cache": the processor as the kernel names it.
std::string machine_name();

/// Cores that this process may run on.
int allowed_cores();

}  // namespace railccl::compare
