// Init: communicators made, figures brought to rank 0 over them, a line printed.
#include "init.h"

#include <railccl/railccl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "measure.h"

namespace railccl::bench {
namespace {

/// By the clock that several hosts share, as far as they do.
double seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Memory of this process that no file backs, in bytes; 0 where the kernel does not tell.
double anonymous_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  std::string word;
  while (file >> word) {
    double kibibytes = 0;
    if (word == "Anonymous:" && file >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

/// Largest over all ranks each, so that one reduction brings them to rank 0.
struct Figures {
  double minus_start_s = 0;
  double end_s = 0;
  double messages = 0;    // sent and received
  double bytes_more = 0;  // of the process
};

}  // namespace

ncclUniqueId next_id(launch::Job& job) {
  ncclUniqueId id;
  if (job.unique_id(&id)) return id;
  std::fprintf(stderr, "railccl-bench: process %d: no unique id: %s\n", job.place().process,
               job.error().c_str());
  std::exit(3);
}

int run_init(const Options& options, launch::Job& job) {
  const int threads = options.threads;
  const int ranks = job.place().processes * threads;
  const int first = job.place().process * threads;
  if (first == 0 && !options.json)
    std::printf(
        "# railccl-bench init: %d ranks, %d to a process\n"
        "# %8s %17s %20s\n",
        ranks, threads, "seconds", "messages per rank", "bytes per idle peer");
  for (int iteration = 0; iteration < options.iterations; iteration++) {
    const ncclUniqueId id = next_id(job);
    std::vector<ncclComm_t> comms(static_cast<size_t>(threads), nullptr);
    std::vector<Figures> figures(static_cast<size_t>(threads));
    const double bytes_before = anonymous_bytes();
    const auto on_threads = [&](const auto& body) {
      std::vector<std::thread> others;
      for (int t = 1; t < threads; t++) others.emplace_back(body, t);
      body(0);
      for (std::thread& other : others) other.join();
    };
    on_threads([&](int t) {
      Figures& mine = figures[static_cast<size_t>(t)];
      ncclComm_t& comm = comms[static_cast<size_t>(t)];
      mine.minus_start_s = -seconds_now();
      must(ncclCommInitRank(&comm, ranks, id, first + t), "ncclCommInitRank", first + t, nullptr);
      mine.end_s = seconds_now();
      // At once: ranks that are done say goodbye by messages, too.
      railcclMeeting_t meeting = RAILCCL_MEETING_INITIALIZER;
      must(railcclCommMeeting(comm, &meeting), "railcclCommMeeting", first + t, comm);
      mine.messages = static_cast<double>(meeting.messagesSent + meeting.messagesReceived);
    });
    // What a first communicator needs for itself is in the figure, too.
    const double bytes_more = anonymous_bytes() - bytes_before;
    on_threads([&](int t) {
      Figures& mine = figures[static_cast<size_t>(t)];
      ncclComm_t comm = comms[static_cast<size_t>(t)];
      mine.bytes_more = bytes_more;
      Figures most;
      must(ncclReduce(&mine, &most, sizeof mine / sizeof(double), ncclDouble, ncclMax, 0, comm,
                      nullptr),
           "ncclReduce", first + t, comm);
      if (first + t == 0) {
        const double seconds = most.end_s + most.minus_start_s;
        const double bytes = most.bytes_more / threads / std::max(1, ranks - 1);
        if (options.json) {
          std::printf(R"({"ranks": %d, "seconds": %.4f, "messages": %.0f, "bytes_per_peer": %.0f})"
                      "\n",
                      ranks, seconds, most.messages, bytes);
        } else {
          std::printf("  %8.4f %17.0f %20.0f\n", seconds, most.messages, bytes);
        }
        std::fflush(stdout);
      }
      must(ncclCommFinalize(comm), "ncclCommFinalize", first + t, comm);
      must(ncclCommDestroy(comm), "ncclCommDestroy", first + t, nullptr);
    });
  }
  return 0;
}

}  // namespace railccl::bench
