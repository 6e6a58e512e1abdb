// fuzz-link: railccl_train_parts
// IDX files of images and labels, plain or gzip: sound samples, or a sentence that says what is
// wrong. The first two bytes say how many of the rest are the file of images.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/owners.h"
#include "dataset.h"

namespace {

/// A file of these bytes that is gone with its descriptor.
railccl::UniqueFd file_of(const uint8_t* bytes, size_t size) {
  railccl::UniqueFd fd(memfd_create("idx", MFD_CLOEXEC));
  if (!fd || write(fd.get(), bytes, size) != static_cast<ssize_t>(size)) std::abort();
  return fd;
}

std::string path_of(const railccl::UniqueFd& fd) {
  return "/proc/self/fd/" + std::to_string(fd.get());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::train;
  if (size < 2) return 0;
  const size_t length = std::min<size_t>(data[0] | size_t{data[1]} << 8, size - 2);
  const auto images = file_of(data + 2, length);
  const auto labels = file_of(data + 2 + length, size - 2 - length);
  std::string error;
  const auto samples = load_samples(path_of(images), path_of(labels), &error);
  if (!samples) {
    if (error.find("/proc/self/fd/") == std::string::npos) std::abort();
    return 0;
  }
  if (samples->pixels.size() != samples->count * samples->pixels_per_image() ||
      samples->labels.size() != samples->count || samples->count == 0)
    std::abort();
  for (const uint8_t label : samples->labels)
    if (label >= Dataset::kClasses) std::abort();
  return 0;
}
