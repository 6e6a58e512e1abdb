// Bookkeeping on NICs, and what the log hears of them.
#include "transport/tcp_nics.h"

#include <algorithm>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr double kNsPerMs = 1e6;
// A speed is measured over so much: queues on the way, that of acknowledgements included, make
// shorter pieces look fast or slow.
constexpr uint64_t kMeasuredBytes = 512 << 10, kMeasuredBytesAmple = 64 << 20;
constexpr int64_t kMeasuredUs = 200'000;
constexpr int64_t kEdgeUs = 10'000;

}  // namespace

void TcpNics::set_peers(int rank, const std::vector<std::string>& ours, const Peers& peers) {
  rank_text_ = fmt::format("rank {}", rank);
  home_.clear();
  sharers_.clear();
  const auto self = static_cast<size_t>(rank);
  if (peers.nics.size() <= self || peers.nics[self].empty()) return;
  std::vector<size_t> local;  // ranks of this host
  for (size_t r = 0; r < peers.nics.size(); r++) {
    if (peers.host_ids[r] != peers.host_ids[self]) continue;
    local.push_back(r);
    sharers_[peers.nics[r]]++;
  }
  home_.push_back(peers.nics[self]);
  const auto place =
      static_cast<size_t>(std::find(local.begin(), local.end(), self) - local.begin());
  size_t unowned = 0;
  for (const std::string& nic : ours) {
    if (sharers_.contains(nic)) continue;
    if (unowned++ % local.size() == place) home_.push_back(nic);
  }
}

bool TcpNics::home(const std::string& nic) const {
  return std::find(home_.begin(), home_.end(), nic) != home_.end();
}

void TcpNics::tell(const TcpLink& link, const TcpLink::News& news, int64_t now_ns) {
  State& state = states_[news.nic];
  if (news.news.what == PathNews::What::speaks) return;  // observe() says when it is well again
  if (state.down_since_ns != 0) return;
  state.down_since_ns = now_ns;
  const std::string what = news.news.what == PathNews::What::silent
                               ? fmt::format("has been silent for {:.0f} ms",
                                             static_cast<double>(news.news.silent_ns) / kNsPerMs)
                               : fmt::format("is broken ({})", news.news.why.text());
  std::string text = fmt::format(
      "the path by {} to rank {} ({}) {}: {} KiB of it, and what follows, go by other paths",
      news.nic, link.peer(), news.name, what, news.news.bytes >> 10);
  log::warn("{}: {}: {}", medium_, rank_text_, text);
  events_->add(std::move(text));
}

void TcpNics::observe(const std::vector<TcpLink::NicLoad>& loads, bool measured, int64_t now_ns) {
  const int64_t stretch_us = (now_ns - measured_ns_) / 1000;
  if (measured) measured_ns_ = now_ns;
  for (const TcpLink::NicLoad& load : loads) {
    State& state = states_[load.nic];
    const bool began_busy = state.busy;
    if (measured) state.busy = load.usage.busy;
    if (measured && (began_busy || state.busy)) {
      state.bytes += load.usage.bytes;
      // Between calls looks are rare: what begins or ends in such a stretch is shorter than it.
      state.busy_us += began_busy && state.busy ? stretch_us : std::min(stretch_us, kEdgeUs);
      state.waited_us += load.usage.waited_us;
    }
    if (state.bytes >= kMeasuredBytes &&
        (state.busy_us >= kMeasuredUs || state.bytes >= kMeasuredBytesAmple)) {
      // Where it waited for receivers to make room, this says nothing about the NIC.
      const bool waited = state.busy_us <= 0 || state.waited_us > state.busy_us / 16;
      const auto sharers = sharers_.find(load.nic);
      if (!waited)
        state.measured[state.next++ % state.measured.size()] =
            1e6 * static_cast<double>(state.bytes) / static_cast<double>(state.busy_us) *
            (sharers == sharers_.end() ? 1 : sharers->second);
      state.bytes = 0;
      state.busy_us = state.waited_us = 0;
    }
    if (state.down_since_ns == 0 || load.missing) continue;
    std::string text = fmt::format("{} is back after {:.0f} ms", load.nic,
                                   static_cast<double>(now_ns - state.down_since_ns) / kNsPerMs);
    log::info("{}: {}: {}", medium_, rank_text_, text);
    events_->add(std::move(text));
    state.down_since_ns = 0;
  }
}

std::vector<NicSpeed> TcpNics::measured() const {
  std::vector<NicSpeed> all;
  for (const std::string& nic : home_) {
    all.push_back({.nic = nic, .working = {}, .missing = {}});
    if (const auto found = states_.find(nic); found != states_.end()) {
      const auto& measured = found->second.measured;
      all.back().bytes_per_s = *std::max_element(measured.begin(), measured.end());
    }
  }
  return all;
}

}  // namespace railccl::transport
