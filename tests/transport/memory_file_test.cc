// Memory files and their way to other processes. Shown: which addresses lie in a file and until
// when; that a mapping outlives its owner's release, and the owner; that notices keep their order;
// that descriptors and messages of a peer that lies are refused. Both ends of the socket are in
// this process, which maps its own files a second time.
#include "transport/memory_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cstring>

#include "transport/shm_offers.h"

namespace railccl::transport {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<MemoryFile> make(size_t bytes) {
  auto file = MemoryFile::create(bytes);
  EXPECT_TRUE(file.is_ok()) << file.status().text();
  return *file;
}

TEST(MemoryFile, IsFoundByAnyAddressInside) {
  const auto file = make(10000);
  std::byte* const start = file->data();
  ASSERT_TRUE(file->shareable());
  EXPECT_EQ(file->size(), 12288u);
  for (const size_t bytes : {size_t{1}, size_t{12288}})
    EXPECT_EQ(MemoryFile::find(start, bytes), file);
  EXPECT_EQ(MemoryFile::find(start + 100, 12188), file);
  EXPECT_EQ(MemoryFile::find(start + 100, 12189), nullptr);
  EXPECT_EQ(MemoryFile::find(start - 1, 2), nullptr);
  EXPECT_EQ(MemoryFile::find(start + 12288, 1), nullptr);
  int on_stack = 0;
  EXPECT_EQ(MemoryFile::find(&on_stack, sizeof on_stack), nullptr);
  EXPECT_TRUE(MemoryFile::release(start));
}

TEST(MemoryFile, LivesUntilReleasedAndIsNeverNamedAgain) {
  uint64_t generation = MemoryFile::generation();
  auto file = make(1 << 20);
  EXPECT_NE(MemoryFile::generation(), generation);
  generation = MemoryFile::generation();
  std::byte* const start = file->data();
  const uint64_t id = file->id();
  const std::weak_ptr<MemoryFile> watch = file;
  EXPECT_FALSE(MemoryFile::release(start + 1));
  EXPECT_TRUE(MemoryFile::release(start));
  EXPECT_FALSE(MemoryFile::release(start));
  EXPECT_NE(MemoryFile::generation(), generation);
  EXPECT_EQ(MemoryFile::find(start, 1), nullptr);
  start[5] = std::byte{1};  // whoever holds it can use it
  file.reset();
  EXPECT_TRUE(watch.expired());
  const auto next = make(1 << 20);
  EXPECT_NE(next->id(), id);
  EXPECT_TRUE(MemoryFile::release(next->data()));
}

TEST(MemoryFile, LargeOnesAreAlignedForHugePages) {
  const auto file = make((4 << 20) + 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file->data()) % (2 << 20), 0u);
  file->data()[file->size() - 1] = std::byte{1};
  EXPECT_TRUE(MemoryFile::release(file->data()));
}

TEST(MemoryFile, WhatTheMachineDoesNotHaveIsAnError) {
  EXPECT_THAT(MemoryFile::create(size_t{1} << 46).status().text(), HasSubstr("cannot allocate"));
}

TEST(MemoryFile, LeavesDescriptorsToOthers) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 100;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<std::shared_ptr<MemoryFile>> files;
  for (int i = 0; i < 200; i++) files.push_back(make(4096));
  const UniqueFd still(memfd_create("other", MFD_CLOEXEC));
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(static_cast<bool>(still));
  EXPECT_TRUE(files.front()->shareable());
  EXPECT_FALSE(files.back()->shareable());
  EXPECT_EQ(MemoryFile::find(files.back()->data(), 1), nullptr);
  files.back()->data()[4095] = std::byte{1};
  for (const auto& file : files) EXPECT_TRUE(MemoryFile::release(file->data()));
}

TEST(MemoryFile, APeersMappingOutlivesTheRelease) {
  auto file = make(3 << 20);
  const auto mapped = map_peer_file(file->fd(), file->size());
  ASSERT_TRUE(mapped.is_ok()) << mapped.status().text();
  file->data()[1000] = std::byte{7};
  EXPECT_EQ((*mapped)->bytes()[1000], std::byte{7});
  (*mapped)->bytes()[2000] = std::byte{8};
  EXPECT_EQ(file->data()[2000], std::byte{8});
  file->note_shared();
  MemoryFile::release(file->data());
  file.reset();
  // Its pages are given back, the addresses stay good.
  EXPECT_EQ((*mapped)->bytes()[1000], std::byte{0});
  (*mapped)->bytes()[(3 << 20) - 1] = std::byte{9};
}

TEST(MemoryFile, RefusesDescriptorsThatCouldBreakLater) {
  UniqueFd open(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(open.get(), 8192), 0);
  EXPECT_THAT(map_peer_file(open.get(), 8192).status().text(), HasSubstr("not sealed"));
  ASSERT_EQ(fcntl(open.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{4096}, uint64_t{8193}, ~uint64_t{0}})
    EXPECT_THAT(map_peer_file(open.get(), bytes).status().text(), HasSubstr("not of"));
  EXPECT_TRUE(map_peer_file(open.get(), 8192).is_ok());
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const UniqueFd read_end(pipe_ends[0]), write_end(pipe_ends[1]);
  EXPECT_EQ(map_peer_file(pipe_ends[0], 8192).status().code(), Code::remote);
}

/// Two ends of a socket as shm's handshake leaves them.
struct Ends {
  Ends() {
    int both[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, both), 0);
    mine.reset(both[0]);
    theirs.reset(both[1]);
  }
  UniqueFd mine, theirs;
};

TEST(ShmOffers, OffersArriveInOrderAndAreWithdrawn) {
  Ends ends;
  ShmOutgoing outgoing;
  ShmIncoming incoming;
  const std::vector<int> sockets = {ends.mine.get()};
  auto first = make(4096), second = make(8192);
  EXPECT_EQ(outgoing.offer(first, {-1}), Offer::pending);
  EXPECT_EQ(outgoing.offer(first, sockets), Offer::known);
  EXPECT_EQ(outgoing.offer(first, sockets), Offer::known);  // sent once
  EXPECT_EQ(outgoing.offer(second, sockets), Offer::known);
  EXPECT_EQ(incoming.find(first->id()), nullptr);
  auto heard = incoming.hear(ends.theirs.get());
  ASSERT_TRUE(heard.is_ok()) << heard.status().text();
  EXPECT_TRUE(*heard);
  const auto mapped = incoming.find(first->id());
  ASSERT_NE(mapped, nullptr);
  EXPECT_EQ(mapped->size(), 4096u);
  ASSERT_NE(incoming.find(second->id()), nullptr);

  const uint64_t id = first->id();
  MemoryFile::release(first->data());
  first.reset();
  ASSERT_TRUE(outgoing.outdated());
  outgoing.withdraw_released(sockets);
  EXPECT_FALSE(outgoing.outdated());
  EXPECT_TRUE(*incoming.hear(ends.theirs.get()));
  EXPECT_EQ(incoming.find(id), nullptr);
  EXPECT_EQ(mapped->bytes()[0], std::byte{0});  // kept by who uses it
  MemoryFile::release(second->data());
  ends.mine.reset();
  EXPECT_FALSE(*incoming.hear(ends.theirs.get()));
}

TEST(ShmOffers, AFullSocketLosesNothing) {
  Ends ends;
  ShmOutgoing outgoing;
  ShmIncoming incoming;
  const std::vector<int> sockets = {ends.mine.get()};
  std::vector<std::shared_ptr<MemoryFile>> files;
  bool full = false;
  while (!full && files.size() < 2000) {
    files.push_back(make(4096));
    const Offer offer = outgoing.offer(files.back(), sockets);
    full = offer != Offer::known;
    // Either the socket's buffer or the number of descriptors on their way may be used up.
    if (offer == Offer::pending) {
      EXPECT_TRUE(*incoming.hear(ends.theirs.get()));
      EXPECT_EQ(outgoing.offer(files.back(), sockets), Offer::known);
    }
  }
  ASSERT_TRUE(full);
  EXPECT_TRUE(*incoming.hear(ends.theirs.get()));
  for (size_t i = 0; i + 1 < files.size(); i++) EXPECT_NE(incoming.find(files[i]->id()), nullptr);
  for (const auto& file : files) MemoryFile::release(file->data());
}

/// A notice as the peer's code would write it.
struct Raw {
  uint64_t magic = 0x7261696c6d656d6f;
  uint64_t kind = 1;
  uint64_t id = 1;
  uint64_t bytes = 4096;
};

void send_raw(int socket, const void* data, size_t bytes, int fd) {
  iovec range{const_cast<void*>(data), bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &range;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  ASSERT_EQ(sendmsg(socket, &message, 0), static_cast<ssize_t>(bytes));
}

TEST(ShmOffers, RefusesWhatIsNoNotice) {
  const auto file = make(4096);
  const auto verdict = [&](const Raw& raw, size_t bytes, int fd) {
    Ends ends;
    ShmIncoming incoming;
    send_raw(ends.mine.get(), &raw, bytes, fd);
    const auto heard = incoming.hear(ends.theirs.get());
    return heard.is_ok() ? std::string("ok") : heard.status().text();
  };
  EXPECT_EQ(verdict({}, sizeof(Raw), file->fd()), "ok");
  EXPECT_EQ(verdict({}, sizeof(Raw), -1), "ok");  // the kernel may drop descriptors
  Raw raw;
  raw.magic++;
  EXPECT_THAT(verdict(raw, sizeof raw, file->fd()), HasSubstr("no notice"));
  EXPECT_THAT(verdict({}, sizeof(Raw) - 1, file->fd()), HasSubstr("no notice"));
  EXPECT_THAT(verdict({}, 1, -1), HasSubstr("no notice"));
  raw = {};
  raw.kind = 3;
  EXPECT_THAT(verdict(raw, sizeof raw, file->fd()), HasSubstr("makes no sense"));
  raw = {};
  raw.bytes = 1 << 20;
  EXPECT_THAT(verdict(raw, sizeof raw, file->fd()), HasSubstr("not of"));
  Ends ends;
  ShmIncoming incoming;
  for (int i = 0; i < 2; i++) send_raw(ends.mine.get(), &raw, sizeof raw, -1);
  raw.bytes = 4096;
  for (int i = 0; i < 2; i++) send_raw(ends.mine.get(), &raw, sizeof raw, file->fd());
  EXPECT_THAT(incoming.hear(ends.theirs.get()).status().text(), HasSubstr("makes no sense"));
  MemoryFile::release(file->data());
}

}  // namespace
}  // namespace railccl::transport
