// SocketPath: a connected TCP socket as a Path; driven by edge-triggered readiness events.
//
// What the far end's kernel has acknowledged can be read there even when the connection is reset
// afterwards, so the kernel's own count (SIOCOUTQ, TCP_INFO; tcp(7)) is all the acknowledgement
// that multipath needs.
#pragma once

#include <string>

#include "base/owners.h"
#include "transport/path.h"

namespace railccl::transport {

class SocketPath final : public NicPath {
 public:
  /// `nic`: our interface's name; `name`: "10.0.0.4:5123, eth1"; `one_of_several`: what waits in
  /// the kernel could go by another path.
  SocketPath(UniqueFd socket, std::string nic, std::string name, bool one_of_several);

  Result<size_t> write(std::span<const iovec> ranges) override;
  uint64_t acknowledged() override;
  bool under_way() override;
  int64_t round_trip_ns() override;
  int64_t patience_ns() override;
  double bytes_per_s() override { return bytes_per_s_; }
  Result<size_t> read(std::span<const iovec> ranges) override;
  void acknowledge() override;

  const std::string& nic() const override { return nic_; }
  const std::string& name() const override { return name_; }
  uint64_t written() const override { return written_; }
  uint64_t received() const override { return received_; }
  void on_events(uint32_t events) override;
  void close_writing() override;
  bool closed_by_peer() const override { return closed_by_peer_; }
  /// As the kernel counts.
  Usage usage() const override;
  bool measure() override;
  /// The kernel goes on sending.
  bool settled() override { return true; }

 private:
  Status failure(int error);

  UniqueFd socket_;
  const std::string nic_;
  const std::string name_;
  // Readiness as last heard: cleared when the kernel had less than was asked for.
  bool readable_ = true;
  bool writable_ = true;
  bool hung_up_ = false;  // no further event will come: read until the end
  bool closed_by_peer_ = false;
  uint64_t written_ = 0, received_ = 0;
  uint64_t seen_written_ = 0;  // by measure()
  Usage seen_;                 // by measure()
  double bytes_per_s_ = 0;
};

}  // namespace railccl::transport
