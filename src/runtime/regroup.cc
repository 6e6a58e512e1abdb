// Regroup: communicators made out of others whose ranks meet anew, by an id.
//
// Shrink, of a sound communicator (recover.cc has the other kind). The ranks that leave need not
// take part, so nothing that is collective among the old ranks may be used. The first of those that
// stay makes the id, and sends it to the others that stay, as ordinary messages of the old
// communicator.
//
// Grow. The newcomers have the id from their caller, but of the old ranks just one has it, and the
// others do not know which. The old communicator's control plane tells them.
#include <algorithm>
#include <cstring>

#include "runtime/batch.h"
#include "runtime/member.h"
#include "runtime/pack.h"

namespace railccl::runtime {
namespace {

Call transfer_of(UniqueId* id, Call::Kind kind, int peer) {
  Call call;
  call.kind = kind;
  call.request.datatype = Datatype::uint8;
  call.request.count = id->size();
  call.peer = peer;
  if (kind == Call::Kind::send) call.input = id->data();
  if (kind == Call::Kind::recv) call.output = id->data();
  return call;
}

}  // namespace

Result<std::shared_ptr<Communicator>> Member::shrink(const std::vector<int>& survivors,
                                                     const Config& config, bool abort) {
  const auto me = std::find(survivors.begin(), survivors.end(), rank());
  if (me == survivors.end())
    return Status(Code::invalid_usage, "{} is not among those that stay", title());
  if (abort || failed_here()) return shrink_failed(survivors, config);
  RAILCCL_CHECK(usable());
  const int new_rank = static_cast<int>(me - survivors.begin());
  auto child =
      std::make_shared<Member>(new_rank, static_cast<int>(survivors.size()), config, settings_);
  const uint64_t ticket = turns_.take();
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  const Status founded = found(config, child, [self, child, survivors, ticket]() -> Status {
    UniqueId id{};
    std::vector<Call> calls;
    Status made;
    if (child->rank() == 0) {
      auto fresh = make_unique_id(self->settings_);
      made = fresh.status();
      if (made.is_ok()) id = *fresh;
      for (size_t i = 1; i < survivors.size(); i++)
        calls.push_back(transfer_of(&id, Call::Kind::send, survivors[i]));
    } else {
      calls.push_back(transfer_of(&id, Call::Kind::recv, survivors[0]));
    }
    Share share(*self, calls, ticket);
    // The ticket has to be used in any case, and the others not left to wait.
    if (!made.is_ok()) {
      share.wait_for_turn();
      share.fail(made.widen(Scope::communicator));
      return made;
    }
    RAILCCL_CHECK(run(std::span<Share>(&share, 1)));
    return child->enter(id);
  });
  if (!founded.is_ok()) return founded;
  return std::shared_ptr<Communicator>(child);
}

Result<std::shared_ptr<Communicator>> Member::grow(const UniqueId* id, int ranks,
                                                   const Config& config) {
  RAILCCL_CHECK(usable());
  if (ranks <= size())
    return Status(Code::invalid_argument, "nRanks is {}; it must be above {}, the ranks of now",
                  ranks, size());
  Packer packer;
  packer.add(static_cast<uint64_t>(ranks))
      .add(id == nullptr ? std::string_view()
                         : std::string_view(reinterpret_cast<const char*>(id->data()), id->size()));
  auto child = std::make_shared<Member>(rank(), ranks, config, settings_);
  const uint64_t ticket = turns_.take();
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  const Status founded = found(
      config, child, [self, child, mine = std::move(packer).take(), ranks, ticket]() -> Status {
        self->turns_.wait(ticket);
        const auto exchange = [&]() -> Result<std::vector<std::string>> {
          if (self->troubled()) return self->trouble();
          return self->parts_.control->all_gather(mine, self->settings_.init_timeout_ms);
        };
        const auto texts = exchange();
        self->turns_.leave(ticket);
        RAILCCL_CHECK(texts.status());
        UniqueId found_id{};
        int holders = 0;
        for (const std::string& text : *texts) {
          Unpacker unpacker(text);
          uint64_t wanted = 0;
          std::string bytes;
          if (!unpacker.get(&wanted) || !unpacker.get(&bytes) || !unpacker.at_end() ||
              (!bytes.empty() && bytes.size() != found_id.size()))
            return Status(Code::remote, Scope::communicator, "grow: a rank sent nonsense");
          if (wanted != static_cast<uint64_t>(ranks))
            return Status(Code::mismatch, "one rank grows to {} ranks, another to {}", ranks,
                          wanted);
          if (bytes.empty()) continue;
          std::memcpy(found_id.data(), bytes.data(), found_id.size());
          holders++;
        }
        if (holders != 1)
          return Status(Code::invalid_usage,
                        "{} ranks gave the unique id; exactly one has to, that which made it",
                        holders);
        return child->enter(found_id);
      });
  if (!founded.is_ok()) return founded;
  return std::shared_ptr<Communicator>(child);
}

}  // namespace railccl::runtime
