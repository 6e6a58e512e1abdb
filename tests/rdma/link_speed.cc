// What a link over verbs carries, to be compared with ib_write_bw and ib_write_lat between the same
// devices: two ranks, threads of this process, on hosts h0 and h1 of the guest.
//
//   link_speed RAILS bandwidth BYTES MESSAGES     MB/s (10^6) of messages that are received
//   link_speed RAILS registered_bandwidth ...     the same of registered memory, which the device
//                                                 reads where it is
//   link_speed RAILS latency BYTES ROUNDS         us one way: median of half a round trip
//   link_speed RAILS cleared_bandwidth|cleared_latency BYTES COUNT
//                                                 the same with a clear-to-send before each message
//
// Ranks spin, as perftest does. The links grant credit ahead; what that is worth shows beside the
// cleared kinds, where the sender asks, in a byte, and the receiver answers, in another, before
// each message, as a rendezvous does.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "transport/registered_memory.h"
#include "transport/registry.h"

namespace {

using namespace railccl;
using namespace railccl::transport;

[[noreturn]] void fail(const Status& why) {
  std::fprintf(stderr, "link_speed: %s\n", why.text().c_str());
  std::exit(1);
}

class Rank {
 public:
  Rank(int rank, int rails) : rank_(rank) {
    Context context;
    context.rank = rank;
    context.ranks = 2;
    context.job = 1;
    context.host_id = static_cast<uint64_t>(rank) + 1;
    std::string nics;
    for (int rail = 0; rail < rails; rail++)
      nics += fmt::format("{}h{}r{}", rail == 0 ? "=" : ",", rank, rail);
    context.settings.socket_ifname = context.settings.ib_hca = nics;
    for (const TransportKind* kind : all()) {
      if (std::string_view(kind->name) != "verbs") continue;
      auto made = kind->create(context);
      if (!made.is_ok()) fail(made.status());
      transport_ = std::move(made).value();
    }
    if (!transport_) fail(Status(Code::unsupported, "built without verbs"));
  }
  Address address() const { return transport_->address(); }
  void meet(const Peers& peers) {
    if (const Status status = transport_->set_peers(peers); !status.is_ok()) fail(status);
    auto link = transport_->link(1 - rank_, 0);
    if (!link.is_ok()) fail(link.status());
    link_ = *link;
  }
  void send(const std::vector<std::byte>& data) {
    for (size_t done = 0; done < data.size();) {
      const iovec range{const_cast<std::byte*>(data.data()) + done, data.size() - done};
      const Result<size_t> sent = link_->send({&range, 1});
      if (!sent.is_ok()) fail(sent.status());
      done += *sent;
      progress();
    }
    sent_ += data.size();
    while (link_->released() < sent_) progress();
  }
  void receive(std::vector<std::byte>* data) {
    for (size_t done = 0; done < data->size();) {
      const Result<size_t> got = link_->receive(data->data() + done, data->size() - done);
      if (!got.is_ok()) fail(got.status());
      done += *got;
      if (*got == 0) progress();
    }
  }
  /// The round trip before a message that waits for a clear-to-send, of both sides.
  void ask_to_send() {
    send(word_);
    receive(&word_);
  }
  void clear_to_send() {
    receive(&word_);
    send(word_);
  }
  void settle() {
    while (!transport_->settled()) progress();
  }

 private:
  void progress() {
    if (const Status status = transport_->progress(); !status.is_ok()) fail(status);
    if (const Result<bool> flushed = link_->flush(); !flushed.is_ok()) fail(flushed.status());
  }
  const int rank_;
  std::unique_ptr<Transport> transport_;
  Link* link_ = nullptr;
  uint64_t sent_ = 0;
  std::vector<std::byte> word_ = std::vector<std::byte>(1);
};

double bandwidth(Rank* from, Rank* to, size_t bytes, int messages, bool cleared, bool registered) {
  std::vector<std::byte> source(bytes), destination(bytes), answer(1);
  const auto handle = registered ? RegisteredMemory::add(source.data(), bytes) : nullptr;
  std::thread receiver([&] {
    for (int i = 0; i < messages + 1; i++) {
      if (cleared) to->clear_to_send();
      to->receive(&destination);
    }
    to->send(answer);
    to->settle();
  });
  const auto send = [&] {
    if (cleared) from->ask_to_send();
    from->send(source);
  };
  send();  // connects
  const int64_t began = now_ns();
  for (int i = 0; i < messages; i++) send();
  from->receive(&answer);
  const int64_t took_ns = now_ns() - began;
  receiver.join();
  return static_cast<double>(bytes) * messages * 1e3 / static_cast<double>(took_ns);
}

double latency(Rank* from, Rank* to, size_t bytes, int rounds, bool cleared) {
  std::vector<std::byte> ping(bytes), pong(bytes);
  std::vector<double> times;
  std::thread other([&] {
    for (int i = 0; i < rounds + 1; i++) {
      if (cleared) to->clear_to_send();
      to->receive(&ping);
      if (cleared) to->ask_to_send();
      to->send(ping);
    }
    to->settle();
  });
  for (int i = 0; i < rounds + 1; i++) {
    const int64_t began = now_ns();
    if (cleared) from->ask_to_send();
    from->send(pong);
    if (cleared) from->clear_to_send();
    from->receive(&pong);
    if (i > 0) times.push_back(static_cast<double>(now_ns() - began) / 2e3);
  }
  other.join();
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[static_cast<size_t>(rounds / 2)];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr,
                 "usage: link_speed RAILS [cleared_|registered_]bandwidth|latency BYTES COUNT\n");
    return 2;
  }
  const int rails = std::atoi(argv[1]);
  const auto bytes = static_cast<size_t>(std::atoll(argv[3]));
  const int count = std::max(std::atoi(argv[4]), 1);
  Rank first(0, rails), second(1, rails);
  Peers peers;
  peers.addresses = {first.address(), second.address()};
  peers.host_ids = {1, 2};
  peers.processes = {1, 1};
  first.meet(peers);
  second.meet(peers);
  const std::string_view kind = argv[2];
  const bool cleared = kind.starts_with("cleared_");
  if (kind.ends_with("bandwidth"))
    std::printf("%.1f\n",
                bandwidth(&first, &second, bytes, count, cleared, kind.starts_with("registered_")));
  else
    std::printf("%.2f\n", latency(&first, &second, bytes, count, cleared));
  return 0;
}
