// Launch: how a program finds out which rank it is, and gets all ranks one unique id.
//
// In this order: `--ranks N` forks N processes of this program by itself; MPI (Open MPI's or
// MPICH's mpirun, recognised by their environment, the library loaded at run time); Slurm
// (SLURM_PROCID under srun); RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT (torchrun and by hand);
// else one rank alone. Used by railccl-bench and railccl-train; needs only the public headers.
#pragma once

#include <nccl.h>

#include <functional>
#include <string>

namespace railccl::launch {

/// This process among the processes of the job.
struct Place {
  int process = 0;
  int processes = 1;
  int local_process = 0;
  std::string how = "alone";  // "--ranks", "mpirun", "slurm", "environment", "alone"
};

/// What the body gets: its place, and a way to share a fresh unique id with the others.
class Job {
 public:
  virtual ~Job() = default;
  const Place& place() const { return place_; }
  /// Collective over processes; each call gives another id, the same in all processes. False with
  /// a text in error() when it cannot be had.
  virtual bool unique_id(ncclUniqueId* id) = 0;
  const std::string& error() const { return error_; }

 protected:
  Place place_;
  std::string error_;
};

/// Runs body in every process of the job and returns the exit code for main(): the body's, or for a
/// forking parent the first failure among its children. Call before any thread exists. When a child
/// dies from a signal, the others get `grace_s` seconds to notice and are then killed; or, with
/// `grace_s` kNoGrace, go on as long as they like: then the code is 0 when one of them ends well
/// and none badly.
inline constexpr int kNoGrace = -1;
int run(int ranks, const std::function<int(Job&)>& body, int grace_s = 30);

/// First host of a Slurm node list: "gpu[03-04,9],login1" -> "gpu03". Empty when malformed.
std::string first_host(const std::string& slurm_nodelist);

}  // namespace railccl::launch
