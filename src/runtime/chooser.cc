// Chooser: candidates, prices, the cheapest.
#include "runtime/chooser.h"

#include <algorithm>

#include "runtime/cost.h"

namespace railccl::runtime {

using algorithms::Algorithm;
using plan::Request;
using plan::Tuning;
using topology::Topology;

namespace {

bool touches_peers(const plan::Program& program) {
  const auto elsewhere = [&](const plan::Slice& slice) {
    return slice.owner != plan::kHere && slice.owner != program.rank;
  };
  for (const plan::Channel& channel : program.channels)
    for (const plan::Step& step : channel.steps)
      if (elsewhere(step.dst) || elsewhere(step.src)) return true;
  return std::any_of(program.sources.begin(), program.sources.end(), elsewhere);
}

}  // namespace

Result<Chooser> Chooser::make(const Settings& settings, int min_channels, int max_channels,
                              bool load_store, std::unique_ptr<Tuner> tuner) {
  Chooser chooser;
  chooser.tuner_ = std::move(tuner);
  RAILCCL_TRY(chooser.filter_, AlgorithmFilter::parse(settings.algo));
  chooser.min_channels_ = min_channels > 0 ? min_channels : static_cast<int>(settings.min_channels);
  chooser.max_channels_ = max_channels > 0 ? max_channels : static_cast<int>(settings.max_channels);
  if (chooser.min_channels_ > chooser.max_channels_) {
    // A limit given for this communicator is worth more than one of the environment.
    if (max_channels > 0 && min_channels == 0) {
      chooser.min_channels_ = chooser.max_channels_;
    } else if (min_channels > 0 && max_channels == 0) {
      chooser.max_channels_ = chooser.min_channels_;
    } else {
      return Status(Code::invalid_argument,
                    "at least {} channels (NCCL_MIN_NCHANNELS) but at most {} (NCCL_MAX_NCHANNELS)",
                    chooser.min_channels_, chooser.max_channels_);
    }
  }
  chooser.chunk_bytes_ = settings.chunk_bytes;
  chooser.load_store_ = load_store;
  return chooser;
}

bool Chooser::usable(const Algorithm& algorithm, const Request& request,
                     const Topology& topology) const {
  if (algorithm.collective != request.collective) return false;
  Request variant = request;
  variant.in_place = false;
  if (!algorithm.supports(variant, topology)) return false;
  if (request.collective != Collective::all_to_all) {
    variant.in_place = true;
    if (!algorithm.supports(variant, topology)) return false;
  }
  if (load_store_ || algorithm.reach != Reach::none) return load_store_;
  auto uses = uses_peer_memory(algorithm, variant, topology, Tuning());
  return uses.is_ok() && !*uses;
}

std::vector<Tuning> Chooser::tunings(const Request& request, int min_channels,
                                     int max_channels) const {
  std::vector<uint64_t> chunks;
  const uint64_t element = size_of(request.datatype);
  if (chunk_bytes_ > 0) {
    chunks.push_back(std::max<uint64_t>(1, chunk_bytes_ / element));
  } else {
    for (uint64_t bytes = 16 << 10; bytes <= 1 << 20; bytes *= 4) chunks.push_back(bytes / element);
  }
  std::vector<Tuning> result;
  for (int channels = min_channels;; channels = std::min(channels * 2, max_channels)) {
    for (const uint64_t chunk : chunks) result.push_back({channels, chunk});
    if (channels == max_channels) return result;
  }
}

Chosen Chooser::best_tuning(const Algorithm& algorithm, const Request& request,
                            const Topology& topology, const std::vector<Tuning>& tunings) const {
  Chosen best;
  for (const Tuning& tuning : tunings) {
    const double seconds =
        seconds_of(algorithm.cost(request, topology, tuning), request, topology, tuning);
    if (best.algorithm == nullptr || seconds < best.predicted_s)
      best = {&algorithm, tuning, seconds};
  }
  return best;
}

// The offer that the tuner's prices leave the cheapest. What is predicted of it stays our own.
Chosen Chooser::advised(std::vector<Chosen> offers, const Request& request,
                        const Topology& topology, Reach reach) const {
  const auto known = [](const Chosen& offer) {
    return static_cast<size_t>(
        std::find(Tuner::kNames.begin(), Tuner::kNames.end(), offer.algorithm->name) -
        Tuner::kNames.begin());
  };
  Tuner::Prices prices;
  prices.fill(-1);
  for (const Chosen& offer : offers)
    if (known(offer) < prices.size()) prices[known(offer)] = offer.predicted_s;
  const Tuner::Advice advice =
      tuner_->advise(request, topology.size(), prices, reach != Reach::none);
  if (advice.channels > 0) {
    const int channels = std::clamp(advice.channels, min_channels_, max_channels_);
    const std::vector<Tuning> wanted = tunings(request, channels, channels);
    for (Chosen& offer : offers) offer = best_tuning(*offer.algorithm, request, topology, wanted);
  }
  const Chosen* best = nullptr;
  double least = 0;
  for (const Chosen& offer : offers) {
    double price = offer.predicted_s;
    if (advice.prices && known(offer) < prices.size()) price = (*advice.prices)[known(offer)];
    if (price < 0 || (best != nullptr && price >= least)) continue;
    best = &offer;
    least = price;
  }
  // It may not leave a call without any.
  return best != nullptr ? *best : offers.front();
}

bool Chooser::has(Reach reach, Collective collective, const Topology& topology) const {
  Request request;
  request.collective = collective;
  const bool silent = filter_.silent_for(collective) && !filter_.explicit_for(collective);
  return std::any_of(algorithms::all().begin(), algorithms::all().end(), [&](const auto* row) {
    return row->reach == reach && usable(*row, request, topology) &&
           (silent || filter_.allows(collective, row->name));
  });
}

Result<Chosen> Chooser::choose(const Request& call, const Topology& topology, Reach reach) const {
  Request request = call;
  request.in_place = false;
  const bool silent =
      filter_.silent_for(request.collective) && !filter_.explicit_for(request.collective);
  const std::vector<Tuning> candidates = tunings(request, min_channels_, max_channels_);
  std::vector<Chosen> offers;
  std::string usable_names;
  for (const Algorithm* algorithm : algorithms::all()) {
    const bool fits = reach == Reach::open ? algorithm->reach == reach : algorithm->reach <= reach;
    if (!fits || !usable(*algorithm, request, topology)) continue;
    usable_names += (usable_names.empty() ? "" : ", ") + std::string(algorithm->name);
    if (!silent && !filter_.allows(request.collective, algorithm->name)) continue;
    offers.push_back(best_tuning(*algorithm, request, topology, candidates));
  }
  if (offers.empty())
    return Status(Code::invalid_argument,
                  "no algorithm is left for {}: NCCL_ALGO allows none of those that can serve it "
                  "here ({})",
                  plan::text_of(request), usable_names.empty() ? "none" : usable_names);
  if (tuner_ != nullptr && reach != Reach::open)
    return advised(std::move(offers), request, topology, reach);
  return *std::min_element(offers.begin(), offers.end(), [](const Chosen& a, const Chosen& b) {
    return a.predicted_s < b.predicted_s;
  });
}

Result<bool> uses_peer_memory(const Algorithm& algorithm, const Request& request,
                              const Topology& topology, const Tuning& tuning) {
  for (int rank = 0; rank < topology.size(); rank++) {
    RAILCCL_TRY(const plan::Program program, algorithm.build(request, topology, tuning, rank));
    if (touches_peers(program)) return true;
  }
  return false;
}

}  // namespace railccl::runtime
