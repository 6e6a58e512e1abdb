// Ranks as processes, for the tests in which a process has to end: forked children that exchange
// transport addresses through pipes held by the parent.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/owners.h"
#include "transport/harness.h"

namespace railccl::transport {

/// 0 for success; prints the failure (of a child process) and gives 9 otherwise.
inline int report(const Status& status) {
  if (status.is_ok()) return 0;
  std::fprintf(stderr, "child %d: %s\n", static_cast<int>(getpid()), status.text().c_str());
  return 9;
}

/// Runs `body` in a process per rank, with the transport set up; exit codes by rank (128 + signal
/// for killed ones). A body returns 0 for success.
inline std::vector<int> run_processes(const std::string& kind, int ranks, const Settings& settings,
                                      const std::function<int(Transport&, int, int)>& body) {
  uint64_t job = 0;
  EXPECT_TRUE(secret_bytes(&job, sizeof(job)));
  std::vector<UniqueFd> parent_ends;
  std::vector<pid_t> children;
  const auto write_text = [](int fd, const std::string& text) {
    const size_t size = text.size();
    return write(fd, &size, sizeof(size)) == sizeof(size) &&
           write(fd, text.data(), size) == static_cast<ssize_t>(size);
  };
  const auto read_text = [](int fd) {
    size_t size = 0;
    if (read(fd, &size, sizeof(size)) != sizeof(size)) return std::string();
    std::string text(size, '\0');
    size_t got = 0;
    while (got < size) {
      const ssize_t n = read(fd, text.data() + got, size - got);
      if (n <= 0) return std::string();
      got += static_cast<size_t>(n);
    }
    return text;
  };
  for (int r = 0; r < ranks; r++) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      parent_ends.clear();
      const uint64_t process = 1000 + static_cast<uint64_t>(r);
      auto made = kind_of(kind).create(context_of(r, ranks, job, process, settings));
      if (!made.is_ok()) _exit(report(made.status()));
      write_text(ends[1], (*made)->address());
      Peers peers;
      for (int p = 0; p < ranks; p++) {
        peers.addresses.push_back(read_text(ends[1]));
        peers.host_ids.push_back(77);
        peers.processes.push_back(1000 + static_cast<uint64_t>(p));
      }
      if (Status status = (*made)->set_peers(peers); !status.is_ok()) _exit(report(status));
      const int code = body(**made, r, ranks);
      made->reset();
      _exit(code);
    }
    close(ends[1]);
    parent_ends.emplace_back(ends[0]);
    children.push_back(pid);
  }
  std::vector<std::string> addresses;
  for (UniqueFd& end : parent_ends) addresses.push_back(read_text(end.get()));
  for (UniqueFd& end : parent_ends)
    for (const std::string& address : addresses) write_text(end.get(), address);
  std::vector<int> codes;
  for (const pid_t pid : children) {
    int status = 0;
    waitpid(pid, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return codes;
}

/// Exchanges one byte `rounds` times between ranks 0 and 1, sleeping whenever nothing is there.
/// A lost wake-up shows as a wait that runs its full 2 s.
inline int ping_pong(Transport& transport, int rank, int rounds) {
  Result<Link*> link = transport.link(1 - rank, 0);
  if (!link.is_ok()) return report(link.status());
  std::byte byte{0};
  const iovec range{&byte, 1};
  int64_t longest_ns = 0;
  for (int i = 0; i < 2 * rounds; i++) {
    const bool mine = i % 2 == rank;
    while (true) {
      Result<size_t> moved = mine ? (*link)->send({&range, 1}) : (*link)->receive(&byte, 1);
      if (!moved.is_ok()) return report(moved.status());
      if (*moved == 1) break;
      if (Status status = transport.progress(); !status.is_ok()) return report(status);
      const int64_t before = now_ns();
      transport.wait(2'000'000);
      longest_ns = std::max(longest_ns, now_ns() - before);
    }
    if (Result<bool> flushed = (*link)->flush(); !flushed.is_ok()) return report(flushed.status());
  }
  return longest_ns > 1'900'000'000 ? 8 : 0;
}

/// Rank 1 sends a byte and is killed; rank 0 sees the byte, then a failure with `word` and the
/// rank's name in it, within a second of the death.
inline int outlive_killed_peer(Transport& transport, int rank, const std::string& word) {
  Result<Link*> link = transport.link(1 - rank, 0);
  if (!link.is_ok()) return report(link.status());
  std::byte byte{7};
  const iovec range{&byte, 1};
  const Deadline deadline = Deadline::after_ms(20'000);
  size_t moved = 0;
  while (moved == 0) {
    if (deadline.passed()) return 2;
    Result<size_t> now = rank == 1 ? (*link)->send({&range, 1}) : (*link)->receive(&byte, 1);
    if (!now.is_ok()) return report(now.status());
    moved = *now;
    if (Status status = transport.progress(); !status.is_ok()) return report(status);
    if (moved == 0) transport.wait(10'000);
  }
  if (rank == 1) {
    while (!*(*link)->flush()) transport.wait(1000);
    kill(getpid(), SIGKILL);
  }
  const int64_t start = now_ns();
  while (true) {
    Result<size_t> got = (*link)->receive(&byte, 1);
    if (!got.is_ok()) {
      const std::string text = got.status().text();
      if (text.find(word) == std::string::npos || text.find("rank 1") == std::string::npos) {
        return report(got.status());
      }
      return now_ns() - start < 1'000'000'000 ? 0 : 3;
    }
    if (Status status = transport.progress(); !status.is_ok()) return report(status);
    transport.wait(5'000'000);
    if (deadline.passed()) return 4;
  }
}

/// Rank 1 sends 100,000 bytes and leaves; rank 0 reads late, gets all of them, then a failure.
inline int read_after_goodbye(Transport& transport, int rank, const std::string& word) {
  constexpr uint64_t kBytes = 100'000;
  Result<Link*> link = transport.link(1 - rank, 0);
  if (!link.is_ok()) return report(link.status());
  Tasks tasks;
  if (rank == 1) {
    tasks.push_back(std::make_unique<SendTask>(*link, 1, kBytes, 1000));
    return report(drive(transport, tasks, 10'000));
  }
  const Deadline late = Deadline::after_ms(300);
  while (!late.passed()) {
    if (Status status = transport.progress(); !status.is_ok()) return report(status);
    usleep(1000);
  }
  tasks.push_back(std::make_unique<ReceiveTask>(*link, 1, kBytes, 1000));
  if (Status status = drive(transport, tasks, 10'000); !status.is_ok()) return report(status);
  tasks.clear();
  tasks.push_back(std::make_unique<ReceiveTask>(*link, 1, 1, 1));
  const Status end = drive(transport, tasks, 10'000);
  if (end.is_ok() || end.code() == Code::timeout) return 2;
  return end.text().find(word) != std::string::npos ? 0 : report(end);
}

}  // namespace railccl::transport
