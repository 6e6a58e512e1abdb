// Split: a new communicator among the ranks of an old one that gave the same color.
//
// The old communicator's control plane carries one exchange: color, key, and where each rank
// listens. Everyone then knows the members of its new communicator, in the order of (key, old
// rank), and meets them without a root.
#include <algorithm>

#include "base/log.h"
#include "base/random.h"
#include "runtime/member.h"
#include "runtime/pack.h"

namespace railccl::runtime {

namespace {

struct Candidate {
  int64_t color = -1;
  int64_t key = 0;
  int rank = 0;  // in the old communicator
  std::string address;
};

bool decode(const std::string& bytes, Candidate* candidate) {
  Unpacker unpacker(bytes);
  uint64_t color = 0, key = 0;
  if (!unpacker.get(&color) || !unpacker.get(&key) || !unpacker.get(&candidate->address))
    return false;
  candidate->color = static_cast<int64_t>(color);
  candidate->key = static_cast<int64_t>(key);
  return unpacker.at_end();
}

}  // namespace

Result<std::shared_ptr<Communicator>> Member::split(int color, int key, const Config& config) {
  RAILCCL_CHECK(usable());
  // The new rank and size are known only when all have answered.
  auto child = std::make_shared<Member>(-1, 0, config, settings_);
  const uint64_t ticket = turns_.take();
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  RAILCCL_CHECK(found(config, child, [self, child, color, key, ticket] {
    self->turns_.wait(ticket);
    const Status status = self->split_now(color, key, *child);
    self->turns_.leave(ticket);
    return status;
  }));
  if (color < 0) return std::shared_ptr<Communicator>();
  return std::shared_ptr<Communicator>(child);
}

Status Member::split_now(int color, int key, Member& child) {
  if (troubled()) return trouble();
  UniqueFd listener;
  Candidate mine;
  if (color >= 0) {
    RAILCCL_TRY(auto opened, Meeting::open_listener(settings_));
    listener = std::move(opened.first);
    mine.address = std::move(opened.second);
  }
  const uint64_t number = splits_++;
  const auto sign = [](int value) { return static_cast<uint64_t>(int64_t{value}); };
  Packer packer;
  packer.add(sign(color)).add(sign(key)).add(mine.address);
  RAILCCL_TRY(const std::vector<std::string> texts,
              parts_.control->all_gather(std::move(packer).take(), settings_.init_timeout_ms));
  std::vector<Candidate> members;
  for (size_t r = 0; r < texts.size(); r++) {
    Candidate candidate;
    if (!decode(texts[r], &candidate))
      return Status(Code::remote, Scope::communicator, "split: rank {} sent nonsense", r);
    candidate.rank = static_cast<int>(r);
    if (candidate.color == color) members.push_back(std::move(candidate));
  }
  if (color < 0) return ok();
  std::stable_sort(members.begin(), members.end(),
                   [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
  std::vector<int> old_ranks;
  std::vector<std::string> addresses;
  int new_rank = -1;
  for (const Candidate& member : members) {
    if (member.rank == rank()) new_rank = static_cast<int>(old_ranks.size());
    old_ranks.push_back(member.rank);
    addresses.push_back(member.address);
  }
  child.rank_.store(new_rank);
  child.ranks_.store(static_cast<int>(members.size()));
  // A secret for the new communicator that all its members can compute and nobody else.
  const uint64_t words[3] = {parts_.job, number, sign(color)};
  const uint64_t job = hash_bytes(words, sizeof words, parts_.job);
  RAILCCL_TRY(auto meeting, Meeting::join_known(job, new_rank, addresses, std::move(listener),
                                                settings_, &child.cancel_));
  const topology::Topology topology = topology_->subset(old_ranks);
  return child.enter(std::move(meeting), &topology);
}

}  // namespace railccl::runtime
