// Status and Result<T>: errors as values with a cause chain and a scope.
//
// A Status is one pointer: null on success (free), else a shared immutable chain of messages, the
// newest context first. `scope` says what must be rebuilt before the caller may go on: nothing but
// this call, the link, or the communicator. Copyable, thread-safe to share once made. The one thing
// about it that changes is whether the log has been told.
//
//   Status open_port(int port) {
//     RAILCCL_TRY(auto fd, make_socket());             // passes the failure on
//     if (port < 0) return Status(Code::invalid_argument, "port {} is negative", port);
//     return ok();
//   }
//   RAILCCL_CHECK(open_port(80).context("rank {}: cannot listen", rank));
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cassert>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace railccl {

/// Coarse class of a failure; the API maps it to ncclResult_t.
enum class Code : uint8_t {
  ok,
  invalid_argument,  // this call's arguments are wrong
  invalid_usage,     // the arguments are fine, the order or combination of calls is not
  mismatch,          // ranks called different things
  unsupported,       // this build or machine lacks what the call needs
  system,            // an operating system call failed
  remote,            // a peer failed, vanished or spoke nonsense
  timeout,           // a bounded wait ran out
  aborted,           // somebody called abort
  gpu,               // a function of a GPU's driver failed
  internal,          // a bug of ours
};
const char* name_of(Code code);

/// What must be rebuilt before going on.
enum class Scope : uint8_t { call, link, communicator };
const char* name_of(Scope scope);

class [[nodiscard]] Status {
 public:
  Status() = default;

  template <typename... Args>
  Status(Code code, fmt::format_string<Args...> format, Args&&... args)
      : Status(code, Scope::call, fmt::format(format, std::forward<Args>(args)...)) {}

  template <typename... Args>
  Status(Code code, Scope scope, fmt::format_string<Args...> format, Args&&... args)
      : Status(code, scope, fmt::format(format, std::forward<Args>(args)...)) {}

  Status(Code code, Scope scope, std::string message);

  bool is_ok() const { return detail_ == nullptr; }
  explicit operator bool() const { return is_ok(); }
  Code code() const { return detail_ ? detail_->code : Code::ok; }
  Scope scope() const { return detail_ ? detail_->scope : Scope::call; }

  /// Wraps the failure in one more sentence of context; does nothing on success.
  template <typename... Args>
  Status context(fmt::format_string<Args...> format, Args&&... args) const {
    if (is_ok()) return *this;
    return wrap(fmt::format(format, std::forward<Args>(args)...));
  }

  /// The same failure with a wider scope (never narrows).
  Status widen(Scope scope) const;

  /// "outermost context: ...: first cause", or "ok".
  std::string text() const;

  /// Has the log been told of this failure, or of one that it is made of? Any thread.
  bool told() const;
  void note_told() const;

 private:
  struct Detail {
    Code code;
    Scope scope;
    std::string message;
    std::shared_ptr<const Detail> cause;
    // Relaxed: it guards nothing; should two threads tell at the same time, both do.
    mutable std::atomic<bool> told{false};

    Detail(Code its_code, Scope its_scope, std::string its_message,
           std::shared_ptr<const Detail> its_cause)
        : code(its_code),
          scope(its_scope),
          message(std::move(its_message)),
          cause(std::move(its_cause)) {}
  };
  Status wrap(std::string message) const;
  std::shared_ptr<const Detail> detail_;
};

inline Status ok() { return {}; }

/// `prefix: strerror(error)` with Code::system.
Status system_error(int error, std::string prefix);

/// A value, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {  // NOLINT
    assert(!status_.is_ok() && "a Result without a value needs a failure");
  }
  bool is_ok() const { return value_.has_value(); }
  explicit operator bool() const { return is_ok(); }
  const Status& status() const { return status_; }
  T& value() & {
    assert(value_);
    return *value_;
  }
  const T& value() const& {
    assert(value_);
    return *value_;
  }
  T&& value() && {
    assert(value_);
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

#define RAILCCL_CONCAT_(a, b) a##b
#define RAILCCL_CONCAT(a, b) RAILCCL_CONCAT_(a, b)

/// Returns from the enclosing function when `expression` (a Status) failed.
#define RAILCCL_CHECK(expression)                                                 \
  do {                                                                            \
    if (::railccl::Status railccl_status = (expression); !railccl_status.is_ok()) \
      return railccl_status;                                                      \
  } while (0)

/// `RAILCCL_TRY(auto x, f())`: x = value of the Result, or returns its Status.
#define RAILCCL_TRY(declaration, expression) \
  RAILCCL_TRY_(RAILCCL_CONCAT(result_, __LINE__), declaration, expression)
#define RAILCCL_TRY_(result, declaration, expression) \
  auto result = (expression);                         \
  if (!result.is_ok()) return result.status();        \
  declaration = std::move(result).value()

}  // namespace railccl
