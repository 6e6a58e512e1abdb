// Ranks as processes that may die: the harness of what is tested about deaths. Each child has a
// slot in memory that the test shares with it, to leave there what it saw.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cstring>

#include "ranks.h"

namespace railccl::test {

/// What a child leaves. Plain bytes in shared memory: what a dying one wrote is there.
struct Slot {
  volatile bool done = false;
  char text[4096] = {};
  char verdict[4096] = {};
  int64_t recovery_ns = 0;  // the longest
  int64_t values[64] = {};
};

class MortalRanks {
 public:
  explicit MortalRanks(int ranks) : ranks_(ranks) {
    void* memory = mmap(nullptr, sizeof(Slot) * static_cast<size_t>(ranks), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    slots_ = new (memory) Slot[static_cast<size_t>(ranks)];
  }
  ~MortalRanks() {
    for (const pid_t child : children_)
      if (child > 0) kill(child, SIGKILL), waitpid(child, nullptr, 0);
    munmap(slots_, sizeof(Slot) * static_cast<size_t>(ranks_));
  }
  Slot& operator[](int rank) { return slots_[rank]; }

  /// Starts the ranks, which join and run `body`.
  void start(const Settings& settings, const std::function<void(CommunicatorPtr, Slot&)>& body) {
    start([&](int) { return settings; }, body);
  }
  void start(const std::function<Settings(int)>& settings_of,
             const std::function<void(CommunicatorPtr, Slot&)>& body) {
    auto id = runtime::unique_id_at("127.0.0.1", free_port(), "mortal");
    ASSERT_TRUE(id.is_ok()) << id.status().text();
    for (int r = 0; r < ranks_; r++) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        auto joined = Communicator::join(*id, r, ranks_, {}, settings_of(r));
        if (joined.is_ok()) {
          body(std::move(joined).value(), slots_[r]);
          slots_[r].done = true;
        } else {
          note(slots_[r], joined.status().text());
        }
        _exit(0);
      }
      children_.push_back(child);
    }
  }
  pid_t process(int rank) const { return children_[static_cast<size_t>(rank)]; }
  void end(int rank, int signal) const { kill(process(rank), signal); }

  /// Waits for a rank's end; false: it was still there after `ms`.
  bool wait(int rank, int64_t ms) {
    const Deadline deadline = Deadline::after_ms(ms);
    pid_t& child = children_[static_cast<size_t>(rank)];
    while (child > 0 && waitpid(child, nullptr, WNOHANG) == 0) {
      if (deadline.passed()) return false;
      usleep(500);
    }
    child = -1;
    return true;
  }
  /// Those that live end by themselves, with `done`.
  void expect_all_done(const std::vector<int>& dead, int64_t ms = 30000) {
    for (int r = 0; r < ranks_; r++) {
      if (std::count(dead.begin(), dead.end(), r) > 0) continue;
      ASSERT_TRUE(wait(r, ms)) << "rank " << r << " hangs";
      ASSERT_TRUE(slots_[r].done) << "rank " << r << ": " << slots_[r].text;
    }
  }
  static void note(Slot& slot, const std::string& text) {
    std::strncpy(slot.text, text.c_str(), sizeof slot.text - 1);
  }

 private:
  const int ranks_;
  Slot* slots_ = nullptr;
  std::vector<pid_t> children_;
};

}  // namespace railccl::test
