// Finding network plugins, and adapting each version of their interface.
#include "transport/nccl_net_plugin.h"

#include <dirent.h>
#include <strings.h>

#include <algorithm>
#include <climits>
#include <map>
#include <mutex>

#include "base/log.h"

namespace railccl::transport {
namespace {

using namespace net_abi;

constexpr PluginInterface kInterface{"ncclNetPlugin_v", NetPlugin::kOldest, NetPlugin::kNewest};
constexpr int kDevicesMax = 64;
// Less is no network for us, more no promise that anybody keeps.
constexpr size_t kBytesMin = 4 << 10, kBytesMax = size_t{1} << 40;
constexpr size_t kBytesOfOld = size_t{1} << 30;  // of versions that do not say
constexpr size_t kNicNameMax = 15;               // as long as an interface's can be

template <int kVersion>
struct Abi;
template <>
struct Abi<6> {
  using Net = Net6;
  using Properties = Properties6;
};
template <>
struct Abi<7> {
  using Net = Net7;
  using Properties = Properties7;
};
template <>
struct Abi<8> {
  using Net = Net8;
  using Properties = Properties8;
};
template <>
struct Abi<9> {
  using Net = Net9;
  using Properties = Properties9;
};
template <>
struct Abi<10> {
  using Net = Net10;
  using Properties = Properties10;
};
template <>
struct Abi<11> {
  using Net = Net11;
  using Properties = Properties11;
};

// No profiler listens to what networks do.
PluginResult ignore_event(void** event, int, void*, int64_t, void*) {
  if (event != nullptr) *event = nullptr;
  return kPluginSuccess;
}

/// The first entry of a folder that is not hidden; empty when there is none.
std::string only_entry(const std::string& folder) {
  std::string found;
  DIR* const open = ::opendir(folder.c_str());
  if (open == nullptr) return found;
  while (const dirent* entry = ::readdir(open)) {
    const std::string name = entry->d_name;
    if (name.front() == '.') continue;
    if (found.empty() || name < found) found = name;
  }
  ::closedir(open);
  return found;
}

std::string printable(std::string name) {
  for (char& c : name)
    if (c <= ' ' || c > '~' || c == ',') c = '_';
  return name;
}

/// Under which name the rest of the world knows the device.
std::string nic_of(const NetDevice& device) {
  std::string name;
  if (!device.pci_path.empty()) name = only_entry(device.pci_path + "/net");
  if (name.empty() && !device.pci_path.empty()) name = only_entry(device.pci_path + "/infiniband");
  if (name.empty()) name = device.name;
  return printable(name.substr(0, kNicNameMax));
}

/// Makes names unique: of two devices that would have one name, both have their own.
void tell_apart(std::vector<NetDevice>* devices) {
  std::map<std::string, int> times;
  for (const NetDevice& device : *devices) times[device.nic]++;
  for (NetDevice& device : *devices) {
    if (times[device.nic] < 2) continue;
    const std::string number = fmt::format("#{}", device.number);
    device.nic = printable(device.name.substr(0, kNicNameMax - number.size())) + number;
  }
}

template <int kVersion>
class Adapter final : public NetPlugin {
  using Net = typename Abi<kVersion>::Net;
  using Properties = typename Abi<kVersion>::Properties;

 public:
  explicit Adapter(const Net* net)
      : NetPlugin(net->name == nullptr ? "?" : net->name, kVersion), net_(net) {}
  ~Adapter() override {
    if constexpr (kVersion >= 11)
      if (begun_ && net_->finalize != nullptr) tell(check("finalize", net_->finalize(context_)));
  }

  /// Initializes it and looks at its devices.
  Status begin(uint64_t communicator) {
    const std::pair<const char*, bool> needed[] = {
        {"init", net_->init != nullptr},
        {"devices", net_->devices != nullptr},
        {"getProperties", net_->get_properties != nullptr},
        {"listen", net_->listen != nullptr},
        {"connect", net_->connect != nullptr},
        {"accept", net_->accept != nullptr},
        {"regMr", net_->register_memory != nullptr},
        {"deregMr", net_->deregister != nullptr},
        {"isend", net_->send != nullptr},
        {"irecv", net_->receive != nullptr},
        {"test", net_->test != nullptr},
        {"closeSend", net_->close_send != nullptr},
        {"closeRecv", net_->close_receive != nullptr},
        {"closeListen", net_->close_listen != nullptr}};
    for (const auto& [function, there] : needed)
      if (!there)
        return Status(Code::unsupported, "network plugin {} (v{}) has no {}", name_, version_,
                      function);
    RAILCCL_CHECK(initialize(communicator));
    return look_at_devices();
  }

  Result<void*> listen(int device, NetHandle* handle) override {
    void* made = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 11) {
      result = net_->listen(context_, device, handle->bytes.data(), &made);
    } else {
      result = net_->listen(device, handle->bytes.data(), &made);
    }
    RAILCCL_CHECK(check("listen", result));
    if (made == nullptr)
      return Status(Code::system, Scope::link, "network plugin {} (v{}): listen gave nothing",
                    name_, version_);
    return made;
  }

  Result<void*> connect(int device, NetHandle* handle) override {
    void* made = nullptr;
    OnDevice* on_device = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 11) {
      result = net_->connect(context_, device, handle->bytes.data(), &made, &on_device);
    } else if constexpr (kVersion >= 10) {
      result = net_->connect(device, &wishes_, handle->bytes.data(), &made, &on_device);
    } else if constexpr (kVersion >= 7) {
      result = net_->connect(device, handle->bytes.data(), &made, &on_device);
    } else {
      result = net_->connect(device, handle->bytes.data(), &made);
    }
    RAILCCL_CHECK(check("connect", result));
    return made;
  }

  Result<void*> accept(void* listen) override {
    void* made = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 7) {
      OnDevice* on_device = nullptr;
      result = net_->accept(listen, &made, &on_device);
    } else {
      result = net_->accept(listen, &made);
    }
    RAILCCL_CHECK(check("accept", result));
    return made;
  }

  Result<void*> enroll(void* comm, void* data, size_t bytes) override {
    void* memory = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 8) {
      result = net_->register_memory(comm, data, bytes, kHostMemory, &memory);
    } else {
      RAILCCL_CHECK(fits("regMr", bytes));
      result = net_->register_memory(comm, data, static_cast<int>(bytes), kHostMemory, &memory);
    }
    RAILCCL_CHECK(check("regMr", result));
    return memory;
  }

  Status dismiss(void* comm, void* memory) override {
    return check("deregMr", net_->deregister(comm, memory));
  }

  Result<void*> send(void* comm, void* data, size_t bytes, int tag, void* memory) override {
    void* request = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 10) {
      result = net_->send(comm, data, bytes, tag, memory, nullptr, &request);
    } else if constexpr (kVersion >= 9) {
      result = net_->send(comm, data, bytes, tag, memory, &request);
    } else {
      RAILCCL_CHECK(fits("isend", bytes));
      result = net_->send(comm, data, static_cast<int>(bytes), tag, memory, &request);
    }
    RAILCCL_CHECK(check("isend", result));
    return request;
  }

  Result<void*> receive(void* comm, std::span<const NetReceive> places) override {
    using Size = std::conditional_t<(kVersion >= 9), size_t, int>;
    std::array<void*, kGroupMax> data{}, memories{};
    std::array<Size, kGroupMax> bytes{};
    std::array<int, kGroupMax> tags{};
    if (places.empty() || places.size() > kGroupMax)
      return Status(Code::internal, "{} receives in one group", places.size());
    for (size_t i = 0; i < places.size(); i++) {
      if constexpr (kVersion < 9) RAILCCL_CHECK(fits("irecv", places[i].bytes));
      data[i] = places[i].data;
      memories[i] = places[i].memory;
      bytes[i] = static_cast<Size>(places[i].bytes);
      tags[i] = places[i].tag;
    }
    const int count = static_cast<int>(places.size());
    void* request = nullptr;
    PluginResult result;
    if constexpr (kVersion >= 10) {
      std::array<void*, kGroupMax> parents{};
      result = net_->receive(comm, count, data.data(), bytes.data(), tags.data(), memories.data(),
                             parents.data(), &request);
    } else {
      result = net_->receive(comm, count, data.data(), bytes.data(), tags.data(), memories.data(),
                             &request);
    }
    RAILCCL_CHECK(check("irecv", result));
    return request;
  }

  Result<bool> test(void* request, std::span<int> bytes) override {
    int done = 0;
    RAILCCL_CHECK(check("test", net_->test(request, &done, bytes.data())));
    return done != 0;
  }

  Status close_send(void* comm) override { return check("closeSend", net_->close_send(comm)); }
  Status close_receive(void* comm) override {
    return check("closeRecv", net_->close_receive(comm));
  }
  Status close_listen(void* listen) override {
    return check("closeListen", net_->close_listen(listen));
  }

 private:
  Status fits(const char* function, size_t bytes) const {
    if (bytes <= INT_MAX) return ok();
    return Status(Code::internal, "{}: {} of {} bytes", title(), function, bytes);
  }

  static void tell(const Status& status) {
    if (!status.is_ok()) log::warn("{}", status.text());
  }

  Status initialize(uint64_t communicator) {
    if constexpr (kVersion >= 11) {
      RAILCCL_CHECK(check(
          "init", net_->init(&context_, communicator, &wishes_, plugin_logger(), ignore_event)));
      begun_ = true;
      return ok();
    } else {
      // Once per process, with one outcome for all communicators.
      static std::mutex mutex;
      static auto* const outcomes = new std::map<const Net*, Status>;
      std::lock_guard lock(mutex);
      const auto [outcome, first] = outcomes->try_emplace(net_);
      if (first) {
        if constexpr (kVersion >= 10) {
          outcome->second = check("init", net_->init(plugin_logger(), ignore_event));
        } else {
          outcome->second = check("init", net_->init(plugin_logger()));
        }
      }
      return outcome->second;
    }
  }

  Status look_at_devices() {
    int count = 0;
    RAILCCL_CHECK(check("devices", net_->devices(&count)));
    if (count <= 0) return Status(Code::unsupported, "{} has no devices", title());
    if (count > kDevicesMax)
      return Status(Code::unsupported, "{} claims to have {} devices", title(), count);
    Status why;
    for (int number = 0; number < count; number++) {
      const Result<NetDevice> device = look_at(number);
      if (device.is_ok()) {
        devices_.push_back(*device);
      } else {
        log::info("{}", device.status().text());
        if (why.is_ok()) why = device.status();
      }
    }
    if (devices_.empty()) return why;
    tell_apart(&devices_);
    return ok();
  }

  Result<NetDevice> look_at(int number) const {
    Properties properties{};
    RAILCCL_CHECK(check("getProperties", net_->get_properties(number, &properties)));
    NetDevice device;
    device.number = number;
    device.name = properties.name == nullptr ? fmt::format("device{}", number) : properties.name;
    if (properties.pci_path != nullptr) device.pci_path = properties.pci_path;
    device.guid = properties.guid;
    device.mbps = std::max(0, properties.mbps);
    device.port = properties.port;
    device.latency_us = properties.latency_us > 0 ? double{properties.latency_us} : 0;
    device.receives_max = std::clamp(properties.receives_max, 1, static_cast<int>(kGroupMax));
    device.bytes_max = kBytesOfOld;
    const auto refuse = [&](const std::string& why) {
      return Status(Code::unsupported, "{}: device {} ({}) {}", title(), number, device.name, why);
    };
    if ((properties.pointers & kHostMemory) == 0) return refuse("does not take host memory");
    if constexpr (kVersion >= 7)
      if (properties.device_type != kDeviceTypeHost) return refuse("works only with a GPU's help");
    if constexpr (kVersion >= 9) {
      device.bytes_max = properties.bytes_max;
      if (device.bytes_max < kBytesMin || device.bytes_max > kBytesMax)
        return refuse(fmt::format("claims to take messages of up to {} bytes", device.bytes_max));
    }
    device.nic = nic_of(device);
    return device;
  }

  const Net* const net_;
  Wishes wishes_{kTrafficClassAny};
  void* context_ = nullptr;
  bool begun_ = false;
};

template <int kVersion>
Result<std::shared_ptr<NetPlugin>> begin(const Plugin& found, uint64_t communicator) {
  auto adapter = std::make_shared<Adapter<kVersion>>(
      static_cast<const typename Abi<kVersion>::Net*>(found.functions));
  RAILCCL_CHECK(adapter->begin(communicator).context("{}", found.file));
  return std::shared_ptr<NetPlugin>(std::move(adapter));
}

Result<std::shared_ptr<NetPlugin>> begin(const Plugin& found, uint64_t communicator) {
  switch (found.version) {
    case 6:
      return begin<6>(found, communicator);
    case 7:
      return begin<7>(found, communicator);
    case 8:
      return begin<8>(found, communicator);
    case 9:
      return begin<9>(found, communicator);
    case 10:
      return begin<10>(found, communicator);
    default:
      return begin<11>(found, communicator);
  }
}

const char* name_in(const Plugin& found) {
  // In every version the name comes first.
  const char* const name = *static_cast<const char* const*>(found.functions);
  return name == nullptr ? "?" : name;
}

}  // namespace

Status NetPlugin::failure(const char* function, PluginResult result) const {
  return Status(plugin_code(result), Scope::link, "{}: {} returned {}", title(), function,
                plugin_result_text(result));
}

Result<std::shared_ptr<NetPlugin>> NetPlugin::open(const Settings& settings,
                                                   uint64_t communicator) {
  // Nobody asked for the default one: that it is not there is no news.
  std::vector<std::string> names = plugin_names(settings.net_plugin);
  if (settings.net_plugin.empty()) names.emplace_back();
  if (names.empty()) return Status(Code::unsupported, "NCCL_NET_PLUGIN is none");
  Status why;
  for (const std::string& name : names) {
    const Result<Plugin> found = find_plugin(name, "libnccl-net", kInterface);
    if (found.is_ok() && !settings.net.empty() &&
        strcasecmp(settings.net.c_str(), name_in(*found)) != 0) {
      why = Status(Code::invalid_usage, "NCCL_NET={}, but the network of {} is called {}",
                   settings.net, found->file, name_in(*found));
      continue;
    }
    auto begun = found.is_ok() ? begin(*found, communicator) : found.status();
    if (begun.is_ok()) return begun;
    why = begun.status();
    if (!name.empty()) warn_of_plugin(fmt::format("NCCL_NET_PLUGIN={}: {}", name, why.text()));
  }
  return why;
}

}  // namespace railccl::transport
