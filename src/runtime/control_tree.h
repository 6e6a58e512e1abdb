// ControlTree: one rank's node of the control tree. Private to this room; see control.h.
//
// Threads. mutex_ guards everything below it. The reactor's thread reads the sockets; any thread
// writes to them, at once, so that a failure or a goodbye is with the kernel before the process may
// end; what the kernel does not take waits in Edge::out. Order of locks: mutex_, then the
// reactor's. on_failure is called without mutex_ and under callback_mutex_, which detach() takes
// to be sure that it is not running any more.
//
// Life. The user's handle detaches; the node then stays with the reactor, and relays between its
// neighbours, until each of them has said goodbye or closed, too.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "runtime/control.h"
#include "runtime/control_wire.h"
#include "runtime/reactor.h"
#include "runtime/rendezvous_wire.h"

namespace railccl::runtime {

class ControlTree final : public Control,
                          public Reactor::Client,
                          public std::enable_shared_from_this<ControlTree> {
 public:
  ControlTree(std::unique_ptr<Meeting> meeting, std::function<void()> on_failure, Reactor* reactor);
  ~ControlTree() override;
  Status begin();
  void detach();

  void report_stall(uint64_t sequence, const std::string& call, int64_t waited_ms) override;
  void note_done(uint64_t sequence) override;
  // Acquire, partner: note_done(). Whoever finds an operation finished finds its record.
  uint64_t finished() const override { return finished_.load(std::memory_order_acquire); }
  void report_mismatch(uint64_t sequence, const std::string& mine, int peer,
                       const std::string& theirs) override;
  std::string who_is_missing(uint64_t sequence) override;
  std::vector<RankNews> news() const override;
  void fail(const Status& why) override;
  Result<std::vector<std::string>> all_gather(const std::string& mine, int64_t timeout_ms) override;
  Traffic traffic() const override;
  void leave() override;

  void on_ready(uint32_t socket_index) override;
  void on_wake() override;

 private:
  struct Edge {
    int rank = -1;
    bool up = false;  // leads to the parent
    UniqueFd socket;  // empty: closed
    std::string in;
    std::string out;
    bool blocked = false;  // `out` waits for the socket
    bool left = false;     // said goodbye
    std::string who;       // "rank 3 (host, pid 12)"
  };
  struct Gather {
    Contributions parts;
    bool mine = false;
    std::set<int> heard;  // children whose subtree is in
    bool sent = false;
    bool abandoned = false;  // nobody waits for the result any more
    std::optional<std::vector<std::string>> result;
  };
  /// A question at rank 0: who has not entered operation `sequence`?
  struct Query {
    int asker = 0;
    uint64_t asker_query = 0;
    uint64_t sequence = 0;
    int64_t due_ns = 0;
    std::map<int, uint64_t> entered;  // rank -> count
  };
  struct Stall {
    uint64_t sequence = 0;
    std::string call;
    int64_t told_ns = 0;
  };

  Status failure() const override;
  bool inherited() const { return !reactor_->is_current(); }

  // Under mutex_.
  void send(Edge& edge, const ControlMessage& message);
  void send_down(const ControlMessage& message);
  /// To the parent; at the top of the tree (rank 0, or the parent has gone) to handle().
  void send_up(const ControlMessage& message);
  void flush(Edge& edge);
  bool take_frame(Edge& edge);  // handles one complete frame of edge.in
  void handle(Edge* from, const ControlMessage& message);
  void close(Edge& edge);
  void lost(Edge& edge);
  void fail_from(const Status& why, int noticed_by, const Edge* from);
  void finish_if_done();
  Edge* parent();

  void note_stall(int rank, uint64_t sequence, const std::string& call);
  Status judge() const;
  void judge_soon();
  void advance(uint64_t round);
  void begin_query(const ControlMessage& question);
  void end_queries(int64_t now_ns);
  ControlMessage own_report(uint64_t query) const;

  const int rank_;
  const int ranks_;
  Reactor* const reactor_;
  uint64_t id_ = 0;
  std::atomic<uint64_t> finished_{0};  // count of operations

  std::recursive_mutex callback_mutex_;
  std::function<void()> on_failure_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Edge> edges_;
  Traffic traffic_;
  Status failure_;
  bool left_ = false;
  bool detached_ = false;
  bool removed_ = false;
  Stall own_stall_;
  bool stalled_ = false;  // own_stall_ is set

  uint64_t rounds_ = 0;
  std::map<uint64_t, Gather> gathers_;

  uint64_t queries_ = 0;
  std::map<uint64_t, std::optional<std::string>> answers_;  // to this rank's questions

  // At the top of the tree.
  std::map<int, std::deque<Stall>> stalls_;  // the last few of each rank
  std::map<int, uint64_t> gone_;             // ranks that left -> count of finished operations
  int64_t judgement_ns_ = 0;                 // when to judge; 0: nothing looks wrong
  std::map<uint64_t, Query> open_queries_;
};

}  // namespace railccl::runtime
