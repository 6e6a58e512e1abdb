// Plans written by hand for the tests of the plan room: small, and of every kind that the language
// can express (messages, posted sends, several channels, peers' scratch, in place).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "plan/builder.h"
#include "plan/checker.h"

namespace railccl::plan {

/// A plan for all ranks, with the options that it is checked with.
struct Sample {
  std::string name;
  Request request;
  int ranks = 1;
  std::vector<Program> programs;
  CheckOptions options;

  Result<CheckReport> check() const {
    return plan::check(
        request, ranks,
        [this](int rank) -> Result<Program> { return programs[static_cast<size_t>(rank)]; },
        options);
  }
};

inline Request request_of(Collective collective, uint64_t count, bool in_place = false,
                          int root = 0) {
  return {collective,
          Datatype::float32,
          reduces(collective) ? Reduction::sum : Reduction::none,
          in_place,
          root,
          count};
}

inline Sample make_sample(std::string name, const Request& request, int ranks,
                          const std::function<void(Builder&)>& write) {
  Sample sample{std::move(name), request, ranks, {}, {}};
  for (int rank = 0; rank < ranks; rank++) {
    Builder builder(request, ranks, rank, sample.name);
    write(builder);
    sample.programs.push_back(std::move(builder).take());
  }
  return sample;
}

/// Ring: reduce-scatter around the ring, then all-gather around the ring. Blocks of more than
/// `chunk` elements go in several messages.
inline Sample ring_all_reduce(int p, uint64_t count, bool in_place = false, int channels = 1,
                              uint64_t chunk = 1000) {
  const Request request = request_of(Collective::all_reduce, count, in_place);
  return make_sample("ring", request, p, [&](Builder& b) {
    const uint64_t n = static_cast<uint64_t>(p), me = static_cast<uint64_t>(b.rank());
    const int next = (b.rank() + 1) % p, previous = (b.rank() + p - 1) % p;
    for (int c = 0; c < channels; c++) {
      const uint64_t part = static_cast<uint64_t>(c), parts = static_cast<uint64_t>(channels);
      const Region in = b.input().block(part, parts), out = b.output().block(part, parts);
      b.channel(c);
      if (p == 1) b.copy(in.slice(), out.slice(), Pre::yes, Post::yes);
      if (p == 1) continue;
      // The block that passes here `back` rounds after mine.
      const auto block = [&](const Region& region, uint64_t back) {
        return region.block((me + 2 * n - back) % n, n);
      };
      const auto cut = [&](const Region& region) {
        return region.count <= chunk ? region.slice() : region.chunks(chunk);
      };
      const auto each = [&](const Region& region, const std::function<void()>& body) {
        if (region.count <= chunk) return body();
        b.loop(chunk_count(region.count, chunk), body);
      };
      for (uint64_t k = 0; k < n - 1; k++) {
        const Region outgoing = block(k == 0 ? in : out, k);
        const Region mine = block(in, k + 1), sum = block(out, k + 1);
        each(outgoing, [&] { b.send(next, cut(outgoing), k == 0 ? Pre::yes : Pre::no); });
        each(mine, [&] {
          b.recv_reduce(previous, cut(mine), cut(sum), Pre::yes, k == n - 2 ? Post::yes : Post::no);
        });
      }
      for (uint64_t k = 0; k < n - 1; k++) {
        const Region outgoing = block(out, k + n - 1), incoming = block(out, k + n);
        each(outgoing, [&] { b.send(next, cut(outgoing)); });
        each(incoming, [&] { b.recv(previous, cut(incoming)); });
      }
    }
  });
}

/// Recursive doubling for a power of two: everyone exchanges everything with me ^ 1, me ^ 2, ...
/// What arrives waits in scratch: a recv_reduce into what is being sent would wait for the peer to
/// receive it, and the peer likewise.
inline Sample doubling_all_reduce(int p, uint64_t count, bool in_place = false) {
  return make_sample(
      "doubling", request_of(Collective::all_reduce, count, in_place), p, [&](Builder& b) {
        const Slice in = b.input().slice(), out = b.output().slice();
        const Slice theirs = b.scratch(count).slice();
        if (p == 1) b.copy(in, out, Pre::yes, Post::yes);
        for (int bit = 1; bit < p; bit *= 2) {
          const Slice mine = bit == 1 ? in : out;
          const Pre pre = bit == 1 ? Pre::yes : Pre::no;
          b.send(b.rank() ^ bit, mine, pre);
          b.recv(b.rank() ^ bit, theirs);
          b.reduce(mine, {&theirs, 1}, out, pre, bit * 2 == p ? Post::yes : Post::no);
        }
      });
}

/// Everyone reduces straight from all peers' scratch, ordered by signals before and after.
inline Sample shared_all_reduce(int p, uint64_t count, bool in_place = false) {
  Sample sample = make_sample(
      "shared", request_of(Collective::all_reduce, count, in_place), p, [&](Builder& b) {
        const Region mine = b.scratch(count);
        b.copy(b.input().slice(), mine.slice(), Pre::yes);
        const auto others = [&](const std::function<void(int)>& visit) {
          for (int k = 1; k < p; k++) visit((b.rank() + k) % p);
        };
        others([&](int peer) { b.signal(peer); });
        others([&](int peer) { b.wait(peer); });
        std::vector<Slice> sources;
        others([&](int peer) {
          Slice theirs = mine.slice();
          theirs.owner = peer;
          sources.push_back(theirs);
        });
        b.reduce(mine.slice(), sources, b.output().slice(), Pre::no, Post::yes);
        others([&](int peer) { b.signal(peer); });
        others([&](int peer) { b.wait(peer); });
      });
  sample.options.load_store = [](int, int, Buffer buffer) { return buffer == Buffer::scratch; };
  return sample;
}

/// Everyone reduces one block straight from all inputs into all outputs. The runtime sees to it
/// that all have entered; signals keep everyone from leaving early.
inline Sample open_all_reduce(int p, uint64_t count, bool in_place = false) {
  Sample sample =
      make_sample("open", request_of(Collective::all_reduce, count, in_place), p, [&](Builder& b) {
        const auto block = [&](Region region, int owner) {
          region.owner = owner;
          return region.block(static_cast<uint64_t>(b.rank()), static_cast<uint64_t>(p)).slice();
        };
        std::vector<Slice> sources, dsts = {block(b.output(), kHere)};
        for (int k = 1; k < p; k++) {
          sources.push_back(block(b.input(), (b.rank() + k) % p));
          dsts.push_back(block(b.output(), (b.rank() + k) % p));
        }
        b.reduce(block(b.input(), kHere), sources, dsts, Pre::yes, Post::yes);
        for (int k = 1; k < p; k++) b.signal((b.rank() + k) % p);
        for (int k = 1; k < p; k++) b.wait((b.rank() + k) % p);
      });
  sample.options.load_store = [](int, int, Buffer) { return true; };
  sample.options.all_entered = true;
  return sample;
}

/// The root copies to all outputs at once.
inline Sample open_broadcast(int p, uint64_t count, int root, bool in_place = false) {
  Sample sample = make_sample(
      "open", request_of(Collective::broadcast, count, in_place, root), p, [&](Builder& b) {
        const bool first = b.rank() == root;
        std::vector<Slice> dsts;
        for (int r = 0; r < p; r++) {
          Region there = b.output();
          there.owner = r;
          if (!(in_place && r == root)) dsts.push_back(there.chunks(4));
        }
        if (first && !dsts.empty())
          b.loop(chunk_count(count, 4), [&] { b.copy(b.input().chunks(4), dsts); });
        for (int k = 1; k < p; k++) {
          if (first) b.signal((root + k) % p);
          if (!first && (root + k) % p == b.rank()) b.wait(root);
        }
      });
  sample.options.load_store = [](int, int, Buffer) { return true; };
  sample.options.all_entered = true;
  return sample;
}

/// A chain from the root, chunk by chunk through a ring of scratch slots, receiving on channel 0
/// and passing on from channel 1, so that the two overlap.
inline Sample chain_broadcast(int p, uint64_t count, int root, uint64_t chunk,
                              bool in_place = false) {
  constexpr uint32_t kSlots = 3;
  return make_sample("chain", request_of(Collective::broadcast, count, in_place, root), p,
                     [&](Builder& b) {
                       const int place = (b.rank() - root + p) % p;
                       const int next = (b.rank() + 1) % p, previous = (b.rank() + p - 1) % p;
                       const bool first = place == 0, last = place == p - 1;
                       const Region slots = b.scratch(kSlots * chunk);
                       const Slice slot = slots.slots(chunk, kSlots, count);
                       const Slice out = b.output().chunks(chunk);
                       const uint64_t n = chunk_count(count, chunk);
                       if (first && !in_place) b.copy(b.input().slice(), b.output().slice());
                       if (p == 1) return;
                       // Sending on channel 1 needs receivers on channel 1: all data moves there on
                       // the wire.
                       if (first) {
                         b.channel(1).loop(n, [&] { b.send(next, b.input().chunks(chunk)); });
                         return;
                       }
                       const uint64_t lead = n < kSlots ? n : kSlots;
                       b.channel(0).loop(lead, [&] { b.signal_channel(1); });
                       b.channel(1).loop(n, [&] {
                         b.channel(1).wait_channel(0);  // a slot is free
                         b.recv(previous, slot);
                         if (!last) b.send(next, slot);
                         b.signal_channel(0);  // a slot is full
                         b.channel(0).wait_channel(1);
                         b.copy(slot, out);
                         b.signal_channel(1);
                       });
                       b.channel(1).loop(lead, [&] { b.wait_channel(0); });
                     });
}

/// Everyone sends everyone its block.
inline Sample direct_all_to_all(int p, uint64_t count) {
  return make_sample("pairwise", request_of(Collective::all_to_all, count), p, [&](Builder& b) {
    const uint64_t n = static_cast<uint64_t>(p), me = static_cast<uint64_t>(b.rank());
    b.copy(b.input().block(me, n).slice(), b.output().block(me, n).slice());
    for (uint64_t k = 1; k < n; k++) {
      const uint64_t to = (me + k) % n, from = (me + n - k) % n;
      b.send(static_cast<int>(to), b.input().block(to, n).slice());
      b.recv(static_cast<int>(from), b.output().block(from, n).slice());
    }
  });
}

/// Ring over blocks that travel once around.
inline Sample ring_all_gather(int p, uint64_t count, bool in_place = false) {
  return make_sample(
      "ring", request_of(Collective::all_gather, count, in_place), p, [&](Builder& b) {
        const uint64_t n = static_cast<uint64_t>(p), me = static_cast<uint64_t>(b.rank());
        if (!in_place) b.copy(b.input().slice(), b.output().block(me, n).slice());
        for (uint64_t k = 0; k + 1 < n; k++) {
          b.send((b.rank() + 1) % p, b.output().block((me + n - k) % n, n).slice());
          b.recv((b.rank() + p - 1) % p, b.output().block((me + n - k - 1) % n, n).slice());
        }
      });
}

/// Everyone sends each rank its block, which adds them up.
inline Sample direct_reduce_scatter(int p, uint64_t count, bool in_place = false) {
  return make_sample(
      "direct", request_of(Collective::reduce_scatter, count, in_place), p, [&](Builder& b) {
        const uint64_t n = static_cast<uint64_t>(p), me = static_cast<uint64_t>(b.rank());
        const Slice own = b.input().block(me, n).slice(), out = b.output().slice();
        if (p == 1) b.copy(own, out, Pre::yes, Post::yes);
        for (uint64_t k = 1; k < n; k++) {
          const uint64_t to = (me + k) % n, from = (me + n - k) % n;
          b.send(static_cast<int>(to), b.input().block(to, n).slice(), Pre::yes);
          b.recv_reduce(static_cast<int>(from), k == 1 ? own : out, out,
                        k == 1 ? Pre::yes : Pre::no, k + 1 == n ? Post::yes : Post::no);
        }
      });
}

/// Rooted collectives, everyone straight with the root.
inline Sample direct_rooted(Collective collective, int p, uint64_t count, int root,
                            bool in_place = false) {
  return make_sample("direct", request_of(collective, count, in_place, root), p, [&](Builder& b) {
    const uint64_t n = static_cast<uint64_t>(p), r = static_cast<uint64_t>(root);
    const bool is_root = b.rank() == root;
    const auto others = [&](const std::function<void(int, uint64_t)>& visit) {
      for (int k = 1; k < p; k++) visit((root + k) % p, static_cast<uint64_t>((root + k) % p));
    };
    switch (collective) {
      case Collective::gather:
        if (!is_root) b.send(root, b.input().slice());
        if (!is_root) break;
        if (!in_place) b.copy(b.input().slice(), b.output().block(r, n).slice());
        others([&](int peer, uint64_t i) { b.recv(peer, b.output().block(i, n).slice()); });
        break;
      case Collective::scatter:
        if (!is_root) b.recv(root, b.output().slice());
        if (!is_root) break;
        if (!in_place) b.copy(b.input().block(r, n).slice(), b.output().slice());
        others([&](int peer, uint64_t i) { b.send(peer, b.input().block(i, n).slice()); });
        break;
      default: {
        if (!is_root) b.send(root, b.input().slice(), Pre::yes);
        if (!is_root) break;
        if (p == 1) b.copy(b.input().slice(), b.output().slice(), Pre::yes, Post::yes);
        int left = p - 1;
        others([&](int peer, uint64_t) {
          const bool first = left == p - 1, last = --left == 0;
          b.recv_reduce(peer, first ? b.input().slice() : b.output().slice(), b.output().slice(),
                        first ? Pre::yes : Pre::no, last ? Post::yes : Post::no);
        });
      }
    }
  });
}

/// The samples with `p` ranks and blocks or buffers of `count` elements.
inline std::vector<Sample> all_samples(int p, uint64_t count) {
  std::vector<Sample> samples;
  for (const bool in_place : {false, true}) {
    samples.push_back(ring_all_reduce(p, count, in_place));
    samples.push_back(ring_all_reduce(p, count, in_place, 2, 3));
    if ((p & (p - 1)) == 0) samples.push_back(doubling_all_reduce(p, count, in_place));
    samples.push_back(shared_all_reduce(p, count, in_place));
    samples.push_back(open_all_reduce(p, count, in_place));
    samples.push_back(open_broadcast(p, count, p / 2, in_place));
    samples.push_back(chain_broadcast(p, count, p / 2, 2, in_place));
    samples.push_back(ring_all_gather(p, count, in_place));
    samples.push_back(direct_reduce_scatter(p, count, in_place));
    for (const Collective rooted : {Collective::gather, Collective::scatter, Collective::reduce})
      samples.push_back(direct_rooted(rooted, p, count, p - 1, in_place));
  }
  samples.push_back(direct_all_to_all(p, count));
  return samples;
}

}  // namespace railccl::plan
