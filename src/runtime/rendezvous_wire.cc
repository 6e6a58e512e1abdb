// Rendezvous on the wire: encoding and distrustful parsing; see rendezvous_wire.h.
#include "runtime/rendezvous_wire.h"

#include <algorithm>
#include <cstring>

#include "runtime/pack.h"

namespace railccl::runtime {
namespace {

constexpr char kMagic[9] = "railccl\1";  // the last one counts versions of the format
constexpr uint64_t kHelloMagic = 0x6c65682d6c696172;
constexpr uint64_t kReplyMagic = 0x6c70722d6c696172;
constexpr uint64_t kKnockMagic = 0x6b6e6b2d6c696172;
constexpr uint64_t kTextBytesMax = 8 << 10;

std::string_view view(const Nonce& nonce) {
  return {reinterpret_cast<const char*>(nonce.data()), nonce.size()};
}

Status malformed(const char* what) { return Status(Code::remote, "malformed {}", what); }

}  // namespace

UniqueId encode(const Identity& identity) {
  UniqueId id{};
  std::memcpy(id.data(), kMagic, 8);
  id[8] = static_cast<std::byte>(identity.server);
  std::memcpy(id.data() + 9, identity.nonce.data(), identity.nonce.size());
  assert(identity.place.size() <= kPlaceBytesMax);
  std::memcpy(id.data() + 25, identity.place.data(), identity.place.size());
  return id;
}

Result<Identity> parse_identity(const UniqueId& id) {
  if (std::memcmp(id.data(), kMagic, 7) != 0)
    return Status(Code::invalid_argument, "this is not a unique id that railccl made");
  if (id[7] != std::byte(kMagic[7]))
    return Status(Code::invalid_argument,
                  "this unique id was made by a railccl with another format of ids");
  Identity identity;
  identity.server = static_cast<Identity::Server>(id[8]);
  if (identity.server != Identity::Server::maker && identity.server != Identity::Server::rank_zero)
    return Status(Code::invalid_argument, "damaged unique id: unknown kind of server");
  std::memcpy(identity.nonce.data(), id.data() + 9, identity.nonce.size());
  const char* place = reinterpret_cast<const char*>(id.data()) + 25;
  identity.place.assign(place, ::strnlen(place, kPlaceBytesMax));
  const bool clean = std::all_of(id.begin() + 25 + static_cast<long>(identity.place.size()),
                                 id.end(), [](std::byte byte) { return byte == std::byte{0}; });
  if (!clean || identity.place.empty())
    return Status(Code::invalid_argument, "damaged unique id: the address is unreadable");
  return identity;
}

std::string encode(const Hello& hello) {
  return std::move(Packer()
                       .add(kHelloMagic)
                       .add(view(hello.nonce))
                       .add(static_cast<uint64_t>(hello.rank))
                       .add(static_cast<uint64_t>(hello.ranks))
                       .add(static_cast<uint64_t>(hello.timeout_ms))
                       .add(hello.host)
                       .add(hello.address))
      .take();
}

Result<Hello> parse_hello(std::string_view bytes) {
  if (bytes.size() > kHelloBytesMax) return malformed("hello");
  Unpacker unpacker(bytes);
  uint64_t magic = 0, rank = 0, ranks = 0, timeout_ms = 0;
  std::string nonce;
  Hello hello;
  if (!unpacker.get(&magic) || magic != kHelloMagic || !unpacker.get(&nonce) ||
      nonce.size() != hello.nonce.size() || !unpacker.get(&rank) || !unpacker.get(&ranks) ||
      !unpacker.get(&timeout_ms) || !unpacker.get(&hello.host) || !unpacker.get(&hello.address) ||
      !unpacker.at_end())
    return malformed("hello");
  std::memcpy(hello.nonce.data(), nonce.data(), nonce.size());
  constexpr uint64_t kTimeoutMsMax = uint64_t{10} * 24 * 3600 * 1000;
  if (ranks < 1 || ranks > kRanksMax || rank >= ranks || timeout_ms > kTimeoutMsMax)
    return malformed("hello");
  hello.rank = static_cast<int>(rank);
  hello.ranks = static_cast<int>(ranks);
  hello.timeout_ms = static_cast<int64_t>(timeout_ms);
  return hello;
}

std::string encode(const Reply& reply) {
  return std::move(Packer()
                       .add(kReplyMagic)
                       .add(static_cast<uint64_t>(reply.refusal.code()))
                       .add(static_cast<uint64_t>(reply.refusal.scope()))
                       .add(std::string_view(reply.refusal.text()).substr(0, kTextBytesMax))
                       .add(reply.job)
                       .add(uint64_t{reply.first_of_host})
                       .add(reply.parent))
      .take();
}

Result<Reply> parse_reply(std::string_view bytes) {
  Unpacker unpacker(bytes);
  uint64_t magic = 0, code = 0, scope = 0, first_of_host = 0;
  std::string text;
  Reply reply;
  if (!unpacker.get(&magic) || magic != kReplyMagic || !unpacker.get(&code) ||
      !unpacker.get(&scope) || !unpacker.get(&text) || !unpacker.get(&reply.job) ||
      !unpacker.get(&first_of_host) || first_of_host > 1 || !unpacker.get(&reply.parent) ||
      !unpacker.at_end() || text.size() > kTextBytesMax)
    return malformed("reply");
  reply.first_of_host = first_of_host == 1;
  reply.refusal = status_from(code, scope, text);
  return reply;
}

std::string encode(const Knock& knock) {
  return std::move(Packer().add(kKnockMagic).add(knock.job).add(static_cast<uint64_t>(knock.rank)))
      .take();
}

Result<Knock> parse_knock(std::string_view bytes) {
  Unpacker unpacker(bytes);
  uint64_t magic = 0, rank = 0;
  Knock knock;
  if (!unpacker.get(&magic) || magic != kKnockMagic || !unpacker.get(&knock.job) ||
      !unpacker.get(&rank) || rank >= kRanksMax || !unpacker.at_end())
    return malformed("knock");
  knock.rank = static_cast<int>(rank);
  return knock;
}

uint64_t contributions_bytes_max(int ranks) {
  return 8 + static_cast<uint64_t>(ranks) * (kContributionBytesMax + 16);
}

std::string encode(const Contributions& contributions) {
  Packer packer;
  for (size_t rank = 0; rank < contributions.size(); rank++)
    if (contributions[rank]) packer.add(uint64_t{rank}).add(*contributions[rank]);
  return std::move(packer).take();
}

Status parse_contributions(std::string_view bytes, Contributions* all) {
  Unpacker unpacker(bytes);
  while (!unpacker.at_end()) {
    uint64_t rank = 0;
    std::string text;
    if (!unpacker.get(&rank) || !unpacker.get(&text) || rank >= all->size() ||
        text.size() > kContributionBytesMax || (*all)[rank])
      return malformed("contributions");
    (*all)[rank] = std::move(text);
  }
  return ok();
}

std::vector<int> tree_children(int rank, int ranks) {
  std::vector<int> children;
  for (int child : {2 * rank + 1, 2 * rank + 2})
    if (child < ranks) children.push_back(child);
  return children;
}

Status status_from(uint64_t code, uint64_t scope, const std::string& text) {
  if (code == static_cast<uint64_t>(Code::ok)) return ok();
  if (code > static_cast<uint64_t>(Code::internal)) code = static_cast<uint64_t>(Code::remote);
  if (scope > static_cast<uint64_t>(Scope::communicator))
    scope = static_cast<uint64_t>(Scope::communicator);
  return Status(static_cast<Code>(code), static_cast<Scope>(scope), text);
}

}  // namespace railccl::runtime
