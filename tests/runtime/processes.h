// Communicators of forked processes, each with one or several threads.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include "ranks.h"

namespace railccl::test {

#ifdef __SANITIZE_THREAD__
#define RAILCCL_SKIP_FORKS() \
  GTEST_SKIP() << "ThreadSanitizer does not allow threads in a forked child"
#else
#define RAILCCL_SKIP_FORKS() (void)0
#endif

/// Runs `body` with a communicator of processes * threads ranks, `threads` of them in each of so
/// many forked processes. The rendezvous is rank 0's, so that the parent has no threads, which a
/// sanitizer's fork would stumble over.
inline void with_processes(int processes, int threads, const Settings& settings,
                           const std::function<void(CommunicatorPtr)>& body) {
  const auto id = runtime::unique_id_at("127.0.0.1", free_port(), "test");
  ASSERT_TRUE(id.is_ok()) << id.status().text();
  std::vector<pid_t> children;
  for (int p = 0; p < processes; p++) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      on_threads(threads, [&](int t) {
        auto joined = Communicator::join(*id, p * threads + t, processes * threads, {}, settings);
        ASSERT_TRUE(joined.is_ok()) << joined.status().text();
        body(std::move(joined).value());
      });
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int state = 0;
    ASSERT_EQ(waitpid(child, &state, 0), child);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << "see the child's output above";
  }
}

}  // namespace railccl::test
