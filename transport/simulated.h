// simulated: a world of ranks in one thread, with seeded delays, a virtual clock, and links that
// can be lost; what distributed code is tested in a thousand times before it meets a real network.
//
//   simulated::World world(seed, 4, {});
//   auto a = world.transport(0), b = world.transport(1);   // ... set_peers, link
//   while (!done) if (!step_everyone() && !world.advance()) fail("nothing will ever happen");
//
// Same seed, options and calls: same events. Bytes of one link direction arrive in order; bytes of
// different links overtake each other as the delays will have it. Sent bytes count against the
// link's credit until their receiver has consumed them and the news has travelled back.
//
// Single-threaded: a World and its transports belong to one thread (abort() and wake() included).
// The World must outlive its transports.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <queue>
#include <tuple>
#include <vector>

#include "base/owners.h"
#include "base/random.h"
#include "transport/link.h"

namespace railccl::transport::simulated {

/// The link between two ranks, all channels and both directions, ends at `at_ns`.
struct Loss {
  int a = 0;
  int b = 0;
  int64_t at_ns = 0;
};

struct Options {
  int64_t delay_ns_min = 500;  // of each segment and each return of credit, uniform
  int64_t delay_ns_max = 50'000;
  double bytes_per_s = 10e9;           // of each link direction
  size_t credit_bytes = 16 << 10;      // in flight or unread, per link direction
  size_t segment_bytes_max = 4 << 10;  // what is sent is cut at random, into at most this
  double short_send_chance = 0;        // a send takes only a random part of what it could
  bool shared_memory = false;          // load/store peers; seen at once, costs no time
  std::vector<Loss> losses;

  /// Options from wherever a seed leads: tiny to ample credit, tight to wild delays. No losses.
  static Options drawn(uint64_t seed);
};

class World;

/// Bytes of one direction of one link. Internal to World and its links.
struct Pipe {
  int from = 0;
  int to = 0;
  size_t outstanding = 0;          // counts against the credit
  int64_t last_arrival_ns = 0;     // later segments arrive later
  std::vector<std::byte> arrived;  // unread bytes are [head, size)
  size_t head = 0;
  uint64_t accepted = 0;
};

class World {
 public:
  World(uint64_t seed, int ranks, Options options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  /// The transport of one rank; each may be asked for once. Knows its peers already: set_peers is
  /// allowed and changes nothing.
  std::unique_ptr<Transport> transport(int rank);

  /// Lets time go on to the next event and does it; false when there is none.
  bool advance();
  int64_t now_ns() const { return now_ns_; }
  int ranks() const { return ranks_; }
  const Options& options() const { return options_; }

  /// Loses the link between a and b now.
  void lose(int a, int b);
  /// ok, or when the link was lost.
  Status lost(int a, int b) const;

 private:
  friend class SimulatedLink;
  friend class SimulatedTransport;
  enum class What : uint8_t { arrival, credit, loss };
  struct Event {
    int64_t at_ns;
    uint64_t order;  // of creation: ties are decided alike in every run
    What what;
    Pipe* pipe;                    // arrival, credit
    size_t credit;                 // credit
    std::vector<std::byte> bytes;  // arrival
    Loss loss;                     // loss
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return std::tie(a.at_ns, a.order) > std::tie(b.at_ns, b.order);
    }
  };

  Pipe* pipe(int from, int to, int channel);
  size_t send(Pipe* pipe, std::span<const iovec> ranges);
  void consume(Pipe* pipe, size_t bytes);
  int64_t delay();
  void add(Event event);
  Result<std::byte*> grow(int rank, size_t bytes);
  std::byte* memory(int rank, size_t bytes) const;

  const int ranks_;
  const Options options_;
  Random random_;
  int64_t now_ns_ = 0;
  uint64_t order_ = 0;
  std::vector<Event> events_;  // a heap by Later
  std::map<std::tuple<int, int, int>, Pipe> pipes_;
  std::map<std::pair<int, int>, int64_t> lost_;  // (lower, higher) -> since when
  std::vector<Mapping> memories_;
  std::vector<size_t> memory_bytes_;
};

}  // namespace railccl::transport::simulated
