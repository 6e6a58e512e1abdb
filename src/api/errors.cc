// Errors of the API; see errors.h.
#include "api/errors.h"

#include <string>

#include "base/log.h"

namespace railccl::api {
namespace {

thread_local std::string last;

}  // namespace

ncclResult_t code_of(const Status& status) {
  switch (status.code()) {
    case Code::ok:
      return ncclSuccess;
    case Code::invalid_argument:
      return ncclInvalidArgument;
    case Code::invalid_usage:
    case Code::mismatch:
    case Code::unsupported:
      return ncclInvalidUsage;
    case Code::system:
      return ncclSystemError;
    case Code::remote:
    case Code::timeout:
    case Code::aborted:
      return ncclRemoteError;
    case Code::gpu:
      return ncclUnhandledCudaError;
    case Code::internal:
      return ncclInternalError;
  }
  return ncclInternalError;
}

const std::string& last_error() { return last; }

void set_last_error(std::string text) { last = std::move(text); }

ncclResult_t finish(const char* function, const Status& status) noexcept {
  if (status.is_ok()) return ncclSuccess;
  try {
    last = fmt::format("{}: {}", function, status.text());
    // A failed communicator fails each call on it with what the log knows already.
    if (status.told()) {
      log::info("{}", last);
    } else {
      log::warn("{}", last);
      status.note_told();
    }
  } catch (const std::exception&) {
    last.clear();  // no memory for the text; the code still tells
  }
  return code_of(status);
}

}  // namespace railccl::api
