// Options of compare_host.
#pragma once

#include <string>
#include <vector>

#include "contenders.h"
#include "session.h"

namespace railccl::compare {

struct Options {
  std::vector<Operation> operations;
  std::vector<int> ranks{2};
  std::vector<uint64_t> sizes;
  std::vector<Type> types{Type::float32};
  std::vector<OwnSetting> own;
  PeerChoice peers;
  Rules rules;
  std::vector<Planned> planned;  // read from --launches
  bool registered = true;
  std::string bind = "auto";  // auto: to cores when there is one for each rank; cores; none
  bool details = false;
  std::string json;
  std::string svg;
  std::vector<std::string> replay;  // JSON files of earlier runs, instead of measuring
};

/// Parses argv. True when the program should go on; else `*code` is what main returns, and help or
/// the error was printed.
bool parse_options(int argc, char** argv, Options* options, int* code);

}  // namespace railccl::compare
