// Picture text: pictures of communicators as JSON: what the status socket answers and what a dump
// holds. docs/operations.md says what the fields mean. Pure functions, but for process_text(),
// which says whose process it is and when. Private to this room.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/picture.h"

namespace railccl::runtime {

/// Of a text's form; it changes when a reader of the old one would misunderstand the new one.
inline constexpr int kPictureFormat = 1;

/// `operations`: how many of the last ones are told.
nlohmann::ordered_json json_of(const Picture& picture, size_t operations);

/// This process and its communicators, in at most about `bytes_max`: those that do not fit are
/// left out, from the last one, and counted.
std::string process_text(const std::vector<Picture>& pictures, size_t operations, size_t bytes_max);

}  // namespace railccl::runtime
