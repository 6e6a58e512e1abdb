// The rounds of the caretaker.
#include "runtime/caretaker.h"

#include "base/clock.h"

namespace railccl::runtime {

Result<std::shared_ptr<Caretaker>> Caretaker::hire(Turnstile& turns, Wires& wires) {
  RAILCCL_TRY(Reactor * reactor, Reactor::get());
  auto caretaker = std::make_shared<Caretaker>();
  caretaker->turns_ = &turns;
  caretaker->wires_ = &wires;
  caretaker->reactor_ = reactor;
  caretaker->id_ = reactor->add(caretaker);
  reactor->wake_at(caretaker->id_, now_ns() + kRoundNs);
  return caretaker;
}

void Caretaker::leave() {
  reactor_->remove(id_);
  std::lock_guard lock(mutex_);
  turns_ = nullptr;
  wires_ = nullptr;
}

void Caretaker::on_wake() {
  std::lock_guard lock(mutex_);
  if (turns_ == nullptr || !reactor_->is_current()) return;
  // Whoever has a turn looks after the transports himself.
  if (uint64_t ticket; turns_->try_take(&ticket)) {
    // A failure shows in the next operation that needs what failed.
    (void)wires_->progress(true);
    turns_->leave(ticket);
  }
  reactor_->wake_at(id_, now_ns() + kRoundNs);
}

}  // namespace railccl::runtime
