// recorder_bench: what the flight recorder costs an all-reduce. Two processes, a core each, have
// two communicators that differ only in RAILCCL_RECORD, and call on them in turns, block by block,
// so that whatever else the machine does hits both alike. A round is a block on each, the first one
// changing; a pair of communicators has the median over its rounds of the ratio of their times.
// What memory a communicator happens to get matters more than the recorder, so the figure is the
// mean over many pairs, with the interval that holds it with 95%.
//
//   recorder_bench [BYTES [CALLS [ROUNDS [PAIRS [RECORD]]]]]
//
// 8 bytes, blocks of 2000 calls, 100 rounds, 60 pairs, 256 records; RECORD 0 compares equals, which
// shows what the machine makes of no difference.
#include <nccl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

double now_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

struct Plan {
  size_t count = 2;
  long calls = 2000;
  long rounds = 100;
  long pairs = 60;
  long record = 256;
};
constexpr long kPairsMax = 1000;

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

int work(const ncclUniqueId* ids, int rank, const Plan& plan) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(rank, &cores);
  static_cast<void>(sched_setaffinity(0, sizeof cores, &cores));
  const std::string kept[] = {"0", std::to_string(plan.record)};
  std::vector<float> input(plan.count, 1.0f), output(plan.count);
  std::vector<double> times[2], of_pairs;
  for (long pair = 0; pair < plan.pairs; pair++) {
    ncclComm_t comms[2];
    for (long turn = 0; turn < 2; turn++) {
      const auto which = static_cast<int>((pair + turn) % 2);
      setenv("RAILCCL_RECORD", kept[which].c_str(), 1);
      if (ncclCommInitRank(&comms[which], 2, ids[2 * pair + turn], rank) != ncclSuccess) {
        std::fprintf(stderr, "%s\n", ncclGetLastError(nullptr));
        return 1;
      }
    }
    const auto block = [&](int which) {
      const double start = now_us();
      for (long i = 0; i < plan.calls; i++)
        if (ncclAllReduce(input.data(), output.data(), plan.count, ncclFloat, ncclSum, comms[which],
                          nullptr) != ncclSuccess)
          return -1.0;
      return (now_us() - start) / static_cast<double>(plan.calls);
    };
    for (int warm_up : {0, 1}) static_cast<void>(block(warm_up));
    std::vector<double> ratios;
    for (long round = 0; round < plan.rounds; round++) {
      double of[2];
      for (long turn = 0; turn < 2; turn++) {
        const auto which = static_cast<int>((round + turn) % 2);
        of[which] = block(which);
        if (of[which] < 0) return 1;
        times[which].push_back(of[which]);
      }
      ratios.push_back(of[1] / of[0]);
    }
    of_pairs.push_back(quantile(ratios, 0.5));
    for (ncclComm_t comm : comms) static_cast<void>(ncclCommDestroy(comm));
  }
  double mean = 0, spread = 0;
  for (const double ratio : of_pairs) mean += ratio / static_cast<double>(plan.pairs);
  for (const double ratio : of_pairs) spread += (ratio - mean) * (ratio - mean);
  const auto pairs = static_cast<double>(plan.pairs);
  const double error = pairs > 1 ? 1.96 * std::sqrt(spread / (pairs - 1) / pairs) : 0;
  if (rank == 0)
    std::printf(
        "%zu bytes: %.4f us without, %.4f us with the recorder (medians); ratio %.4f +- %.4f "
        "(mean of %ld pairs, 95%%; their median %.4f)\n",
        plan.count * sizeof(float), quantile(times[0], 0.5), quantile(times[1], 0.5), mean, error,
        plan.pairs, quantile(of_pairs, 0.5));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int index, long fallback) {
    return argc > index ? std::strtol(argv[index], nullptr, 10) : fallback;
  };
  Plan plan;
  plan.count = static_cast<size_t>(argument(1, 8)) / sizeof(float);
  plan.calls = argument(2, 2000);
  plan.rounds = argument(3, plan.rounds);
  plan.pairs = argument(4, plan.pairs);
  plan.record = argument(5, plan.record);
  if (plan.count < 1 || plan.calls < 1 || plan.rounds < 1 || plan.pairs < 1 ||
      plan.pairs > kPairsMax || plan.record < 0) {
    std::fprintf(stderr, "usage: recorder_bench [BYTES [CALLS [ROUNDS [PAIRS [RECORD]]]]]\n");
    return 2;
  }
  struct Shared {
    ncclUniqueId ids[2 * kPairsMax];
    volatile bool known;
  };
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (shared == MAP_FAILED) return 2;
  pid_t children[2];
  for (int rank : {0, 1}) {
    children[rank] = fork();
    if (children[rank] != 0) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rank == 0) {
      for (long i = 0; i < 2 * plan.pairs; i++)
        if (ncclGetUniqueId(&shared->ids[i]) != ncclSuccess) _exit(1);
      shared->known = true;
    }
    while (!shared->known) usleep(1000);
    const int result = work(shared->ids, rank, plan);
    std::fflush(stdout);
    _exit(result);
  }
  int failed = 0;
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    failed |= status;
  }
  return failed == 0 ? 0 : 1;
}
