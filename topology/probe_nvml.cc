// The NVML probe: GPUs, when a driver is there. The library is loaded at run time and let go again,
// so nothing links to it and a machine without a driver is silent.
#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <string>

#include "base/log.h"
#include "topology/host_records.h"
#include "topology/probes.h"

namespace railccl::topology {

namespace {

// The part of NVML's ABI that is used here, as documented in its API reference.
using NvmlDevice = void*;
struct NvmlPciInfo {
  char legacy_bus_id[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];  // "00000000:17:00.0"
};
constexpr int kNvmlSuccess = 0;

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};

/// NVML, started; shut down and unloaded at the end.
class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    const bool complete = find("nvmlInit_v2", init_) && find("nvmlShutdown", shutdown_) &&
                          find("nvmlDeviceGetCount_v2", count_) &&
                          find("nvmlDeviceGetHandleByIndex_v2", handle_) &&
                          find("nvmlDeviceGetName", name_) && find("nvmlDeviceGetPciInfo_v3", pci_);
    started_ = complete && init_() == kNvmlSuccess;
    if (!started_) log::info("NVML is there but does not start: no GPUs are listed");
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  ~Nvml() {
    if (started_) shutdown_();
  }

  unsigned count() const {
    unsigned count = 0;
    if (!started_ || count_(&count) != kNvmlSuccess) return 0;
    return std::min(count, static_cast<unsigned>(kPartsPerHostMax));
  }

  /// Name and PCI address of GPU `index`; false when NVML does not answer.
  bool describe(unsigned index, Gpu& gpu) const {
    NvmlDevice device = nullptr;
    char name[96] = {};
    NvmlPciInfo pci = {};
    if (handle_(index, &device) != kNvmlSuccess || name_(device, name, sizeof name - 1) != 0 ||
        pci_(device, &pci) != kNvmlSuccess)
      return false;
    gpu.name = name;
    pci.bus_id[sizeof pci.bus_id - 1] = '\0';
    gpu.pci = pci.bus_id;
    // NVML writes an eight-digit domain and capitals, sysfs four digits and small letters.
    if (gpu.pci.starts_with("0000") && gpu.pci.find(':') == 8) gpu.pci.erase(0, 4);
    std::transform(gpu.pci.begin(), gpu.pci.end(), gpu.pci.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return true;
  }

 private:
  template <typename Function>
  bool find(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(library_.get(), name));
    return function != nullptr;
  }

  std::unique_ptr<void, CloseLibrary> library_;
  bool started_ = false;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned*) = nullptr;
  int (*handle_)(unsigned, NvmlDevice*) = nullptr;
  int (*name_)(NvmlDevice, char*, unsigned) = nullptr;
  int (*pci_)(NvmlDevice, NvmlPciInfo*) = nullptr;
};

}  // namespace

Status probe_nvml(const std::string& sysfs, const NumaIndex& numas, Facts& facts) {
  const Nvml nvml;
  for (unsigned i = 0; i < nvml.count(); i++) {
    Gpu gpu;
    if (!nvml.describe(i, gpu)) continue;
    const PciPlace place = pci_place(sysfs + "/bus/pci/devices/" + gpu.pci, numas);
    gpu.upstream = place.upstream;
    gpu.numa = place.numa;
    facts.host.gpus.push_back(std::move(gpu));
  }
  return ok();
}

}  // namespace railccl::topology
