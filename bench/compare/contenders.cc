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
  bool many = false;               // only with more than two ranks
};

std::vector<std::string> joined(std::vector<std::string> words,
                                const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// Open MPI 4.1's choices inside a host: the point-to-point layer (its own shared memory "vader",
// with and without the kernel's single copy, or UCX) and the collective component. There is no xhc
// before version 5.
const std::vector<Setting>& open_mpi_settings() {
  static const std::vector<std::string> no_copy = {"--mca", "btl_vader_single_copy_mechanism",
                                                   "none"};
  static const std::vector<std::string> ucx = {
      "--mca", "pml", "ucx", "--mca", "pml_ucx_tls", "any", "--mca", "pml_ucx_devices", "any"};
  static const std::vector<Setting> settings = {
      {"default", {}},
      {"no CMA", no_copy},
      {"coll sm", {"--mca", "coll_sm_priority", "100"}},
      {"coll han", {"--mca", "coll_han_priority", "100"}},
      {"UCX", joined(ucx, {"-x", "UCX_TLS=self,posix,sysv,cma"})},
      {"UCX, no CMA", joined(ucx, {"-x", "UCX_TLS=self,posix,sysv"})},
      {"Rabenseifner, no CMA",
       joined(no_copy, {"--mca", "coll_tuned_use_dynamic_rules", "1", "--mca",
                        "coll_tuned_allreduce_algorithm", "6"}),
       true},
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

Field::Field(const FieldOptions& options) : options_(options) {
  if (!options_.planned.empty()) {
    add_planned();
    return;
  }
  add_ours();
  if (options_.peers.open_mpi) add_open_mpi();
  if (options_.peers.mpich) add_mpich();
  if (options_.peers.gloo) add_gloo();
}

Launch Field::launch_of(const std::string& label, std::vector<std::string> arguments) const {
  Launch launch;
  launch.label = label;
  launch.arguments = std::move(arguments);
  launch.crowded = options_.crowded;
  launch.pin = options_.pin;
  return launch;
}

Group* Field::start(const Launch& launch) {
  std::string error;
  auto group = Group::start(launch, options_.ranks, options_.folder, kStartTimeoutS, &error);
  if (group == nullptr) {
    left_out.push_back(launch.label + ": " + error);
    return nullptr;
  }
  groups_.push_back(std::move(group));
  return groups_.back().get();
}

bool Field::present(const std::string& family, const std::string& worker,
                    const std::string& launcher) {
  if (!installed(worker)) {
    left_out.push_back(family + ": was not found when this was built");
  } else if (!installed(launcher)) {
    left_out.push_back(family + ": no " + launcher);
  } else {
    return true;
  }
  return false;
}

void Field::add_planned() {
  for (const Planned& planned : options_.planned) {
    Launch launch = planned.launch;
    launch.pin = options_.pin;
    launch.crowded = options_.crowded;
    Group* group = start(launch);
    if (group == nullptr) continue;
    for (const std::string& variant : planned.variants) {
      const std::string label = variant.empty() ? launch.label : launch.label + " " + variant;
      contenders.push_back({planned.family, label, variant, false, Type::float32, group});
    }
  }
}

void Field::add_ours() {
  std::vector<OwnSetting> settings = {{"", {}}};
  settings.insert(settings.end(), options_.own.begin(), options_.own.end());
  for (const OwnSetting& setting : settings) {
    Launch launch = launch_of(setting.label.empty() ? "railccl" : "railccl " + setting.label,
                              {options_.programs + "/compare_worker_railccl", "{page}", "{rank}"});
    launch.environment = setting.environment;
    Group* group = start(launch);
    if (group == nullptr) continue;
    for (const Type type : options_.types) {
      std::string label = launch.label;
      if (type != Type::float32) label += std::string(" ") + name_of(type);
      contenders.push_back({"railccl", label, "", false, type, group});
      if (!options_.registered) continue;
      contenders.push_back({"railccl", label + " registered", "", true, type, group});
    }
  }
}

void Field::add_open_mpi() {
  const std::string worker = options_.programs + "/compare_worker_openmpi";
  if (!present("Open MPI", worker, "mpirun.openmpi")) return;
  // Binding is the workers' own affair, the same for all libraries.
  const std::vector<std::string> common = {"mpirun.openmpi",
                                           "-np",
                                           std::to_string(options_.ranks),
                                           "--bind-to",
                                           "none",
                                           "--oversubscribe",
                                           "--mca",
                                           "mpi_yield_when_idle",
                                           options_.crowded ? "1" : "0",
                                           "--mca",
                                           "btl_tcp_if_include",
                                           "lo",
                                           "--mca",
                                           "oob_tcp_if_include",
                                           "lo"};
  for (const Setting& setting : open_mpi_settings()) {
    if (setting.many && options_.ranks <= 2) continue;
    if (!options_.peers.all_settings && !setting.words.empty()) continue;
    Launch launch = launch_of(std::string("Open MPI ") + setting.name,
                              joined(joined(common, setting.words), {worker, "{page}"}));
    if (geteuid() == 0) {
      launch.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                            {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
    }
    Group* group = start(launch);
    if (group == nullptr) continue;
    contenders.push_back({"Open MPI", launch.label, "", false, Type::float32, group});
  }
}

void Field::add_mpich() {
  const std::string worker = options_.programs + "/compare_worker_mpich";
  if (!present("MPICH", worker, "mpirun.mpich")) return;
  for (const Setting& setting : mpich_settings()) {
    if (!options_.peers.all_settings && !setting.words.empty()) continue;
    std::vector<std::string> words = {"mpirun.mpich", "-iface", "lo", "-np",
                                      std::to_string(options_.ranks)};
    for (const std::string& variable : setting.words) {
      const size_t equals = variable.find('=');
      words = joined(words, {"-env", variable.substr(0, equals), variable.substr(equals + 1)});
    }
    const Launch launch =
        launch_of(std::string("MPICH ") + setting.name, joined(words, {worker, "{page}"}));
    Group* group = start(launch);
    if (group == nullptr) continue;
    contenders.push_back({"MPICH", launch.label, "", false, Type::float32, group});
  }
}

void Field::add_gloo() {
  const std::string worker = options_.programs + "/compare_worker_gloo";
  if (!present("Gloo", worker, worker)) return;
  const std::string meeting = options_.folder + "/gloo";
  mkdir(meeting.c_str(), 0700);
  Group* group = start(launch_of("Gloo", {worker, "{page}", "{rank}", meeting}));
  if (group == nullptr) return;
  for (const char* variant : kGlooVariants) {
    contenders.push_back(
        {"Gloo", std::string("Gloo ") + variant, variant, false, Type::float32, group});
  }
}

}  // namespace railccl::compare
