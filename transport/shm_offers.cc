// Notices about memory files: one message each on a sequenced-packet socket.
#include "transport/shm_offers.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr uint64_t kNoticeMagic = 0x7261696c6d656d6f;  // "railmemo"
constexpr size_t kFilesMax = 4096;                     // that a peer may have offered at a time

enum class Kind : uint64_t { offer = 1, withdrawal = 2 };

struct Notice {
  uint64_t magic = kNoticeMagic;
  Kind kind = Kind::offer;
  uint64_t id = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(Notice) == 32);

/// True when sent, false when the socket is full.
Result<bool> send_notice(int socket, const Notice& notice, int fd) {
  iovec data{const_cast<Notice*>(&notice), sizeof(notice)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(notice)) return true;
  if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) return false;
  return system_error(errno, "shm: cannot share memory");
}

enum class Heard : uint8_t { nothing, hung_up, notice };

Result<Heard> receive_notice(int socket, Notice* notice, UniqueFd* fd) {
  iovec data{notice, sizeof(*notice)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Heard::nothing;
  if (got <= 0) return Heard::hung_up;
  // What came is owned first, so that no refusal below leaks a descriptor.
  const cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
      rights->cmsg_len == CMSG_LEN(sizeof(int))) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(rights), sizeof(int));
    fd->reset(number);
  }
  if (got != sizeof(*notice) || (message.msg_flags & MSG_TRUNC) != 0 ||
      notice->magic != kNoticeMagic)
    return Status(Code::remote, "shm: a message of {} bytes is no notice about memory", got);
  return Heard::notice;
}

}  // namespace

Result<bool> ShmIncoming::hear(int socket) {
  while (true) {
    Notice notice;
    UniqueFd fd;
    RAILCCL_TRY(const Heard heard, receive_notice(socket, &notice, &fd));
    if (heard == Heard::nothing) return true;
    if (heard == Heard::hung_up) return false;
    if (notice.kind == Kind::withdrawal) {
      files_.erase(notice.id);
      continue;
    }
    if (notice.kind != Kind::offer || files_.contains(notice.id) || files_.size() == kFilesMax)
      return Status(Code::remote, "shm: a notice of kind {} about memory {} makes no sense",
                    static_cast<uint64_t>(notice.kind), notice.id);
    // The kernel drops descriptors when this process has too many.
    if (!fd) {
      log::info("shm: the memory that a peer shares came without its descriptor");
      continue;
    }
    auto mapped = map_peer_file(fd.get(), notice.bytes);
    if (mapped.is_ok()) {
      files_.emplace(notice.id, std::move(mapped).value());
    } else if (mapped.status().code() == Code::system) {
      log::info("shm: memory of a peer: {}", mapped.status().text());
    } else {
      return mapped.status();
    }
  }
}

Offer ShmOutgoing::offer(const std::shared_ptr<MemoryFile>& file, const std::vector<int>& sockets) {
  Row& row = rows_[file->id()];
  if (row.sent.empty()) {
    if (rows_.size() > kFilesMax) {
      rows_.erase(file->id());
      return Offer::impossible;
    }
    row = {file, std::vector<bool>(sockets.size(), false)};
    file->note_shared();
  }
  Offer result = Offer::known;
  for (size_t i = 0; i < sockets.size(); i++) {
    if (row.sent[i]) continue;
    if (sockets[i] < 0) {
      result = Offer::pending;
      continue;
    }
    const Notice notice{kNoticeMagic, Kind::offer, file->id(), file->size()};
    auto sent = send_notice(sockets[i], notice, file->fd());
    if (!sent.is_ok()) {
      log::info("{}", sent.status().text());
      return Offer::impossible;
    }
    row.sent[i] = *sent;
    if (!*sent) result = Offer::pending;
  }
  return result;
}

void ShmOutgoing::withdraw_released(const std::vector<int>& sockets) {
  const uint64_t now = MemoryFile::generation();
  bool complete = true;
  for (auto entry = rows_.begin(); entry != rows_.end();) {
    Row& row = entry->second;
    bool told = row.file.expired();
    if (!told) {
      ++entry;
      continue;
    }
    for (size_t i = 0; i < sockets.size(); i++) {
      if (!row.sent[i] || sockets[i] < 0) continue;
      const auto sent =
          send_notice(sockets[i], {kNoticeMagic, Kind::withdrawal, entry->first, 0}, -1);
      // A peer that is gone needs no news.
      row.sent[i] = sent.is_ok() && !*sent;
      told = told && !row.sent[i];
    }
    complete = complete && told;
    entry = told ? rows_.erase(entry) : std::next(entry);
  }
  if (complete) generation_ = now;
}

}  // namespace railccl::transport
