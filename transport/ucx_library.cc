// Loading libucp.
#include "transport/ucx_library.h"

#include <string>

#include "base/symbols.h"

namespace railccl::transport {
namespace {

Result<UcxLibrary> load() {
  void* const library = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Status(Code::unsupported, "libucp.so.0 cannot be loaded (Debian: libucx0)");
  UcxLibrary ucx;
  std::string missing;
#define RAILCCL_UCX(name) \
  if (!find_symbol(library, "ucp_" #name, &ucx.name)) missing = "ucp_" #name;
#include "transport/ucx_library.def"
#undef RAILCCL_UCX
  // Of libucs, which libucp brings along.
  if (!find_symbol(library, "ucs_status_string", &ucx.status_string)) missing = "ucs_status_string";
  if (!missing.empty())
    return Status(Code::unsupported, "libucp.so.0 has no {}: it is older than UCX 1.11", missing);
  return ucx;
}

}  // namespace

const Result<UcxLibrary>& ucx_library() {
  static const Result<UcxLibrary>* const loaded = new Result<UcxLibrary>(load());
  return *loaded;
}

}  // namespace railccl::transport
