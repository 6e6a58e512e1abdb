// Worker: the part of compare_host that runs inside the processes of every contender, the same for
// all libraries: takes turns from the page, rewrites buffers, times calls, verifies results.
//
// A library is a Library below and a main() that calls run_worker(). How a sample is taken is
// written in docs/performance.md; in short: rewrite both buffers, meet, read the clock, call, read
// the clock.
#pragma once

#include <string>

#include "page.h"

namespace railccl::compare {

/// What one call works on. Counts are elements: `block` is one rank's part where buffers differ.
struct Work {
  Operation operation = Operation::all_reduce;
  Type type = Type::float32;
  size_t count = 0;  // of the larger buffer
  size_t block = 0;  // count / ranks
  void* in = nullptr;
  void* out = nullptr;    // broadcast always works in place here
  bool in_place = false;  // set by bind(): `out` is the input too
  std::string variant;
};

/// A communication library under comparison. One object per process, used by one thread.
class Library {
 public:
  virtual ~Library() = default;
  /// Collective. False with the reason in `error`.
  virtual bool connect(Page& page, int rank, std::string* error) = 0;
  /// Memory for one buffer; `registered`: from the library's own allocator. Null on failure.
  virtual void* allocate(size_t bytes, bool registered);
  virtual void release(void* memory, size_t bytes, bool registered);
  /// Collective: prepares calls on `work`, which stays valid until unbind(). False with the reason
  /// in `error`, equally on all ranks, when the library does not offer it.
  virtual bool bind(Work& work, std::string* error) = 0;
  /// The timed call. False on failure, with the reason in failure().
  virtual bool call() = 0;
  virtual void unbind() {}
  virtual std::string failure() { return "the call failed"; }
};

/// Serves turns until told to finish or the driver is gone. Returns the exit code for main().
int run_worker(Library& library, const std::string& page_path, int rank);

/// Binds this process, and the threads it will start, to the rank-th core it may use when the page
/// says so. Call before the library is initialised.
void pin_if_asked(const Page& page, int rank);

}  // namespace railccl::compare
