// Ids of this host and process, hashed from what the kernel says about them.
#include "base/host_id.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "base/random.h"

namespace railccl {

namespace {

std::string contents_of(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string inode_of(const char* path) {
  struct stat status = {};
  if (stat(path, &status) != 0) return "none";
  return std::to_string(status.st_ino);
}

std::string device_of(const char* path) {
  struct stat status = {};
  if (stat(path, &status) != 0) return "none";
  return std::to_string(status.st_dev);
}

/// Field 22 of /proc/self/stat. The second field, the command in brackets, may hold anything.
std::string start_time() {
  const std::string text = contents_of("/proc/self/stat");
  const size_t bracket = text.rfind(')');
  if (bracket == std::string::npos) return "none";
  std::istringstream fields(text.substr(bracket + 1));
  std::string field;
  for (int number = 3; number <= 22; number++) fields >> field;
  return field;
}

uint64_t hash_text(const std::string& text) {
  const uint64_t hash = hash_bytes(text.data(), text.size());
  return hash != 0 ? hash : 1;
}

}  // namespace

uint64_t host_id(const Settings& settings) {
  if (!settings.host_id.empty()) return hash_text(settings.host_id);
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return hash_text(std::string(name) + '\n' + contents_of("/proc/sys/kernel/random/boot_id") +
                   inode_of("/proc/self/ns/net") + '\n' + device_of("/dev/shm"));
}

uint64_t machine_id(std::string_view cores) {
  return hash_text(contents_of("/proc/sys/kernel/random/boot_id") + std::string(cores));
}

uint64_t process_id() {
  return hash_text(contents_of("/proc/sys/kernel/random/boot_id") + inode_of("/proc/self/ns/pid") +
                   '\n' + std::to_string(getpid()) + '\n' + start_time());
}

}  // namespace railccl
