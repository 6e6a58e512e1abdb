// How fast the GPU's kernels are beside the driver's own copy on the device, for run_all: bytes
// read and written in a second, with all multiprocessors and with a quarter of them.
//
//     kernel_speed [MEBIBYTES]     of each buffer; 256 by default
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "gpu_parts.h"
#include "kernels/gpu/image.h"
#include "kernels/gpu/reduce.h"

extern "C" int cuDeviceGetAttribute(int* value, int attribute, int device);

namespace {

using railccl::kernels::gpu::CopyArgs;
using railccl::kernels::gpu::ReduceArgs;

constexpr int kRounds = 15;
constexpr unsigned kThreads = 256;

void must(int result, const char* what) {
  if (result == 0) return;
  std::fprintf(stderr, "kernel_speed: %s: error %d of the CUDA driver\n", what, result);
  std::exit(1);
}

/// Median of rounds, each of one launch, in bytes per second.
template <typename Launch>
double speed(double bytes, const Launch& launch) {
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + 2; round++) {
    const auto start = std::chrono::steady_clock::now();
    launch();
    must(cuStreamSynchronize(nullptr), "synchronize");
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (round >= 2) seconds.push_back(took.count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return bytes / seconds[kRounds / 2];
}

template <typename Args>
void launch(void* module, const std::string& name, Args args, unsigned blocks) {
  void* function = nullptr;
  must(cuModuleGetFunction(&function, module, name.c_str()), name.c_str());
  void* parameters[] = {&args};
  must(cuLaunchKernel(function, blocks, 1, 1, kThreads, 1, 1, 0, nullptr, parameters, nullptr),
       name.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const size_t bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 256) << 20;
  railccl::test::use_device(0);
  constexpr int kMultiprocessorCount = 16;
  int multiprocessors = 0;
  must(cuDeviceGetAttribute(&multiprocessors, kMultiprocessorCount, 0), "multiprocessors");
  void* module = nullptr;
  must(cuModuleLoadData(&module, railccl::kernels::gpu::image()), "cuModuleLoadData");
  std::vector<unsigned long long> buffers(9);
  for (unsigned long long& buffer : buffers) must(cuMemAlloc_v2(&buffer, bytes), "cuMemAlloc");
  const auto at = [&](size_t i) { return reinterpret_cast<void*>(buffers[i]); };

  const double of_driver = speed(2.0 * static_cast<double>(bytes), [&] {
    must(cuMemcpyAsync(buffers[0], buffers[1], bytes, nullptr), "cuMemcpyAsync");
  });
  std::printf("%d multiprocessors, buffers of %zu MiB; GB/s, read and written\n", multiprocessors,
              bytes >> 20);
  std::printf("%-24s %8.0f\n", "the driver's copy", of_driver * 1e-9);
  const auto all = static_cast<unsigned>(multiprocessors);
  for (const unsigned used : {all, std::max(1u, all / 4)}) {
    const unsigned blocks = used * 4;
    const double copied = speed(2.0 * static_cast<double>(bytes), [&] {
      launch(module, "railccl_copy", CopyArgs{at(0), at(1), bytes}, blocks);
    });
    std::printf("%-24s %8.0f  %5.1f%% of the driver's, %u blocks\n", "copy", copied * 1e-9,
                100 * copied / of_driver, blocks);
    for (const char* type : {"float32", "bfloat16"}) {
      for (int n = 2; n <= 8; n++) {
        ReduceArgs args{};
        args.dst = at(0);
        for (int s = 0; s < n; s++) args.srcs[s] = at(static_cast<size_t>(s) + 1);
        args.n_srcs = n;
        args.count = bytes / (std::string(type) == "float32" ? 4 : 2);
        const double reduced = speed((n + 1.0) * static_cast<double>(bytes), [&] {
          launch(module, std::string("railccl_reduce_") + type + "_sum", args, blocks);
        });
        std::printf("sum of %d %-15s %8.0f  %5.1f%% of the driver's, %u blocks\n", n, type,
                    reduced * 1e-9, 100 * reduced / of_driver, blocks);
      }
    }
  }
  return 0;
}
