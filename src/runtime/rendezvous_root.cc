// The root of a rendezvous; see rendezvous_root.h.
//
// A rank that is waiting may die and be started again: its second hello takes the place of the
// first, whose connection has closed. Two living ranks with one number are a mistake, and the later
// is refused. Ranks that disagree about how many there are can never all meet: everyone fails.
#include "runtime/rendezvous_root.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/random.h"
#include "runtime/rank_list.h"

namespace railccl::runtime {
namespace {

constexpr int64_t kUnusedMs = int64_t{24} * 3600 * 1000;
constexpr int kSliceMs = 100;  // how late `stop` may be noticed

class Root {
 public:
  Root(Gate gate, const Nonce& nonce) : gate_(std::move(gate)), nonce_(nonce) {}

  void serve(const std::atomic<bool>& stop) {
    // Relaxed: the flag carries no data.
    while (!stop.load(std::memory_order_relaxed)) {
      if (deadline_.passed()) return give_up();
      std::vector<Gate::Guest> guests;
      const Status polled = gate_.poll(deadline_.left_ms(kSliceMs), &guests);
      if (!polled.is_ok()) return refuse_all(polled.context("rendezvous root"));
      for (Gate::Guest& guest : guests) welcome(std::move(guest));
      if (!contradiction_.is_ok()) return refuse_all(contradiction_);
      if (ranks_ > 0 && static_cast<int>(arrived_.size()) == ranks_) {
        forget_the_dead();
        if (static_cast<int>(arrived_.size()) == ranks_) return dismiss();
      }
    }
    refuse_all(Status(Code::aborted, Scope::communicator, "rendezvous: rank 0 gave up"));
  }

 private:
  struct Arrival {
    UniqueFd socket;
    std::string address;
    uint64_t host = 0;
  };

  void welcome(Gate::Guest guest) {
    auto parsed = parse_hello(guest.frame);
    if (!parsed.is_ok()) {
      log::info("rendezvous: dropped a stranger: {}", parsed.status().text());
      return;
    }
    const Hello& hello = *parsed;
    if (hello.nonce != nonce_) {
      log::info("rendezvous: dropped a rank of another job");
      return refuse(guest.socket, Status(Code::invalid_argument, Scope::communicator,
                                         "rendezvous: this unique id belongs to another meeting "
                                         "than the one that is held at its address"));
    }
    if (ranks_ == 0) {
      ranks_ = hello.ranks;
      first_ = hello.rank;
      deadline_ = Deadline::after_ms(hello.timeout_ms);
      started_ns_ = now_ns();
    }
    if (hello.ranks != ranks_) {
      contradiction_ = Status(Code::mismatch, Scope::communicator,
                              "rendezvous: rank {} says there are {} ranks, but rank {} says {}",
                              first_, ranks_, hello.rank, hello.ranks);
      refuse(guest.socket, contradiction_);
      return;
    }
    const auto before = arrived_.find(hello.rank);
    if (before != arrived_.end() && !is_closed(before->second.socket)) {
      return refuse(guest.socket,
                    Status(Code::invalid_argument, Scope::communicator,
                           "rendezvous: there is a rank {} already, of {}", hello.rank, ranks_));
    }
    arrived_[hello.rank] = {std::move(guest.socket), hello.address, hello.host};
  }

  void forget_the_dead() {
    std::erase_if(arrived_, [](const auto& entry) { return is_closed(entry.second.socket); });
  }

  void give_up() {
    if (ranks_ == 0) return;
    forget_the_dead();
    std::vector<int> missing;
    for (int rank = 0; rank < ranks_; rank++)
      if (!arrived_.contains(rank)) missing.push_back(rank);
    const int64_t waited_ms = (now_ns() - started_ns_) / 1'000'000;
    refuse_all(Status(Code::timeout, Scope::communicator,
                      "rendezvous: after {} ms {} of {} {} not arrived", waited_ms,
                      rank_list(missing), ranks_, missing.size() == 1 ? "has" : "have"));
  }

  void dismiss() {
    // The door closes before the first answer, so that a rank that comes back for the next
    // meeting at this address cannot end up in this one's backlog.
    gate_ = Gate();
    uint64_t job = 0;
    if (!secret_bytes(&job, sizeof job)) job = static_cast<uint64_t>(now_ns());
    std::set<uint64_t> hosts;
    for (const auto& [rank, arrival] : arrived_) {
      Reply reply;
      reply.job = job;
      reply.first_of_host = hosts.insert(arrival.host).second;
      if (rank > 0) reply.parent = arrived_.at(tree_parent(rank)).address;
      answer(arrival.socket, reply);
    }
  }

  void refuse_all(const Status& why) {
    for (const auto& [rank, arrival] : arrived_) refuse(arrival.socket, why);
  }

  static void refuse(const UniqueFd& socket, const Status& why) {
    Reply reply;
    reply.refusal = why;
    answer(socket, reply);
  }

  static void answer(const UniqueFd& socket, const Reply& reply) {
    // An answer fits the empty send buffer; a rank that has gone meanwhile is missed by its tree
    // neighbours, who say so.
    (void)send_frame(socket, encode(reply), {Deadline::after_ms(1000), nullptr}).is_ok();
  }

  Gate gate_;
  const Nonce nonce_;
  int ranks_ = 0;  // 0: nobody came yet
  int first_ = 0;  // who said so
  int64_t started_ns_ = 0;
  Deadline deadline_ = Deadline::after_ms(kUnusedMs);
  Status contradiction_;
  std::map<int, Arrival> arrived_;
};

}  // namespace

void serve_root(UniqueFd listener, const Nonce& nonce, const std::atomic<bool>& stop) {
  Gate::Limits limits;
  limits.frame_bytes_max = kHelloBytesMax;
  limits.visitors_max = 4096;
  Root(Gate(std::move(listener), limits), nonce).serve(stop);
}

Status start_root(UniqueFd listener, const Nonce& nonce,
                  std::shared_ptr<const std::atomic<bool>> stop) {
  // Signals are for the program's own threads.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  Status status;
  try {
    // Detached: it owns all it touches, and a program that ends does not wait for absent ranks.
    std::thread([listener = std::move(listener), nonce, stop = std::move(stop)]() mutable {
      ::pthread_setname_np(::pthread_self(), "railccl-root");
      serve_root(std::move(listener), nonce, *stop);
    }).detach();
  } catch (const std::system_error& error) {
    status = system_error(error.code().value(), "cannot start the rendezvous thread");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

}  // namespace railccl::runtime
