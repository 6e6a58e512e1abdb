// Launch: the ways a job starts, and the exchange of unique ids in each.
#include "launch/launch.h"

#include <railccl/railccl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

#include "launch/mpi.h"

namespace railccl::launch {
namespace {

bool read_all(int fd, void* data, size_t bytes) {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = read(fd, at, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

/// One process, several or none beside it that it must talk to.
class LoneJob final : public Job {
 public:
  bool unique_id(ncclUniqueId* id) override {
    if (ncclGetUniqueId(id) == ncclSuccess) return true;
    error_ = ncclGetLastError(nullptr);
    return false;
  }
};

/// A child of `--ranks N`: process 0 makes ids and writes them to a socket pair per sibling.
class ForkedJob final : public Job {
 public:
  ForkedJob(int process, int processes, std::vector<int> to_siblings, int from_first)
      : to_siblings_(std::move(to_siblings)), from_first_(from_first) {
    place_ = {process, processes, process, "--ranks"};
  }
  bool unique_id(ncclUniqueId* id) override {
    if (place_.process != 0) {
      if (read_all(from_first_, id, sizeof *id)) return true;
      error_ = "process 0 ended before it shared the unique id";
      return false;
    }
    if (ncclGetUniqueId(id) != ncclSuccess) {
      error_ = ncclGetLastError(nullptr);
      return false;
    }
    for (int fd : to_siblings_) {
      if (send(fd, id, sizeof *id, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof *id)) {
        error_ = "a process ended before it got the unique id";
        return false;
      }
    }
    return true;
  }

 private:
  std::vector<int> to_siblings_;
  int from_first_;
};

class MpiJob final : public Job {
 public:
  MpiJob(Place place, std::unique_ptr<Mpi> mpi) : mpi_(std::move(mpi)) {
    place_ = std::move(place);
  }
  bool unique_id(ncclUniqueId* id) override {
    const bool made = place_.process != 0 || ncclGetUniqueId(id) == ncclSuccess;
    if (!made) error_ = ncclGetLastError(nullptr);
    if (!mpi_->broadcast(id, sizeof *id)) {
      error_ = "MPI_Bcast of the unique id failed";
      return false;
    }
    return made;
  }

 private:
  std::unique_ptr<Mpi> mpi_;
};

/// All processes know host and port; the n-th id uses port + n and a secret that names it.
class MeetingPointJob final : public Job {
 public:
  MeetingPointJob(Place place, std::string host, int port, std::string secret)
      : host_(std::move(host)), port_(port), secret_(std::move(secret)) {
    place_ = std::move(place);
  }
  bool unique_id(ncclUniqueId* id) override {
    const std::string secret = secret_ + "#" + std::to_string(calls_);
    const int port = port_ + calls_++;
    if (railcclGetUniqueIdAt(host_.c_str(), port, secret.c_str(), id) == ncclSuccess) return true;
    error_ = ncclGetLastError(nullptr);
    return false;
  }

 private:
  std::string host_;
  int port_;
  std::string secret_;
  int calls_ = 0;
};

/// Parses a non-negative environment integer; false with a message when it is set but malformed.
bool env_int(const char* name, int* value) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == 0) return false;
  char* end = nullptr;
  errno = 0;
  const long parsed = std::strtol(text, &end, 10);
  if (errno != 0 || *end != 0 || parsed < 0 || parsed > 1 << 24) {
    std::fprintf(stderr, "%s=%s: expected a non-negative integer\n", name, text);
    std::exit(2);
  }
  *value = static_cast<int>(parsed);
  return true;
}

std::string env_text(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

std::unique_ptr<Job> mpi_job(bool open_mpi, const Place& place) {
  std::string error;
  std::unique_ptr<Mpi> mpi = Mpi::load(open_mpi, &error);
  if (mpi == nullptr) {
    std::fprintf(stderr, "started by mpirun, but MPI cannot be loaded: %s\n", error.c_str());
    std::exit(2);
  }
  return std::make_unique<MpiJob>(place, std::move(mpi));
}

/// The job that the environment describes.
std::unique_ptr<Job> job_of_environment() {
  Place place;
  if (env_int("OMPI_COMM_WORLD_RANK", &place.process) &&
      env_int("OMPI_COMM_WORLD_SIZE", &place.processes)) {
    env_int("OMPI_COMM_WORLD_LOCAL_RANK", &place.local_process);
    place.how = "mpirun";
    return mpi_job(true, place);
  }
  if (env_int("PMI_RANK", &place.process) && env_int("PMI_SIZE", &place.processes)) {
    env_int("MPI_LOCALRANKID", &place.local_process);
    place.how = "mpirun";
    return mpi_job(false, place);
  }
  int port = 0;
  if (env_int("RANK", &place.process) && env_int("WORLD_SIZE", &place.processes)) {
    const std::string host = env_text("MASTER_ADDR");
    if (place.processes == 1) return std::make_unique<LoneJob>();
    if (host.empty() || !env_int("MASTER_PORT", &port)) {
      std::fprintf(stderr, "RANK and WORLD_SIZE are set, but MASTER_ADDR or MASTER_PORT is not\n");
      std::exit(2);
    }
    env_int("LOCAL_RANK", &place.local_process);
    // torchrun's own store listens on MASTER_PORT itself.
    const std::string run_id = env_text("TORCHELASTIC_RUN_ID");
    if (!run_id.empty()) port += 1;
    place.how = "environment";
    return std::make_unique<MeetingPointJob>(place, host, port, run_id);
  }
  if (env_int("SLURM_PROCID", &place.process) && env_int("SLURM_NTASKS", &place.processes) &&
      place.processes > 1) {
    env_int("SLURM_LOCALID", &place.local_process);
    const std::string host =
        first_host(env_text("SLURM_STEP_NODELIST").empty() ? env_text("SLURM_JOB_NODELIST")
                                                           : env_text("SLURM_STEP_NODELIST"));
    if (host.empty()) {
      std::fprintf(stderr, "SLURM_PROCID is set, but no host is in SLURM_JOB_NODELIST\n");
      std::exit(2);
    }
    int job = 0, step = 0;
    env_int("SLURM_JOB_ID", &job);
    env_int("SLURM_STEP_ID", &step);
    if (!env_int("MASTER_PORT", &port)) port = 20000 + (job * 17 + step) % 20000;
    place.how = "slurm";
    return std::make_unique<MeetingPointJob>(place, host, port,
                                             std::to_string(job) + "." + std::to_string(step));
  }
  return std::make_unique<LoneJob>();
}

/// Waits for all children; kills the rest when one was killed and grace has passed.
int wait_for(const std::vector<pid_t>& children, int grace_s) {
  int worst = 0;
  size_t left = children.size();
  timespec died{};
  bool dying = false, well = false;
  int signalled = 0;
  while (left > 0) {
    int status = 0;
    const pid_t child = waitpid(-1, &status, dying ? WNOHANG : 0);
    if (child < 0 && errno == EINTR) continue;
    if (child < 0) return worst == 0 ? 1 : worst;
    if (child == 0) {
      timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      if (now.tv_sec - died.tv_sec >= grace_s)
        for (pid_t other : children) kill(other, SIGKILL);
      const timespec pause{0, 50'000'000};
      nanosleep(&pause, nullptr);
      continue;
    }
    left--;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      well = true;
      continue;
    }
    if (WIFSIGNALED(status) && !dying) {
      std::fprintf(stderr, "process %d died from signal %d\n", static_cast<int>(child),
                   WTERMSIG(status));
    }
    if (WIFSIGNALED(status) && grace_s == kNoGrace) {
      signalled = 128 + WTERMSIG(status);
      continue;
    }
    if (worst == 0) worst = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (grace_s == kNoGrace) continue;
    if (!dying) clock_gettime(CLOCK_MONOTONIC, &died);
    dying = true;
  }
  return worst != 0 || well ? worst : signalled;
}

int run_forked(int ranks, const std::function<int(Job&)>& body, int grace_s) {
  // Pair i carries ids from process 0 (end 0) to process i + 1 (end 1).
  std::vector<int> first_ends, sibling_ends;
  for (int i = 1; i < ranks; i++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      std::fprintf(stderr, "cannot start %d processes: %s\n", ranks, std::strerror(errno));
      return 2;
    }
    first_ends.push_back(ends[0]);
    sibling_ends.push_back(ends[1]);
  }
  std::fflush(nullptr);
  std::vector<pid_t> children;
  const pid_t parent = getpid();
  for (int process = 0; process < ranks; process++) {
    const pid_t child = fork();
    if (child < 0) {
      std::fprintf(stderr, "cannot fork process %d: %s\n", process, std::strerror(errno));
      for (pid_t other : children) kill(other, SIGKILL);
      return 2;
    }
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      const int mine = process == 0 ? -1 : sibling_ends[static_cast<size_t>(process - 1)];
      for (int fd : sibling_ends)
        if (fd != mine) close(fd);
      if (process != 0) {
        for (int fd : first_ends) close(fd);
        first_ends.clear();
      }
      int code = 0;
      {
        ForkedJob job(process, ranks, first_ends, mine);
        code = body(job);
      }
      std::fflush(nullptr);
      std::exit(code);
    }
    children.push_back(child);
  }
  for (int fd : first_ends) close(fd);
  for (int fd : sibling_ends) close(fd);
  return wait_for(children, grace_s);
}

}  // namespace

std::string first_host(const std::string& slurm_nodelist) {
  const size_t bracket = slurm_nodelist.find_first_of("[,");
  if (bracket == std::string::npos || slurm_nodelist[bracket] == ',')
    return slurm_nodelist.substr(0, bracket);
  size_t end = bracket + 1;
  while (end < slurm_nodelist.size() &&
         std::isdigit(static_cast<unsigned char>(slurm_nodelist[end])))
    end++;
  if (end == bracket + 1 || end >= slurm_nodelist.size() ||
      std::string_view("-,]").find(slurm_nodelist[end]) == std::string_view::npos)
    return "";
  return slurm_nodelist.substr(0, bracket) + slurm_nodelist.substr(bracket + 1, end - bracket - 1);
}

int run(int ranks, const std::function<int(Job&)>& body, int grace_s) {
  if (ranks > 0) return run_forked(ranks, body, grace_s);
  const std::unique_ptr<Job> job = job_of_environment();
  return body(*job);
}

}  // namespace railccl::launch
