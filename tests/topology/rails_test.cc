// Shows which NICs become one rail and why, as a table of small clusters: each row lists the NICs
// of each host and the rail each must land on (-1: none).
#include "topology/rails.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace railccl::topology {
namespace {

Nic nic(const char* name, std::vector<std::string> addresses, std::string neighbourhood = "") {
  Nic made;
  made.name = name;
  made.bytes_per_s = 10e9;
  made.addresses = std::move(addresses);
  made.neighbourhood = std::move(neighbourhood);
  return made;
}

std::vector<Host> hosts_of(std::vector<std::vector<Nic>> nics) {
  std::vector<Host> hosts;
  for (std::vector<Nic>& list : nics) {
    Host host;
    host.name = "h" + std::to_string(hosts.size());
    host.nics = std::move(list);
    hosts.push_back(std::move(host));
  }
  return hosts;
}

std::vector<std::vector<int>> rails_in(const std::vector<Host>& hosts) {
  std::vector<std::vector<int>> rails;
  for (const Host& host : hosts) {
    rails.emplace_back();
    for (const Nic& n : host.nics) rails.back().push_back(n.rail);
  }
  return rails;
}

struct Row {
  const char* what;
  std::vector<std::vector<Nic>> nics;
  std::vector<std::vector<int>> rails;
  std::vector<std::string> reasons;
};

std::vector<Row> table() {
  return {
      {"two subnets are two rails",
       {{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.2.1/24"})},
        {nic("eth0", {"10.0.1.2/24"}), nic("eth1", {"10.0.2.2/24"})}},
       {{0, 1}, {0, 1}},
       {"subnet 10.0.1.0/24 joins eth0 of 2 hosts", "subnet 10.0.2.0/24 joins eth1 of 2 hosts"}},
      {"names and order do not matter, the subnet does",
       {{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.2.1/24"})},
        {nic("b", {"10.0.2.2/24"}), nic("a", {"10.0.1.2/24"})}},
       {{0, 1}, {1, 0}},
       {"subnet 10.0.1.0/24 joins eth0, a of 2 hosts",
        "subnet 10.0.2.0/24 joins eth1, b of 2 hosts"}},
      {"prefix lengths count: /16 and /24 are different networks",
       {{nic("eth0", {"10.0.1.1/24"})}, {nic("eth0", {"10.0.1.2/16"})}},
       {{-1}, {-1}},
       {}},
      {"a subnet on one host only is no rail",
       {{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.9.1/24"}), nic("eth2", {"10.0.9.2/24"})},
        {nic("eth0", {"10.0.1.2/24"})}},
       {{0, -1, -1}, {0}},
       {"subnet 10.0.1.0/24 joins eth0 of 2 hosts"}},
      {"loopback never is",
       {{nic("lo", {"127.0.0.1/8", "::1/128"})}, {nic("lo", {"127.0.0.2/8", "::1/128"})}},
       {{-1}, {-1}},
       {}},
      {"nor link-local addresses",
       {{nic("eth0", {"fe80::1/64", "169.254.0.1/16"})},
        {nic("eth0", {"fe80::2/64", "169.254.0.2/16"})}},
       {{-1}, {-1}},
       {}},
      {"nor host routes",
       {{nic("eth0", {"10.0.0.1/32", "fd00::1/128"})}, {nic("eth0", {"10.0.0.2/32"})}},
       {{-1}, {-1}},
       {}},
      {"container bridges that share an address are not one network",
       {{nic("eth0", {"10.0.1.1/24"}), nic("docker0", {"172.17.0.1/16"})},
        {nic("eth0", {"10.0.1.2/24"}), nic("docker0", {"172.17.0.1/16"})}},
       {{0, -1}, {0, -1}},
       {"subnet 10.0.1.0/24 joins eth0 of 2 hosts"}},
      {"IPv6 subnets serve as well",
       {{nic("eth0", {"fd00:0:0:1::1/64", "fe80::1/64"})},
        {nic("eth0", {"fd00:0:0:1::2/64", "fe80::2/64"})}},
       {{0}, {0}},
       {"subnet fd00:0:0:1::/64 joins eth0 of 2 hosts"}},
      {"of several addresses the one that joins most hosts decides",
       {{nic("eth0", {"10.0.1.1/24", "fd00::1/64"})},
        {nic("eth0", {"10.0.1.2/24", "fd00::2/64"})},
        {nic("eth0", {"fd00::3/64"})}},
       {{0}, {0}, {0}},
       {"subnet fd00::/64 joins eth0 of 3 hosts"}},
      {"at equal reach the address named first decides",
       {{nic("eth0", {"10.0.1.1/24", "fd00::1/64"})}, {nic("eth0", {"10.0.1.2/24", "fd00::2/64"})}},
       {{0}, {0}},
       {"subnet 10.0.1.0/24 joins eth0 of 2 hosts"}},
      {"RoCE GID prefixes",
       {{nic("mlx5_0", {"gid fd01::1/64"}), nic("mlx5_1", {"gid fd02::1/64"})},
        {nic("mlx5_0", {"gid fd01::2/64"}), nic("mlx5_1", {"gid fd02::2/64"})}},
       {{0, 1}, {0, 1}},
       {"gid prefix fd01::/64 joins mlx5_0 of 2 hosts",
        "gid prefix fd02::/64 joins mlx5_1 of 2 hosts"}},
      {"a known leaf switch beats the common subnet",
       {{nic("ib0", {"10.0.0.1/16"}, "leaf 7"), nic("ib1", {"10.0.0.2/16"}, "leaf 9")},
        {nic("ib0", {"10.0.0.3/16"}, "leaf 7"), nic("ib1", {"10.0.0.4/16"}, "leaf 9")}},
       {{0, 1}, {0, 1}},
       {"leaf 7 joins ib0 of 2 hosts", "leaf 9 joins ib1 of 2 hosts"}},
      {"one flat network is one rail, however many NICs a host has in it",
       {{nic("ib0", {"10.0.0.1/16"}), nic("ib1", {"10.0.0.2/16"})},
        {nic("ib0", {"10.0.0.3/16"}), nic("ib1", {"10.0.0.4/16"})}},
       {{0, 0}, {0, 0}},
       {"subnet 10.0.0.0/16 joins ib0, ib1 (4 NICs) of 2 hosts"}},
      {"hosts without NICs are passed over",
       {{}, {nic("eth0", {"10.0.1.1/24"})}, {}, {nic("eth0", {"10.0.1.2/24"})}},
       {{}, {0}, {}, {0}},
       {"subnet 10.0.1.0/24 joins eth0 of 2 hosts"}},
      {"malformed addresses name nothing",
       {{nic("eth0", {"10.0.1.300/24", "x", "", "10.0.1.1/33", "gid "})}, {nic("eth0", {"x"})}},
       {{-1}, {-1}},
       {}},
  };
}

TEST(Rails, Table) {
  for (const Row& row : table()) {
    SCOPED_TRACE(row.what);
    std::vector<Host> hosts = hosts_of(row.nics);
    const std::vector<Rail> rails = form_rails(hosts);
    EXPECT_EQ(rails_in(hosts), row.rails);
    std::vector<std::string> reasons;
    for (const Rail& rail : rails) reasons.push_back(rail.reason);
    EXPECT_EQ(reasons, row.reasons);
    for (size_t h = 0; h < hosts.size(); h++)
      for (size_t n = 0; n < hosts[h].nics.size(); n++)
        EXPECT_TRUE(hosts[h].nics[n].rail >= 0 || !why_no_rail(hosts, h, n).empty());
  }
}

TEST(Rails, ADownNicKeepsItsRailButNotItsSpeed) {
  std::vector<Host> hosts = hosts_of({{nic("eth0", {"10.0.1.1/24"})},
                                      {nic("eth0", {"10.0.1.2/24"})},
                                      {nic("eth0", {"10.0.1.3/24"})}});
  hosts[0].nics[0].bytes_per_s = 1e9;
  hosts[0].nics[0].up = false;
  hosts[1].nics[0].bytes_per_s = 0;  // unknown
  const std::vector<Rail> rails = form_rails(hosts);
  ASSERT_EQ(rails.size(), 1u);
  EXPECT_EQ(hosts[0].nics[0].rail, 0);
  EXPECT_EQ(rails[0].bytes_per_s, 10e9);
  hosts[2].nics[0].bytes_per_s = 0;
  EXPECT_EQ(form_rails(hosts).front().bytes_per_s, 0);
}

TEST(Rails, SayWhyThereIsNone) {
  std::vector<Host> hosts = hosts_of({{nic("docker0", {"172.17.0.1/16"}), nic("x", {}),
                                       nic("lo", {"127.0.0.1/8"}), nic("eth0", {"10.0.1.1/24"})},
                                      {nic("docker0", {"172.17.0.1/16"})}});
  (void)form_rails(hosts);
  EXPECT_THAT(why_no_rail(hosts, 0, 0), testing::HasSubstr("same address"));
  EXPECT_THAT(why_no_rail(hosts, 0, 1), testing::HasSubstr("no address"));
  EXPECT_THAT(why_no_rail(hosts, 0, 2), testing::HasSubstr("loopback"));
  EXPECT_THAT(why_no_rail(hosts, 0, 3), testing::HasSubstr("no NIC of another host"));
  hosts = hosts_of({{nic("eth0", {"10.0.1.1/24"})}});
  EXPECT_THAT(why_no_rail(hosts, 0, 0), testing::HasSubstr("one host only"));
}

TEST(RailsByHand, OverrideWhatIsDetected) {
  std::vector<Host> hosts = hosts_of(
      {{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.1.2/24"}), nic("eth2", {"10.0.1.3/24"})},
       {nic("eth0", {"10.0.1.4/24"}), nic("eth1", {})}});
  hosts[1].nics[1].rdma = "mlx5_0";
  ASSERT_TRUE(set_rails_by_hand("eth0=5,eth1=2", hosts[0]).is_ok());
  ASSERT_TRUE(set_rails_by_hand("eth0=5,mlx5_0=2,eth7=9", hosts[1]).is_ok());
  const std::vector<Rail> rails = form_rails(hosts);
  EXPECT_EQ(rails_in(hosts), (std::vector<std::vector<int>>{{1, 0, -1}, {1, 0}}));
  ASSERT_EQ(rails.size(), 2u);
  EXPECT_EQ(rails[0].reason, "RAILCCL_RAILS puts eth1 of 2 hosts on rail 2");
  EXPECT_THAT(why_no_rail(hosts, 0, 2), testing::HasSubstr("RAILCCL_RAILS leaves it out"));
}

TEST(RailsByHand, HostsOfWhichItSaysNothingJoinByTheirNetworks) {
  std::vector<Host> hosts =
      hosts_of({{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.2.1/24"})},
                {nic("eth0", {"10.0.1.2/24"}), nic("eth1", {"10.0.2.2/24"})},
                {nic("b", {"10.0.2.3/24"}), nic("a", {"10.0.1.3/24"}), nic("c", {"10.9.9.3/24"})}});
  ASSERT_TRUE(set_rails_by_hand("eth0=0,eth1=1", hosts[0]).is_ok());
  ASSERT_TRUE(set_rails_by_hand("eth1=1", hosts[1]).is_ok());  // eth0 is to be left out there
  ASSERT_TRUE(set_rails_by_hand("eth0=0,eth1=1", hosts[2]).is_ok());  // no such names
  const std::vector<Rail> rails = form_rails(hosts);
  EXPECT_EQ(rails_in(hosts), (std::vector<std::vector<int>>{{0, 1}, {-1, 1}, {1, 0, -1}}));
  ASSERT_EQ(rails.size(), 2u);
  EXPECT_EQ(rails[1].reason,
            "RAILCCL_RAILS puts eth1 of 2 hosts on rail 1; by their network also b of 1 host");
}

TEST(RailsByHand, InOneFlatSubnetOthersJoinInOrder) {
  std::vector<Host> hosts =
      hosts_of({{nic("eth0", {"10.0.0.1/16"}), nic("eth1", {"10.0.0.2/16"})},
                {nic("x", {"10.0.0.3/16"}), nic("y", {"10.0.0.4/16"}), nic("z", {"10.0.0.5/16"})}});
  ASSERT_TRUE(set_rails_by_hand("eth0=0,eth1=1", hosts[0]).is_ok());
  EXPECT_EQ(form_rails(hosts).size(), 2u);
  EXPECT_EQ(rails_in(hosts), (std::vector<std::vector<int>>{{0, 1}, {0, 1, -1}}));
}

TEST(RailsByHand, NamesThatNoHostHasChangeNothing) {
  std::vector<Host> hosts =
      hosts_of({{nic("eth0", {"10.0.1.1/24"}), nic("eth1", {"10.0.2.1/24"})},
                {nic("eth0", {"10.0.1.2/24"}), nic("eth1", {"10.0.2.2/24"})}});
  for (Host& host : hosts) ASSERT_TRUE(set_rails_by_hand("ib0=1,ib1=0", host).is_ok());
  EXPECT_EQ(form_rails(hosts).size(), 2u);
  EXPECT_EQ(rails_in(hosts), (std::vector<std::vector<int>>{{0, 1}, {0, 1}}));
}

TEST(RailsByHand, MalformedTextIsAnError) {
  for (const char* bad : {"eth0", "eth0=", "eth0=x", "eth0=-1", "=1", "eth0=1,,eth1=2", "eth0=1 ",
                          "eth0=4096", "eth0=99999999999"}) {
    std::vector<Host> hosts = hosts_of({{nic("eth0", {})}});
    const Status status = set_rails_by_hand(bad, hosts[0]);
    EXPECT_EQ(status.code(), Code::invalid_argument) << bad;
    EXPECT_THAT(status.text(), testing::HasSubstr("RAILCCL_RAILS"));
  }
  Host host;
  EXPECT_TRUE(set_rails_by_hand("", host).is_ok());
}

}  // namespace
}  // namespace railccl::topology
