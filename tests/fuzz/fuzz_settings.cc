// fuzz-link: railccl_runtime
// Configuration files, which are lines VARIABLE=value, as environments: settings are loaded, or
// refused with the variable and its value named; NCCL_ALGO and NCCL_SOCKET_IFNAME are then read by
// those who own their languages.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "algorithms/algorithm.h"
#include "base/conf_files.h"
#include "base/interfaces.h"
#include "base/settings.h"
#include "runtime/algorithm_filter.h"

namespace {

using namespace railccl;

void expect_refusal(const Status& status) {
  if (status.is_ok()) return;
  if (status.code() != Code::invalid_argument || status.text().empty()) std::abort();
}

std::vector<Interface> some_interfaces() {
  std::vector<Interface> all;
  for (const char* name : {"lo", "eth0", "eth1", "eth10", "ib0", "docker0"}) {
    Interface interface;
    interface.name = name;
    interface.index = static_cast<unsigned>(all.size() + 1);
    interface.up = true;
    interface.loopback = all.empty();
    interface.addresses = {*parse_address("10.0.0.1/24"), *parse_address("fe80::1/64")};
    all.push_back(interface);
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::map<std::string, std::string> environment = parse_conf(text);
  const auto settings = Settings::load([&](const char* variable) -> const char* {
    const auto found = environment.find(variable);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
  if (!settings.is_ok()) {
    expect_refusal(settings.status());
    // It must say which variable.
    bool named = false;
    for (const auto& [variable, value] : environment)
      named |= settings.status().text().find(variable) != std::string::npos;
    if (!named) std::abort();
    return 0;
  }
  if (settings->min_channels < 1 || settings->min_channels > 64) std::abort();
  const auto filter = runtime::AlgorithmFilter::parse(settings->algo);
  expect_refusal(filter.status());
  if (filter.is_ok())
    for (const auto* algorithm : algorithms::all())
      (void)filter->allows(algorithm->collective, algorithm->name);
  static const std::vector<Interface> interfaces = some_interfaces();
  const auto chosen = select_interfaces(interfaces, *settings);
  expect_refusal(chosen.status());
  if (chosen.is_ok() && chosen->empty()) std::abort();
  return 0;
}
