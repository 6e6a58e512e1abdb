// Shows that the log warns of a failure once per rank, however many calls it makes fail.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "api_ranks.h"

namespace railccl::test {
namespace {

/// The lines with which a process that runs `body` on two ranks warns.
std::vector<std::string> warnings_of(const std::function<void(int, ncclComm_t)>& body) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("railccl-log-{}", getpid())).string();
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen(path.c_str(), "w", stderr) == nullptr) _exit(2);
    Ranks ranks(2);
    ranks.each(body);
    for (int rank : {0, 1}) static_cast<void>(ncclCommAbort(ranks.take(rank)));
    std::fflush(stderr);
    _exit(0);
  }
  int state = 0;
  EXPECT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
  std::vector<std::string> warnings;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.find(" WARN ") != std::string::npos) warnings.push_back(line);
  std::filesystem::remove(path);
  return warnings;
}

TEST(Log, WarnsOnceOfAMismatch) {
  const Variable stall("RAILCCL_STALL_MS", "50");
  const auto warnings = warnings_of([](int rank, ncclComm_t comm) {
    float in[8] = {}, out[8];
    for (int i = 0; i < 4; i++)
      if (ncclAllReduce(in, out, rank == 0 ? 5 : 4, ncclFloat, ncclSum, comm, nullptr) ==
          ncclSuccess)
        _exit(3);
  });
  EXPECT_EQ(warnings.size(), 2u) << fmt::format("{}", fmt::join(warnings, "\n"));
}

TEST(Log, WarnsOnceOfARankThatDoesNotCome) {
  const Variable stall("RAILCCL_STALL_MS", "50");
  const Variable timeout("RAILCCL_TIMEOUT_MS", "300");
  const auto warnings = warnings_of([](int rank, ncclComm_t comm) {
    float in[8] = {}, out[8];
    ncclResult_t error = ncclSuccess;
    while (rank == 1 && error == ncclSuccess) {
      usleep(1000);
      static_cast<void>(ncclCommGetAsyncError(comm, &error));
    }
    for (int i = 0; i < 4; i++)
      if (ncclAllReduce(in, out, 5, ncclFloat, ncclSum, comm, nullptr) == ncclSuccess) _exit(3);
  });
  EXPECT_EQ(warnings.size(), 2u) << fmt::format("{}", fmt::join(warnings, "\n"));
}

TEST(Log, WarnsOfEachBadCall) {
  const auto warnings = warnings_of([](int rank, ncclComm_t comm) {
    for (int i = 0; i < 3 && rank == 0; i++)
      if (ncclAllReduce(nullptr, nullptr, 1, ncclFloat, ncclSum, comm, nullptr) == ncclSuccess)
        _exit(3);
  });
  EXPECT_EQ(warnings.size(), 3u) << fmt::format("{}", fmt::join(warnings, "\n"));
}

}  // namespace
}  // namespace railccl::test
