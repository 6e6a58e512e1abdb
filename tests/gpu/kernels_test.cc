// Launches the GPU's kernels by the driver, and holds them against the host's: by name, with the
// arguments as they are passed, on buffers that lie anywhere.
#include "kernels/kernels.h"

#include "base/random.h"
#include "gpu_parts.h"
#include "kernels/gpu/reduce.h"
#ifdef RAILCCL_GPU_IMAGE
#include "kernels/gpu/image.h"
#endif

namespace railccl::test {
namespace {

using kernels::gpu::CopyArgs;
using kernels::gpu::ReduceArgs;

constexpr unsigned kBlocks = 5, kThreads = 64;

class GpuKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    use_device(0);
    const void* image = nullptr;
#ifdef RAILCCL_GPU_IMAGE
    image = kernels::gpu::image();
#endif
    if (image == nullptr && fake_set() == nullptr) GTEST_SKIP() << "built without a CUDA toolkit";
    CU(cuModuleLoadData(&module_, image));
  }
  template <typename Args>
  void launch(const std::string& name, Args args) {
    void* function = nullptr;
    CU(cuModuleGetFunction(&function, module_, name.c_str()));
    void* parameters[] = {&args};
    CU(cuLaunchKernel(function, kBlocks, 1, 1, kThreads, 1, 1, 0, nullptr, parameters, nullptr));
    CU(cuStreamSynchronize(nullptr));
  }
  void* module_ = nullptr;
};

/// Numbers that every datatype has, and sums and products of which no rounding differs.
std::vector<uint8_t> some_numbers(Datatype type, size_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.below(4));
  std::vector<uint8_t> bytes(count * size_of(type));
  kernels::convert(bytes.data(), type, values.data(), Datatype::float32, count);
  return bytes;
}

const char* const kTypes[] = {
#define RAILCCL_ROW(name, number, bytes, text) #name,
    RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
};
const char* const kOperators[] = {"sum", "prod", "max", "min"};

TEST_F(GpuKernels, EveryReduction) {
  Random random(1);
  for (int t = 0; t < kDatatypeCount; t++) {
    const auto type = static_cast<Datatype>(t);
    for (int o = 0; o < 4; o++) {
      for (const size_t count : {1u, 100u, 40'000u}) {
        const int n_srcs = 2 + static_cast<int>(random.below(7));
        const bool alike = random.below(2) == 0;
        const size_t skew = random.below(16) * (alike ? size_of(type) : 1);
        const size_t bytes = count * size_of(type);
        std::vector<std::unique_ptr<Buffer<uint8_t>>> buffers;
        std::vector<std::vector<uint8_t>> sources;
        std::vector<const void*> host;
        ReduceArgs args{};
        for (int s = 0; s <= n_srcs; s++) {
          const size_t at = alike || s == 0 ? skew : random.below(16);
          buffers.push_back(std::make_unique<Buffer<uint8_t>>(bytes + at));
          std::vector<uint8_t> content(at);
          sources.push_back(some_numbers(type, count, random));
          content.insert(content.end(), sources.back().begin(), sources.back().end());
          buffers.back()->set(content);
          (s == 0 ? args.dst : const_cast<void*&>(args.srcs[s - 1])) = buffers.back()->data() + at;
        }
        for (int s = 1; s <= n_srcs; s++) host.push_back(sources[static_cast<size_t>(s)].data());
        args.n_srcs = n_srcs;
        args.count = count;
        args.post = {kernels::gpu::Factor::multiply, 2.0, 2};
        if (o != 0) args.post = {};
        kernels::Scale post;
        if (o == 0) post = {kernels::Scale::Kind::multiply, 2.0, 2};
        std::vector<uint8_t> wanted(bytes);
        kernels::reduce(wanted.data(), host.data(), n_srcs, count, type, static_cast<Reduction>(o),
                        {}, post);
        launch(std::string("railccl_reduce_") + kTypes[t] + "_" + kOperators[o], args);
        const std::vector<uint8_t> all = buffers[0]->get();
        ASSERT_TRUE(
            std::equal(wanted.begin(), wanted.end(), all.begin() + static_cast<ptrdiff_t>(skew)))
            << kTypes[t] << " " << kOperators[o] << ", " << count << " of " << n_srcs;
      }
    }
  }
}

TEST_F(GpuKernels, Copies) {
  Random random(2);
  for (const size_t bytes : {1u, 1000u, 300'001u}) {
    Buffer<uint8_t> from(bytes + 3), to(bytes + 3);
    std::vector<uint8_t> content(bytes + 3);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(random.next());
    from.set(content);
    for (const size_t skew : {0u, 3u}) {
      launch("railccl_copy", CopyArgs{to.data() + skew, from.data(), bytes});
      std::vector<uint8_t> got = to.get();
      ASSERT_EQ(std::memcmp(got.data() + skew, content.data(), bytes), 0);
    }
  }
}

}  // namespace
}  // namespace railccl::test
