// MPI at run time: broadcasts a few bytes over MPI_COMM_WORLD without being linked with any MPI.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace railccl::launch {

/// The MPI library that this process was started under, initialised; finalised on destruction.
class Mpi {
 public:
  /// Null with a reason in `error` when the library cannot be loaded or initialised.
  static std::unique_ptr<Mpi> load(bool open_mpi, std::string* error);
  virtual ~Mpi() = default;
  /// Rank 0's bytes to everyone. Collective. False on failure.
  virtual bool broadcast(void* data, size_t bytes) = 0;
};

}  // namespace railccl::launch
