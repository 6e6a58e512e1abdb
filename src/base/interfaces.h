// Network interfaces of this host, and which of them NCCL_SOCKET_IFNAME lets the library use.
//
// The selection follows NCCL: NCCL_SOCKET_IFNAME is a list of name prefixes separated by commas; a
// leading ^ turns it into a list to keep away from, a leading = (after the ^ if both) asks for
// whole names. Without it, interfaces whose name begins with "ib" are taken if there are any, else
// all but loopback and docker*, else docker*, else loopback. Loopback is never taken merely because
// an exclusion list does not mention it, unless nothing else is left: its address means another
// machine on every machine. All functions are thread-safe; values are plain copies.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/settings.h"
#include "base/status.h"

namespace railccl {

/// An IPv4 or IPv6 address with its subnet; the port is 0.
struct InterfaceAddress {
  sockaddr_storage address{};  // link-local IPv6 carries its scope id
  int prefix_bits = 0;         // 24 in 10.0.1.2/24
};

struct Interface {
  std::string name;
  unsigned index = 0;  // as if_nametoindex gives it
  bool up = false;     // administratively up and with a carrier
  bool loopback = false;
  double bytes_per_s = 0;                   // nominal, one direction; 0 = unknown
  std::vector<InterfaceAddress> addresses;  // IPv4 first, then global, then link-local IPv6
};

/// Every interface of this network namespace, down ones included, by ascending index.
Result<std::vector<Interface>> all_interfaces();

/// Those the settings allow that are up and have an address of the allowed family
/// (NCCL_SOCKET_FAMILY), each with the allowed addresses only; by ascending index, never empty.
/// Fails with invalid_argument for a malformed setting or one that leaves nothing, and with system
/// when the host has no interface at all.
Result<std::vector<Interface>> usable_interfaces(const Settings& settings);

/// The same choice made from a given list, for tests and recorded machines.
Result<std::vector<Interface>> select_interfaces(const std::vector<Interface>& from,
                                                 const Settings& settings);

/// "10.0.1.2" or "fe80::1"; empty for other families.
std::string text_of(const sockaddr_storage& address);
/// "10.0.1.2/24".
std::string text_of(const InterfaceAddress& address);
/// The address "10.0.1.2/24" (without a length: the whole address) means.
Result<InterfaceAddress> parse_address(std::string_view text);
/// "10.0.1.0/24": the subnet an address is in.
std::string subnet_of(const InterfaceAddress& address);
/// Is `other` in the subnet of `mine`?
bool same_subnet(const InterfaceAddress& mine, const sockaddr_storage& other);
/// 127.0.0.0/8 or ::1.
bool is_loopback(const sockaddr_storage& address);
/// 169.254.0.0/16 or fe80::/10: means something else on each link.
bool is_link_local(const sockaddr_storage& address);

}  // namespace railccl
