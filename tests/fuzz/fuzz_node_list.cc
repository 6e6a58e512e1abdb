// fuzz-link: railccl_launch
// Node lists as Slurm gives them: the first host's name, or nothing; never a piece of the syntax.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "launch/launch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string list(reinterpret_cast<const char*>(data), size);
  const std::string host = railccl::launch::first_host(list);
  if (host.size() > list.size() || host.find_first_of("[,") != std::string::npos) std::abort();
  return 0;
}
