// Shows that ranks meet whatever strangers do, and that every failure names who is to blame: ranks
// are threads of this process, strangers are raw sockets that speak out of turn.
#include "runtime/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "free_port.h"
#include "runtime/rank_list.h"
#include "runtime/rendezvous_wire.h"
#include "runtime/sockets.h"

namespace railccl::runtime {
namespace {

using test::free_port;
using ::testing::HasSubstr;

Settings quick(int64_t timeout_ms = 20000) {
  Settings settings;
  settings.init_timeout_ms = timeout_ms;
  return settings;
}

/// One thread per entry of `ranks`, each joining; the outcomes in the same order.
std::vector<Result<std::unique_ptr<Meeting>>> join_all(const UniqueId& id,
                                                       const std::vector<int>& ranks, int count,
                                                       const Settings& settings) {
  std::vector<Result<std::unique_ptr<Meeting>>> outcomes;
  for (size_t i = 0; i < ranks.size(); i++)
    outcomes.emplace_back(Status(Code::internal, "did not run"));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks.size(); i++)
    threads.emplace_back(
        [&, i] { outcomes[i] = Meeting::join(id, ranks[i], count, settings, nullptr); });
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<int> all_ranks(int count) {
  std::vector<int> ranks;
  for (int rank = 0; rank < count; rank++) ranks.push_back(rank);
  return ranks;
}

/// Everybody contributes a text of rank-dependent length; everybody must get all of them.
void exchange_texts(std::vector<Result<std::unique_ptr<Meeting>>>& meetings, size_t unit) {
  std::vector<std::thread> threads;
  for (auto& meeting : meetings) {
    threads.emplace_back([&, unit] {
      const auto text = [unit](int rank) {
        return std::string(unit * static_cast<size_t>(rank % 5),
                           static_cast<char>('a' + rank % 26));
      };
      const auto all = (*meeting)->all_gather(text((*meeting)->rank()));
      ASSERT_TRUE(all.is_ok()) << all.status().text();
      ASSERT_EQ(static_cast<int>(all->size()), (*meeting)->ranks());
      for (int rank = 0; rank < (*meeting)->ranks(); rank++)
        EXPECT_EQ((*all)[static_cast<size_t>(rank)], text(rank));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

UniqueFd stranger_at(const UniqueId& id) {
  const auto endpoints = parse_endpoints(parse_identity(id)->place);
  auto socket = connect_to(endpoints->front(), {Deadline::after_ms(2000), nullptr});
  EXPECT_TRUE(socket.is_ok()) << socket.status().text();
  return std::move(socket).value();
}

class Meet : public ::testing::TestWithParam<int> {};

TEST_P(Meet, EveryoneGetsEveryonesBytesAndTheSameJob) {
  const int ranks = GetParam();
  const auto id = make_unique_id(quick());
  ASSERT_TRUE(id.is_ok()) << id.status().text();
  const int64_t start = now_ns();
  auto meetings = join_all(*id, all_ranks(ranks), ranks, quick());
  for (auto& meeting : meetings) ASSERT_TRUE(meeting.is_ok()) << meeting.status().text();
  const double seconds = static_cast<double>(now_ns() - start) * 1e-9;
  RecordProperty("seconds", std::to_string(seconds));
  for (auto& meeting : meetings) EXPECT_EQ((*meeting)->job(), (*meetings[0])->job());
  exchange_texts(meetings, 1000);
  exchange_texts(meetings, 1);
  for (auto& meeting : meetings) {
    const int rank = (*meeting)->rank();
    const auto neighbours = (*meeting)->take_neighbours();
    std::vector<int> expected = tree_children(rank, ranks);
    if (rank > 0) {
      ASSERT_FALSE(neighbours.empty());
      EXPECT_EQ(neighbours[0].rank, (rank - 1) / 2);
      expected.insert(expected.begin(), (rank - 1) / 2);
    }
    std::vector<int> found;
    for (const Neighbour& neighbour : neighbours) found.push_back(neighbour.rank);
    std::sort(found.begin(), found.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(found, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Meet, ::testing::Values(1, 2, 3, 4, 7, 8, 64, 256));

TEST(Rendezvous, JobsDiffer) {
  std::vector<uint64_t> jobs;
  for (int i = 0; i < 3; i++) {
    const auto id = make_unique_id(quick());
    auto meetings = join_all(*id, {0}, 1, quick());
    ASSERT_TRUE(meetings[0].is_ok());
    jobs.push_back((*meetings[0])->job());
  }
  EXPECT_NE(jobs[0], jobs[1]);
  EXPECT_NE(jobs[1], jobs[2]);
}

TEST(Rendezvous, LargeContributions) {
  const auto id = make_unique_id(quick());
  auto meetings = join_all(*id, all_ranks(4), 4, quick());
  for (auto& meeting : meetings) ASSERT_TRUE(meeting.is_ok());
  exchange_texts(meetings, 2 << 20);
  EXPECT_EQ((*meetings[0])->all_gather(std::string((16 << 20) + 1, 'x')).status().code(),
            Code::invalid_argument);
}

TEST(Rendezvous, MeetsAtAKnownPlaceTwiceInARow) {
  const uint16_t port = free_port();
  for (int round = 0; round < 3; round++) {
    const auto id = unique_id_at("localhost", port, "secret");
    ASSERT_TRUE(id.is_ok()) << id.status().text();
    EXPECT_EQ(*id, *unique_id_at("localhost", port, "secret"));
    EXPECT_NE(*id, *unique_id_at("localhost", port, "another"));
    auto meetings = join_all(*id, {3, 1, 2, 0}, 4, quick());
    for (auto& meeting : meetings) ASSERT_TRUE(meeting.is_ok()) << meeting.status().text();
    exchange_texts(meetings, 10);
  }
}

TEST(Rendezvous, CommIdFromTheEnvironment) {
  Settings settings = quick();
  settings.comm_id = fmt::format("127.0.0.1:{}", free_port());
  const auto id = make_unique_id(settings);
  ASSERT_TRUE(id.is_ok()) << id.status().text();
  EXPECT_EQ(*id, *make_unique_id(settings));
  auto meetings = join_all(*id, all_ranks(3), 3, settings);
  for (auto& meeting : meetings) EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
  for (const char* bad : {"127.0.0.1", "host:", "host:0", "host:65536", ":5000", "::1:5000"}) {
    settings.comm_id = bad;
    const auto refused = make_unique_id(settings);
    ASSERT_FALSE(refused.is_ok()) << bad;
    EXPECT_THAT(refused.status().text(), HasSubstr("NCCL_COMM_ID"));
    EXPECT_EQ(refused.status().code(), Code::invalid_argument);
  }
}

TEST(Rendezvous, Ipv6Only) {
  Settings settings = quick();
  settings.socket_family = "AF_INET6";
  const auto id = make_unique_id(settings);
  if (!id.is_ok()) GTEST_SKIP() << "no IPv6 here: " << id.status().text();
  EXPECT_THAT(parse_identity(*id)->place, ::testing::StartsWith("["));
  auto meetings = join_all(*id, all_ranks(3), 3, settings);
  for (auto& meeting : meetings) EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
  const auto at = unique_id_at("::1", free_port(), "");
  for (auto& meeting : join_all(*at, all_ranks(2), 2, settings))
    EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
}

TEST(Rendezvous, StrangersDoNotDisturb) {
  const auto id = make_unique_id(quick());
  std::vector<UniqueFd> strangers;
  Random random(7);
  for (int i = 0; i < 40; i++) {
    strangers.push_back(stranger_at(*id));
    std::string garbage;
    switch (i % 5) {
      case 0:  // says nothing, ever
        break;
      case 1:  // a length beyond every limit
        garbage = std::string(8, '\xff');
        break;
      case 2:  // the beginning of a frame that never ends
        garbage = std::string("\x50\0\0\0\0\0\0\0half", 12);
        break;
      case 3:  // a whole frame of noise
        garbage = std::string("\x40\0\0\0\0\0\0\0", 8);
        for (int byte = 0; byte < 64; byte++) garbage += static_cast<char>(random.below(256));
        break;
      case 4:
        garbage = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        break;
    }
    EXPECT_EQ(::send(strangers.back().get(), garbage.data(), garbage.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(garbage.size()));
  }
  const int64_t start = now_ns();
  auto meetings = join_all(*id, all_ranks(5), 5, quick());
  for (auto& meeting : meetings) EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
  EXPECT_LT(now_ns() - start, 3'000'000'000) << "strangers delayed the meeting";
}

TEST(Rendezvous, WrongSecretIsRefusedAndHarmsNobody) {
  const uint16_t port = free_port();
  const auto right = unique_id_at("127.0.0.1", port, "right");
  const auto wrong = unique_id_at("127.0.0.1", port, "wrong");
  std::thread zero([&] {
    const auto meeting = Meeting::join(*right, 0, 2, quick(), nullptr);
    EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
  });
  const auto refused = Meeting::join(*wrong, 1, 2, quick(), nullptr);
  ASSERT_FALSE(refused.is_ok());
  EXPECT_THAT(refused.status().text(), HasSubstr("belongs to another meeting"));
  EXPECT_TRUE(Meeting::join(*right, 1, 2, quick(), nullptr).is_ok());
  zero.join();
}

TEST(Rendezvous, DeadlineNamesTheMissing) {
  const auto id = make_unique_id(quick());
  const int64_t start = now_ns();
  const auto meetings = join_all(*id, {0, 1, 3, 4}, 8, quick(500));
  const int64_t waited_ms = (now_ns() - start) / 1'000'000;
  for (const auto& meeting : meetings) {
    ASSERT_FALSE(meeting.is_ok());
    EXPECT_EQ(meeting.status().code(), Code::timeout);
    EXPECT_THAT(meeting.status().text(),
                ::testing::MatchesRegex("rendezvous: after 5[0-9][0-9] ms ranks 2, 5-7 of 8 have "
                                        "not arrived"));
  }
  EXPECT_GE(waited_ms, 490);
  EXPECT_LT(waited_ms, 2000);
}

TEST(Rendezvous, TheLaterOfTwoWithOneRankIsRefused) {
  const auto id = make_unique_id(quick());
  std::vector<Result<std::unique_ptr<Meeting>>> first;
  std::thread early([&] { first = join_all(*id, {0, 1}, 3, quick()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto again = Meeting::join(*id, 1, 3, quick(), nullptr);
  ASSERT_FALSE(again.is_ok());
  EXPECT_THAT(again.status().text(), HasSubstr("there is a rank 1 already"));
  EXPECT_TRUE(Meeting::join(*id, 2, 3, quick(), nullptr).is_ok());
  early.join();
  for (auto& meeting : first) EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
}

TEST(Rendezvous, ARankThatDiedWhileWaitingMayComeBack) {
  const auto id = make_unique_id(quick());
  {
    Hello hello;
    hello.nonce = parse_identity(*id)->nonce;
    hello.rank = 1;
    hello.ranks = 2;
    hello.timeout_ms = 20000;
    hello.address = "127.0.0.1:9";
    const UniqueFd socket = stranger_at(*id);
    ASSERT_TRUE(send_frame(socket, encode(hello), {Deadline::after_ms(1000), nullptr}).is_ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  for (auto& meeting : join_all(*id, {0, 1}, 2, quick()))
    EXPECT_TRUE(meeting.is_ok()) << meeting.status().text();
}

TEST(Rendezvous, DisagreementAboutTheNumberOfRanksFailsEveryoneAtOnce) {
  const auto id = make_unique_id(quick());
  std::thread two([&] {
    const auto meeting = Meeting::join(*id, 0, 2, quick(), nullptr);
    ASSERT_FALSE(meeting.is_ok());
    EXPECT_THAT(meeting.status().text(),
                HasSubstr("rank 0 says there are 2 ranks, but rank 1 says 3"));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto three = Meeting::join(*id, 1, 3, quick(), nullptr);
  ASSERT_FALSE(three.is_ok());
  EXPECT_EQ(three.status().code(), Code::mismatch);
  two.join();
}

TEST(Rendezvous, CancelEndsTheWait) {
  const auto id = make_unique_id(quick());
  std::atomic<bool> cancel{false};
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancel = true;
  });
  const int64_t start = now_ns();
  const auto meeting = Meeting::join(*id, 0, 2, quick(), &cancel);
  canceller.join();
  ASSERT_FALSE(meeting.is_ok());
  EXPECT_EQ(meeting.status().code(), Code::aborted);
  EXPECT_LT(now_ns() - start, 1'000'000'000);
}

TEST(Rendezvous, BadArgumentsAndBadIds) {
  const auto id = make_unique_id(quick());
  for (const auto& [rank, ranks] : {std::pair{-1, 2}, {2, 2}, {0, 0}, {0, -1}}) {
    const auto meeting = Meeting::join(*id, rank, ranks, quick(), nullptr);
    ASSERT_FALSE(meeting.is_ok());
    EXPECT_EQ(meeting.status().code(), Code::invalid_argument);
  }
  UniqueId zero{};
  EXPECT_THAT(Meeting::join(zero, 0, 1, quick(), nullptr).status().text(),
              HasSubstr("not a unique id"));
  UniqueId damaged = *id;
  damaged[127] = std::byte{1};
  EXPECT_THAT(Meeting::join(damaged, 0, 1, quick(), nullptr).status().text(),
              HasSubstr("damaged unique id"));
  EXPECT_FALSE(unique_id_at("", 1, "").is_ok());
  EXPECT_FALSE(unique_id_at("host", 0, "").is_ok());
  EXPECT_FALSE(unique_id_at(std::string(200, 'h'), 1, "").is_ok());
}

TEST(Rendezvous, AnIdThatServedIsNoIdAnyMore) {
  const auto id = make_unique_id(quick());
  for (auto& meeting : join_all(*id, {0, 1}, 2, quick())) ASSERT_TRUE(meeting.is_ok());
  const int64_t start = now_ns();
  const auto late = Meeting::join(*id, 1, 2, quick(), nullptr);
  ASSERT_FALSE(late.is_ok());
  EXPECT_THAT(late.status().text(), HasSubstr("have met already"));
  EXPECT_LT(now_ns() - start, 5'000'000'000);
}

TEST(Rendezvous, AChildThatVanishesEndsTheExchangeByName) {
  const auto id = make_unique_id(quick());
  auto meetings = join_all(*id, {0, 1}, 2, quick());
  for (auto& meeting : meetings) ASSERT_TRUE(meeting.is_ok());
  meetings[1]->reset();
  const auto all = (*meetings[0])->all_gather("x");
  ASSERT_FALSE(all.is_ok());
  EXPECT_THAT(all.status().text(), HasSubstr("with rank 1"));
}

TEST(Rendezvous, SplitsMeetWithoutARoot) {
  const int ranks = 6;
  std::vector<UniqueFd> listeners;
  std::vector<std::string> addresses;
  for (int rank = 0; rank < ranks; rank++) {
    auto opened = Meeting::open_listener(quick());
    ASSERT_TRUE(opened.is_ok());
    listeners.push_back(std::move(opened->first));
    addresses.push_back(opened->second);
  }
  // Noise at every door.
  std::vector<UniqueFd> strangers;
  for (const std::string& address : addresses) {
    auto socket =
        connect_to(parse_endpoints(address)->front(), {Deadline::after_ms(1000), nullptr});
    strangers.push_back(std::move(socket).value());
    ASSERT_EQ(::send(strangers.back().get(), "\x10\0\0", 3, MSG_NOSIGNAL), 3);
  }
  // A rank of another job that claims a child's place.
  auto impostor =
      connect_to(parse_endpoints(addresses[0])->front(), {Deadline::after_ms(1000), nullptr});
  ASSERT_TRUE(
      send_frame(*impostor, encode(Knock{4712, 1}), {Deadline::after_ms(1000), nullptr}).is_ok());
  std::vector<Result<std::unique_ptr<Meeting>>> meetings;
  for (int rank = 0; rank < ranks; rank++)
    meetings.emplace_back(Status(Code::internal, "did not run"));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; rank++)
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      meetings[r] =
          Meeting::join_known(4711, rank, addresses, std::move(listeners[r]), quick(), nullptr);
    });
  for (std::thread& thread : threads) thread.join();
  for (auto& meeting : meetings) ASSERT_TRUE(meeting.is_ok()) << meeting.status().text();
  exchange_texts(meetings, 100);
}

TEST(Gate, DropsWhoIsTooBigTooSlowOrTooMany) {
  auto listener = listen_on(0, Settings());
  const auto doors = parse_endpoints(fmt::format("127.0.0.1:{}", *port_of(*listener)));
  Gate::Limits limits;
  limits.frame_bytes_max = 64;
  limits.visitors_max = 2;
  limits.patience_ms = 150;
  Gate gate(std::move(listener).value(), limits);
  std::vector<Gate::Guest> guests;
  const auto visit = [&](std::string_view bytes) {
    auto socket = connect_to(doors->front(), {Deadline::after_ms(1000), nullptr});
    EXPECT_EQ(::send(socket->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_TRUE(gate.poll(100, &guests).is_ok());
    return std::move(socket).value();
  };
  const UniqueFd big = visit(std::string_view("\x41\0\0\0\0\0\0\0", 8));
  EXPECT_TRUE(is_closed(big)) << "65 bytes announced where 64 are allowed";
  const UniqueFd oldest = visit("\x40"), second = visit("\x40"), third = visit("\x40");
  EXPECT_TRUE(is_closed(oldest)) << "three visitors where two have room";
  EXPECT_FALSE(is_closed(third));
  const UniqueFd good = visit(std::string_view("\x02\0\0\0\0\0\0\0hi and more", 19));
  ASSERT_EQ(guests.size(), 1u);
  EXPECT_EQ(guests[0].frame, "hi");
  const Deadline end = Deadline::after_ms(1000);
  while (!is_closed(third) && !end.passed()) ASSERT_TRUE(gate.poll(50, &guests).is_ok());
  EXPECT_TRUE(is_closed(third)) << "silent for longer than 150 ms";
}

TEST(RankList, ReadsLikeProse) {
  EXPECT_EQ(rank_list({3}), "rank 3");
  EXPECT_EQ(rank_list({2, 5, 6, 7}), "ranks 2, 5-7");
  EXPECT_EQ(rank_list({0, 1, 4}), "ranks 0, 1, 4");
}

TEST(RendezvousWire, RoundTripsAndRefusesEveryTruncation) {
  Hello hello;
  hello.rank = 3;
  hello.ranks = 8;
  hello.timeout_ms = 5000;
  hello.host = 77;
  hello.address = "10.0.0.1:5123,[fd00::1]:5123";
  const std::string bytes = encode(hello);
  EXPECT_EQ(parse_hello(bytes)->address, hello.address);
  EXPECT_EQ(parse_hello(bytes)->rank, 3);
  EXPECT_EQ(parse_hello(bytes)->host, 77u);
  for (size_t n = 0; n < bytes.size(); n++) EXPECT_FALSE(parse_hello(bytes.substr(0, n)).is_ok());
  EXPECT_FALSE(parse_hello(bytes + "x").is_ok());

  Reply reply;
  reply.refusal = Status(Code::timeout, Scope::communicator, "no");
  reply.job = 99;
  reply.first_of_host = true;
  const std::string answer = encode(reply);
  EXPECT_EQ(parse_reply(answer)->refusal.text(), "no");
  EXPECT_EQ(parse_reply(answer)->refusal.code(), Code::timeout);
  EXPECT_TRUE(parse_reply(answer)->first_of_host);
  for (size_t n = 0; n < answer.size(); n++) EXPECT_FALSE(parse_reply(answer.substr(0, n)).is_ok());

  Contributions some{"a", std::nullopt, ""};
  Contributions all(3);
  ASSERT_TRUE(parse_contributions(encode(some), &all).is_ok());
  EXPECT_EQ(all, some);
  EXPECT_FALSE(parse_contributions(encode(some), &all).is_ok()) << "a rank came twice";
  Contributions small(2);
  EXPECT_FALSE(parse_contributions(encode(some), &small).is_ok()) << "rank 2 of 2";
}

}  // namespace
}  // namespace railccl::runtime
