// Observed: the communicators of this process, for those who look at all of them from outside.
//
// A communicator adds itself, and ends its being observed before anything of it goes away: end()
// waits until nobody looks at it. To look never keeps a communicator alive. fork: the child has no
// observed communicators but those that it makes itself. Any thread. Private to this room.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/picture.h"

namespace railccl::runtime {

class Observed {
 public:
  /// `look` is called by any thread, between now and end(); it must neither wait nor call end().
  static std::shared_ptr<Observed> add(std::function<Picture(size_t operations)> look);
  /// On return `look` is not running and will not be called again. Idempotent.
  void end();
  /// Of all communicators of this process, in the order in which they were made, each with its last
  /// `operations` ones.
  static std::vector<Picture> all(size_t operations);

 private:
  explicit Observed(std::function<Picture(size_t)> look);
  const int process_;
  std::mutex mutex_;
  std::function<Picture(size_t)> look_;  // null: it has ended
};

}  // namespace railccl::runtime
