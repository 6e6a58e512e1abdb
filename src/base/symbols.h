// Functions of libraries that are loaded at run time.
#pragma once

#include <dlfcn.h>

namespace railccl {

/// False where the library has none of that name. Any thread.
template <typename Function>
bool find_symbol(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace railccl
