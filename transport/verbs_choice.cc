// Parsing, choosing, explaining.
#include "transport/verbs_choice.h"

#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>

namespace railccl::transport {
namespace {

constexpr int kPortMax = 255;

// Status numbers of ibv_wc_status (ibv_poll_cq(3)), which are part of the binary interface.
enum : int {
  kLocalLength = 1,
  kLocalProtection = 4,
  kFlushed = 5,
  kRemoteInvalid = 9,
  kRemoteAccess = 10,
  kRemoteOperation = 11,
  kRetriesExceeded = 12,
  kNotReadyExceeded = 13,
  kFatal = 18,
  kResponseTimeout = 19
};

int rank_of(const GidRow& row) {
  const InterfaceAddress address = address_of(row.gid);
  const int version = row.type == GidRow::Type::roce_v2 ? 0 : 10;
  if (address.address.ss_family == AF_INET) return version;
  return version + (is_link_local(address.address) ? 2 : 1);
}

}  // namespace

Result<HcaFilter> HcaFilter::parse(std::string_view text) {
  HcaFilter filter;
  const std::string_view whole = text;
  if (text.starts_with('^')) {
    filter.exclude_ = true;
    text.remove_prefix(1);
  }
  if (text.starts_with('=')) {
    filter.whole_ = true;
    text.remove_prefix(1);
  }
  if (text.empty() && text.size() != whole.size())
    return Status(Code::invalid_argument, "NCCL_IB_HCA={}: no device is named", whole);
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    std::string_view name = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    Entry entry;
    if (const size_t colon = name.find(':'); colon != std::string_view::npos) {
      const std::string_view port = name.substr(colon + 1);
      const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), entry.port);
      if (error != std::errc() || end != port.data() + port.size() || entry.port < 1 ||
          entry.port > kPortMax)
        return Status(Code::invalid_argument, "NCCL_IB_HCA={}: \"{}\" is no port", whole, port);
      name = name.substr(0, colon);
    }
    if (name.empty())
      return Status(Code::invalid_argument, "NCCL_IB_HCA={}: a name is empty", whole);
    entry.device = name;
    filter.entries_.push_back(std::move(entry));
  }
  return filter;
}

bool HcaFilter::allows(std::string_view device, int port) const {
  if (entries_.empty()) return true;
  const bool named = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    const bool same = whole_ ? device == entry.device : device.starts_with(entry.device);
    return same && (entry.port == 0 || entry.port == port);
  });
  return named != exclude_;
}

Result<GidRow> choose_gid(const std::vector<GidRow>& rows, bool infiniband, int64_t wanted) {
  if (wanted >= 0) {
    for (const GidRow& row : rows)
      if (row.index == wanted) return row;
    return Status(Code::invalid_argument, "NCCL_IB_GID_INDEX={}: the port has no such GID", wanted);
  }
  if (rows.empty())
    return Status(Code::unsupported, "the port has no GID: {}",
                  infiniband ? "no subnet manager has been there" : "its interface has no address");
  if (infiniband) return rows.front();
  return *std::min_element(rows.begin(), rows.end(), [](const GidRow& a, const GidRow& b) {
    return rank_of(a) < rank_of(b);
  });
}

InterfaceAddress address_of(const Gid& gid) {
  constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  InterfaceAddress address;
  if (std::equal(kMapped.begin(), kMapped.end(), gid.begin())) {
    auto& four = reinterpret_cast<sockaddr_in&>(address.address);
    four.sin_family = AF_INET;
    std::memcpy(&four.sin_addr, gid.data() + kMapped.size(), sizeof(four.sin_addr));
    address.prefix_bits = 32;
  } else {
    auto& six = reinterpret_cast<sockaddr_in6&>(address.address);
    six.sin6_family = AF_INET6;
    std::memcpy(&six.sin6_addr, gid.data(), gid.size());
    address.prefix_bits = 64;
  }
  return address;
}

std::vector<TcpPath> verbs_pairs(std::vector<TcpEndpoint> ours, std::vector<TcpEndpoint> theirs,
                                 bool same_host) {
  // For the pairing fe80:: is fd80::, which is no address of another machine in any network.
  const auto turn = [](TcpEndpoint& place, uint8_t from, uint8_t to) {
    if (place.address.address.ss_family != AF_INET6) return;
    auto& bytes = reinterpret_cast<sockaddr_in6&>(place.address.address).sin6_addr.s6_addr;
    if (bytes[0] == from && bytes[1] == 0x80) bytes[0] = to;
  };
  constexpr uint8_t kLinkLocal = 0xfe, kUniqueLocal = 0xfd;
  for (auto* places : {&ours, &theirs})
    for (TcpEndpoint& place : *places) turn(place, kLinkLocal, kUniqueLocal);
  std::vector<TcpPath> paths = tcp_paths(ours, theirs, same_host);
  for (TcpPath& path : paths)
    for (TcpEndpoint* place : {&path.from, &path.to}) turn(*place, kUniqueLocal, kLinkLocal);
  return paths;
}

std::string completion_text(int status, std::string_view name, uint32_t vendor) {
  const char* meaning = "";
  switch (status) {
    case kRetriesExceeded:
      meaning =
          ": the far end did not answer; its host or port is down, a switch drops the packets "
          "(for RoCE v2: UDP port 4791), or the GID is none of that network";
      break;
    case kNotReadyExceeded:
      meaning = ": the far end had no receive posted, which cannot be between equal versions";
      break;
    case kFlushed:
      meaning = ": the queue pair had failed before";
      break;
    case kRemoteAccess:
    case kRemoteInvalid:
      meaning = ": the far end's ring is gone or not as it said; it has given the path up";
      break;
    case kRemoteOperation:
      meaning = ": the far end's device failed; see its kernel log";
      break;
    case kLocalProtection:
    case kLocalLength:
      meaning = ": our device refuses our buffer; see the kernel log";
      break;
    case kFatal:
      meaning = ": our device failed; see the kernel log";
      break;
    case kResponseTimeout:
      meaning = ": the far end answers too late";
      break;
    default:
      break;
  }
  return fmt::format("{}{} (vendor code {:#x})", name, meaning, vendor);
}

}  // namespace railccl::transport
