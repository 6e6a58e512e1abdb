// Bookkeeping on NICs, and what the log hears of them.
#include "transport/tcp_nics.h"

#include <algorithm>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr double kNsPerMs = 1e6;
constexpr int64_t kLostNs = 100'000'000;  // a path that is silent for a moment is not lost

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

void TcpNics::observe(const std::vector<TcpLink::NicLoad>& loads, int64_t now_ns) {
  for (const TcpLink::NicLoad& load : loads) {
    State& state = states_[load.nic];
    if (!load.missing) state.missing_since_ns = 0;
    if (load.missing && state.missing_since_ns == 0) state.missing_since_ns = now_ns;
    state.lost = load.missing && now_ns - state.missing_since_ns >= kLostNs;
    if (load.fresh) {
      const auto sharers = sharers_.find(load.nic);
      state.measured[state.next++ % state.measured.size()] =
          load.bytes_per_s * (sharers == sharers_.end() ? 1 : sharers->second);
    }
    if (state.down_since_ns == 0 || load.missing) continue;
    std::string text = fmt::format("{} is back after {:.0f} ms", load.nic,
                                   static_cast<double>(now_ns - state.down_since_ns) / kNsPerMs);
    log::info("{}: {}: {}", medium_, rank_text_, text);
    events_->add(std::move(text));
    state.down_since_ns = 0;
  }
}

std::vector<NicSpeed> TcpNics::speeds() const {
  std::vector<NicSpeed> speeds;
  for (const auto& [nic, state] : states_) {
    if (!home(nic)) continue;
    const double most = *std::max_element(state.measured.begin(), state.measured.end());
    // A rail is as good as its worst part: one link that has lost it is enough.
    if (state.lost || most > 0) speeds.push_back({nic, state.lost ? 0 : most});
  }
  return speeds;
}

}  // namespace railccl::transport
