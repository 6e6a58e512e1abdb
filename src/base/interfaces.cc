// Interfaces from getifaddrs and sysfs, and the selection rule of NCCL_SOCKET_IFNAME.
#include "base/interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <span>

namespace railccl {

namespace {

/// The address bytes in network order; empty for families that are not IP.
std::span<const uint8_t> bytes_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return {reinterpret_cast<const uint8_t*>(&v4.sin_addr), 4};
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    return {reinterpret_cast<const uint8_t*>(&v6.sin6_addr), 16};
  }
  return {};
}

sockaddr_storage storage_of(const sockaddr* address) {
  sockaddr_storage storage{};
  std::memcpy(&storage, address,
              address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
  return storage;
}

int prefix_of(const sockaddr* mask, sa_family_t family) {
  if (mask == nullptr) return family == AF_INET ? 32 : 128;
  sockaddr_storage storage = storage_of(mask);
  storage.ss_family = family;  // some kernels leave the mask's family empty
  int bits = 0;
  for (const uint8_t byte : bytes_of(storage)) bits += std::popcount(byte);
  return bits;
}

/// IPv4, then global IPv6, then link-local IPv6: the order of preference.
int order_of(const InterfaceAddress& address) {
  if (address.address.ss_family == AF_INET) return 0;
  return is_link_local(address.address) ? 2 : 1;
}

double speed_of(const std::string& name) {
  std::ifstream file("/sys/class/net/" + name + "/speed");
  double mbit = 0;  // the read fails or gives -1 for interfaces that have no speed
  if (!(file >> mbit) || mbit <= 0) return 0;
  return mbit * 1e6 / 8;
}

std::vector<std::string_view> split_list(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) parts.push_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

struct NameRule {
  bool exclude = false;
  bool exact = false;
  std::vector<std::string_view> names;

  bool takes(std::string_view name) const {
    const bool listed = std::any_of(names.begin(), names.end(), [&](std::string_view wanted) {
      return exact ? name == wanted : name.starts_with(wanted);
    });
    return listed != exclude;
  }
};

Result<NameRule> parse_rule(std::string_view text) {
  NameRule rule;
  std::string_view rest = text;
  if (rest.starts_with('^')) {
    rule.exclude = true;
    rest.remove_prefix(1);
  }
  if (rest.starts_with('=')) {
    rule.exact = true;
    rest.remove_prefix(1);
  }
  rule.names = split_list(rest);
  if (rule.names.empty())
    return Status(Code::invalid_argument, "NCCL_SOCKET_IFNAME=\"{}\" names no interface", text);
  return rule;
}

Result<int> family_of(const Settings& settings) {
  if (settings.socket_family.empty()) return AF_UNSPEC;
  if (settings.socket_family == "AF_INET") return AF_INET;
  if (settings.socket_family == "AF_INET6") return AF_INET6;
  return Status(Code::invalid_argument, "NCCL_SOCKET_FAMILY=\"{}\": expected AF_INET or AF_INET6",
                settings.socket_family);
}

template <typename Predicate>
std::vector<Interface> filter(const std::vector<Interface>& from, Predicate wanted) {
  std::vector<Interface> kept;
  std::copy_if(from.begin(), from.end(), std::back_inserter(kept), wanted);
  return kept;
}

/// What is taken when nobody said anything: the first of these classes that has a member.
std::vector<Interface> default_choice(const std::vector<Interface>& from) {
  const auto docker = [](const Interface& i) { return i.name.starts_with("docker"); };
  auto kept = filter(from, [](const Interface& i) { return i.name.starts_with("ib"); });
  if (kept.empty())
    kept = filter(from, [&](const Interface& i) { return !i.loopback && !docker(i); });
  if (kept.empty()) kept = filter(from, docker);
  if (kept.empty()) kept = from;
  return kept;
}

std::string names_of(const std::vector<Interface>& interfaces) {
  std::string names;
  for (const Interface& i : interfaces) names += (names.empty() ? "" : ", ") + i.name;
  return names.empty() ? "none" : names;
}

}  // namespace

Result<std::vector<Interface>> all_interfaces() {
  ifaddrs* raw = nullptr;
  if (getifaddrs(&raw) != 0) return system_error(errno, "cannot list network interfaces");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> list(raw, &freeifaddrs);
  std::vector<Interface> interfaces;
  for (const ifaddrs* entry = list.get(); entry != nullptr; entry = entry->ifa_next) {
    // An IPv4 alias is listed under its label ("eth0:1"), but is the same interface.
    const std::string_view label = entry->ifa_name;
    const std::string name(label.substr(0, label.find(':')));
    auto found = std::find_if(interfaces.begin(), interfaces.end(),
                              [&](const Interface& i) { return i.name == name; });
    if (found == interfaces.end()) {
      Interface fresh;
      fresh.name = name;
      fresh.index = if_nametoindex(name.c_str());
      fresh.up = (entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_RUNNING) != 0;
      fresh.loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
      fresh.bytes_per_s = speed_of(name);
      found = interfaces.insert(interfaces.end(), std::move(fresh));
    }
    if (entry->ifa_addr == nullptr) continue;
    const sa_family_t family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    found->addresses.push_back(
        {storage_of(entry->ifa_addr), prefix_of(entry->ifa_netmask, family)});
  }
  std::stable_sort(interfaces.begin(), interfaces.end(),
                   [](const Interface& a, const Interface& b) { return a.index < b.index; });
  for (Interface& i : interfaces)
    std::stable_sort(i.addresses.begin(), i.addresses.end(),
                     [](const InterfaceAddress& a, const InterfaceAddress& b) {
                       return order_of(a) < order_of(b);
                     });
  return interfaces;
}

Result<std::vector<Interface>> select_interfaces(const std::vector<Interface>& from,
                                                 const Settings& settings) {
  RAILCCL_TRY(const int family, family_of(settings));
  std::vector<Interface> able;
  for (Interface i : from) {
    std::erase_if(i.addresses, [&](const InterfaceAddress& a) {
      return family != AF_UNSPEC && a.address.ss_family != family;
    });
    if (i.up && !i.addresses.empty()) able.push_back(std::move(i));
  }
  if (able.empty())
    return Status(Code::system, "no network interface is up and has an address (seen: {})",
                  names_of(from));
  if (settings.socket_ifname.empty()) return default_choice(able);

  RAILCCL_TRY(const NameRule rule, parse_rule(settings.socket_ifname));
  std::vector<Interface> kept =
      filter(able, [&](const Interface& i) { return rule.takes(i.name); });
  if (rule.exclude) {
    std::vector<Interface> outward = filter(kept, [](const Interface& i) { return !i.loopback; });
    if (!outward.empty()) kept = std::move(outward);
  }
  if (kept.empty())
    return Status(Code::invalid_argument,
                  "NCCL_SOCKET_IFNAME=\"{}\" leaves no interface; usable here: {}",
                  settings.socket_ifname, names_of(able));
  return kept;
}

Result<std::vector<Interface>> usable_interfaces(const Settings& settings) {
  RAILCCL_TRY(const std::vector<Interface> interfaces, all_interfaces());
  return select_interfaces(interfaces, settings);
}

std::string text_of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const std::span<const uint8_t> bytes = bytes_of(address);
  if (bytes.empty() || inet_ntop(address.ss_family, bytes.data(), text, sizeof text) == nullptr)
    return {};
  return text;
}

std::string text_of(const InterfaceAddress& address) {
  return fmt::format("{}/{}", text_of(address.address), address.prefix_bits);
}

Result<InterfaceAddress> parse_address(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string host(text.substr(0, slash));
  InterfaceAddress parsed;
  int bits_max = 0;
  auto& v4 = reinterpret_cast<sockaddr_in&>(parsed.address);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(parsed.address);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    parsed.address.ss_family = AF_INET;
    bits_max = 32;
  } else if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    parsed.address.ss_family = AF_INET6;
    bits_max = 128;
  } else {
    return Status(Code::invalid_argument, "\"{}\" is not an IP address", text);
  }
  parsed.prefix_bits = bits_max;
  if (slash != std::string_view::npos) {
    const std::string_view bits = text.substr(slash + 1);
    const auto [end, error] =
        std::from_chars(bits.data(), bits.data() + bits.size(), parsed.prefix_bits);
    if (error != std::errc() || end != bits.data() + bits.size() || parsed.prefix_bits < 0 ||
        parsed.prefix_bits > bits_max)
      return Status(Code::invalid_argument, "\"{}\": the prefix length must be 0 to {}", text,
                    bits_max);
  }
  return parsed;
}

std::string subnet_of(const InterfaceAddress& address) {
  InterfaceAddress net = address;
  const std::span<const uint8_t> read = bytes_of(net.address);
  uint8_t* bytes = const_cast<uint8_t*>(read.data());  // `net` is ours to change
  for (size_t i = 0; i < read.size(); i++) {
    const int kept = std::clamp(net.prefix_bits - static_cast<int>(i) * 8, 0, 8);
    bytes[i] = static_cast<uint8_t>(bytes[i] & (0xff00 >> kept));
  }
  return text_of(net);
}

bool same_subnet(const InterfaceAddress& mine, const sockaddr_storage& other) {
  if (mine.address.ss_family != other.ss_family) return false;
  return subnet_of(mine) == subnet_of({other, mine.prefix_bits});
}

bool is_loopback(const sockaddr_storage& address) {
  const std::span<const uint8_t> bytes = bytes_of(address);
  if (bytes.size() == 4) return bytes[0] == 127;
  return bytes.size() == 16 && bytes[15] == 1 &&
         std::all_of(bytes.begin(), bytes.end() - 1, [](uint8_t b) { return b == 0; });
}

bool is_link_local(const sockaddr_storage& address) {
  const std::span<const uint8_t> bytes = bytes_of(address);
  if (bytes.size() == 4) return bytes[0] == 169 && bytes[1] == 254;
  return bytes.size() == 16 && bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

}  // namespace railccl
