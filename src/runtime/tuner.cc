// Finding tuner plugins, adapting each version of their interface, and reading their tables.
#include "runtime/tuner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/log.h"
#include "runtime/tuner_abi.h"

namespace railccl::runtime {
namespace {

using namespace tuner_abi;
using topology::Topology;

using Table = std::array<float, size_t{kAlgorithms} * kProtocols>;
constexpr std::array<int, Tuner::kNames.size()> kRows = {kTree, kRing, kPat};
constexpr std::array<const char*, kAlgorithms> kRowNames = {
    "tree", "ring", "collnet_direct", "collnet_chain", "nvls", "nvls_tree", "pat"};
constexpr PluginInterface kInterface{"ncclTunerPlugin_v", Tuner::kOldest, Tuner::kNewest};
constexpr float kUsPerSecond = 1e6F;

/// Is that a price? Also what is no number at all forbids an algorithm.
bool allowed(float us) { return std::isfinite(us) && us >= 0; }

/// Its number of a collective; nothing when it has none.
std::optional<int> function_of(Collective collective) {
  switch (collective) {
    case Collective::broadcast:
      return kBroadcast;
    case Collective::reduce:
      return kReduce;
    case Collective::all_gather:
      return kAllGather;
    case Collective::reduce_scatter:
      return kReduceScatter;
    case Collective::all_reduce:
      return kAllReduce;
    default:
      return std::nullopt;
  }
}

template <int kVersion>
struct Abi;
template <>
struct Abi<2> {
  using Plugin = Tuner2;
};
template <>
struct Abi<3> {
  using Plugin = Tuner3;
};
template <>
struct Abi<4> {
  using Plugin = Tuner4;
};
template <>
struct Abi<5> {
  using Plugin = Tuner5;
};

template <int kVersion>
class Adapter final : public Tuner {
  using Plugin = typename Abi<kVersion>::Plugin;

 public:
  Adapter(const Plugin* plugin, const std::string& file)
      : Tuner(plugin->name, kVersion, file), plugin_(plugin) {}
  ~Adapter() override {
    if (!begun_ || plugin_->end == nullptr) return;
    const Status status = check(kVersion >= 5 ? "finalize" : "destroy", plugin_->end(context_));
    if (!status.is_ok()) log::warn("{}", status.text());
  }

 private:
  Status init(uint64_t communicator, const Topology& topology) override {
    if (plugin_->init == nullptr || plugin_->ask == nullptr)
      return Status(Code::unsupported, "tuner {} has no {}", text(),
                    plugin_->init == nullptr ? "init" : "getCollInfo");
    const auto ranks = static_cast<size_t>(topology.size());
    const std::vector<int>& hosts = topology.used_hosts();
    if constexpr (kVersion >= 5) {
      Domains5 domains{static_cast<int>(hosts.size()), topology.size(), 0};
      for (const int host : hosts) {
        const auto there = static_cast<int>(topology.ranks_of_host(host).size());
        domains.ranks_min = std::min(domains.ranks_min, there);
        domains.ranks_max = std::max(domains.ranks_max, there);
      }
      Constants5 constants{}, before{};
      RAILCCL_CHECK(check("init", plugin_->init(&context_, communicator, ranks, hosts.size(),
                                                plugin_logger(), &domains, &constants)));
      if (std::memcmp(&constants, &before, sizeof(before)) != 0)
        say_once("changes constants of NCCL's model of costs, which is not ours");
    } else {
      RAILCCL_CHECK(check("init", plugin_->init(ranks, hosts.size(), plugin_logger(), &context_)));
    }
    begun_ = true;
    return ok();
  }

  PluginResult ask(const Question& question, float* table, int* channels) override {
    constexpr int kOperations = 1;  // a group's calls are priced one by one
    auto** const rows = reinterpret_cast<float**>(table);
    if constexpr (kVersion >= 4) {
      return plugin_->ask(context_, question.function, question.bytes, kOperations, rows,
                          kAlgorithms, kProtocols, question.registered ? 1 : 0, channels);
    } else if constexpr (kVersion == 3) {
      return plugin_->ask(context_, question.function, question.bytes, kOperations, rows,
                          kAlgorithms, kProtocols, channels);
    } else {
      int algorithm = -1, protocol = -1;
      const PluginResult result = plugin_->ask(context_, question.function, question.bytes, 0, 0,
                                               kOperations, &algorithm, &protocol, channels);
      if (algorithm < 0 || algorithm >= kAlgorithms || protocol < 0 || protocol >= kProtocols)
        return result;
      // What it names shall be the cheapest.
      table[algorithm * kProtocols + protocol] = 0;
      return result;
    }
  }

  const Plugin* const plugin_;
  void* context_ = nullptr;
  bool begun_ = false;
};

/// What the variables stand for: a tuner's library, or else the network plugin's, which may have a
/// tuner, too.
Result<railccl::Plugin> look_for(const Settings& settings) {
  auto found = find_plugin(settings.tuner_plugin, "libnccl-tuner", kInterface);
  if (!found.is_ok() && !settings.tuner_plugin.empty())
    warn_of_plugin(
        fmt::format("NCCL_TUNER_PLUGIN={}: {}", settings.tuner_plugin, found.status().text()));
  std::vector<std::string> networks = plugin_names(settings.net_plugin);
  if (settings.net_plugin.empty()) networks.emplace_back();
  for (const std::string& network : networks) {
    if (found.is_ok()) break;
    if (auto other = find_plugin(network, "libnccl-net", kInterface); other.is_ok())
      found = std::move(other);
  }
  return found;
}

template <int kVersion>
std::unique_ptr<Tuner> adapt(const railccl::Plugin& found) {
  return std::make_unique<Adapter<kVersion>>(
      static_cast<const typename Abi<kVersion>::Plugin*>(found.functions), found.file);
}

}  // namespace

Result<std::unique_ptr<Tuner>> Tuner::find(const Settings& settings) {
  if (plugin_names(settings.tuner_plugin).empty() && !settings.tuner_plugin.empty())
    return Status(Code::unsupported, "NCCL_TUNER_PLUGIN is none");
  RAILCCL_TRY(const railccl::Plugin found, look_for(settings));
  switch (found.version) {
    case 2:
      return adapt<2>(found);
    case 3:
      return adapt<3>(found);
    case 4:
      return adapt<4>(found);
    default:
      return adapt<5>(found);
  }
}

std::string Tuner::text() const { return fmt::format("{} (v{})", name_, version_); }

Status Tuner::check(const char* function, PluginResult result) const {
  if (result == kPluginSuccess) return ok();
  return Status(plugin_code(result), "tuner {}: {} returned {}", text(), function,
                plugin_result_text(result));
}

void Tuner::say_once(const std::string& what) {
  if (said_.insert(what).second) log::info("tuner {} {}: ignored", text(), what);
}

Status Tuner::begin(uint64_t communicator, const Topology& topology) {
  std::lock_guard lock(mutex_);
  return init(communicator, topology);
}

Tuner::Advice Tuner::advise(const plan::Request& request, int ranks, const Prices& prices,
                            bool registered) {
  const std::optional<int> function = function_of(request.collective);
  if (!function) return {};
  Table before;
  before.fill(kIgnore);
  for (size_t i = 0; i < prices.size(); i++)
    if (prices[i] >= 0)
      std::fill_n(before.begin() + kRows[i] * kProtocols, kProtocols,
                  static_cast<float>(prices[i]) * kUsPerSecond);
  const uint64_t elements = std::max(plan::input_elements(request, ranks, request.root),
                                     plan::output_elements(request, ranks, request.root));
  const Question question{*function, elements * size_of(request.datatype), registered};
  Table table = before;
  Advice advice;
  std::lock_guard lock(mutex_);
  if (Status status = check("getCollInfo", ask(question, table.data(), &advice.channels));
      !status.is_ok()) {
    if (said_.insert(status.text()).second) log::warn("{}", status.text());
    return {};
  }
  for (int row = 0; row < kAlgorithms; row++) {
    const size_t at = static_cast<size_t>(row) * kProtocols;
    const bool here = before[at] != kIgnore;
    const bool wanted = std::any_of(table.begin() + row * kProtocols,
                                    table.begin() + (row + 1) * kProtocols, allowed);
    if (!here && wanted)
      say_once(fmt::format("asks for {} for {}, which is not to be had here",
                           kRowNames[static_cast<size_t>(row)], name_of(request.collective)));
  }
  advice.channels = std::max(advice.channels, 0);
  for (size_t i = 0; i < prices.size(); i++) {
    const auto row = table.begin() + kRows[i] * kProtocols;
    if (prices[i] < 0 || std::equal(row, row + kProtocols, before.begin() + kRows[i] * kProtocols))
      continue;
    if (!advice.prices) advice.prices = prices;
    double us = -1;
    for (auto other = row; other < row + kProtocols; other++)
      if (allowed(*other) && (us < 0 || *other < us)) us = *other;
    (*advice.prices)[i] = us < 0 ? us : us / kUsPerSecond;
  }
  return advice;
}

}  // namespace railccl::runtime
