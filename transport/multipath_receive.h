// MultipathReceiver: puts together a byte stream that came in segments over several paths.
//
// Each segment says where in the stream it belongs. The segment whose turn it is goes from its path
// straight to the destination. What came before its turn is put aside while nothing else is to be
// done, so that whatever a path holds behind it can be seen; the sender's window bounds how much
// that can be. What has been there already, because the sender could not know that it had come
// across (multipath_send.h), is dropped.
//
// One thread at a time, that of the link.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "transport/path.h"

namespace railccl::transport {

class MultipathReceiver {
 public:
  /// Paths are known by a small number, free to be given again after remove().
  void add(int path, Path* way);
  /// What it had not delivered comes by others. Nothing if it is not there.
  void remove(int path);
  /// Moves bytes of the stream's front to dst; 0: none now. Fails when what arrives makes no sense.
  Result<size_t> fetch(std::byte* dst, size_t want);
  /// A path that is broken or was closed by the far end, with the reason, once; it was removed.
  std::optional<std::pair<int, Status>> take_lost();

 private:
  struct Early {  // a segment ahead of its turn, maybe not all of it
    std::vector<std::byte> bytes;
    size_t filled = 0;
  };
  using Earlies = std::multimap<uint64_t, Early>;  // by place in the stream
  struct In {                                      // a path
    Path* way = nullptr;
    uint64_t offset = 0;                     // place in the stream of the next byte of the segment
    size_t left = 0;                         // of the segment; 0: none
    bool large = false;                      // the sender keeps it in place, not a copy
    std::optional<Earlies::iterator> early;  // where the segment is put aside
    std::array<std::byte, 8 << 10> ahead;    // frames, and small segments behind them
    size_t head = 0, tail = 0;
  };

  In& in(int path) { return ins_[static_cast<size_t>(path)]; }
  Result<size_t> next_frame(int path);
  Result<size_t> take(int path, std::byte* dst, size_t bytes);
  Status put_aside(int path, bool* anything);
  size_t deliver_early(std::byte* dst, size_t want);
  void lose(int path, const Status& why);

  std::deque<In> ins_;
  uint64_t front_ = 0;  // bytes of the stream that were fetched
  Earlies earlies_;
  uint64_t early_bytes_ = 0;
  std::vector<std::byte> waste_;  // for what is dropped
  std::deque<std::pair<int, Status>> lost_;
};

}  // namespace railccl::transport
