// Contenders: the table of what is compared: railccl, and each peer at each of its settings.
#pragma once

#include <string>
#include <vector>

#include "group.h"

namespace railccl::compare {

/// One column of the comparison: a group's processes, asked for one variant.
struct Contender {
  std::string family;  // "railccl", "Open MPI", "MPICH", "Gloo"
  std::string label;   // family and setting, unique
  std::string variant;
  bool registered = false;
  Type type = Type::float32;
  Group* group = nullptr;
};

struct PeerChoice {
  bool open_mpi = true;
  bool mpich = true;
  bool gloo = true;
  bool all_settings = true;  // false: each peer as it comes
};

/// Another setting of ours to compare with: "label:NAME=value NAME=value".
struct OwnSetting {
  std::string label;
  std::vector<std::pair<std::string, std::string>> environment;
};

/// A group that is started as told, not as this program would.
struct Planned {
  std::string family;
  Launch launch;
  std::vector<std::string> variants{""};
};

struct FieldOptions {
  std::string programs;  // the folder of the compare_worker_* programs
  std::string folder;    // an empty scratch folder
  int ranks = 2;
  bool crowded = false;  // more ranks than cores: everyone must yield while waiting
  bool pin = true;       // rank r on the r-th core
  PeerChoice peers;
  std::vector<OwnSetting> own;
  std::vector<Type> types{Type::float32};
  bool registered = true;        // also ours with buffers from ncclMemAlloc
  std::vector<Planned> planned;  // these are compared, and nothing else
};

/// Everything to be compared, started and asleep. Used by one thread.
class Field {
 public:
  /// What is missing or does not start is left out, with a line of reason in `left_out`.
  explicit Field(const FieldOptions& options);

  std::vector<Contender> contenders;
  std::vector<std::string> left_out;

 private:
  Launch launch_of(const std::string& label, std::vector<std::string> arguments) const;
  Group* start(const Launch& launch);
  bool present(const std::string& family, const std::string& worker, const std::string& launcher);
  void add_planned();
  void add_ours();
  void add_open_mpi();
  void add_mpich();
  void add_gloo();

  FieldOptions options_;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace railccl::compare
