// The list of this process's communicators; see observed.h.
#include "runtime/observed.h"

#include <pthread.h>
#include <unistd.h>

#include <utility>

namespace railccl::runtime {
namespace {

struct List {
  std::mutex mutex;
  std::vector<std::shared_ptr<Observed>> entries;
  std::vector<std::shared_ptr<Observed>> inherited;  // of the process that this one was forked from
};

List& list() {
  static List* instance = [] {
    auto* made = new List;  // never destroyed: threads may look while the process ends
    // A child must find the list in one piece, and empty. Should the handlers not be installed, a
    // child of a process that is just being looked at may hang; there is nothing better to do.
    static_cast<void>(::pthread_atfork([] { list().mutex.lock(); }, [] { list().mutex.unlock(); },
                                       [] {
                                         // Their mutexes may be held by threads that are not here.
                                         list().inherited = std::exchange(list().entries, {});
                                         list().mutex.unlock();
                                       }));
    return made;
  }();
  return *instance;
}

}  // namespace

Observed::Observed(std::function<Picture(size_t)> look)
    : process_(::getpid()), look_(std::move(look)) {}

std::shared_ptr<Observed> Observed::add(std::function<Picture(size_t)> look) {
  std::shared_ptr<Observed> entry(new Observed(std::move(look)));
  std::lock_guard lock(list().mutex);
  list().entries.push_back(entry);
  return entry;
}

void Observed::end() {
  if (::getpid() != process_) return;  // a forked child's copy: nobody looks at it
  {
    std::lock_guard lock(list().mutex);
    std::erase_if(list().entries, [&](const auto& entry) { return entry.get() == this; });
  }
  std::lock_guard lock(mutex_);
  look_ = nullptr;
}

std::vector<Picture> Observed::all(size_t operations) {
  std::vector<std::shared_ptr<Observed>> entries;
  {
    std::lock_guard lock(list().mutex);
    entries = list().entries;
  }
  std::vector<Picture> pictures;
  for (const auto& entry : entries) {
    std::lock_guard lock(entry->mutex_);
    if (entry->look_) pictures.push_back(entry->look_(operations));
  }
  return pictures;
}

}  // namespace railccl::runtime
