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
};

/// Another setting of ours to compare with: "label:NAME=value NAME=value".
struct OwnSetting {
  std::string label;
  std::vector<std::pair<std::string, std::string>> environment;
};

/// Everything to be compared on `ranks` ranks, started and asleep.
class Field {
 public:
  /// `programs` is the folder of the compare_worker_* programs; `folder` an empty scratch folder.
  /// What is missing or does not start is left out, with a line of reason in `left_out`.
  Field(const std::string& programs, const std::string& folder, int ranks, int cores,
        const PeerChoice& peers, const std::vector<OwnSetting>& own, const std::vector<Type>& types,
        bool registered);

  std::vector<Contender> contenders;
  std::vector<std::string> left_out;

 private:
  Group* start(const Launch& launch);

  std::string programs_;
  std::string folder_;
  int ranks_;
  std::vector<std::unique_ptr<Group>> groups_;
};

}  // namespace railccl::compare
