// The rounds of a roll, step by step; see roll.h.
#include "runtime/roll.h"

#include <algorithm>

#include "runtime/pack.h"

namespace railccl::runtime {

using Kind = RollMessage::Kind;

std::string encode(const RollMessage& message) {
  return std::move(Packer()
                       .add(static_cast<uint64_t>(message.kind))
                       .add(message.round)
                       .add(message.ballot)
                       .add(message.text))
      .take();
}

Result<RollMessage> parse_roll(std::string_view bytes) {
  Unpacker unpacker(bytes);
  uint64_t kind = 0;
  RollMessage message;
  if (!unpacker.get(&kind) || kind < static_cast<uint64_t>(Kind::call) ||
      kind > static_cast<uint64_t>(Kind::alive) || !unpacker.get(&message.round) ||
      !unpacker.get(&message.ballot) || !unpacker.get(&message.text) || !unpacker.at_end())
    return Status(Code::remote, "malformed message of a roll, {} bytes", bytes.size());
  message.kind = static_cast<Kind>(kind);
  return message;
}

std::vector<int> RollResult::members() const {
  std::vector<int> ranks;
  for (size_t rank = 0; rank < texts.size(); rank++)
    if (texts[rank]) ranks.push_back(static_cast<int>(rank));
  return ranks;
}

bool RollResult::majority() const {
  size_t here = 0, silent = 0;
  int lowest_silent = -1, lowest_here = -1;
  for (size_t rank = 0; rank < texts.size(); rank++) {
    if (texts[rank]) {
      here++;
      if (lowest_here < 0) lowest_here = static_cast<int>(rank);
    } else if (gone[rank] == Gone::silent) {
      silent++;
      if (lowest_silent < 0) lowest_silent = static_cast<int>(rank);
    }
  }
  // Of two halves one has to be the right one: that with the lowest rank.
  return here > silent || (here == silent && lowest_here < lowest_silent);
}

std::string encode(const RollResult& result) {
  Packer packer;
  for (size_t rank = 0; rank < result.texts.size(); rank++) {
    const bool here = result.texts[rank].has_value();
    packer.add(here ? uint64_t{0} : static_cast<uint64_t>(result.gone[rank]) + 1);
    if (here) packer.add(*result.texts[rank]);
  }
  return std::move(packer).take();
}

Result<RollResult> parse_roll_result(std::string_view bytes, int ranks) {
  Unpacker unpacker(bytes);
  RollResult result;
  bool good = true;
  for (int rank = 0; good && rank < ranks; rank++) {
    uint64_t mark = 0;
    std::string text;
    good = unpacker.get(&mark) && mark <= static_cast<uint64_t>(Gone::absent) + 1 &&
           (mark != 0 || unpacker.get(&text));
    result.texts.push_back(mark == 0 ? std::optional(std::move(text)) : std::nullopt);
    result.gone.push_back(mark == 0 ? Gone::no : static_cast<Gone>(mark - 1));
  }
  if (!good || !unpacker.at_end())
    return Status(Code::remote, "malformed result of a roll, {} bytes", bytes.size());
  return result;
}

std::string Roll::encode(const Joining& joining) {
  return std::move(Packer()
                       .add(joining.text)
                       .add(uint64_t{joining.decided})
                       .add(joining.ballot ? *joining.ballot + 1 : 0)
                       .add(joining.list))
      .take();
}

bool Roll::parse(std::string_view bytes, Joining* joining) {
  Unpacker unpacker(bytes);
  uint64_t decided = 0, ballot = 0;
  if (!unpacker.get(&joining->text) || !unpacker.get(&decided) || !unpacker.get(&ballot) ||
      !unpacker.get(&joining->list) || !unpacker.at_end())
    return false;
  joining->decided = decided != 0;
  if (ballot > 0) joining->ballot = ballot - 1;
  return true;
}

Roll::Roll(int rank, int ranks)
    : rank_(rank), ranks_(ranks), gone_(static_cast<size_t>(ranks), Gone::no) {}

int Roll::leader() const {
  for (int rank = 0; rank < rank_; rank++)
    if (lives(rank)) return rank;
  return rank_;
}

void Roll::post(int to, Kind kind, uint64_t round, uint64_t ballot, std::string text) {
  posts_.push_back({to, {kind, round, ballot, std::move(text)}});
}

const RollResult* Roll::result(uint64_t round) const {
  const auto found = rounds_.find(round);
  return found != rounds_.end() && found->second.result ? &*found->second.result : nullptr;
}

bool Roll::wanted(uint64_t round) const {
  const auto found = rounds_.find(round);
  return found != rounds_.end() && (found->second.wanted || !found->second.joined.empty());
}

bool Roll::collecting(uint64_t round) const {
  const auto found = rounds_.find(round);
  return found != rounds_.end() && leader() == rank_ && found->second.mine &&
         !found->second.proposed && !found->second.result;
}

void Roll::contribute(uint64_t round, std::string text) {
  rounds_[round].mine = std::move(text);
  advance(round);
}

void Roll::advance(uint64_t number) {
  Round& round = rounds_[number];
  if (excluded_ || !round.mine) return;
  const int first = leader();
  if (first == rank_) return lead(number, round);
  if (round.joined_at == first) return;
  round.joined_at = first;
  post(first, Kind::join, number, 0,
       encode(
           Joining{*round.mine, round.result.has_value(), round.accepted_ballot, round.accepted}));
}

void Roll::lead(uint64_t number, Round& round) {
  if (round.result) return;
  // Decided is decided, whoever of the others is still on its way.
  for (const auto& [rank, joining] : round.joined)
    if (joining.decided) return decide(number, round, std::string(joining.list));
  bool complete = true;
  for (int rank = 0; rank < ranks_; rank++) {
    if (rank == rank_ || !lives(rank)) continue;
    complete &=
        round.joined.contains(rank) && (!round.proposed || round.acknowledged.contains(rank));
  }
  if (!complete) {
    // Those that have joined, too: they learn that the round is led.
    for (int rank = 0; rank < ranks_; rank++)
      if (rank != rank_ && lives(rank) && !round.proposed && round.called.insert(rank).second)
        post(rank, Kind::call, number, 0, gone_text());
    return;
  }
  if (round.proposed) return decide(number, round, std::string(round.accepted));
  std::optional<uint64_t> ballot = round.accepted_ballot;
  std::string list = round.accepted;
  for (const auto& [rank, joining] : round.joined) {
    if (!lives(rank) || !joining.ballot || (ballot && *ballot >= *joining.ballot)) continue;
    ballot = joining.ballot;
    list = joining.list;
  }
  if (!ballot) {
    RollResult result;
    result.texts.resize(static_cast<size_t>(ranks_));
    result.gone = gone_;
    result.texts[static_cast<size_t>(rank_)] = *round.mine;
    for (const auto& [rank, joining] : round.joined)
      if (lives(rank)) result.texts[static_cast<size_t>(rank)] = joining.text;
    list = runtime::encode(result);
  }
  round.accepted_ballot = static_cast<uint64_t>(rank_);
  round.accepted = std::move(list);
  round.proposed = true;
  for (const auto& [rank, joining] : round.joined)
    if (lives(rank))
      post(rank, Kind::propose, number, static_cast<uint64_t>(rank_), round.accepted);
  lead(number, round);  // alone there is nobody to wait for
}

void Roll::decide(uint64_t number, Round& round, const std::string& list) {
  auto result = parse_roll_result(list, ranks_);
  if (round.result || !result.is_ok()) return;
  round.accepted = list;
  round.result = std::move(result).value();
  for (const auto& [rank, joining] : round.joined)
    if (lives(rank)) post(rank, Kind::decide, number, 0, list);
}

void Roll::receive(int from, const RollMessage& message) {
  if (excluded_) return;
  if (!lives(from)) {
    if (message.kind != Kind::excluded && gone(from) != Gone::left)
      post(from, Kind::excluded, message.round);
    if (message.kind == Kind::excluded) excluded_ = true;
    return;
  }
  switch (message.kind) {
    case Kind::call:
      rounds_[message.round].wanted = true;
      rounds_[message.round].led_by = from;
      return hear_gone(message.text);
    case Kind::join: {
      Joining joining;
      if (!parse(message.text, &joining)) return;
      Round& round = rounds_[message.round];
      if (round.result) return post(from, Kind::decide, message.round, 0, round.accepted);
      // One that comes after the proposal is one that the leader before had not lost: it has
      // accepted nothing newer, and is told what the others are told.
      round.joined[from] = std::move(joining);
      if (round.proposed)
        post(from, Kind::propose, message.round, static_cast<uint64_t>(rank_), round.accepted);
      return advance(message.round);
    }
    case Kind::propose: {
      Round& round = rounds_[message.round];
      if (from != leader() || !round.mine || round.result) return;
      round.led_by = from;
      round.accepted_ballot = static_cast<uint64_t>(from);
      round.accepted = message.text;
      return post(from, Kind::acknowledge, message.round, static_cast<uint64_t>(from));
    }
    case Kind::acknowledge: {
      Round& round = rounds_[message.round];
      if (message.ballot != static_cast<uint64_t>(rank_)) return;
      round.acknowledged.insert(from);
      return advance(message.round);
    }
    case Kind::decide: {
      Round& round = rounds_[message.round];
      return decide(message.round, round, message.text);
    }
    case Kind::gone:
      return hear_gone(message.text);
    case Kind::leaving:
      return lose(from, Gone::left);
    case Kind::excluded:
      excluded_ = true;
      return;
    case Kind::alive:
      return;
  }
}

void Roll::lose(int rank, Gone how) {
  if (rank == rank_ || !lives(rank)) return;
  const bool led = leader() == rank_;
  gone_[static_cast<size_t>(rank)] = how;
  if (how == Gone::silent || how == Gone::absent) post(rank, Kind::excluded, 0);
  if (led)
    for (int other = 0; other < ranks_; other++) {
      const bool known = std::any_of(rounds_.begin(), rounds_.end(), [&](const auto& entry) {
        return entry.second.joined.contains(other);
      });
      if (known && lives(other)) post(other, Kind::gone, 0, 0, gone_text());
    }
  for (auto& [number, round] : rounds_) advance(number);
}

std::string Roll::gone_text() const {
  Packer packer;
  for (int rank = 0; rank < ranks_; rank++)
    if (!lives(rank))
      packer.add(static_cast<uint64_t>(rank)).add(static_cast<uint64_t>(gone(rank)));
  return std::move(packer).take();
}

void Roll::hear_gone(std::string_view text) {
  Unpacker unpacker(text);
  uint64_t rank = 0, how = 0;
  while (unpacker.get(&rank) && rank < static_cast<uint64_t>(ranks_) && unpacker.get(&how) &&
         how >= 1 && how <= static_cast<uint64_t>(Gone::absent))
    lose(static_cast<int>(rank), static_cast<Gone>(how));
}

bool Roll::leaderless(uint64_t round) const {
  const auto found = rounds_.find(round);
  return found != rounds_.end() && found->second.mine && !found->second.result &&
         leader() != rank_ && found->second.led_by != leader();
}

void Roll::give_up_leader(uint64_t round) {
  if (leaderless(round)) lose(leader(), Gone::absent);
}

void Roll::give_up(uint64_t number) {
  if (!collecting(number)) return;
  for (int rank = 0; rank < ranks_; rank++)
    if (rank != rank_ && lives(rank) && !rounds_[number].joined.contains(rank))
      lose(rank, Gone::absent);
}

}  // namespace railccl::runtime
