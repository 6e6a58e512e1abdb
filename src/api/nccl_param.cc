// The ncclParam functions of nccl.h: the library's settings, by the names of their variables.
//
// A handle is the address of a setting's row in a table that is made once. Values are read when
// they are asked for.
#include <cstring>
#include <limits>

#include "api/errors.h"
#include "base/log.h"
#include "base/settings.h"

using namespace railccl;
using namespace railccl::api;

struct ncclParamHandle {
  SettingRow row;
  size_t index;
};

namespace {

/// Never destroyed: handles are good until the process ends.
const std::vector<ncclParamHandle>& table() {
  static const auto* const handles = [] {
    auto* made = new std::vector<ncclParamHandle>;
    for (const SettingRow& row : setting_rows()) made->push_back({row, made->size()});
    return made;
  }();
  return *handles;
}

Result<const ncclParamHandle*> find(const char* key) {
  RAILCCL_CHECK(not_null(key, "key"));
  for (const ncclParamHandle& handle : table())
    if (std::strcmp(handle.row.variable, key) == 0) return &handle;
  return Status(Code::invalid_argument,
                "{} is no parameter of this library; railccl-env lists them", key);
}

Status check(ncclParamHandle_t handle) {
  RAILCCL_CHECK(not_null(handle, "h"));
  for (const ncclParamHandle& known : table())
    if (&known == handle) return ok();
  return Status(Code::invalid_argument, "the handle does not come from ncclParamBind");
}

Result<std::string> value_of(const ncclParamHandle& handle) {
  RAILCCL_TRY(const Settings settings, Settings::load());
  return setting_values(settings)[handle.index];
}

bool is_text(const ncclParamHandle& handle) { return std::strcmp(handle.row.kind, "text") == 0; }

/// Sizes are below 2^63, and there are no other numbers that an int64_t could not hold.
Result<int64_t> number_of(const ncclParamHandle& handle) {
  if (is_text(handle))
    return Status(Code::invalid_argument, "{} is a text, not a number: use ncclParamGetStr",
                  handle.row.variable);
  RAILCCL_TRY(const std::string text, value_of(handle));
  return static_cast<int64_t>(std::strtoll(text.c_str(), nullptr, 10));
}

template <typename Number>
ncclResult_t get(const char* function, ncclParamHandle_t handle, Number* out) {
  return api::call(function, [&]() -> Status {
    RAILCCL_CHECK(not_null(out, "out"));
    RAILCCL_CHECK(check(handle));
    RAILCCL_TRY(const int64_t value, number_of(*handle));
    if (!std::in_range<Number>(value))
      return Status(Code::invalid_argument, "{} is {}, which {} bits{} cannot hold",
                    handle->row.variable, value, 8 * sizeof(Number),
                    std::numeric_limits<Number>::is_signed ? "" : " without a sign");
    *out = static_cast<Number>(value);
    return ok();
  });
}

}  // namespace

extern "C" {

ncclResult_t pncclParamBind(ncclParamHandle_t* out, const char* key) {
  return api::call("ncclParamBind", [&]() -> Status {
    RAILCCL_CHECK(not_null(out, "out"));
    RAILCCL_TRY(const ncclParamHandle* found, find(key));
    *out = const_cast<ncclParamHandle_t>(found);  // opaque to callers, who cannot change it
    return ok();
  });
}

ncclResult_t pncclParamGetI8(ncclParamHandle_t h, int8_t* out) {
  return get("ncclParamGetI8", h, out);
}
ncclResult_t pncclParamGetI16(ncclParamHandle_t h, int16_t* out) {
  return get("ncclParamGetI16", h, out);
}
ncclResult_t pncclParamGetI32(ncclParamHandle_t h, int32_t* out) {
  return get("ncclParamGetI32", h, out);
}
ncclResult_t pncclParamGetI64(ncclParamHandle_t h, int64_t* out) {
  return get("ncclParamGetI64", h, out);
}
ncclResult_t pncclParamGetU8(ncclParamHandle_t h, uint8_t* out) {
  return get("ncclParamGetU8", h, out);
}
ncclResult_t pncclParamGetU16(ncclParamHandle_t h, uint16_t* out) {
  return get("ncclParamGetU16", h, out);
}
ncclResult_t pncclParamGetU32(ncclParamHandle_t h, uint32_t* out) {
  return get("ncclParamGetU32", h, out);
}
ncclResult_t pncclParamGetU64(ncclParamHandle_t h, uint64_t* out) {
  return get("ncclParamGetU64", h, out);
}

ncclResult_t pncclParamGetStr(ncclParamHandle_t h, const char** out) {
  return api::call("ncclParamGetStr", [&]() -> Status {
    RAILCCL_CHECK(not_null(out, "out"));
    RAILCCL_CHECK(check(h));
    thread_local std::string held;
    RAILCCL_TRY(held, value_of(*h));
    *out = held.c_str();
    return ok();
  });
}

ncclResult_t pncclParamGet(ncclParamHandle_t h, void* out, int maxLen, int* len) {
  return api::call("ncclParamGet", [&]() -> Status {
    RAILCCL_CHECK(not_null(out, "out"));
    RAILCCL_CHECK(check(h));
    std::string bytes;
    if (is_text(*h)) {
      RAILCCL_TRY(bytes, value_of(*h));
    } else {
      RAILCCL_TRY(const int64_t value, number_of(*h));
      bytes.assign(reinterpret_cast<const char*>(&value), sizeof value);
    }
    if (len != nullptr) *len = static_cast<int>(bytes.size());
    if (maxLen < 0 || bytes.size() > static_cast<size_t>(maxLen))
      return Status(Code::invalid_argument, "{} takes {} bytes, but maxLen is {}", h->row.variable,
                    bytes.size(), maxLen);
    std::memcpy(out, bytes.data(), bytes.size());
    return ok();
  });
}

ncclResult_t pncclParamGetParameter(const char* key, const char** value, int* valueLen) {
  return api::call("ncclParamGetParameter", [&]() -> Status {
    RAILCCL_CHECK(not_null(value, "value"));
    RAILCCL_TRY(const ncclParamHandle* found, find(key));
    thread_local std::string held;
    RAILCCL_TRY(held, value_of(*found));
    *value = held.c_str();
    if (valueLen != nullptr) *valueLen = static_cast<int>(held.size());
    return ok();
  });
}

ncclResult_t pncclParamGetAllParameterKeys(const char*** keys, int* tableLen) {
  return api::call("ncclParamGetAllParameterKeys", [&]() -> Status {
    RAILCCL_CHECK(not_null(keys, "table"));
    RAILCCL_CHECK(not_null(tableLen, "tableLen"));
    thread_local std::vector<const char*> held;
    held.clear();
    for (const ncclParamHandle& handle : table()) held.push_back(handle.row.variable);
    *keys = held.data();
    *tableLen = static_cast<int>(held.size());
    return ok();
  });
}

void pncclParamDumpAll(void) {
  (void)api::call("ncclParamDumpAll", []() -> Status {
    RAILCCL_TRY(const Settings settings, Settings::load());
    const std::vector<std::string> values = setting_values(settings);
    log::init();
    for (const ncclParamHandle& handle : table())
      log::write(log::Level::info, fmt::format("{}={}", handle.row.variable, values[handle.index]));
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclParamBind);
RAILCCL_EXPORT(ncclParamGetI8);
RAILCCL_EXPORT(ncclParamGetI16);
RAILCCL_EXPORT(ncclParamGetI32);
RAILCCL_EXPORT(ncclParamGetI64);
RAILCCL_EXPORT(ncclParamGetU8);
RAILCCL_EXPORT(ncclParamGetU16);
RAILCCL_EXPORT(ncclParamGetU32);
RAILCCL_EXPORT(ncclParamGetU64);
RAILCCL_EXPORT(ncclParamGetStr);
RAILCCL_EXPORT(ncclParamGet);
RAILCCL_EXPORT(ncclParamGetParameter);
RAILCCL_EXPORT(ncclParamGetAllParameterKeys);
RAILCCL_EXPORT(ncclParamDumpAll);
