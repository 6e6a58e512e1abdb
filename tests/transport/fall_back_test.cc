// Paths of a medium that do not come about: a maker of paths that fails where it is told to, over
// real connections. Links then go by the connections themselves, on both sides, and not a byte is
// lost; or, where that is not allowed, they fail on both sides and say why.
#include <set>

#include "transport/harness.h"
#include "transport/path_maker.h"
#include "transport/socket_start.h"

namespace railccl::transport {
namespace {

constexpr std::byte kSpecial{'s'}, kPlain{'p'};

/// What fails. Lanes are counted as they are begun.
struct Script {
  int lanes = 1;
  std::set<int> no_start{};  // lanes whose beginning fails, on the connecting side
  bool no_answer = false;    // the accepting side has no path
  std::set<int> no_proof{};  // lanes that the connecting side finds broken; the other one does not
  bool plain_allowed = true;
};

class ScriptedStart final : public PathStart {
 public:
  ScriptedStart(std::unique_ptr<PathStart> socket, bool broken, int* finished)
      : socket_(std::move(socket)), broken_(broken), finished_(finished) {}
  std::span<const std::byte> card() const override { return {&kSpecial, 1}; }
  Status meet(std::span<const std::byte> card) override {
    return card[0] == kSpecial ? ok() : Status(Code::remote, "no such card");
  }
  Result<bool> proven() override {
    // Not at once: the other side shall have every time to go ahead.
    if (broken_ && patience_.passed()) return Status(Code::system, "nothing passes");
    return !broken_;
  }
  bool waits_for_word() const override { return true; }
  std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) override {
    (*finished_)++;
    return socket_->finish(std::move(connection), one_of_several);
  }

 private:
  const std::unique_ptr<PathStart> socket_;
  const bool broken_;
  int* const finished_;
  const Deadline patience_ = Deadline::after_ms(50);
};

class ScriptedMaker final : public PathMaker {
 public:
  ScriptedMaker(std::vector<TcpEndpoint> endpoints, Script script, int* finished)
      : endpoints_(std::move(endpoints)), script_(std::move(script)), finished_(finished) {}
  const char* medium() const override { return "scripted"; }
  int paths_per_pair() const override { return script_.lanes; }
  const char* paths_variable() const override { return "LANES"; }
  const std::vector<TcpEndpoint>& endpoints() const override { return endpoints_; }
  Address address(const TcpAddress& control) const override { return encode(control); }
  std::optional<MetPlaces> read_address(std::string_view address) const override {
    const auto decoded = decode_tcp_address(address);
    return MetPlaces{*decoded, decoded->endpoints};
  }
  size_t card_bytes() const override { return 1; }
  Result<std::unique_ptr<PathStart>> start(const TcpPath&) override {
    const int lane = begun_++ % script_.lanes;
    if (script_.no_start.contains(lane)) return Status(Code::system, "no memory for lane {}", lane);
    return special(script_.no_proof.contains(lane));
  }
  Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte> card) override {
    if (is_plain(card)) return plain();
    if (script_.no_answer) return Status(Code::system, "no memory to answer with");
    return special(false);
  }
  std::unique_ptr<PathStart> plain() override {
    if (!script_.plain_allowed) return nullptr;
    return make_socket_start(&endpoints_, {kPlain});
  }
  bool is_plain(std::span<const std::byte> card) const override { return card[0] == kPlain; }

 private:
  std::unique_ptr<PathStart> special(bool broken) {
    return std::make_unique<ScriptedStart>(make_socket_start(&endpoints_, {}), broken, finished_);
  }
  const std::vector<TcpEndpoint> endpoints_;
  const Script script_;
  int* const finished_;
  int begun_ = 0;
};

class ScriptedWorld final : public TestWorld {
 public:
  explicit ScriptedWorld(const Script& script) {
    Settings settings;
    settings.socket_ifname = "=lo";
    Peers peers;
    for (int r = 0; r < 2; r++) {
      const Context context = context_of(r, 2, 4711, 99, settings);
      auto endpoints = tcp_endpoints(settings, {});
      auto made = make_path_transport(
          context, *endpoints, std::make_unique<ScriptedMaker>(*endpoints, script, &finished_[r]));
      transports_.push_back(std::move(made).value());
      peers.addresses.push_back(transports_.back()->address());
    }
    peers.host_ids = {77, 77};  // as in context_of()
    peers.processes = {99, 99};
    for (auto& transport : transports_) EXPECT_TRUE(transport->set_peers(peers).is_ok());
  }
  int ranks() const override { return 2; }
  Transport& at(int rank) override { return *transports_[static_cast<size_t>(rank)]; }
  void lose_last() override { transports_.back().reset(); }

  /// Streams both ways on two channels; how each rank fared.
  std::vector<Status> stream() {
    constexpr uint64_t kBytes = 3 << 20;
    std::vector<Tasks> tasks(2);
    for (int rank = 0; rank < 2; rank++) {
      for (int channel = 0; channel < 2; channel++) {
        Link* const link = *at(rank).link(1 - rank, channel);
        const auto seed = static_cast<uint64_t>(10 * channel + rank);
        const auto other = static_cast<uint64_t>(10 * channel + 1 - rank);
        tasks[static_cast<size_t>(rank)].push_back(
            std::make_unique<SendTask>(link, seed, kBytes, 200'000));
        tasks[static_cast<size_t>(rank)].push_back(
            std::make_unique<ReceiveTask>(link, other, kBytes, 200'000));
      }
    }
    std::vector<Status> fared(2);
    std::thread other([&] { fared[1] = drive(at(1), tasks[1], 20'000); });
    fared[0] = drive(at(0), tasks[0], 20'000);
    // In a communicator the control plane tells others.
    if (!fared[0].is_ok()) at(1).abort(fared[0]);
    other.join();
    return fared;
  }
  /// Paths of the maker's own kind, of both ranks.
  int special() const { return finished_[0] + finished_[1]; }

 private:
  int finished_[2] = {0, 0};
  std::vector<std::unique_ptr<Transport>> transports_;
};

void expect_exact(const Script& script, bool special) {
  ScriptedWorld world(script);
  for (const Status& status : world.stream()) EXPECT_TRUE(status.is_ok()) << status.text();
  EXPECT_EQ(world.special() > 0, special);
}

void expect_failure(const Script& script, const char* reason) {
  ScriptedWorld world(script);
  const Status fared = world.stream()[0];
  EXPECT_NE(fared.text().find(reason), std::string::npos) << fared.text();
}

TEST(FallBack, IsNotTakenWhereNothingFails) {
  expect_exact({.lanes = 1}, true);
  expect_exact({.lanes = 2}, true);
}

TEST(FallBack, WhereTheConnectingSideHasNoPath) {
  expect_exact({.lanes = 1, .no_start = {0}}, false);
  expect_exact({.lanes = 2, .no_start = {0, 1}}, false);
}

TEST(FallBack, WhereTheAcceptingSideHasNoPath) {
  expect_exact({.lanes = 1, .no_answer = true}, false);
  expect_exact({.lanes = 2, .no_answer = true}, false);
}

TEST(FallBack, WhereNothingPassesThoughOneSideThinksSo) {
  expect_exact({.lanes = 1, .no_proof = {0}}, false);
  expect_exact({.lanes = 2, .no_proof = {0, 1}}, false);
  expect_exact({.lanes = 2, .no_start = {0}, .no_proof = {1}}, false);
}

TEST(FallBack, IsNotTakenWhereOneLaneWorks) {
  expect_exact({.lanes = 2, .no_start = {0}}, true);
  expect_exact({.lanes = 2, .no_proof = {1}}, true);
}

TEST(FallBack, WhereItIsNotAllowedTheLinkFailsWithTheReason) {
  for (const int lanes : {1, 2}) {
    expect_failure({.lanes = lanes, .no_start = {0, 1}, .plain_allowed = false},
                   "no memory for lane");
    expect_failure({.lanes = lanes, .no_proof = {0, 1}, .plain_allowed = false}, "nothing passes");
  }
  expect_failure({.lanes = 1, .no_answer = true, .plain_allowed = false}, "hung up on our hello");
}

}  // namespace
}  // namespace railccl::transport
