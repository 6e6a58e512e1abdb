// Random calls: threads as ranks make the same seeded sequence of calls of every kind (collectives
// of all datatypes and operators, in place or not, on streams or not, groups of collectives and
// sends and receives, splits and calls on their results) over shared memory and sockets, and check
// every result bit by bit. Prints what it did; ends with 1 and the seed at the first wrong result,
// failed call, or when nothing happens for a minute.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <thread>

#include "base/clock.h"
#include "runtime/communicator.h"
#include "runtime/values.h"

namespace railccl::test {
namespace {

using runtime::Call;
using runtime::Communicator;
using runtime::Stream;
using CommunicatorPtr = std::shared_ptr<Communicator>;

struct Progress {
  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> groups{0};
  std::atomic<uint64_t> splits{0};
  std::atomic<uint64_t> communicators{0};
  std::atomic<bool> stopped{false};  // nobody may wait for a rank that gave up
};

/// One call with its buffers, until its result is checked.
struct Pending {
  std::string what;
  std::unique_ptr<Buffers> buffers;     // collectives
  std::vector<int32_t> data, expected;  // receives (and the data of sends)
};

/// One rank: `agreed` draws the same on all ranks, `own` does not.
class Actor {
 public:
  Actor(CommunicatorPtr world, uint64_t seed, Progress& progress)
      : agreed_(seed),
        own_(seed * 1000 + static_cast<uint64_t>(world->rank())),
        progress_(progress) {
    communicators_.push_back({std::move(world), nullptr});
  }

  /// About a hundred calls; all ranks return from it at the same place.
  bool act() {
    for (int i = 0; i < 30 && good_; i++) {
      switch (agreed_.below(10)) {
        case 0:
          split();
          break;
        case 1:
        case 2:
        case 3:
          group();
          break;
        default:
          single();
          break;
      }
    }
    settle();
    return good_;
  }

  /// Everyone learns rank 0's answer.
  bool everyone(bool mine) {
    uint8_t value = mine ? 1 : 0;
    Call call;
    call.request.collective = Collective::broadcast;
    call.request.datatype = Datatype::uint8;
    call.request.count = 1;
    call.request.in_place = true;
    call.input = call.output = &value;
    return expect(communicators_[0].communicator->start(call, nullptr), "the vote") && value == 1;
  }

 private:
  struct Known {
    CommunicatorPtr communicator;    // null where this rank stayed out of the split
    std::shared_ptr<Random> agreed;  // among its members; null: agreed_ (the world)
  };

  bool expect(const Status& status, const std::string& what) {
    if (status.is_ok()) return true;
    if (good_ && !progress_.stopped.exchange(true))
      std::fprintf(stderr, "stress: %s: %s\n", what.c_str(), status.text().c_str());
    return good_ = false;
  }

  Stream* some_stream() {
    const uint64_t which = own_.below(4);
    return which < 2 ? nullptr : &streams_[which - 2];
  }

  void add_collective(const CommunicatorPtr& communicator, Random& draws, Stream* stream) {
    Request request = random_request(draws, static_cast<Collective>(draws.below(kCollectiveCount)),
                                     communicator->size(), uint64_t{1} << (4 + draws.below(13)));
    // Ranks may differ in being in place.
    if (request.in_place) request.in_place = own_.chance(0.8);
    Pending pending;
    pending.what = plan::text_of(request);
    pending.buffers =
        std::make_unique<Buffers>(request, communicator->size(), communicator->rank());
    Call call;
    call.request = request;
    call.input = pending.buffers->input;
    call.output = pending.buffers->output;
    call.factor = factor_of(request);
    expect(communicator->start(call, stream), pending.what);
    pending_.push_back(std::move(pending));
    progress_.calls++;
  }

  /// A random pattern of transfers that all members draw alike: rank i sends to (i + shift) % n.
  void add_transfers(const CommunicatorPtr& communicator, Random& draws, Stream* stream) {
    const int ranks = communicator->size(), rank = communicator->rank();
    const int shift = static_cast<int>(draws.below(static_cast<uint64_t>(ranks)));
    const uint64_t count = draws.below(uint64_t{1} << draws.below(17));
    const auto salt = static_cast<int32_t>(draws.below(1000));
    Call call;
    call.request.datatype = Datatype::int32;
    call.request.count = count;
    Pending out, in;
    out.what = in.what = fmt::format("transfer of {} by {}", count, shift);
    out.data.assign(count + 1, salt + rank);
    call.kind = Call::Kind::send;
    call.peer = (rank + shift) % ranks;
    call.input = out.data.data();
    expect(communicator->start(call, stream), out.what);
    const int from = (rank - shift + ranks) % ranks;
    in.data.assign(count + 1, -1);
    in.expected.assign(count, salt + from);
    in.expected.push_back(-1);
    call.kind = Call::Kind::recv;
    call.peer = from;
    call.input = nullptr;
    call.output = in.data.data();
    expect(communicator->start(call, stream), in.what);
    pending_.push_back(std::move(out));
    pending_.push_back(std::move(in));
    progress_.calls += 2;
  }

  Random& draws_of(const Known& known) { return known.agreed ? *known.agreed : agreed_; }

  void single() {
    const Known& known = communicators_[agreed_.below(communicators_.size())];
    if (known.communicator != nullptr)
      add_collective(known.communicator, draws_of(known), some_stream());
    if (pending_.size() > 40) settle();
  }

  void group() {
    runtime::group_start();
    for (uint64_t i = agreed_.below(5); i-- > 0;) {
      const Known& known = communicators_[agreed_.below(communicators_.size())];
      const bool transfers = agreed_.chance(0.6);
      if (known.communicator == nullptr) continue;
      if (transfers) {
        add_transfers(known.communicator, draws_of(known), some_stream());
      } else {
        add_collective(known.communicator, draws_of(known), some_stream());
      }
    }
    expect(runtime::group_end(), "group");
    progress_.groups++;
    if (pending_.size() > 40) settle();
  }

  void split() {
    settle();
    if (communicators_.size() > 3) communicators_.erase(communicators_.begin() + 1);
    const CommunicatorPtr world = communicators_[0].communicator;
    const uint64_t colors = 1 + agreed_.below(3), stay_out = agreed_.below(12);
    const uint64_t seed = agreed_.next();
    const auto rank = static_cast<uint64_t>(world->rank());
    const int color = stay_out == rank ? -1 : static_cast<int>((rank + stay_out) % colors);
    auto part = world->split(color, static_cast<int>(own_.below(100)), {});
    if (!expect(part.is_ok() ? ok() : part.status(), "split")) return;
    communicators_.push_back(
        {*part, std::make_shared<Random>(seed + static_cast<uint64_t>(color + 1))});
    progress_.splits++;
  }

  void settle() {
    for (Stream& stream : streams_) expect(stream.synchronize(), "stream");
    for (const Pending& pending : pending_) {
      const bool wrong = pending.buffers != nullptr
                             ? pending.buffers->first_wrong() != -1
                             : !pending.expected.empty() && pending.data != pending.expected;
      if (good_ && wrong)
        expect(Status(Code::internal, "rank {} has a wrong result",
                      communicators_[0].communicator->rank()),
               pending.what);
    }
    pending_.clear();
  }

  Random agreed_, own_;
  Progress& progress_;
  std::vector<Known> communicators_;
  Stream streams_[2];
  std::vector<Pending> pending_;
  bool good_ = true;
};

/// Ranks share memory, or in a third of all lives do not; or each is on a host of its own of the
/// guest of tests/rdma, with NICs on so many rails, and RDMA is all there is.
Result<Settings> settings_of(uint64_t seed, int rank, int rdma_rails) {
  const bool sockets = seed % 3 == 0;
  const std::string host = fmt::format("h{}", rank);
  std::string nics;
  for (int rail = 0; rail < rdma_rails; rail++)
    nics += fmt::format("{}{}r{}", rail == 0 ? "=" : ",", host, rail);
  return Settings::load([&](const char* name) -> const char* {
    const std::string_view variable = name;
    if (variable == "NCCL_SHM_DISABLE") return sockets ? "1" : "0";
    if (variable == "RAILCCL_TIMEOUT_MS") return "60000";
    if (rdma_rails == 0) return nullptr;
    if (variable == "NCCL_HOSTID") return host.c_str();
    if (variable == "NCCL_NET") return "IB";
    if (variable == "NCCL_IB_HCA" || variable == "NCCL_SOCKET_IFNAME") return nics.c_str();
    return nullptr;
  });
}

/// One life of a communicator with all its ranks.
bool live(uint64_t seed, int ranks, int rdma_rails, int64_t until_ns, Progress& progress) {
  auto id = runtime::make_unique_id(*settings_of(seed, 0, rdma_rails));
  if (!id.is_ok()) {
    std::fprintf(stderr, "stress: %s\n", id.status().text().c_str());
    return false;
  }
  std::atomic<bool> good{true};
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; r++)
    threads.emplace_back([&, r] {
      auto joined = Communicator::join(*id, r, ranks, {}, *settings_of(seed, r, rdma_rails));
      if (!joined.is_ok()) {
        std::fprintf(stderr, "stress: %s\n", joined.status().text().c_str());
        good = false;
        return;
      }
      Actor actor(*joined, seed, progress);
      bool more = true;
      for (int i = 0; i < 10 && more; i++) {
        if (!actor.act()) {
          good = false;
          (*joined)->abort("another rank found a failure");
          return;
        }
        more = actor.everyone(now_ns() < until_ns);
      }
    });
  for (std::thread& thread : threads) thread.join();
  progress.communicators++;
  return good;
}

}  // namespace
}  // namespace railccl::test

int main(int argc, char** argv) {
  int64_t seconds = 20;
  uint64_t seed = 1;
  int ranks = 4;
  int rdma_rails = 0;
  CLI::App app{"random calls with checked results"};
  app.add_option("--seconds", seconds, "how long")->check(CLI::Range(1, 86400));
  app.add_option("--seed", seed, "where the random numbers begin");
  app.add_option("--ranks", ranks, "threads as ranks")->check(CLI::Range(1, 64));
  app.add_option("--rdma-rails", rdma_rails,
                 "in the guest of tests/rdma: over verbs, hosts of one rank with so many rails")
      ->check(CLI::Range(0, 8));
  CLI11_PARSE(app, argc, argv);
  railccl::test::Progress progress;
  const int64_t until_ns = railccl::now_ns() + seconds * 1'000'000'000;
  while (railccl::now_ns() < until_ns) {
    if (!railccl::test::live(seed, ranks, rdma_rails, until_ns, progress)) {
      std::fprintf(stderr, "stress: failed; run again with --seed %llu --ranks %d\n",
                   static_cast<unsigned long long>(seed), ranks);
      return 1;
    }
    seed++;
  }
  std::printf("stress: %llu calls, %llu groups, %llu splits on %llu communicators of %d ranks\n",
              static_cast<unsigned long long>(progress.calls),
              static_cast<unsigned long long>(progress.groups),
              static_cast<unsigned long long>(progress.splits),
              static_cast<unsigned long long>(progress.communicators), ranks);
  return 0;
}
