// Writing a dump; see dump.h.
#include "runtime/dump.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <limits>
#include <mutex>

#include "base/owners.h"
#include "runtime/observed.h"
#include "runtime/picture_text.h"

namespace railccl::runtime {
namespace {

constexpr size_t kBytesMax = 16 << 20;

Status write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return system_error(errno, "write");
    done += static_cast<size_t>(wrote);
  }
  return ok();
}

std::string host_name() {
  char name[256] = "host";
  ::gethostname(name, sizeof name - 1);
  std::string host(name);
  for (char& c : host)
    if (c == '/') c = '_';
  return host;
}

}  // namespace

Result<std::string> write_dump(const std::string& folder) {
  // One at a time: the last one has to be the one that knows most.
  static auto* mutex = new std::mutex;  // never destroyed: the process may be ending
  std::lock_guard lock(*mutex);
  const std::string path = fmt::format("{}/railccl-{}-{}.json", folder, host_name(), ::getpid());
  const std::string unfinished = path + ".tmp";
  const std::string text =
      process_text(Observed::all(), std::numeric_limits<size_t>::max(), kBytesMax);
  ::unlink(unfinished.c_str());  // of a process that had this number before
  UniqueFd file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                       S_IRUSR | S_IWUSR));
  if (!file) return system_error(errno, fmt::format("RAILCCL_DUMP_DIR={}", folder));
  Status status = write_all(file.get(), text);
  if (status.is_ok() && ::rename(unfinished.c_str(), path.c_str()) != 0)
    status = system_error(errno, "rename");
  if (status.is_ok()) return path;
  ::unlink(unfinished.c_str());
  return status.context("{}", unfinished);
}

}  // namespace railccl::runtime
