// Picture text: pictures of communicators as JSON: what the status socket answers and what a dump
// holds. docs/operations.md says what the fields mean. Private to this room.
#pragma once

#include <string>
#include <vector>

#include "runtime/picture.h"

namespace railccl::runtime {

/// Of a text's form; it changes when a reader of the old one would misunderstand the new one.
inline constexpr int kPictureFormat = 1;

/// This process and its communicators, with the last `operations` ones of each. Never much more
/// than `bytes_max`: older operations give way first, then whole communicators, which are counted.
std::string process_text(const std::vector<Picture>& pictures, size_t operations, size_t bytes_max);

}  // namespace railccl::runtime
