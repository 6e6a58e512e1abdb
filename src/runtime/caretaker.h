// Caretaker: looks after a communicator's transports while no operation does.
//
// What an operation sent last may still be on its way when it is over, and the path may fail just
// then: somebody must send it again, or a peer waits until this rank makes its next call. And a
// path that returns is welcomed while all are busy computing. The reactor's thread comes by a few
// times a second, takes a turn if nobody has one, and lets the transports go on.
//
// Made only where transports span hosts. Any thread.
#pragma once

#include <memory>
#include <mutex>

#include "runtime/reactor.h"
#include "runtime/turnstile.h"
#include "runtime/wires.h"

namespace railccl::runtime {

class Caretaker final : public Reactor::Client, public std::enable_shared_from_this<Caretaker> {
 public:
  /// Begins. `turns` and `wires` must live until leave().
  static Result<std::shared_ptr<Caretaker>> hire(Turnstile& turns, Wires& wires);
  /// Ends; on return nothing of the communicator is touched any more.
  void leave();

  void on_ready(uint32_t) override {}
  void on_wake() override;

  static constexpr int64_t kRoundNs = 50'000'000;

 private:
  std::mutex mutex_;
  Turnstile* turns_ = nullptr;  // null: it has left
  Wires* wires_ = nullptr;
  Reactor* reactor_ = nullptr;
  uint64_t id_ = 0;
};

}  // namespace railccl::runtime
