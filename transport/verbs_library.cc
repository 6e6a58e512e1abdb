// Loading libibverbs.
#include "transport/verbs_library.h"

#include <string>

#include "base/symbols.h"

namespace railccl::transport {
namespace {

Result<VerbsLibrary> load() {
  void* const library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Status(Code::unsupported, "libibverbs.so.1 cannot be loaded (Debian: libibverbs1)");
  VerbsLibrary verbs;
  std::string missing;
#define RAILCCL_VERBS(name) \
  if (!find_symbol(library, "ibv_" #name, &verbs.name)) missing = "ibv_" #name;
#include "transport/verbs_library.def"
#undef RAILCCL_VERBS
  if (!find_symbol(library, "_ibv_query_gid_ex", &verbs.query_gid_ex))
    missing = "_ibv_query_gid_ex";
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
