// Finding profiler plugins, and adapting each version of their interface.
#include "runtime/profiler.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "runtime/profiler_abi.h"

namespace railccl::runtime {
namespace {

using namespace profiler_abi;
using Kind = ProfiledEvent::Kind;

constexpr PluginInterface kInterface{"ncclProfiler_v", Profiler::kOldest, Profiler::kNewest};

int bit_of(Kind kind) {
  switch (kind) {
    case Kind::group_api:
      return kGroupApi;
    case Kind::collective_api:
      return kCollectiveApi;
    case Kind::transfer_api:
      return kTransferApi;
    case Kind::group:
      return kGroup;
    case Kind::collective:
      return kCollective;
    case Kind::transfer:
      return kTransfer;
    case Kind::proxy_op:
      return kProxyOp;
  }
  return 0;
}

/// A call as NCCL calls it, and as version 1 numbers it.
std::pair<const char*, Function1> function_of(const Call& call) {
  if (call.kind == Call::Kind::send) return {"Send", kSend};
  if (call.kind == Call::Kind::recv) return {"Recv", kReceive};
  switch (call.request.collective) {
    case Collective::all_reduce:
      return {"AllReduce", kAllReduce};
    case Collective::reduce_scatter:
      return {"ReduceScatter", kReduceScatter};
    case Collective::all_gather:
      return {"AllGather", kAllGather};
    case Collective::broadcast:
      return {"Broadcast", kBroadcast};
    case Collective::reduce:
      return {"Reduce", kReduce};
    case Collective::all_to_all:
      return {"AlltoAll", kOther};
    case Collective::gather:
      return {"Gather", kOther};
    case Collective::scatter:
      return {"Scatter", kOther};
  }
  return {"Unknown", kOther};
}

const char* datatype_text(Datatype type) {
  static constexpr std::array<const char*, kDatatypeCount> kTexts = {
      "ncclInt8",    "ncclUint8",    "ncclInt32",      "ncclUint32",
      "ncclInt64",   "ncclUint64",   "ncclFloat16",    "ncclFloat32",
      "ncclFloat64", "ncclBfloat16", "ncclFloat8e4m3", "ncclFloat8e5m2"};
  return kTexts[static_cast<size_t>(type)];
}

uint8_t algorithm_number(const char* name) {
  if (std::strcmp(name, "tree") == 0) return kTree;
  if (std::strcmp(name, "ring") == 0) return kRing;
  return std::strcmp(name, "pat") == 0 ? kPat : kOtherAlgorithm;
}

int clamped(uint64_t number) { return static_cast<int>(std::min<uint64_t>(number, INT32_MAX)); }

template <int kVersion>
struct Abi;
template <>
struct Abi<1> {
  using Plugin = Profiler1;
  using Event = Event1;
};
template <>
struct Abi<2> {
  using Plugin = Profiler2;
  using Event = Event2;
};
template <>
struct Abi<3> {
  using Plugin = Profiler3;
  using Event = Event3;
};
template <>
struct Abi<4> {
  using Plugin = Profiler4;
  using Event = Event4;
};
template <>
struct Abi<5> {
  using Plugin = Profiler5;
  using Event = Event5;
};

template <int kVersion>
class Adapter final : public Profiler {
  using Plugin = typename Abi<kVersion>::Plugin;
  using Event = typename Abi<kVersion>::Event;

 public:
  Adapter(const Plugin* plugin, const std::string& file, const ProfiledRank& whose)
      : Profiler(plugin->name, kVersion, file, whose), plugin_(plugin) {}
  ~Adapter() override {
    if (!begun_ || plugin_->end == nullptr) return;
    const Status status = check("finalize", plugin_->end(context_));
    if (!status.is_ok()) log::warn("{}", status.text());
  }

 private:
  Status begin() override {
    if (plugin_->init == nullptr || plugin_->start == nullptr || plugin_->stop == nullptr ||
        plugin_->record == nullptr)
      return Status(Code::unsupported, "profiler {} lacks a function", text());
    RAILCCL_CHECK(check("init", init()));
    begun_ = true;
    return ok();
  }

  PluginResult init() {
    const char* const name = whose_.name.empty() ? nullptr : whose_.name.c_str();
    if constexpr (kVersion >= 5) {
      return plugin_->init(&context_, whose_.communicator, &mask_, name, whose_.hosts, whose_.ranks,
                           whose_.rank, plugin_logger());
    } else if constexpr (kVersion == 4) {
      return plugin_->init(&context_, &mask_, name, whose_.communicator, whose_.hosts, whose_.ranks,
                           whose_.rank, plugin_logger());
    } else {
      return plugin_->init(&context_, &mask_);
    }
  }

  PluginResult tell_start(const ProfiledEvent& event, void** handle) override {
    Event told{};
    told.type = static_cast<decltype(told.type)>(bit_of(event.kind));
    told.parent = event.parent;
    told.rank = whose_.rank;
    switch (event.kind) {
      case Kind::collective:
        fill_collective(event, told.collective);
        break;
      case Kind::transfer:
        fill_transfer(event, told.transfer);
        break;
      case Kind::proxy_op:
        told.proxy_op = {::getpid(),
                         static_cast<uint8_t>(event.channel),
                         event.peer,
                         clamped(event.messages),
                         clamped(event.message_bytes),
                         event.sends ? 1 : 0};
        break;
      case Kind::group:
        break;
      default:
        fill_api(event, told);
    }
    return plugin_->start(context_, handle, &told);
  }

  template <typename Collective>
  void fill_collective(const ProfiledEvent& event, Collective& told) {
    const plan::Request& request = event.call->request;
    const auto [name, number] = function_of(*event.call);
    told = {};
    told.sequence = event.sequence;
    told.input = event.call->input;
    told.output = event.call->output;
    told.count = request.count;
    told.root = request.root;
    told.channels = static_cast<uint8_t>(event.channels);
    if constexpr (kVersion <= 3) {
      told.name = whose_.name.c_str();
      told.communicator = whose_.communicator;
    }
    if constexpr (kVersion <= 2) told.traffic_bytes = event.bytes;
    if constexpr (kVersion == 1) {
      told.function = number;
      told.datatype = static_cast<uint8_t>(request.datatype);
      told.op = static_cast<uint32_t>(request.op);
      told.algorithm = algorithm_number(event.algorithm);
      told.protocol = kSimple1;
    } else {
      told.function = name;
      told.datatype = datatype_text(request.datatype);
      told.algorithm = algorithm_text(event.algorithm);
      told.protocol = "SIMPLE";
    }
    if constexpr (kVersion >= 5) told.group = event.group;
  }

  template <typename Transfer>
  void fill_transfer(const ProfiledEvent& event, Transfer& told) {
    const Call& call = *event.call;
    const auto [name, number] = function_of(call);
    told = {};
    told.buffer = call.kind == Call::Kind::send ? const_cast<void*>(call.input) : call.output;
    told.count = call.request.count;
    told.peer = call.peer;
    if constexpr (kVersion <= 3) {
      told.name = whose_.name.c_str();
      told.communicator = whose_.communicator;
    } else {
      told.channels = 1;
    }
    if constexpr (kVersion == 1) {
      told.function = number;
      told.datatype = static_cast<uint8_t>(call.request.datatype);
    } else {
      told.function = name;
      told.datatype = datatype_text(call.request.datatype);
    }
    if constexpr (kVersion >= 5) told.group = event.group;
  }

  void fill_api(const ProfiledEvent& event, Event& told) {
    if constexpr (kVersion >= kSinceApi) {
      if (event.kind == Kind::group_api) {
        told.group_api = {false, 1};
        return;
      }
      const plan::Request& request = event.call->request;
      const char* const name = function_of(*event.call).first;
      if (event.kind == Kind::collective_api)
        told.collective_api = {name,         request.count, datatype_text(request.datatype),
                               request.root, nullptr,       false};
      else
        told.transfer_api = {name, request.count, datatype_text(request.datatype), nullptr, false};
    }
  }

  PluginResult tell_stop(void* handle) override { return plugin_->stop(handle); }

  PluginResult tell_state(void* handle, int state, uint64_t bytes, uint64_t steps) override {
    Arguments arguments{bytes, clamped(steps)};
    // What there is to say of a proxy operation has no place in later versions' arguments.
    return plugin_->record(handle, static_cast<State>(state), kVersion <= 3 ? &arguments : nullptr);
  }

  const Plugin* const plugin_;
  void* context_ = nullptr;
  bool begun_ = false;
};

template <int kVersion>
std::unique_ptr<Profiler> adapt(const railccl::Plugin& found, const ProfiledRank& whose) {
  return std::make_unique<Adapter<kVersion>>(
      static_cast<const typename Abi<kVersion>::Plugin*>(found.functions), found.file, whose);
}

std::unique_ptr<Profiler> adapt_any(const railccl::Plugin& found, const ProfiledRank& whose) {
  switch (found.version) {
    case 1:
      return adapt<1>(found, whose);
    case 2:
      return adapt<2>(found, whose);
    case 3:
      return adapt<3>(found, whose);
    case 4:
      return adapt<4>(found, whose);
    default:
      return adapt<5>(found, whose);
  }
}

}  // namespace

Result<std::unique_ptr<Profiler>> Profiler::open(const Settings& settings,
                                                 const ProfiledRank& whose) {
  if (plugin_names(settings.profiler_plugin).empty() && !settings.profiler_plugin.empty())
    return Status(Code::unsupported, "NCCL_PROFILER_PLUGIN is none");
  const auto found = find_plugin(settings.profiler_plugin, "libnccl-profiler", kInterface);
  if (!found.is_ok()) {
    // Nobody asked for the default one: that it is not there is no news.
    if (!settings.profiler_plugin.empty())
      warn_of_plugin(fmt::format("NCCL_PROFILER_PLUGIN={}: {}", settings.profiler_plugin,
                                 found.status().text()));
    return found.status();
  }
  std::unique_ptr<Profiler> profiler = adapt_any(*found, whose);
  RAILCCL_CHECK(profiler->begin());
  return profiler;
}

std::string Profiler::text() const { return fmt::format("{} (v{})", name_, version_); }

Status Profiler::check(const char* function, PluginResult result) const {
  if (result == kPluginSuccess) return ok();
  return Status(plugin_code(result), "profiler {}: {} returned {}", text(), function,
                plugin_result_text(result));
}

// A profiler is no reason to fail, and says the same again and again.
void Profiler::note(const char* function, PluginResult result) {
  const Status status = check(function, result);
  if (status.is_ok() || std::exchange(failed_, true)) return;
  log::warn("{}", status.text());
}

const char* Profiler::algorithm_text(const char* name) {
  std::string text(name);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::toupper(letter)); });
  return algorithms_.insert(std::move(text)).first->c_str();
}

bool Profiler::wants(Kind kind) const {
  const bool api =
      kind == Kind::group_api || kind == Kind::collective_api || kind == Kind::transfer_api;
  const int mask = std::atomic_ref(const_cast<int&>(mask_)).load(std::memory_order_relaxed);
  return (mask & bit_of(kind)) != 0 && (!api || has_api());
}

void* Profiler::start(const ProfiledEvent& event) {
  if (!wants(event.kind)) return nullptr;
  void* handle = nullptr;
  note("startEvent", tell_start(event, &handle));
  if (handle == nullptr) return nullptr;
  if (event.kind == Kind::proxy_op) {
    const int posted = event.sends ? kSendPosted : kReceivePosted;
    note("recordEventState", tell_state(handle, version_ <= 3 ? posted : kProxyOpInProgress, 0, 0));
  } else if (event.kind == Kind::group_api) {
    // The group is run when it is whole: its beginning and its end are over.
    note("recordEventState", tell_state(handle, kBeginGroupApiEnd, 0, 0));
    note("recordEventState", tell_state(handle, kEndGroupApiStart, 0, 0));
  }
  return handle;
}

void Profiler::stop(const ProfiledEvent& event, void* handle) {
  if (handle == nullptr) return;
  if (event.kind == Kind::proxy_op && version_ <= 3)
    note("recordEventState",
         tell_state(handle, event.sends ? kSendDone : kReceiveDone, event.bytes, event.messages));
  note("stopEvent", tell_stop(handle));
}

}  // namespace railccl::runtime
