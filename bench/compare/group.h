// Group: the processes of one launch of one library at one setting, asleep except in their turns.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "page.h"

namespace railccl::compare {

/// How a group is started. `arguments` may contain {page} and {rank}; with {rank} one process is
/// started per rank, else the command is a launcher that starts them all. `commands`, if any, are
/// started instead, each once.
struct Launch {
  std::string label;
  std::vector<std::string> arguments;
  std::vector<std::vector<std::string>> commands;
  std::vector<std::pair<std::string, std::string>> environment;
  bool pin = true;
  bool crowded = false;
};

/// What a turn gave: one time per block, the slowest rank's.
struct Played {
  std::vector<double> us;
  uint64_t wrong = 0;
  double processor_us = 0;
  std::string refused;  // why the library does not offer this, or why the group is gone
};

/// Owner of the processes; the destructor ends them. Used by one thread.
class Group {
 public:
  /// Starts the processes and waits until all are connected, at most `timeout_s`. Null with the
  /// reason in `error`.
  static std::unique_ptr<Group> start(const Launch& launch, int ranks, const std::string& folder,
                                      int timeout_s, std::string* error);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  Played play(const Turn& turn, int timeout_s);
  bool lives() const { return lives_; }

 private:
  Group() = default;
  bool spawn(const std::vector<std::string>& command, const Launch& launch, int rank,
             const std::string& page_path);
  bool wait_ready(int timeout_s, std::string* error);
  bool any_gone();
  std::string last_words() const;
  void kill_all();

  PageFile page_;
  int ranks_ = 0;
  int log_ = -1;  // the processes' output, a memory file
  uint32_t turns_ = 0;
  bool lives_ = false;
  std::vector<pid_t> children_;
};

}  // namespace railccl::compare
