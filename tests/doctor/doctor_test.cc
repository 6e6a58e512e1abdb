// Shows that railccl-doctor blames the right part: pure judgements on made-up probes and reports
// (one NIC, a whole rail, one pair, chance), that a probe between two listeners of this process
// sees what is there, and that reports round-trip and hostile ones are refused. With real networks:
// tests/lab/doctor_test.py.
#include <gmock/gmock.h>

#include <algorithm>

#include "doctor/diagnose.h"
#include "doctor/host_checks.h"
#include "doctor/host_report.h"
#include "doctor/pair_probe.h"

namespace railccl::doctor {
namespace {

using ::testing::HasSubstr;
using Outcome = PairResult::Outcome;

const std::vector<std::string> kHosts = {"a", "b", "c", "d"};

/// What a sound network of four hosts with two rails gives.
std::vector<PairResult> sound() {
  std::vector<PairResult> results;
  for (int rail = 0; rail < 2; rail++)
    for (int distance = 1; distance < 4; distance *= 2)
      for (int from = 0; from < 4; from++) {
        PairResult one;
        one.from = from;
        one.to = (from + distance) % 4;
        one.nic = one.far_nic = "eth" + std::to_string(rail);
        one.subnet = "10.0." + std::to_string(rail) + ".0/24";
        one.round_trip_us = 50 + from;
        one.bytes_per_s = 1e9 + 1e7 * from;
        results.push_back(one);
      }
  return results;
}
/// `change` for each pair on rail 1 that host 2 is an end of.
template <typename Change>
std::vector<PairResult> with_bad_nic(const Change& change) {
  std::vector<PairResult> results = sound();
  for (PairResult& one : results)
    if (one.nic == "eth1" && (one.from == 2 || one.to == 2)) change(one);
  return results;
}

TEST(Diagnose, SaysNothingAboutASoundNetwork) { EXPECT_TRUE(diagnose(kHosts, sound()).empty()); }

TEST(Diagnose, BlamesTheNicThatAllItsProbesAccuse) {
  const std::pair<Outcome, const char*> symptoms[] = {
      {Outcome::no_route, "no-route"},   {Outcome::refused, "refused"},
      {Outcome::no_answer, "no-answer"}, {Outcome::another_host, "address-taken"},
      {Outcome::silent, "silent"},       {Outcome::large_swallowed, "mtu"},
      {Outcome::broken, "broken"}};
  for (const auto& [outcome, cause] : symptoms) {
    const Findings found = diagnose(
        kHosts, with_bad_nic([outcome = outcome](PairResult& one) { one.outcome = outcome; }));
    ASSERT_EQ(found.size(), 1u) << cause;
    EXPECT_EQ(found[0].cause, cause);
    EXPECT_EQ(found[0].severity, Finding::Severity::error);
    EXPECT_THAT(found[0].what, HasSubstr("host c, eth1"));
    EXPECT_THAT(found[0].why, HasSubstr("b to c"));
    EXPECT_FALSE(found[0].advice.empty());
  }
}

TEST(Diagnose, TellsSlowLossyAndFarNicsApart) {
  const auto cause = [](const auto& change) {
    const Findings found = diagnose(kHosts, with_bad_nic(change));
    EXPECT_EQ(found.size(), 1u);
    if (found.size() != 1) return std::string();
    EXPECT_THAT(found[0].what, HasSubstr("host c, eth1"));
    return found[0].cause;
  };
  EXPECT_EQ(cause([](PairResult& one) { one.bytes_per_s = 1e8; }), "slow");
  EXPECT_EQ(cause([](PairResult& one) { one.lost_share = 0.03; }), "loss");
  EXPECT_EQ(cause([](PairResult& one) { one.bytes_per_s = 1e8, one.lost_share = 0.03; }), "loss");
  EXPECT_EQ(cause([](PairResult& one) { one.round_trip_us = 3000; }), "long-way");
}

TEST(Diagnose, BlamesARailOfWhichAllProbesFail) {
  std::vector<PairResult> results = sound();
  for (PairResult& one : results)
    if (one.nic == "eth0") one.outcome = Outcome::no_answer;
  const Findings found = diagnose(kHosts, results);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].what, HasSubstr("rail 10.0.0.0/24: every NIC"));
}

TEST(Diagnose, NamesAPairThatNobodyElseConfirms) {
  std::vector<PairResult> results = sound();
  results[0].outcome = Outcome::no_answer;
  Findings found = diagnose(kHosts, results);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].what, HasSubstr("rail 10.0.0.0/24: a to b"));
  // Losses and long ways of one pair alone are chance.
  results = sound();
  results[0].lost_share = 0.1;
  results[5].round_trip_us = 9000;
  EXPECT_TRUE(diagnose(kHosts, results).empty());
}

TEST(Diagnose, FindsTwoBadNics) {
  std::vector<PairResult> results =
      with_bad_nic([](PairResult& one) { one.outcome = Outcome::silent; });
  for (PairResult& one : results)
    if (one.nic == "eth0" && (one.from == 0 || one.to == 0)) one.outcome = Outcome::refused;
  const Findings found = diagnose(kHosts, results);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_THAT(found[0].what, HasSubstr("host a, eth0"));
  EXPECT_THAT(found[1].what, HasSubstr("host c, eth1"));
}

TEST(Diagnose, OfTwoHostsNeitherIsBlamed) {
  PairResult one = sound()[0];
  one.outcome = Outcome::no_answer;
  const Findings found = diagnose({"a", "b"}, {one});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].what, HasSubstr("a to b"));
}

HostReport sound_host(const std::string& name, int number) {
  HostReport host;
  host.name = name;
  host.id = static_cast<uint64_t>(number) + 1;
  host.version = "1";
  host.cores = 8;
  host.files_soft = host.files_hard = 65536;
  host.locked_soft = ~uint64_t{0};
  host.shm_bytes = uint64_t{1} << 30;
  for (int rail = 0; rail < 2; rail++)
    host.nics.push_back(
        {"eth" + std::to_string(rail),
         {"10.0." + std::to_string(rail) + "." + std::to_string(number + 1) + "/24"},
         "02:00:00:00:00:0" + std::to_string(number),
         9000,
         1.25e9,
         true,
         true});
  host.rdma.push_back({"mlx5_0/1",
                       "ACTIVE",
                       true,
                       {{0, "IB/RoCE v1", false},
                        {1, "RoCE v2", false},
                        {2, "IB/RoCE v1", true},
                        {3, "RoCE v2", true}}});
  return host;
}

std::string only_cause(const Findings& found) {
  EXPECT_EQ(found.size(), 1u);
  return found.size() == 1 ? found[0].cause : "";
}

TEST(HostChecks, EachPlantedFaultIsNamedAndNothingElse) {
  const auto cause = [](const auto& change, int ranks = 64) {
    HostReport host = sound_host("a", 0);
    change(host);
    return only_cause(check_host(host, ranks));
  };
  EXPECT_TRUE(check_host(sound_host("a", 0), 64).empty());
  EXPECT_EQ(cause([](HostReport& host) { host.files_soft = 256; }), "open-files");
  EXPECT_EQ(cause([](HostReport&) {}, 100000), "open-files");
  EXPECT_EQ(cause([](HostReport& host) { host.locked_soft = 65536; }), "memlock");
  EXPECT_EQ(cause([](HostReport& host) { host.shm_bytes = 1 << 20; }), "dev-shm");
  EXPECT_EQ(cause([](HostReport& host) { host.processes = 9; }), "few-cores");
  EXPECT_EQ(cause([](HostReport& host) { host.settings_error = "NCCL_X"; }), "setting");
  EXPECT_EQ(cause([](HostReport& host) { host.interfaces_error = "none"; }), "interface-choice");
  EXPECT_EQ(cause([](HostReport& host) { host.nics[1].up = false; }), "no-carrier");
  EXPECT_EQ(cause([](HostReport& host) { host.nics[1].addresses = {"10.0.0.77/24"}; }),
            "shared-subnet");
  EXPECT_EQ(cause([](HostReport& host) { host.rdma[0].state = "DOWN"; }), "rdma-port");
  EXPECT_EQ(cause([](HostReport& host) { host.rdma[0].gids.pop_back(); }), "rdma-no-address");
  EXPECT_EQ(cause([](HostReport& host) { host.rdma[0].gids.clear(); }), "rdma-no-address");
  for (const char* index : {"0", "1", "2", "77"})
    EXPECT_EQ(cause([&](HostReport& host) { host.settings["NCCL_IB_GID_INDEX"] = index; }),
              "gid-index")
        << index;
  HostReport host = sound_host("a", 0);
  for (const char* index : {"3", "-1"}) {
    host.settings["NCCL_IB_GID_INDEX"] = index;
    EXPECT_TRUE(check_host(host, 64).empty()) << index;
  }
  // InfiniBand needs none of that.
  host.rdma[0].ethernet = false;
  host.rdma[0].gids.clear();
  EXPECT_TRUE(check_host(host, 64).empty());
  // Without RDMA nothing needs to be locked.
  host.rdma.clear();
  host.locked_soft = 65536;
  EXPECT_TRUE(check_host(host, 64).empty());
}

TEST(HostChecks, HostsThatDifferAreNamed) {
  const auto cause = [](const auto& change) {
    std::vector<HostReport> hosts;
    for (int h = 0; h < 4; h++) hosts.push_back(sound_host(kHosts[static_cast<size_t>(h)], h));
    EXPECT_TRUE(compare_hosts(hosts).empty());
    change(hosts[2]);
    return only_cause(compare_hosts(hosts));
  };
  EXPECT_EQ(cause([](HostReport& host) { host.version = "2"; }), "version-differs");
  EXPECT_EQ(cause([](HostReport& host) { host.settings["NCCL_ALGO"] = "ring"; }),
            "settings-differ");
  EXPECT_EQ(cause([](HostReport& host) { host.nics[1].mtu = 1500; }), "mtu-differs");
  EXPECT_EQ(cause([](HostReport& host) { host.nics[1].bytes_per_s = 1.25e8; }), "speed-differs");
  EXPECT_EQ(cause([](HostReport& host) { host.nics.pop_back(); }), "rail-missing");
  EXPECT_EQ(cause([](HostReport& host) { host.nics[1].addresses.push_back("10.0.1.1/24"); }),
            "address-taken");
}

TEST(HostReport, RoundTripsAndHostileTextIsRefused) {
  HostReport host = sound_host("a \"b\" \xff", 0);
  host.settings["NCCL_ALGO"] = "x=\n";
  host.tcp = {0, 255, 7};
  const std::string text = encode(host);
  const auto back = decode_host_report(text);
  ASSERT_TRUE(back.is_ok()) << back.status().text();
  EXPECT_EQ(back->settings, host.settings);
  EXPECT_EQ(back->tcp, host.tcp);
  EXPECT_EQ(back->locked_soft, ~uint64_t{0});
  EXPECT_EQ(back->nics[1].addresses, host.nics[1].addresses);
  ASSERT_EQ(back->rdma.size(), 1u);
  EXPECT_TRUE(back->rdma[0].ethernet);
  ASSERT_EQ(back->rdma[0].gids.size(), 4u);
  EXPECT_EQ(back->rdma[0].gids[2].index, 2);
  EXPECT_EQ(back->rdma[0].gids[2].type, "IB/RoCE v1");
  for (const char* bad : {"", "{", "[]", "{\"name\": 7}", "null", "{\"name\":\"a\",\"id\":-1}"})
    EXPECT_FALSE(decode_host_report(bad).is_ok()) << bad;
  for (size_t cut = 0; cut < text.size(); cut += 7)
    EXPECT_FALSE(decode_host_report(text.substr(0, cut)).is_ok());
  EXPECT_FALSE(decode_pair_results("[{\"from\":0}]").is_ok());
  std::vector<PairResult> results = sound();
  const auto pairs = decode_pair_results(encode(results));
  ASSERT_TRUE(pairs.is_ok());
  EXPECT_EQ(pairs->size(), results.size());
  results[0].outcome = static_cast<Outcome>(99);
  EXPECT_FALSE(decode_pair_results(encode(results)).is_ok());
}

TEST(PairProbe, SeesASoundLinkAStrangerAndNobody) {
  Settings settings;
  settings.socket_ifname = "=lo";
  settings.socket_family = "AF_INET";
  const auto endpoints = transport::tcp_endpoints(settings, {});
  ASSERT_TRUE(endpoints.is_ok()) << endpoints.status().text();
  auto listener = transport::tcp_listen(*endpoints);
  ASSERT_TRUE(listener.is_ok());
  auto server = ProbeServer::start(77, 3, std::move(*listener));
  ASSERT_TRUE(server.is_ok());
  const transport::TcpPath path{endpoints->front(), endpoints->front()};
  const uint16_t port = (*server)->port();
  const PairResult good = probe_pair(77, 3, path, port);
  EXPECT_EQ(good.outcome, Outcome::good) << good.text;
  EXPECT_GT(good.round_trip_us, 0);
  EXPECT_GT(good.bytes_per_s, 1e6);
  EXPECT_EQ(good.lost_share, 0);
  EXPECT_EQ(probe_pair(78, 3, path, port).outcome, Outcome::another_host);
  EXPECT_EQ(probe_pair(77, 4, path, port).outcome, Outcome::another_host);
  server->reset();
  EXPECT_EQ(probe_pair(77, 3, path, port).outcome, Outcome::refused);
}

}  // namespace
}  // namespace railccl::doctor
