// Control: sockets, failures, deaths and goodbyes of a node of the control tree; what the nodes
// talk about is in control_talk.cc.
#include "runtime/control.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "runtime/control_tree.h"
#include "runtime/sockets.h"

namespace railccl::runtime {
namespace {

constexpr size_t kReadBytes = 64 << 10;
constexpr int kReadsMax = 64;  // per turn, so that one socket cannot occupy the thread
constexpr size_t kBacklogBytesMax = 1 << 20;

std::string host_name() {
  char name[256] = "?";
  ::gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

Result<std::shared_ptr<Control>> Control::start(std::unique_ptr<Meeting> meeting, const Settings&,
                                                std::function<void()> on_failure) {
  RAILCCL_TRY(Reactor * reactor, Reactor::get());
  auto node = std::make_shared<ControlTree>(std::move(meeting), std::move(on_failure), reactor);
  RAILCCL_CHECK(node->begin());
  // The handle's end is not the node's: see ControlTree's life.
  Control* const handle = node.get();
  return std::shared_ptr<Control>(handle, [node = std::move(node)](Control*) { node->detach(); });
}

ControlTree::ControlTree(std::unique_ptr<Meeting> meeting, std::function<void()> on_failure,
                         Reactor* reactor)
    : rank_(meeting->rank()),
      ranks_(meeting->ranks()),
      reactor_(reactor),
      on_failure_(std::move(on_failure)),
      traffic_(meeting->traffic()) {
  for (Neighbour& neighbour : meeting->take_neighbours()) {
    Edge edge;
    edge.rank = neighbour.rank;
    edge.up = neighbour.rank == tree_parent(rank_);
    edge.socket = std::move(neighbour.socket);
    edge.who = fmt::format("rank {}", neighbour.rank);
    edges_.push_back(std::move(edge));
  }
}

ControlTree::~ControlTree() {
  // After a fork the child must not close what the numbers mean now.
  if (inherited())
    for (Edge& edge : edges_) (void)edge.socket.release();
}

Status ControlTree::begin() {
  assert(edges_.size() <= Reactor::kSocketsMax);
  id_ = reactor_->add(shared_from_this());
  std::lock_guard lock(mutex_);
  ControlMessage intro;
  intro.kind = ControlKind::intro;
  intro.rank = rank_;
  intro.number = static_cast<uint64_t>(::getpid());
  intro.text = host_name();
  for (size_t i = 0; i < edges_.size(); i++) {
    Edge& edge = edges_[i];
    const Status watched = reactor_->watch(id_, static_cast<uint32_t>(i), edge.socket.get());
    if (!watched.is_ok()) {
      for (Edge& opened : edges_) close(opened);
      reactor_->remove(id_);
      return watched.context("rank {}: cannot watch the control tree", rank_);
    }
    send(edge, intro);
  }
  return ok();
}

void ControlTree::detach() {
  if (inherited()) return;  // its locks may be held by threads that the child does not have
  {
    std::lock_guard lock(callback_mutex_);
    on_failure_ = nullptr;
  }
  std::lock_guard lock(mutex_);
  detached_ = true;
  // Neither goodbye nor failure: the neighbours shall take it for the death that it is.
  if (!left_ && failure_.is_ok())
    for (Edge& edge : edges_) close(edge);
  finish_if_done();
}

Status ControlTree::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

Traffic ControlTree::traffic() const {
  std::lock_guard lock(mutex_);
  return traffic_;
}

void ControlTree::fail(const Status& why) {
  if (inherited() || why.is_ok()) return;
  std::lock_guard lock(mutex_);
  fail_from(why, rank_, nullptr);
}

void ControlTree::leave() {
  if (inherited()) return;
  std::lock_guard lock(mutex_);
  if (left_) return;
  left_ = true;
  ControlMessage goodbye;
  goodbye.kind = ControlKind::leave;
  goodbye.rank = rank_;
  goodbye.number = finished_.load(std::memory_order_relaxed);
  for (Edge& edge : edges_) send(edge, goodbye);
  handle(nullptr, goodbye);
}

// ---- Sockets ------------------------------------------------------------------------------------

ControlTree::Edge* ControlTree::parent() {
  for (Edge& edge : edges_)
    if (edge.up && edge.socket) return &edge;
  return nullptr;
}

void ControlTree::send(Edge& edge, const ControlMessage& message) {
  if (!edge.socket) return;
  // A neighbour that does not read must not fill this process's memory with reports.
  if (message.kind == ControlKind::stall && edge.out.size() > kBacklogBytesMax) return;
  traffic_.sent++;
  const std::string bytes = encode(message);
  const uint64_t size = bytes.size();
  edge.out.append(reinterpret_cast<const char*>(&size), kLengthBytes);
  edge.out.append(bytes);
  if (!edge.blocked) flush(edge);
}

void ControlTree::send_down(const ControlMessage& message) {
  for (Edge& edge : edges_)
    if (!edge.up) send(edge, message);
}

void ControlTree::send_up(const ControlMessage& message) {
  if (Edge* up = parent())
    send(*up, message);
  else
    handle(nullptr, message);
}

void ControlTree::flush(Edge& edge) {
  size_t done = 0;
  while (done < edge.out.size()) {
    const ssize_t sent = ::send(edge.socket.get(), edge.out.data() + done, edge.out.size() - done,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
    } else if (errno != EINTR) {
      // A broken connection shows when reading, after what arrived before it broke.
      if (errno != EAGAIN && errno != EWOULDBLOCK) done = edge.out.size();
      break;
    }
  }
  edge.out.erase(0, done);
  const bool blocked = !edge.out.empty();
  if (blocked != edge.blocked) {
    edge.blocked = blocked;
    const auto index = static_cast<uint32_t>(&edge - edges_.data());
    reactor_->want_write(id_, index, edge.socket.get(), blocked);
  }
}

void ControlTree::close(Edge& edge) {
  if (!edge.socket) return;
  reactor_->forget(edge.socket.get());
  edge.socket.reset();
  edge.in.clear();
  edge.out.clear();
}

void ControlTree::on_ready(uint32_t socket_index) {
  std::lock_guard lock(mutex_);
  Edge& edge = edges_[socket_index];
  if (!edge.socket) return;
  if (edge.blocked) flush(edge);
  bool closed = false;
  for (int reads = 0; reads < kReadsMax && !closed && edge.socket; reads++) {
    char buffer[kReadBytes];
    const ssize_t got = ::recv(edge.socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    closed = got <= 0;
    if (got > 0) edge.in.append(buffer, static_cast<size_t>(got));
    while (edge.socket && take_frame(edge)) {
    }
  }
  if (closed) lost(edge);
  finish_if_done();
}

bool ControlTree::take_frame(Edge& edge) {
  if (edge.in.size() < kLengthBytes) return false;
  uint64_t size = 0;
  std::memcpy(&size, edge.in.data(), kLengthBytes);
  Status bad;
  if (size > control_frame_bytes_max(ranks_)) {
    bad = Status(Code::remote, "a control message of {} bytes; at most {} are allowed", size,
                 control_frame_bytes_max(ranks_));
  } else if (edge.in.size() - kLengthBytes < size) {
    return false;
  } else {
    auto message = parse_control(std::string_view(edge.in).substr(kLengthBytes, size), ranks_);
    edge.in.erase(0, kLengthBytes + size);
    traffic_.received++;
    if (message.is_ok() && !(edge.up ? comes_down(message->kind) : comes_up(message->kind))) {
      bad = Status(Code::remote, "a {} message that goes the wrong way", name_of(message->kind));
    } else if (message.is_ok()) {
      handle(&edge, *message);
      return true;
    } else {
      bad = message.status();
    }
  }
  const Status why = bad.widen(Scope::communicator).context("{} sent nonsense", edge.who);
  close(edge);
  fail_from(why, rank_, &edge);
  return false;
}

// ---- Failures, deaths, goodbyes -----------------------------------------------------------------

void ControlTree::fail_from(const Status& why, int noticed_by, const Edge* from) {
  if (!failure_.is_ok()) return;
  failure_ = why.widen(Scope::communicator);
  // Release, partner: the acquire in verdict() and failed().
  failed_.store(true, std::memory_order_release);
  log::info("rank {}: communicator failed: {}", rank_, failure_.text());
  ControlMessage message;
  message.kind = ControlKind::fail;
  message.rank = noticed_by;
  message.number = static_cast<uint64_t>(failure_.code());
  message.extra = static_cast<uint64_t>(failure_.scope());
  message.text = failure_.text();
  for (Edge& edge : edges_)
    if (&edge != from) send(edge, message);
  changed_.notify_all();
  reactor_->poke(id_);  // on_failure is the control thread's to call
}

void ControlTree::lost(Edge& edge) {
  const bool expected = edge.left || !failure_.is_ok();
  close(edge);
  if (!expected) {
    fail_from(Status(Code::remote, Scope::communicator, "{} {}", edge.who, kVanished), rank_,
              &edge);
  } else if (edge.up && failure_.is_ok()) {
    judge_soon();  // this node is the top of its part of the tree from here on
  }
}

void ControlTree::finish_if_done() {
  if (!detached_ || removed_) return;
  for (Edge& edge : edges_) {
    const bool flushed = edge.out.empty();
    const bool done = failure_.is_ok() ? left_ && edge.left && flushed : flushed;
    if (edge.socket && !done) return;
  }
  for (Edge& edge : edges_) close(edge);
  removed_ = true;
  reactor_->remove(id_);
}

void ControlTree::on_wake() {
  {
    std::lock_guard lock(callback_mutex_);
    // Moved out first: the callback may end in detach(), which clears the member.
    if (failed() && on_failure_) std::exchange(on_failure_, nullptr)();
  }
  std::lock_guard lock(mutex_);
  const int64_t now = now_ns();
  if (judgement_ns_ != 0 && now >= judgement_ns_) {
    judgement_ns_ = 0;
    if (const Status verdict = judge(); !verdict.is_ok()) fail_from(verdict, rank_, nullptr);
  }
  end_queries(now);
  finish_if_done();
}

}  // namespace railccl::runtime
