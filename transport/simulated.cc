// The simulated world: an event queue, pipes, and transports that are thin views of it.
#include "transport/simulated.h"

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "transport/abort_flag.h"

namespace railccl::transport::simulated {

constexpr size_t kMemoryMax = size_t{1} << 30;

Options Options::drawn(uint64_t seed) {
  Random random(seed ^ 0x6f7074696f6e73);
  Options options;
  options.delay_ns_min = static_cast<int64_t>(1 + random.below(2'000));
  options.delay_ns_max = options.delay_ns_min + static_cast<int64_t>(1 + random.below(1'000'000));
  options.credit_bytes = 64u << random.below(11);
  options.segment_bytes_max = 16u << random.below(11);
  options.bytes_per_s = 1e8 * static_cast<double>(1 + random.below(1000));
  options.short_send_chance = random.chance(0.5) ? random.uniform() : 0;
  return options;
}

class SimulatedLink final : public Link {
 public:
  SimulatedLink(World* world, const AbortFlag& abort, int rank, int peer, int channel)
      : world_(world),
        abort_(abort),
        rank_(rank),
        peer_(peer),
        channel_(channel),
        out_(world->pipe(rank, peer, channel)),
        in_(world->pipe(peer, rank, channel)) {}

  Result<size_t> send(std::span<const iovec> ranges) override {
    RAILCCL_CHECK(failure());
    return world_->send(out_, ranges);
  }
  uint64_t released() const override { return out_->accepted; }
  Result<bool> flush() override {
    RAILCCL_CHECK(failure());
    return true;
  }
  Result<std::span<const std::byte>> peek(size_t want) override {
    if (abort_.raised()) return abort_.why();
    const std::span<const std::byte> view(in_->arrived.data() + in_->head,
                                          in_->arrived.size() - in_->head);
    if (view.size() < want) {
      const Status status = failure();
      if (!status.is_ok() && (view.empty() || view.size() == last_view_)) return status;
      if (!status.is_ok()) last_view_ = view.size();
    }
    return view;
  }
  void consume(size_t bytes) override {
    last_view_ = kNoView;
    world_->consume(in_, bytes);
  }
  Result<size_t> receive(void* dst, size_t bytes) override {
    RAILCCL_TRY(const std::span<const std::byte> view, peek(std::min<size_t>(bytes, 1)));
    const size_t taken = std::min(bytes, view.size());
    if (taken == 0) return taken;
    std::memcpy(dst, view.data(), taken);
    consume(taken);
    return taken;
  }
  std::string name() const override {
    return fmt::format("simulated to rank {} channel {}", peer_, channel_);
  }

 private:
  Status failure() const {
    if (abort_.raised()) return abort_.why();
    const Status lost = world_->lost(rank_, peer_);
    return lost.is_ok() ? lost : lost.context("{}", name());
  }
  static constexpr size_t kNoView = ~size_t{0};
  World* world_;
  const AbortFlag& abort_;
  int rank_, peer_, channel_;
  Pipe* out_;
  Pipe* in_;
  size_t last_view_ = kNoView;
};

class SimulatedTransport final : public Transport {
 public:
  SimulatedTransport(World* world, int rank) : world_(world), rank_(rank) {}

  const char* name() const override { return "simulated"; }
  Capabilities capabilities() const override {
    return {
        .load_store = world_->options().shared_memory, .zero_copy = false, .in_place_view = true};
  }
  Address address() const override { return fmt::format("simulated {}", rank_); }
  Status set_peers(const Peers& peers) override {
    if (peers.addresses.size() != static_cast<size_t>(world_->ranks())) {
      return Status(Code::invalid_argument, "simulated: {} addresses for {} ranks",
                    peers.addresses.size(), world_->ranks());
    }
    return ok();
  }
  bool reaches(int peer) const override {
    return peer >= 0 && peer < world_->ranks() && peer != rank_;
  }
  Result<Link*> link(int peer, int channel) override {
    if (!reaches(peer) || channel < 0) {
      return Status(Code::invalid_argument, "simulated: no link to rank {} channel {}", peer,
                    channel);
    }
    std::unique_ptr<SimulatedLink>& slot = links_[{peer, channel}];
    if (slot == nullptr)
      slot = std::make_unique<SimulatedLink>(world_, abort_, rank_, peer, channel);
    return static_cast<Link*>(slot.get());
  }
  Status progress() override { return abort_.raised() ? abort_.why() : ok(); }
  /// The one thread that could make something happen is the one that waits: time goes on instead.
  void wait(int64_t) override { world_->advance(); }
  void wake() override {}
  Result<std::byte*> shared_memory(size_t bytes) override {
    if (!world_->options().shared_memory) return no_memory();
    return world_->grow(rank_, bytes);
  }
  Result<std::byte*> peer_memory(int peer, size_t bytes) override {
    if (!world_->options().shared_memory) return no_memory();
    if (peer < 0 || peer >= world_->ranks()) {
      return Status(Code::invalid_argument, "simulated: no rank {}", peer);
    }
    return world_->memory(peer, bytes);
  }
  void abort(const Status& why) override { abort_.raise(why); }

 private:
  static Status no_memory() {
    return Status(Code::unsupported, "simulated: this world has no shared memory");
  }
  World* world_;
  int rank_;
  AbortFlag abort_;
  std::map<std::pair<int, int>, std::unique_ptr<SimulatedLink>> links_;
};

World::World(uint64_t seed, int ranks, Options options)
    : ranks_(ranks),
      options_(std::move(options)),
      random_(seed),
      memories_(static_cast<size_t>(ranks)),
      memory_bytes_(static_cast<size_t>(ranks)) {
  for (const Loss& loss : options_.losses) add({loss.at_ns, 0, What::loss, nullptr, 0, {}, loss});
}

World::~World() = default;

std::unique_ptr<Transport> World::transport(int rank) {
  assert(rank >= 0 && rank < ranks_);
  return std::make_unique<SimulatedTransport>(this, rank);
}

Pipe* World::pipe(int from, int to, int channel) {
  const auto [place, fresh] = pipes_.try_emplace({from, to, channel});
  Pipe& pipe = place->second;
  if (fresh) {
    pipe.from = from;
    pipe.to = to;
    // Unread bytes and the consumed ones in front of them fit without moving: views stay valid.
    pipe.arrived.reserve(2 * options_.credit_bytes);
  }
  return &pipe;
}

int64_t World::delay() {
  const int64_t spread = options_.delay_ns_max - options_.delay_ns_min;
  if (spread <= 0) return options_.delay_ns_min;
  return options_.delay_ns_min +
         static_cast<int64_t>(random_.below(static_cast<uint64_t>(spread) + 1));
}

void World::add(Event event) {
  event.order = order_++;
  events_.push_back(std::move(event));
  std::push_heap(events_.begin(), events_.end(), Later());
}

size_t World::send(Pipe* pipe, std::span<const iovec> ranges) {
  size_t open = options_.credit_bytes - pipe->outstanding;
  if (open > 0 && random_.chance(options_.short_send_chance)) open = 1 + random_.below(open);
  std::vector<std::byte> bytes;
  if (open == 0) return 0;
  for (const iovec& range : ranges) {
    const auto* from = static_cast<const std::byte*>(range.iov_base);
    const size_t taken = std::min(range.iov_len, open);
    bytes.insert(bytes.end(), from, from + taken);
    open -= taken;
  }
  pipe->outstanding += bytes.size();
  pipe->accepted += bytes.size();
  for (size_t at = 0; at < bytes.size();) {
    const size_t longest = std::min(bytes.size() - at, options_.segment_bytes_max);
    const size_t size = 1 + random_.below(longest);
    const auto wire_ns =
        static_cast<int64_t>(std::ceil(static_cast<double>(size) / options_.bytes_per_s * 1e9));
    pipe->last_arrival_ns =
        std::max(pipe->last_arrival_ns, now_ns_ + delay()) + std::max<int64_t>(wire_ns, 1);
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    add({pipe->last_arrival_ns,
         0,
         What::arrival,
         pipe,
         0,
         {first, first + static_cast<std::ptrdiff_t>(size)},
         {}});
    at += size;
  }
  return bytes.size();
}

void World::consume(Pipe* pipe, size_t bytes) {
  assert(bytes <= pipe->arrived.size() - pipe->head);
  if (bytes == 0) return;
  pipe->head += bytes;
  if (pipe->head >= options_.credit_bytes || pipe->head == pipe->arrived.size()) {
    pipe->arrived.erase(pipe->arrived.begin(),
                        pipe->arrived.begin() + static_cast<std::ptrdiff_t>(pipe->head));
    pipe->head = 0;
  }
  add({now_ns_ + delay(), 0, What::credit, pipe, bytes, {}, {}});
}

bool World::advance() {
  if (events_.empty()) return false;
  std::pop_heap(events_.begin(), events_.end(), Later());
  Event event = std::move(events_.back());
  events_.pop_back();
  now_ns_ = std::max(now_ns_, event.at_ns);
  switch (event.what) {
    case What::arrival:
      if (lost(event.pipe->from, event.pipe->to).is_ok()) {
        assert(event.pipe->arrived.size() + event.bytes.size() <= event.pipe->arrived.capacity());
        event.pipe->arrived.insert(event.pipe->arrived.end(), event.bytes.begin(),
                                   event.bytes.end());
      }
      break;
    case What::credit:
      event.pipe->outstanding -= event.credit;
      break;
    case What::loss:
      lose(event.loss.a, event.loss.b);
      break;
  }
  return true;
}

void World::lose(int a, int b) { lost_.try_emplace(std::minmax(a, b), now_ns_); }

Status World::lost(int a, int b) const {
  const auto found = lost_.find(std::minmax(a, b));
  if (found == lost_.end()) return ok();
  return Status(Code::remote, Scope::link, "the link between ranks {} and {} was lost at {} ns",
                found->first.first, found->first.second, found->second);
}

Result<std::byte*> World::grow(int rank, size_t bytes) {
  const size_t me = static_cast<size_t>(rank);
  if (bytes > kMemoryMax) {
    return Status(Code::unsupported, "simulated: {} bytes of memory are more than {}", bytes,
                  kMemoryMax);
  }
  if (!memories_[me]) {
    void* base = mmap(nullptr, kMemoryMax, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return system_error(errno, "simulated: cannot reserve memory");
    memories_[me] = Mapping(base, kMemoryMax);
  }
  memory_bytes_[me] = std::max(memory_bytes_[me], bytes);
  return memories_[me].bytes();
}

std::byte* World::memory(int rank, size_t bytes) const {
  const size_t at = static_cast<size_t>(rank);
  return bytes <= memory_bytes_[at] ? memories_[at].bytes() : nullptr;
}

}  // namespace railccl::transport::simulated
