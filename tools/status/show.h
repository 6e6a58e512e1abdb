// Show: what was gathered, for people and for programs. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "status/gather.h"
#include "status/view.h"

namespace railccl::status {

/// What a host's processes said, and those that said nothing that can be read.
struct Gathered {
  struct Unread {
    int process = 0;
    std::string why;  // "does not answer (stopped)"
  };
  std::string host;
  std::vector<Process> processes;
  std::vector<std::string> texts;  // of `processes`: JSON, as it came
  std::vector<Unread> unread;

  /// Is all well, as far as it can be seen?
  bool well() const;
};
Gathered read(const std::vector<Answer>& answers, std::string host);

std::string text_of(const Gathered& gathered);
/// {"host", "processes": what each said, "unread": [{"pid", "why"}], "communicators": what follows
/// from all of them together}.
std::string json_of(const Gathered& gathered);

/// "1.50 GB/s", "12 ms": for the other texts.
std::string rate_text(double bytes_per_s);

}  // namespace railccl::status
