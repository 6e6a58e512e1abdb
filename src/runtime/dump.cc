// Writing a dump; see dump.h.
#include "runtime/dump.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "base/owners.h"
#include "runtime/observed.h"
#include "runtime/picture_text.h"

namespace railccl::runtime {

namespace {
constexpr int kWaitMs = 1000;
}  // namespace

struct Dump::Progress {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  const Deadline until = Deadline::after_ms(kWaitMs);
};

namespace {

constexpr size_t kDumpBytesMax = 16 << 20;
constexpr size_t kEveryOperation = std::numeric_limits<size_t>::max();

Status write_text(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t wrote = ::write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return system_error(errno, "write");
    done += static_cast<size_t>(wrote);
  }
  return ok();
}

std::string own_host() {
  char name[256] = "host";
  ::gethostname(name, sizeof name - 1);
  std::string host(name);
  for (char& c : host)
    if (c == '/') c = '_';
  return host;
}

/// The name of the file.
Result<std::string> write_dump(const std::string& folder) {
  // One at a time: the last one has to be the one that knows most.
  static auto* mutex = new std::mutex;  // never destroyed: the process may be ending
  std::lock_guard lock(*mutex);
  const std::string path = fmt::format("{}/railccl-{}-{}.json", folder, own_host(), ::getpid());
  const std::string unfinished = path + ".tmp";
  const std::string text =
      process_text(Observed::all(kEveryOperation), kEveryOperation, kDumpBytesMax);
  ::unlink(unfinished.c_str());  // of a process that had this number before
  UniqueFd file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                       S_IRUSR | S_IWUSR));
  if (!file) return system_error(errno, fmt::format("RAILCCL_DUMP_DIR={}", folder));
  Status status = write_text(file.get(), text);
  if (status.is_ok() && ::rename(unfinished.c_str(), path.c_str()) != 0)
    status = system_error(errno, "rename");
  if (status.is_ok()) return path;
  ::unlink(unfinished.c_str());
  return status.context("{}", unfinished);
}

void write_and_tell(const std::string& folder, const std::string& title) {
  const auto written = write_dump(folder);
  if (written.is_ok()) {
    log::warn("{}: what this process knows of it is in {}", title, *written);
  } else {
    log::warn("{}: no dump: {}", title, written.status().text());
  }
}

}  // namespace

std::shared_ptr<Dump> Dump::begin(const std::string& folder, const std::string& title) {
  auto progress = std::make_shared<Progress>();
  sigset_t all, before;  // signals are for the program's threads
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([progress, folder, title] {
      ::pthread_setname_np(::pthread_self(), "railccl-dump");
      write_and_tell(folder, title);
      std::lock_guard lock(progress->mutex);
      progress->over = true;
      progress->changed.notify_all();
    }).detach();
  } catch (const std::system_error& error) {
    log::warn("{}: no dump: no thread to write it: {}", title, error.what());
    progress->over = true;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::shared_ptr<Dump>(new Dump(std::move(progress)));
}

void Dump::wait() const {
  std::unique_lock lock(progress_->mutex);
  progress_->changed.wait_for(lock, std::chrono::milliseconds(progress_->until.left_ms(kWaitMs)),
                              [&] { return progress_->over; });
}

}  // namespace railccl::runtime
