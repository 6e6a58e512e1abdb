// Status: the failure chain and its text.
#include "base/status.h"

#include <cstring>

namespace railccl {

const char* name_of(Code code) {
  switch (code) {
    case Code::ok:
      return "ok";
    case Code::invalid_argument:
      return "invalid argument";
    case Code::invalid_usage:
      return "invalid usage";
    case Code::mismatch:
      return "mismatch between ranks";
    case Code::unsupported:
      return "unsupported";
    case Code::system:
      return "system error";
    case Code::remote:
      return "remote error";
    case Code::timeout:
      return "timeout";
    case Code::aborted:
      return "aborted";
    case Code::gpu:
      return "GPU error";
    case Code::internal:
      return "internal error";
  }
  return "unknown";
}

const char* name_of(Scope scope) {
  switch (scope) {
    case Scope::call:
      return "call";
    case Scope::link:
      return "link";
    case Scope::communicator:
      return "communicator";
  }
  return "unknown";
}

Status::Status(Code code, Scope scope, std::string message) {
  assert(code != Code::ok);
  detail_ = std::make_shared<const Detail>(code, scope, std::move(message), nullptr);
}

Status Status::wrap(std::string message) const {
  Status outer;
  outer.detail_ = std::make_shared<const Detail>(code(), scope(), std::move(message), detail_);
  return outer;
}

Status Status::widen(Scope scope) const {
  if (is_ok() || detail_->scope >= scope) return *this;
  Status wider;
  wider.detail_ =
      std::make_shared<const Detail>(detail_->code, scope, detail_->message, detail_->cause);
  if (told()) wider.note_told();
  return wider;
}

std::string Status::text() const {
  if (is_ok()) return "ok";
  std::string all;
  for (const Detail* link = detail_.get(); link != nullptr; link = link->cause.get()) {
    if (!all.empty()) all += ": ";
    all += link->message;
  }
  return all;
}

bool Status::told() const {
  for (const Detail* link = detail_.get(); link != nullptr; link = link->cause.get())
    if (link->told.load(std::memory_order_relaxed)) return true;
  return false;
}

void Status::note_told() const {
  for (const Detail* link = detail_.get(); link != nullptr; link = link->cause.get())
    link->told.store(true, std::memory_order_relaxed);
}

Status system_error(int error, std::string prefix) {
  char buffer[128];
  const char* reason = strerror_r(error, buffer, sizeof buffer);
  return Status(Code::system, Scope::call, fmt::format("{}: {}", prefix, reason));
}

}  // namespace railccl
