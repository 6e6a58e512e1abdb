// recovery_bench: what the death of a process costs those that are left. In each trial, processes
// of this machine sum in place over and over; one is killed (-9) at a random moment; the others
// recover, with the interrupted sum finished, and the time of the slowest counts.
//
//   recovery_bench [RANKS [BYTES [TRIALS [SEED]]]]      8 ranks, 1 MiB, 50 trials
#include <railccl/railccl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

namespace {

double now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

/// What a rank leaves in memory that it shares with the parent.
struct Slot {
  std::atomic<int> sums{0};
  double failed_ms = 0;     // when its call came back with the failure
  double recovered_ms = 0;  // when the sum was finished
  bool good = false;
  char text[512] = "";
};

struct Shared {
  Slot slots[256];
};

void sum_until_one_dies(const ncclUniqueId& id, int rank, int ranks, size_t count, Slot* slot) {
  const auto fail = [&](const char* what) {
    std::snprintf(slot->text, sizeof slot->text, "%s: %s", what, ncclGetLastError(nullptr));
  };
  ncclComm_t comm;
  if (ncclCommInitRank(&comm, ranks, id, rank) != ncclSuccess) return fail("init");
  if (railcclCommProtect(comm, count * sizeof(float)) != ncclSuccess) return fail("protect");
  std::vector<float> data(count);
  while (true) {
    std::fill(data.begin(), data.end(), 1.0f);
    const ncclResult_t result =
        ncclAllReduce(data.data(), data.data(), count, ncclFloat, ncclSum, comm, nullptr);
    if (result != ncclSuccess) break;
    slot->sums++;
  }
  slot->failed_ms = now_ms();
  railcclRecovery_t recovery = RAILCCL_RECOVERY_INITIALIZER;
  if (railcclCommRecover(&comm, RAILCCL_RECOVER_CALLS, &recovery) != ncclSuccess)
    return fail("recover");
  slot->recovered_ms = now_ms();
  if (recovery.calls != railcclCallsFinished || recovery.ranks != ranks - 1)
    return fail(recovery.why);
  // Kept or repeated: of all ranks, or of those that are left.
  const float want = static_cast<float>(recovery.kept > 0 ? ranks : ranks - 1);
  slot->good = std::all_of(data.begin(), data.end(), [&](float value) { return value == want; });
  static_cast<void>(ncclCommDestroy(comm));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int index, long fallback) {
    return argc > index ? std::strtol(argv[index], nullptr, 10) : fallback;
  };
  const int ranks = static_cast<int>(argument(1, 8));
  const auto bytes = static_cast<size_t>(argument(2, 1 << 20));
  const long trials = argument(3, 50);
  std::mt19937 random(static_cast<unsigned>(argument(4, 1)));
  if (ranks < 2 || ranks > 256 || bytes < sizeof(float) || trials < 1) {
    std::fprintf(stderr, "usage: recovery_bench [RANKS [BYTES [TRIALS [SEED]]]]\n");
    return 2;
  }
  std::vector<double> detection, recovery;
  for (long trial = 0; trial < trials; trial++) {
    auto* shared = static_cast<Shared*>(
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (shared == MAP_FAILED) return 2;
    new (shared) Shared;
    ncclUniqueId id;
    const int port = 20000 + static_cast<int>(random() % 20000);
    if (railcclGetUniqueIdAt("127.0.0.1", port, "recovery", &id) != ncclSuccess) return 2;
    std::vector<pid_t> children;
    for (int rank = 0; rank < ranks; rank++) {
      const pid_t child = fork();
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(60);
        sum_until_one_dies(id, rank, ranks, bytes / sizeof(float), &shared->slots[rank]);
        _exit(0);
      }
      children.push_back(child);
    }
    const double give_up = now_ms() + 60'000;
    const auto working = [&] {
      return std::all_of(shared->slots, shared->slots + ranks,
                         [](const Slot& slot) { return slot.sums > 10; });
    };
    while (!working() && now_ms() < give_up) usleep(1000);
    usleep(static_cast<useconds_t>(random() % 20000));
    const int victim = static_cast<int>(random() % static_cast<unsigned>(ranks));
    const double killed_ms = now_ms();
    kill(children[static_cast<size_t>(victim)], SIGKILL);
    double failed_ms = 0, recovered_ms = 0;
    for (int rank = 0; rank < ranks; rank++) {
      waitpid(children[static_cast<size_t>(rank)], nullptr, 0);
      if (rank == victim) continue;
      const Slot& slot = shared->slots[rank];
      if (!slot.good) {
        std::fprintf(stderr, "trial %ld: rank %d (victim %d): wrong: %s\n", trial, rank, victim,
                     slot.text);
        return 1;
      }
      failed_ms = std::max(failed_ms, slot.failed_ms);
      recovered_ms = std::max(recovered_ms, slot.recovered_ms);
    }
    detection.push_back(failed_ms - killed_ms);
    recovery.push_back(recovered_ms - failed_ms);
    munmap(shared, sizeof *shared);
  }
  std::printf(
      "%ld trials, 1 of %d ranks killed, sums of %zu bytes in place; of the slowest rank, ms:\n"
      "from the kill until the call failed with the verdict: median %.1f, worst %.1f\n"
      "from there until the sum was finished by the others:   median %.1f, worst %.1f\n",
      trials, ranks, bytes, median(detection),
      *std::max_element(detection.begin(), detection.end()), median(recovery),
      *std::max_element(recovery.begin(), recovery.end()));
  return 0;
}
