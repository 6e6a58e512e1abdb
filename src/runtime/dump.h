// Dump: what a process knows of its communicators, left in a file for those who come when it is
// gone. Private to this room.
#pragma once

#include <memory>
#include <string>

namespace railccl::runtime {

/// FOLDER/railccl-HOST-PID.json, readable by its user alone: the text of picture_text.h, at most
/// 16 MiB. A later dump of the process takes the place of an earlier one, never half of it.
class Dump {
 public:
  /// Starts writing, by a thread of its own: a file system that hangs holds up nobody. The log is
  /// told what became of it, in the name of `title`. Any thread.
  static std::shared_ptr<Dump> begin(const std::string& folder, const std::string& title);
  /// Until it is over, well or not; at most until a second after it was begun.
  void wait() const;

 private:
  struct Progress;
  explicit Dump(std::shared_ptr<Progress> progress) : progress_(std::move(progress)) {}
  const std::shared_ptr<Progress> progress_;
};

}  // namespace railccl::runtime
