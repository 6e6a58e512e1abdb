// PathMaker: how a TCP connection that two ranks have made and greeted each other over becomes a
// path: the connection itself (tcp), or a queue pair whose particulars it carries (verbs).
//
// Behind its greeting each side says a *card* of a fixed size: what the far end has to know. The
// accepting side has the other's card when it makes its own. Cards come from whoever connected or
// answered: hostile until the job's nonce was shown, and checked even then.
//
// One thread at a time, that of the transport.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owners.h"
#include "transport/path.h"
#include "transport/registry.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {

/// What a rank publishes, as the pairing of interfaces sees it.
struct MetPlaces {
  TcpAddress control;                  // where it listens
  std::vector<TcpEndpoint> endpoints;  // where paths can end
};

/// One end of a path about to be.
class PathStart {
 public:
  virtual ~PathStart() = default;
  /// Of PathMaker::card_bytes() bytes.
  virtual std::span<const std::byte> card() const = 0;
  /// Takes in the far end's card.
  virtual Status meet(std::span<const std::byte> card) = 0;
  /// Once met: is it known to carry bytes? Fails when it never will.
  virtual Result<bool> proven() = 0;
  /// May the connecting side find it broken where the accepting one has it proven? Then that one
  /// waits for the connecting side's word.
  virtual bool waits_for_word() const { return false; }
  /// The proven path, with the connection over which it was made. Once.
  virtual std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) = 0;
};

class PathMaker {
 public:
  virtual ~PathMaker() = default;
  /// The transport's name.
  virtual const char* medium() const = 0;
  /// Paths for each pair of interfaces, and the variable that says so: ranks must agree.
  virtual int paths_per_pair() const = 0;
  virtual const char* paths_variable() const = 0;
  /// Where paths of this rank can begin, nearest first.
  virtual const std::vector<TcpEndpoint>& endpoints() const = 0;

  virtual Address address(const TcpAddress& control) const = 0;
  /// Nothing when the address is malformed.
  virtual std::optional<MetPlaces> read_address(std::string_view address) const = 0;

  /// May paths that are a link's only one go on reading what they were given?
  virtual bool reads_in_place() const { return false; }

  /// Which paths two ranks have, one of each pair of interfaces, best first: tcp's rules.
  virtual std::vector<TcpPath> pairs(const std::vector<TcpEndpoint>& ours,
                                     const std::vector<TcpEndpoint>& theirs, bool same_host) const {
    return tcp_paths(ours, theirs, same_host);
  }

  /// Of a path about to be taken: the far end, where it listens at `port`, and our interface.
  virtual std::string describe(const TcpPath& path, uint16_t port) const {
    return tcp_path_text(path, port);
  }

  virtual size_t card_bytes() const = 0;
  /// The connecting side's end of a path between these interfaces.
  virtual Result<std::unique_ptr<PathStart>> start(const TcpPath& path) = 0;
  /// The accepting side's, for a connecting one with that card.
  virtual Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte> card) = 0;

  /// The end of a path that is the connection itself, for a link that has no path of the maker's
  /// own kind. Its card tells the other side, whose answer() is such an end, too. Null: there is
  /// none.
  virtual std::unique_ptr<PathStart> plain() { return nullptr; }
  virtual bool is_plain(std::span<const std::byte>) const { return false; }

  /// Descriptors to be watched for readability; on_descriptor() is told of it.
  virtual std::vector<int> descriptors() const { return {}; }
  virtual void on_descriptor(int) {}
  /// Are there events that no descriptor tells of while nobody sleeps? Then poll() fetches them.
  virtual bool polled() const { return false; }
  /// Fetches them; true when there were any.
  virtual bool poll() { return false; }
  /// Before a sleep: from now on descriptors tell. True when there were events, so do not sleep.
  virtual bool arm() { return false; }
  /// How much of that time to sleep at most, where no descriptor tells.
  virtual int64_t rest_us(int64_t timeout_us) const { return timeout_us; }
};

/// A transport of links over paths, made by `maker` over TCP connections.
Result<std::unique_ptr<Transport>> make_path_transport(const Context& context,
                                                       std::vector<TcpEndpoint> control,
                                                       std::unique_ptr<PathMaker> maker);

}  // namespace railccl::transport
