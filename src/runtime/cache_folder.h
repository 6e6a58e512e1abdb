// The folder where the library keeps what it measured, and its files.
//
//     $XDG_CACHE_HOME/railccl/        ($HOME/.cache/railccl/ when XDG_CACHE_HOME is not set)
//
// A file is believed only if it is a plain file of this user that nobody else may write, in such a
// folder. It is written under another name and renamed: readers see the old one or the new one.
// What its text says is for its reader to doubt. Any thread.
#pragma once

#include <optional>
#include <string>

#include "base/owners.h"
#include "base/settings.h"
#include "base/status.h"

namespace railccl::runtime {

class CacheFolder {
 public:
  /// Made when missing; or why there can be none.
  static Result<CacheFolder> open(const Settings& settings);

  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }

  /// The file's contents; nothing when there is no such file, an error when it has more than
  /// `bytes_max`.
  Result<std::optional<std::string>> read(const std::string& name, size_t bytes_max) const;
  /// Replaces the file as a whole.
  Status write(const std::string& name, const std::string& text) const;
  /// Of the files whose names begin with `prefix`, removes all but the `kept` newest.
  void prune(const std::string& prefix, size_t kept) const;

 private:
  CacheFolder(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

}  // namespace railccl::runtime
