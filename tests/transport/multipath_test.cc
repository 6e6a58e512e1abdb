// Multipath over simulated paths with a virtual clock: whatever paths do (crawl, fall silent, come
// back, break), every byte comes once and in order, and no source is read after its release.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "base/random.h"
#include "transport/harness.h"
#include "transport/multipath_receive.h"
#include "transport/multipath_send.h"

namespace railccl::transport {
namespace {

constexpr int64_t kMs = 1'000'000;

/// One direction of a path: a kernel's socket buffer, a wire with a rate and a delay, and the far
/// kernel's buffer. A cut wire keeps what it has, as TCP does, and delivers it when it is mended.
class SimulatedPath final : public Path {
 public:
  SimulatedPath(const int64_t* now, double bytes_per_s, int64_t delay_ns)
      : now_(now), rate_(bytes_per_s), delay_ns_(delay_ns) {}

  Result<size_t> write(std::span<const iovec> ranges) override {
    if (broken_) return Status(Code::remote, "broken");
    size_t room = kBuffer - (written_ - acknowledged());
    size_t done = 0;
    for (const iovec& range : ranges) {
      const size_t bytes = std::min(room, range.iov_len);
      const auto* from = static_cast<const std::byte*>(range.iov_base);
      if (bytes > 0) wire_.insert(wire_.end(), from, from + bytes);
      done += bytes;
      room -= bytes;
    }
    if (written_ == arrived_) free_ns_ = *now_;  // the wire was idle
    written_ += done;
    return done;
  }
  uint64_t acknowledged() override {
    move();
    return arrived_;
  }
  bool under_way() override { return written_ > acknowledged() && arrived_ - read_ < kBuffer; }
  int64_t round_trip_ns() override { return 2 * delay_ns_; }
  int64_t patience_ns() override { return sure ? kSilentLeastNs : Path::patience_ns(); }
  double bytes_per_s() override { return rate_; }
  Result<size_t> read(std::span<const iovec> ranges) override {
    move();
    size_t done = 0;
    for (const iovec& range : ranges) {
      const size_t bytes = std::min<uint64_t>(range.iov_len, arrived_ - read_);
      auto* to = static_cast<std::byte*>(range.iov_base);
      for (size_t i = 0; i < bytes; i++) to[i] = wire_[i];
      wire_.erase(wire_.begin(), wire_.begin() + static_cast<ptrdiff_t>(bytes));
      read_ += bytes;
      done += bytes;
    }
    if (done == 0 && broken_ && arrived_ == read_) return Status(Code::remote, "broken");
    return done;
  }

  void cut() {
    move();
    cut_ = true;
  }
  void mend() {
    if (cut_) free_ns_ = *now_;
    cut_ = false;
  }
  void break_now() {
    move();
    broken_ = true;
  }
  void set_rate(double rate) {
    move();
    rate_ = rate;
  }
  /// It can tell earlier that nothing comes through.
  bool sure = false;
  bool broken() const { return broken_; }
  uint64_t written() const { return written_; }

 private:
  static constexpr size_t kBuffer = 200'000;
  void move() {
    if (cut_ || broken_) return;
    const int64_t until = *now_ - delay_ns_;
    if (until <= free_ns_) return;
    const auto could = static_cast<uint64_t>(static_cast<double>(until - free_ns_) * 1e-9 * rate_);
    const uint64_t bytes = std::min({could, written_ - arrived_, kBuffer - (arrived_ - read_)});
    if (bytes == 0) return;
    arrived_ += bytes;
    free_ns_ += static_cast<int64_t>(static_cast<double>(bytes) / rate_ * 1e9);
    if (arrived_ == written_ || arrived_ - read_ == kBuffer) free_ns_ = std::max(free_ns_, until);
  }
  const int64_t* now_;
  double rate_;
  const int64_t delay_ns_;
  std::deque<std::byte> wire_;  // written, not read
  uint64_t written_ = 0, arrived_ = 0, read_ = 0;
  int64_t free_ns_ = 0;  // until when the wire's bytes have arrived
  bool cut_ = false, broken_ = false;
};

/// A sender, a receiver, and the stream between them.
class Stream {
 public:
  explicit Stream(uint64_t seed) : random_(seed), seed_(seed) {}

  int add(double rate, int64_t delay_ns, bool home) {
    paths_.push_back(std::make_unique<SimulatedPath>(&now_, rate, delay_ns));
    const int path = static_cast<int>(paths_.size()) - 1;
    sender_.add(path, paths_.back().get(), home, now_);
    receiver_.add(path, paths_.back().get());
    return path;
  }
  SimulatedPath& path(int i) { return *paths_[static_cast<size_t>(i)]; }
  MultipathSender& sender() { return sender_; }
  int64_t now() const { return now_; }
  const std::vector<PathNews>& news() const { return news_; }
  Random& random() { return random_; }
  uint64_t received() const { return received_; }

  /// Lets time pass; sends as long as fewer than `total` bytes were.
  void step(uint64_t total) {
    now_ += 20'000 + static_cast<int64_t>(random_.below(400'000));
    for (int i = 0; i < 4; i++) send_some(total);
    if (sender_.flush(now_)) flushed_at_ = sent_;
    if (now_ >= next_watch_) {
      sender_.watch(now_);
      next_watch_ = now_ + 2 * kMs;
    }
    while (auto one = sender_.take_news()) news_.push_back(*one);
    while (auto lost = receiver_.take_lost()) sender_.remove(lost->first);
    reuse_released();
    if (!random_.chance(receiver_rests)) receive_some();
  }
  /// Sends `total` bytes in all, and returns when both sides are done with them, or after `limit`.
  bool run(uint64_t total, int64_t limit_ns) {
    const int64_t end = now_ + limit_ns;
    while (received_ < total || sender_.released() < total || flushed_at_ < total) {
      if (now_ > end || HasFailure()) return false;
      step(total);
    }
    return true;
  }
  double receiver_rests = 0.1;
  size_t message_max = 600'000;

 private:
  static bool HasFailure() { return ::testing::Test::HasFailure(); }
  void send_some(uint64_t total) {
    if (messages_.empty() || messages_.back().taken == messages_.back().bytes.size()) {
      if (sent_ == total || messages_.size() > 12) return;
      const bool small = random_.chance(0.5);
      const size_t most = std::min<uint64_t>(total - sent_, small ? 2000 : message_max);
      messages_.push_back({sent_, std::vector<std::byte>(1 + random_.below(most)), 0});
      fill_pattern(messages_.back().bytes.data(), seed_, sent_, messages_.back().bytes.size());
    }
    Message& message = messages_.back();
    const size_t left = message.bytes.size() - message.taken;
    const size_t first = random_.below(left + 1);
    const iovec ranges[2] = {{message.bytes.data() + message.taken, first},
                             {message.bytes.data() + message.taken + first, left - first}};
    Result<size_t> took = sender_.send(ranges, now_);
    ASSERT_TRUE(took.is_ok());
    ASSERT_LE(*took, left);
    message.taken += *took;
    sent_ += *took;
  }
  // Who owns the memory writes into it as soon as he may.
  void reuse_released() {
    const uint64_t released = sender_.released();
    ASSERT_LE(released, sent_);
    ASSERT_GE(released, last_released_);
    last_released_ = released;
    for (Message& message : messages_) {
      const uint64_t free = std::min<uint64_t>(
          message.taken, released > message.offset ? released - message.offset : 0);
      std::fill_n(message.bytes.begin(), free, std::byte{0xee});
    }
    while (!messages_.empty() &&
           messages_.front().offset + messages_.front().bytes.size() <= released &&
           messages_.front().taken == messages_.front().bytes.size())
      messages_.pop_front();
  }
  void receive_some() {
    buffer_.resize(1 + random_.below(300'000));
    size_t budget = buffer_.size();
    while (budget > 0) {
      Result<size_t> got = receiver_.fetch(buffer_.data(), budget);
      ASSERT_TRUE(got.is_ok()) << got.status().text();
      if (*got == 0) return;
      ASSERT_EQ(check_pattern(buffer_.data(), seed_, received_, *got), *got)
          << "byte " << received_ << " and following";
      received_ += *got;
      budget -= *got;
      ASSERT_LE(received_, sent_);
    }
  }
  struct Message {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
    size_t taken = 0;
  };
  Random random_;
  const uint64_t seed_;
  int64_t now_ = 1'000'000'000;
  int64_t next_watch_ = 0;
  std::vector<std::unique_ptr<SimulatedPath>> paths_;
  MultipathSender sender_;
  MultipathReceiver receiver_;
  std::deque<Message> messages_;
  uint64_t sent_ = 0, received_ = 0, last_released_ = 0, flushed_at_ = 0;
  std::vector<PathNews> news_;
  std::vector<std::byte> buffer_;
};

// Several paths of any speed, of which all but the first may crawl, fall silent for a while or for
// ever, break and be replaced, at any moment.
TEST(Multipath, EveryByteComesOnceWhateverPathsDo) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  for (int seed = 1; seed <= test::by_build(80, 40, 0) && !HasFailure(); seed++) {
    SCOPED_TRACE(seed);
    Stream stream(static_cast<uint64_t>(seed));
    Random& random = stream.random();
    const int count = 1 + static_cast<int>(random.below(4));
    std::vector<int> paths;
    const auto rate = [&] { return 5e6 * static_cast<double>(1 + random.below(40)); };
    for (int i = 0; i < count; i++)
      paths.push_back(stream.add(rate(), static_cast<int64_t>(random.below(3)) * kMs,
                                 i == 0 || random.chance(0.5)));
    stream.receiver_rests = random.chance(0.3) ? 0.9 : 0.1;
    const uint64_t total = 2'000'000 + random.below(6'000'000);
    const int64_t end = stream.now() + 60'000 * kMs;
    while (stream.received() < total && stream.now() < end && !HasFailure()) {
      for (int i = 0; i < 20; i++) stream.step(total);
      if (count == 1) continue;
      int& path = paths[1 + random.below(static_cast<uint64_t>(count) - 1)];
      switch (random.below(8)) {
        case 0:
        case 1:
          stream.path(path).cut();
          break;
        case 2:
        case 3:
          stream.path(path).mend();
          break;
        case 4:
          stream.path(path).set_rate(rate() / 50);
          break;
        case 5:
          stream.path(path).break_now();
          [[fallthrough]];
        case 6:  // A new connection, whether or not the old one still says something.
          if (!stream.path(path).broken()) stream.sender().retire(path);
          path = stream.add(rate(), kMs, random.chance(0.5));
          break;
        default:
          break;
      }
    }
    EXPECT_TRUE(stream.run(total, 60'000 * kMs)) << stream.received() << " of " << total;
  }
}

TEST(Multipath, SparePathsRestWhileAHomePathWorks) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Stream stream(3);
  const int home = stream.add(50e6, kMs, true);
  const int spare = stream.add(500e6, 0, false);
  ASSERT_TRUE(stream.run(10'000'000, 10'000 * kMs));
  EXPECT_EQ(stream.path(spare).written(), 0u);
  EXPECT_GE(stream.path(home).written(), 10'000'000u);
  EXPECT_TRUE(stream.news().empty());
}

TEST(Multipath, PathsCarryByTheirSpeedAndTheSlowOneDoesNotHoldUpTheRest) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Stream stream(4);
  const int fast = stream.add(100e6, 0, true);
  const int slow = stream.add(10e6, 0, true);
  stream.receiver_rests = 0;
  const int64_t start = stream.now();
  ASSERT_TRUE(stream.run(50'000'000, 10'000 * kMs));
  const double seconds = static_cast<double>(stream.now() - start) * 1e-9;
  EXPECT_LT(seconds, 1.15 * 50e6 / 110e6);
  const auto share = static_cast<double>(stream.path(slow).written());
  EXPECT_NEAR(
      share / static_cast<double>(stream.path(fast).written() + stream.path(slow).written()),
      1.0 / 11, 0.03);
}

// The stream stands still for as long as it takes to be sure, not longer; then the spare path has
// everything; and the home path is used again once it speaks.
TEST(Multipath, ASilentPathIsLeftAndTakenBack) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Stream stream(5);
  stream.receiver_rests = 0;
  const int home = stream.add(100e6, 100'000, true);
  const int spare = stream.add(100e6, 100'000, false);
  ASSERT_TRUE(stream.run(10'000'000, 1000 * kMs));
  stream.path(home).cut();
  const int64_t cut = stream.now();
  ASSERT_TRUE(stream.run(20'000'000, 1000 * kMs));
  EXPECT_LT(stream.now() - cut, 100 * kMs + Path::kSilentNs + 10 * kMs);
  ASSERT_EQ(stream.news().size(), 1u);
  EXPECT_EQ(stream.news()[0].what, PathNews::What::silent);
  EXPECT_EQ(stream.news()[0].path, home);
  EXPECT_GT(stream.news()[0].bytes, 0u);
  const uint64_t by_spare = stream.path(spare).written();
  EXPECT_GE(by_spare, 9'000'000u);

  stream.path(home).mend();
  for (int i = 0; i < 50; i++) stream.step(20'000'000);
  ASSERT_EQ(stream.news().size(), 2u);
  EXPECT_EQ(stream.news()[1].what, PathNews::What::speaks);
  ASSERT_TRUE(stream.run(30'000'000, 1000 * kMs));
  EXPECT_EQ(stream.path(spare).written(), by_spare);
}

// A path whose connection was made anew has two ways for a while, and the old one takes nothing
// more: when the new one falls silent as well, spare paths are not to wait for the old one.
TEST(Multipath, AReplacedPathHoldsNothingBack) {
  Stream stream(8);
  stream.receiver_rests = 0;
  const int first = stream.add(100e6, 100'000, true);
  stream.add(100e6, 100'000, false);
  ASSERT_TRUE(stream.run(1'000'000, 1000 * kMs));
  stream.sender().retire(first);
  const int second = stream.add(100e6, 100'000, true);
  ASSERT_TRUE(stream.run(2'000'000, 1000 * kMs));
  stream.path(second).cut();
  EXPECT_TRUE(stream.run(10'000'000, 1000 * kMs)) << stream.received();
}

// Bytes that were stuck on a path show that it works when they come across, though nothing was sent
// there since the last look: of a rail that was given up they may be the only ones.
TEST(Multipath, APathThatSpeaksAgainIsProven) {
  Stream stream(9);
  stream.receiver_rests = 0;
  const int home = stream.add(100e6, 100'000, true);
  stream.add(100e6, 100'000, false);
  ASSERT_TRUE(stream.run(500'000, 1000 * kMs));
  stream.path(home).cut();
  ASSERT_TRUE(stream.run(520'000, 1000 * kMs));
  stream.sender().look_anew();
  EXPECT_FALSE(stream.sender().proven(home));
  const uint64_t written = stream.path(home).written();
  stream.path(home).mend();
  for (int i = 0; i < 100; i++) stream.step(520'000);
  EXPECT_EQ(stream.path(home).written(), written);
  EXPECT_TRUE(stream.sender().proven(home));
}

// A path that is sure is left sooner, and the world hears of it only if it stays silent.
TEST(Multipath, AMomentsSilenceIsCoveredAndNotTold) {
  Stream stream(10);
  stream.receiver_rests = 0;
  const int home = stream.add(100e6, 100'000, true);
  const int spare = stream.add(100e6, 100'000, false);
  stream.path(home).sure = true;
  while (stream.received() < 500'000) stream.step(20'000'000);
  stream.path(home).cut();
  const int64_t cut = stream.now();
  const auto now_ms = [&] { return (stream.now() - cut) / kMs; };
  while (stream.path(spare).written() == 0 && now_ms() < 100) stream.step(20'000'000);
  EXPECT_GE(now_ms(), Path::kSilentLeastNs / kMs);
  EXPECT_LT(now_ms(), Path::kSilentLeastNs / kMs + 5);
  while (now_ms() < 50) stream.step(20'000'000);
  EXPECT_TRUE(stream.news().empty());
  stream.path(home).mend();
  ASSERT_TRUE(stream.run(20'000'000, 1000 * kMs));
  EXPECT_TRUE(stream.news().empty());
  stream.path(home).cut();
  ASSERT_TRUE(stream.run(30'000'000, 1000 * kMs));
  ASSERT_EQ(stream.news().size(), 1u);
  EXPECT_EQ(stream.news()[0].what, PathNews::What::silent);
  EXPECT_GE(stream.news()[0].silent_ns, Path::kSilentNs);
}

// Only what went out afterwards shows that a path works now, and not before it has come across.
TEST(Multipath, APathIsProvenByWhatWasSentSinceTheLastLook) {
  Stream stream(6);
  stream.receiver_rests = 0;
  const int home = stream.add(100e6, 100'000, true);
  const int spare = stream.add(100e6, 100'000, false);
  EXPECT_FALSE(stream.sender().proven(home));
  ASSERT_TRUE(stream.run(1'000'000, 1000 * kMs));
  EXPECT_TRUE(stream.sender().proven(home));
  EXPECT_FALSE(stream.sender().proven(spare));
  while (stream.received() < 1'500'000) stream.step(4'000'000);
  stream.path(home).cut();
  stream.sender().look_anew();
  for (int i = 0; i < 100; i++) stream.step(4'000'000);
  EXPECT_FALSE(stream.sender().proven(home));
  stream.path(home).mend();
  ASSERT_TRUE(stream.run(4'000'000, 1000 * kMs));
  EXPECT_TRUE(stream.sender().proven(home));
}

// A receiver that does not read makes no path silent.
TEST(Multipath, ASlowReceiverIsNoFailure) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Stream stream(6);
  stream.add(100e6, 0, true);
  stream.add(100e6, 0, false);
  stream.receiver_rests = 0.998;
  ASSERT_TRUE(stream.run(5'000'000, 60'000 * kMs));
  EXPECT_TRUE(stream.news().empty());
}

TEST(Multipath, FramesThatMakeNoSenseEndTheLink) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  int64_t now = 0;
  const auto fetch = [&](const TcpFrameBytes& frame) {
    SimulatedPath path(&now, 1e9, 0);
    MultipathReceiver receiver;
    receiver.add(0, &path);
    const iovec range{const_cast<std::byte*>(frame.data()), frame.size()};
    EXPECT_TRUE(path.write({&range, 1}).is_ok());
    now += kMs;
    std::byte byte;
    return receiver.fetch(&byte, 1).status();
  };
  EXPECT_TRUE(fetch(encode(TcpFrame{0, 100})).is_ok());
  EXPECT_TRUE(fetch(encode(TcpFrame{MultipathSender::kWindowBytes, 100})).is_ok());
  EXPECT_FALSE(fetch(encode(TcpFrame{uint64_t{1} << 30, 100})).is_ok()) << "too far ahead";
  EXPECT_FALSE(fetch(encode(TcpFrame{0, kTcpSegmentMax + 1})).is_ok());
  EXPECT_FALSE(fetch(TcpFrameBytes{}).is_ok());
}

}  // namespace
}  // namespace railccl::transport
