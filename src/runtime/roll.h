// Roll: how the ranks of a failed communicator agree on who is left and on what each of them has
// to say; one rank's side of it.
//
// The ranks call the roll in rounds, in the same order on all. In each, every rank that lives
// gives a text, and all that get a result get the same one: the texts of those that took part, and
// what became of the others. Ranks may die at any moment, also in the middle, any number of them.
//
// It is the leader-based uniform consensus with a perfect failure detector of Guerraoui
// ("Hierarchical Uniform Consensus"; Cachin, Guerraoui & Rodrigues, Introduction to Reliable and
// Secure Distributed Programming, 2011, 5.3.3): the lowest rank that is not gone leads. It collects
// the texts, proposes their list, and decides when all that live have acknowledged it. Who finds
// the leader gone turns to the next, and brings along what it has accepted last; a leader that
// hears of an accepted list has no choice but to propose that. Messages: 4 for each rank and round,
// one more for each rank that has to be called; rounds that no leader dies in take two journeys to
// and fro.
//
// That a silent rank is dead is a guess. One that is found to be wrong learns that it was
// excluded; and a result in which silence has cost the majority is none: majority() tells.
//
// No I/O and no clock: whoever owns it carries the posts, tells of ranks that are gone, and gives
// up those that do not come. One thread. Private to this room.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace railccl::runtime {

struct RollMessage {
  enum class Kind : uint8_t {
    call = 1,     // the leader to a rank: take part in `round`; text = who is gone
    join,         // a rank to the leader: text = Joining
    propose,      // the leader: text = the list
    acknowledge,  // a rank: has accepted `ballot`'s list
    decide,       // text = the list
    gone,         // the leader: text = who, and how
    leaving,      // this rank has no more part in anything: not a death
    excluded,     // the receiver is taken for gone
    alive,        // nothing but a sign of life
  };
  Kind kind = Kind::alive;
  uint64_t round = 0;
  uint64_t ballot = 0;  // the rank of the leader who made the list
  std::string text;
  friend bool operator==(const RollMessage&, const RollMessage&) = default;
};
std::string encode(const RollMessage& message);
/// Takes arbitrary bytes.
Result<RollMessage> parse_roll(std::string_view bytes);
inline constexpr uint64_t kRollBytesMax = uint64_t{64} << 20;

/// What became of a rank.
enum class Gone : uint8_t {
  no,
  died,    // its connection closed, or nobody listens there any more
  silent,  // it does not answer: stopped, or cut off
  left,    // it has ended its part on purpose
  absent,  // it lives, but did not take part in time
};

/// A round's result, the same on all ranks that have it.
struct RollResult {
  std::vector<std::optional<std::string>> texts;  // index = rank; of those that took part
  std::vector<Gone> gone;                         // index = rank; of those that did not
  std::vector<int> members() const;
  /// Do those that took part outnumber those that may live somewhere else without being heard?
  bool majority() const;
};
std::string encode(const RollResult& result);
Result<RollResult> parse_roll_result(std::string_view bytes, int ranks);

class Roll {
 public:
  struct Post {
    int to = 0;
    RollMessage message;
  };
  Roll(int rank, int ranks);

  /// This rank takes part in `round`.
  void contribute(uint64_t round, std::string text);
  void receive(int from, const RollMessage& message);
  /// `rank` is gone for ever.
  void lose(int rank, Gone how);
  /// Whoever has not joined `round` by now is gone; only where this rank leads it.
  void give_up(uint64_t round);
  /// A leader that has not led `round` by now is gone.
  void give_up_leader(uint64_t round);
  /// What to send, in order.
  std::vector<Post> take_posts() { return std::exchange(posts_, {}); }

  /// The result; null: not yet.
  const RollResult* result(uint64_t round) const;
  /// Does another rank want this one to take part in `round`?
  bool wanted(uint64_t round) const;
  /// The others go on without this rank.
  bool excluded() const { return excluded_; }
  Gone gone(int rank) const { return gone_[static_cast<size_t>(rank)]; }
  /// Does this rank wait for others in `round`, as its leader?
  bool collecting(uint64_t round) const;
  /// Does this rank wait in `round` for a leader that has not taken part in it yet?
  bool leaderless(uint64_t round) const;

 private:
  /// A rank's word to its leader.
  struct Joining {
    std::string text;
    bool decided = false;
    std::optional<uint64_t> ballot;  // of the list that it has accepted
    std::string list;
  };
  struct Round {
    std::optional<std::string> mine;
    bool wanted = false;
    int joined_at = -1;  // the leader that has this rank's word
    int led_by = -1;     // the last one that has led it
    std::optional<uint64_t> accepted_ballot;
    std::string accepted;
    std::optional<RollResult> result;  // of the decided list, which is `accepted` then
    // As leader.
    std::map<int, Joining> joined;
    std::set<int> called;
    std::set<int> acknowledged;
    bool proposed = false;
  };
  static std::string encode(const Joining& joining);
  static bool parse(std::string_view bytes, Joining* joining);

  int leader() const;
  bool lives(int rank) const { return gone_[static_cast<size_t>(rank)] == Gone::no; }
  void post(int to, RollMessage::Kind kind, uint64_t round, uint64_t ballot = 0,
            std::string text = {});
  void advance(uint64_t number);
  void lead(uint64_t number, Round& round);
  void decide(uint64_t number, Round& round, const std::string& list);
  std::string gone_text() const;
  void hear_gone(std::string_view text);

  const int rank_;
  const int ranks_;
  std::vector<Gone> gone_;
  bool excluded_ = false;
  std::map<uint64_t, Round> rounds_;
  std::vector<Post> posts_;
};

}  // namespace railccl::runtime
