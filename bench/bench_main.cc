// railccl-bench: measures collectives over real processes or threads, with verified results.
#include <nccl.h>
#include <railccl/railccl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "cuda.h"
#include "init.h"
#include "launch/launch.h"
#include "measure.h"
#include "options.h"
#include "report.h"

namespace {

using namespace railccl;
using namespace railccl::bench;

std::vector<size_t> sizes_of(const Options& options) {
  std::vector<size_t> sizes;
  for (size_t bytes = options.min_bytes;;) {
    sizes.push_back(bytes);
    const auto scaled = static_cast<size_t>(static_cast<double>(bytes) * options.factor);
    // From zero a factor leads nowhere: go on at one element of the widest type.
    size_t next = options.factor > 0 ? scaled : bytes + options.step_bytes;
    if (options.factor > 0 && next <= bytes) next = bytes == 0 ? 8 : bytes + 1;
    if (next > options.max_bytes || next == bytes) return sizes;
    bytes = next;
  }
}

/// One rank's run over all rows. Returns the number of wrong elements of all ranks.
int64_t run_rank(const Options& options, ncclComm_t comm, int rank, int ranks,
                 const std::string& how) {
  Report report(options, ranks);
  const bool prints = rank == 0;
  if (prints) report.header(RAILCCL_VERSION, how);
  std::vector<int> roots = options.roots;
  if (roots[0] < 0) {
    roots.clear();
    for (int root = 0; root < ranks; root++) roots.push_back(root);
  }
  const std::vector<size_t> sizes = sizes_of(options);
  const int total =
      static_cast<int>(sizes.size() * roots.size() * options.types.size() * options.ops.size());
  int done = 0;
  int64_t wrong = 0;
  Bench bench(options, comm, rank, ranks);
  for (Datatype type : options.types) {
    for (Reduction op : options.ops) {
      for (int root : roots) {
        for (size_t bytes : sizes) {
          Case what = case_of(options, bytes, type, ranks);
          what.op = op;
          what.root = root;
          const Row outside = bench.measure(what);
          Row inside;
          const bool both = has_in_place(options.kind);
          if (both) {
            what.in_place = true;
            inside = bench.measure(what);
          }
          wrong += outside.wrong > 0 ? outside.wrong : 0;
          wrong += both && inside.wrong > 0 ? inside.wrong : 0;
          if (prints) {
            report.rows(outside, both ? &inside : nullptr);
            report.progress(++done, total);
          }
        }
      }
    }
  }
  if (prints) report.footer();
  return wrong;
}

void give_up_after(int seconds) {
  if (seconds == 0) return;
  std::thread([seconds] {
    sleep(static_cast<unsigned>(seconds));
    std::fprintf(stderr, "railccl-bench: not finished after %d s\n", seconds);
    std::_Exit(124);
  }).detach();
}

int run_process(const Options& options, launch::Job& job) {
  if (options.init) {
    give_up_after(options.timeout_s);
    return run_init(options, job);
  }
  const ncclUniqueId id = next_id(job);
  const int threads = options.threads;
  const int ranks = job.place().processes * threads;
  const int first = job.place().process * threads;
  for (int root : options.roots) {
    if (root >= ranks) {
      if (first == 0)
        std::fprintf(stderr, "railccl-bench: -r %d, but there are only %d ranks\n", root, ranks);
      return 2;
    }
  }
  give_up_after(options.timeout_s);
  std::vector<ncclComm_t> comms(static_cast<size_t>(threads), nullptr);
  if (!options.parallel_init) {
    must(ncclGroupStart(), "ncclGroupStart", first, nullptr);
    for (int t = 0; t < threads; t++) {
      if (options.cuda) Cuda::use_device_of(first + t);
      must(ncclCommInitRank(&comms[static_cast<size_t>(t)], ranks, id, first + t),
           "ncclCommInitRank", first + t, nullptr);
    }
    must(ncclGroupEnd(), "ncclCommInitRank in a group", first, nullptr);
  }
  std::vector<int64_t> wrong(static_cast<size_t>(threads), 0);
  auto body = [&](int t) {
    ncclComm_t& comm = comms[static_cast<size_t>(t)];
    if (options.cuda) Cuda::use_device_of(first + t);
    if (options.parallel_init)
      must(ncclCommInitRank(&comm, ranks, id, first + t), "ncclCommInitRank", first + t, nullptr);
    wrong[static_cast<size_t>(t)] = run_rank(options, comm, first + t, ranks, job.place().how);
    must(ncclCommFinalize(comm), "ncclCommFinalize", first + t, comm);
    must(ncclCommDestroy(comm), "ncclCommDestroy", first + t, nullptr);
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; t++) others.emplace_back(body, t);
  body(0);
  for (std::thread& other : others) other.join();
  return wrong[0] == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int exit_code = 0;
  if (!parse_options(argc, argv, &options, &exit_code)) return exit_code;
  return launch::run(options.ranks, [&](launch::Job& job) { return run_process(options, job); });
}
