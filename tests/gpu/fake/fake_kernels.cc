// The GPU's kernels on the driver that stands in for CUDA's: the same code (kernels/gpu), by as
// many threads in turn as the launch has.
#include "fake_kernels.h"

#include <map>
#include <string>

#include "kernels/gpu/reduce.h"

namespace railccl::fake {
namespace {

using namespace kernels::gpu;

void run_copy(const void* argument, uint64_t threads, const Translate& real) {
  CopyArgs args = *static_cast<const CopyArgs*>(argument);
  args.dst = real(args.dst);
  args.src = real(const_cast<void*>(args.src));
  for (uint64_t thread = 0; thread < threads; thread++) copy_part(args, thread, threads);
}

template <Datatype type, Reduction op>
void run_reduce(const void* argument, uint64_t threads, const Translate& real) {
  ReduceArgs args = *static_cast<const ReduceArgs*>(argument);
  args.dst = real(args.dst);
  for (int s = 0; s < args.n_srcs; s++) args.srcs[s] = real(const_cast<void*>(args.srcs[s]));
  for (uint64_t thread = 0; thread < threads; thread++)
    reduce_part<typename CodecOf<type>::Type, op>(args, thread, threads);
}

}  // namespace

const Kernel* find_kernel(const char* name) {
  static const std::map<std::string, Kernel> kernels = {
      {"railccl_copy", {sizeof(CopyArgs), run_copy}},
#define RAILCCL_ROW_OF(type, op)    \
  {"railccl_reduce_" #type "_" #op, \
   {sizeof(ReduceArgs), run_reduce<Datatype::type, Reduction::op>}},
#define RAILCCL_ROW(type, number, bytes, text) \
  RAILCCL_ROW_OF(type, sum)                    \
  RAILCCL_ROW_OF(type, prod) RAILCCL_ROW_OF(type, max) RAILCCL_ROW_OF(type, min)
      RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
#undef RAILCCL_ROW_OF
  };
  const auto found = kernels.find(name);
  return found == kernels.end() ? nullptr : &found->second;
}

}  // namespace railccl::fake
