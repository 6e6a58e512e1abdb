// Contenders: which settings of the peers compete. A peer's figure is its best setting per cell, so
// a setting belongs here when it wins a cell somewhere.
#include "contenders.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace railccl::compare {
namespace {

constexpr int kStartTimeoutS = 60;

struct Setting {
  const char* name;
  std::vector<std::string> words;  // Open MPI: mpirun's; MPICH: NAME=value of the environment
  bool dynamic = true;             // worth its place with more than two ranks only: false
};

// Open MPI 4.1's choices inside a host: the point-to-point layer (its own shared memory "vader",
// with and without the kernel's single copy, or UCX) and the collective component. There is no xhc
// before version 5.
const std::vector<Setting>& open_mpi_settings() {
  static const std::vector<std::string> no_copy = {"--mca", "btl_vader_single_copy_mechanism",
                                                   "none"};
  static const std::vector<std::string> ucx = {
      "--mca", "pml", "ucx", "--mca", "pml_ucx_tls", "any", "--mca", "pml_ucx_devices", "any"};
  const auto with = [](std::vector<std::string> words, std::vector<std::string> more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  static const std::vector<Setting> settings = {
      {"default", {}},
      {"no CMA", no_copy},
      {"coll sm", {"--mca", "coll_sm_priority", "100"}},
      {"coll han", {"--mca", "coll_han_priority", "100"}},
      {"UCX", with(ucx, {"-x", "UCX_TLS=self,posix,sysv,cma"})},
      {"UCX, no CMA", with(ucx, {"-x", "UCX_TLS=self,posix,sysv"})},
      {"Rabenseifner, no CMA",
       with(no_copy, {"--mca", "coll_tuned_use_dynamic_rules", "1", "--mca",
                      "coll_tuned_allreduce_algorithm", "6"}),
       false},
  };
  return settings;
}

const std::vector<Setting>& mpich_settings() {
  static const std::vector<Setting> settings = {
      {"default", {}},
      {"UCX shm with CMA", {"UCX_TLS=self,posix,sysv,cma"}},
      {"UCX shm, no CMA", {"UCX_TLS=self,posix,sysv"}},
      {"release_gather",
       {"MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM=release_gather",
        "MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM=release_gather",
        "MPIR_CVAR_REDUCE_POSIX_INTRA_ALGORITHM=release_gather",
        "MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM=smp", "MPIR_CVAR_BCAST_INTRA_ALGORITHM=smp"}},
  };
  return settings;
}

constexpr const char* kGlooVariants[] = {"new_ring",     "new_bcube",        "ring",
                                         "ring_chunked", "halving_doubling", "bcube"};

bool installed(const std::string& program) {
  if (program.find('/') != std::string::npos) return access(program.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::string folders = path == nullptr ? "/usr/bin" : path;
  size_t at = 0;
  while (at <= folders.size()) {
    const size_t end = std::min(folders.find(':', at), folders.size());
    if (access((folders.substr(at, end - at) + "/" + program).c_str(), X_OK) == 0) return true;
    at = end + 1;
  }
  return false;
}

}  // namespace

Group* Field::start(const Launch& launch) {
  std::string error;
  auto group = Group::start(launch, ranks_, folder_, kStartTimeoutS, &error);
  if (group == nullptr) {
    left_out.push_back(launch.label + ": " + error);
    return nullptr;
  }
  groups_.push_back(std::move(group));
  return groups_.back().get();
}

Field::Field(const std::string& programs, const std::string& folder, int ranks, int cores,
             const PeerChoice& peers, const std::vector<OwnSetting>& own,
             const std::vector<Type>& types, bool registered)
    : programs_(programs), folder_(folder), ranks_(ranks) {
  const bool crowded = ranks > cores;
  Launch launch;
  launch.crowded = crowded;
  launch.pin = !crowded;

  std::vector<OwnSetting> ours = {{"", {}}};
  ours.insert(ours.end(), own.begin(), own.end());
  for (const OwnSetting& setting : ours) {
    launch.label = setting.label.empty() ? "railccl" : "railccl " + setting.label;
    launch.arguments = {programs_ + "/compare_worker_railccl", "{page}", "{rank}"};
    launch.environment = setting.environment;
    Group* group = start(launch);
    for (const Type type : types) {
      for (const bool own_memory : {false, true}) {
        if (group == nullptr || (own_memory && !registered)) continue;
        std::string label = launch.label;
        if (type != Type::float32) label += std::string(" ") + name_of(type);
        if (own_memory) label += " registered";
        contenders.push_back({"railccl", label, "", own_memory, type, group});
      }
    }
  }

  // Bound and free where ranks share cores: which is better differs from library to library.
  for (const bool pin : {true, false}) {
    if (!pin && !crowded) continue;
    launch.pin = pin;
    const std::string suffix = !crowded ? "" : pin ? ", bound" : ", free";
    const std::string open_mpi = programs_ + "/compare_worker_openmpi";
    for (const Setting& setting : open_mpi_settings()) {
      if (!peers.open_mpi || (!setting.dynamic && ranks <= 2)) continue;
      if (!installed(open_mpi) || !installed("mpirun.openmpi")) {
        left_out.push_back("Open MPI: not installed when this was built, or no mpirun.openmpi");
        break;
      }
      launch.label = std::string("Open MPI ") + setting.name + suffix;
      launch.arguments = {"mpirun.openmpi",
                          "-np",
                          std::to_string(ranks),
                          "--bind-to",
                          "none",
                          "--oversubscribe",
                          "--mca",
                          "mpi_yield_when_idle",
                          crowded ? "1" : "0",
                          "--mca",
                          "btl_tcp_if_include",
                          "lo",
                          "--mca",
                          "oob_tcp_if_include",
                          "lo"};
      launch.arguments.insert(launch.arguments.end(), setting.words.begin(), setting.words.end());
      launch.arguments.insert(launch.arguments.end(), {open_mpi, "{page}"});
      launch.environment.clear();
      if (geteuid() == 0) {
        launch.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                              {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
      }
      Group* group = start(launch);
      if (group != nullptr) {
        contenders.push_back({"Open MPI", launch.label, "", false, Type::float32, group});
      }
    }

    const std::string mpich = programs_ + "/compare_worker_mpich";
    for (const Setting& setting : mpich_settings()) {
      if (!peers.mpich) continue;
      if (!installed(mpich) || !installed("mpirun.mpich")) {
        left_out.push_back("MPICH: not installed when this was built, or no mpirun.mpich");
        break;
      }
      launch.label = std::string("MPICH ") + setting.name + suffix;
      launch.arguments = {"mpirun.mpich", "-iface", "lo", "-np", std::to_string(ranks)};
      for (const std::string& variable : setting.words) {
        const size_t equals = variable.find('=');
        launch.arguments.insert(launch.arguments.end(),
                                {"-env", variable.substr(0, equals), variable.substr(equals + 1)});
      }
      launch.arguments.insert(launch.arguments.end(), {mpich, "{page}"});
      launch.environment.clear();
      Group* group = start(launch);
      if (group != nullptr) {
        contenders.push_back({"MPICH", launch.label, "", false, Type::float32, group});
      }
    }

    const std::string gloo = programs_ + "/compare_worker_gloo";
    if (peers.gloo && !installed(gloo)) {
      left_out.push_back("Gloo: not installed when this was built");
    } else if (peers.gloo) {
      launch.label = "Gloo" + suffix;
      const std::string meeting = folder_ + "/gloo" + (pin ? "1" : "0");
      mkdir(meeting.c_str(), 0700);
      launch.arguments = {gloo, "{page}", "{rank}", meeting};
      launch.environment.clear();
      Group* group = start(launch);
      for (const char* variant : kGlooVariants) {
        if (group == nullptr) break;
        contenders.push_back({"Gloo", std::string("Gloo ") + variant + suffix, variant, false,
                              Type::float32, group});
      }
    }
  }
}

}  // namespace railccl::compare
