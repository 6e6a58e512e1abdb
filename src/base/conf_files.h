// Conf files: variables from NCCL's configuration files, which count where the environment is
// silent.
//
// One VARIABLE=value per line; lines that start with # and lines without = say nothing. Only names
// that start with NCCL_ or RAILCCL_ are taken. The user's file is the one that NCCL_CONF_FILE
// names, else ~/.nccl.conf; what it leaves open /etc/nccl.conf may say (NCCL User Guide,
// "Environment Variables"). A file that is not there says nothing, as in NCCL.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace railccl {

struct ConfValue {
  std::string value;
  std::string file;  // that says so
};
using ConfValues = std::map<std::string, ConfValue, std::less<>>;

/// What a file with this text says; the first mention of a variable counts. Safe on any bytes.
std::map<std::string, std::string> parse_conf(std::string_view text);

/// What the files say that a process with this environment reads; `get` returns null for an absent
/// variable. At most kConfBytesMax of each file are read.
ConfValues conf_values(const std::function<const char*(const char*)>& get,
                       const std::string& system_file = "/etc/nccl.conf");
inline constexpr size_t kConfBytesMax = 64 << 10;

}  // namespace railccl
