// Loading libibverbs.
#include "transport/verbs_library.h"

#include <dlfcn.h>

#include <string>

namespace railccl::transport {
namespace {

template <typename Function>
bool find(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  return *function != nullptr;
}

Result<VerbsLibrary> load() {
  void* const library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Status(Code::unsupported, "libibverbs.so.1 cannot be loaded (Debian: libibverbs1)");
  VerbsLibrary verbs;
  std::string missing;
#define RAILCCL_VERBS(name) \
  if (!find(library, "ibv_" #name, &verbs.name)) missing = "ibv_" #name;
#include "transport/verbs_library.def"
#undef RAILCCL_VERBS
  if (!find(library, "_ibv_query_gid_ex", &verbs.query_gid_ex)) missing = "_ibv_query_gid_ex";
  if (!missing.empty())
    return Status(Code::unsupported, "libibverbs.so.1 has no {}: it is older than rdma-core 33",
                  missing);
  return verbs;
}

}  // namespace

const Result<VerbsLibrary>& verbs_library() {
  static const Result<VerbsLibrary>* const loaded = new Result<VerbsLibrary>(load());
  return *loaded;
}

}  // namespace railccl::transport
