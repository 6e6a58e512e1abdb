// What rendezvous writes into ids and frames, and reads back from strangers.
//
// Every parse function takes arbitrary bytes: it gives a value that passed all checks, or a Status;
// it never reads outside and never allocates more than the bytes at hand justify. Pure functions.
// Private to this room.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/rendezvous.h"

namespace railccl::runtime {

using Nonce = std::array<std::byte, 16>;

/// The 128 bytes: "railccl" and a version (8), who serves (1), nonce (16), place as text padded
/// with zeros (102), zero (1).
struct Identity {
  enum class Server : uint8_t {
    maker = 1,      // a root listens already; place: numeric addresses, the best first
    rank_zero = 2,  // rank 0 serves when it joins; place: one host:port, maybe a name
  };
  Server server = Server::maker;
  Nonce nonce{};
  std::string place;
};
inline constexpr size_t kPlaceBytesMax = 102;
UniqueId encode(const Identity& identity);
Result<Identity> parse_identity(const UniqueId& id);

inline constexpr int kRanksMax = 1 << 20;
inline constexpr uint64_t kHelloBytesMax = 1024;
inline constexpr uint64_t kReplyBytesMax = 64 << 10;

/// A rank to the root.
struct Hello {
  Nonce nonce{};
  int rank = 0;
  int ranks = 0;
  int64_t timeout_ms = 0;  // how long this rank is ready to wait
  uint64_t host = 0;       // its host's id
  std::string address;     // where its tree children reach it
};
std::string encode(const Hello& hello);
Result<Hello> parse_hello(std::string_view bytes);

/// The root to a rank.
struct Reply {
  Status refusal;  // ok: come in
  uint64_t job = 0;
  bool first_of_host = false;  // no lower rank has the same host id
  std::string parent;          // address of the tree parent; empty for rank 0
};
std::string encode(const Reply& reply);
Result<Reply> parse_reply(std::string_view bytes);

/// A tree child to its parent.
struct Knock {
  uint64_t job = 0;
  int rank = 0;
};
std::string encode(const Knock& knock);
Result<Knock> parse_knock(std::string_view bytes);

/// Contributions of several ranks on their way along the tree, index = rank.
using Contributions = std::vector<std::optional<std::string>>;
inline constexpr uint64_t kContributionBytesMax = 16 << 20;
uint64_t contributions_bytes_max(int ranks);
std::string encode(const Contributions& contributions);
/// Adds what `bytes` holds to `all`, whose size is the number of ranks; each rank once.
Status parse_contributions(std::string_view bytes, Contributions* all);

/// The control tree is a heap: rank r's parent is (r - 1) / 2, its children 2r + 1 and 2r + 2.
inline int tree_parent(int rank) { return rank == 0 ? -1 : (rank - 1) / 2; }
std::vector<int> tree_children(int rank, int ranks);

/// Codes and texts of failures cross the wire too.
Status status_from(uint64_t code, uint64_t scope, const std::string& text);

}  // namespace railccl::runtime
