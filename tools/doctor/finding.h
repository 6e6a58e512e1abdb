// Finding: one thing that railccl-doctor has to say: what is wrong, why it thinks so, what to do.
#pragma once

#include <string>
#include <vector>

namespace railccl::doctor {

struct Finding {
  enum class Severity : uint8_t { note, warning, error };
  Severity severity = Severity::error;
  std::string cause;   // a word for programs and tests: "silent-nic", "mtu", "address-taken"
  std::string what;    // "host b, rail1: answers nobody"
  std::string why;     // what was seen
  std::string advice;  // what to do
};
using Findings = std::vector<Finding>;

}  // namespace railccl::doctor
