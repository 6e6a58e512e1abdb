// What verbs chooses and says without touching a device: which RDMA ports NCCL_IB_HCA means, which
// row of a port's GID table to use, and what a failed completion means in words.
//
// Pure functions and values, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/interfaces.h"
#include "base/status.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {

/// NCCL_IB_HCA as NCCL defines it: names separated by commas, each a prefix of a device's name and
/// maybe a port behind a colon; `=` in front: whole names; `^` in front of that: all but these.
class HcaFilter {
 public:
  /// Fails with invalid_argument on an empty name or a port that is none.
  static Result<HcaFilter> parse(std::string_view text);
  bool allows(std::string_view device, int port) const;

 private:
  struct Entry {
    std::string device;
    int port = 0;  // 0: any
  };
  std::vector<Entry> entries_;  // none: everything is allowed
  bool exclude_ = false;
  bool whole_ = false;
};

using Gid = std::array<uint8_t, 16>;

/// A row of a port's GID table.
struct GidRow {
  enum class Type : uint8_t { infiniband, roce_v1, roce_v2 };
  int index = 0;
  Gid gid{};
  Type type = Type::infiniband;
  unsigned interface = 0;  // of the operating system; 0: none
};

/// The row to use: on InfiniBand the first; on RoCE version 2 before version 1, which switches do
/// not route, and within a version an IPv4 address before a global IPv6 one before a link-local
/// one. `wanted` >= 0 asks for that row. Fails with words for the user when there is none.
Result<GidRow> choose_gid(const std::vector<GidRow>& rows, bool infiniband, int64_t wanted);

/// A GID is an IPv6 address, and an IPv4 one where it maps one. InfiniBand's subnet prefix is /64.
InterfaceAddress address_of(const Gid& gid);

/// The pairs of ports by which two ranks reach each other, as tcp_paths(). InfiniBand's usual
/// subnet prefix is that of link-local addresses, but means one fabric, so these are paired like
/// others.
std::vector<TcpPath> verbs_pairs(std::vector<TcpEndpoint> ours, std::vector<TcpEndpoint> theirs,
                                 bool same_host);

/// What a completion's status (ibv_wc_status) means, most likely, and what to do.
std::string completion_text(int status, std::string_view name, uint32_t vendor);

}  // namespace railccl::transport
