// Shows that interfaces are chosen as NCCL_SOCKET_IFNAME and NCCL_SOCKET_FAMILY define it, on made
// up machines, and that address arithmetic and the real list of this machine are sound.
#include "base/interfaces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace railccl {
namespace {

Interface made(const std::string& name, std::vector<std::string> addresses, bool up = true) {
  Interface interface;
  interface.name = name;
  interface.up = up;
  interface.loopback = name == "lo";
  for (const std::string& text : addresses) {
    Result<InterfaceAddress> address = parse_address(text);
    EXPECT_TRUE(address.is_ok()) << text;
    interface.addresses.push_back(*address);
  }
  return interface;
}

std::vector<Interface> machine() {
  return {made("lo", {"127.0.0.1/8", "::1/128"}),
          made("eth0", {"10.0.0.1/24", "fd00::1/64"}),
          made("eth1", {"10.0.1.1/24"}),
          made("eth10", {"10.0.10.1/24"}),
          made("docker0", {"172.17.0.1/16"}),
          made("down0", {"10.0.9.1/24"}, false),
          made("bare0", {}),
          made("six0", {"fd01::1/64"})};
}

struct Row {
  const char* ifname;
  const char* family;
  std::vector<std::string> names;  // empty: an error
};

TEST(Interfaces, SelectionTable) {
  const Row rows[] = {
      {"", "", {"eth0", "eth1", "eth10", "six0"}},
      {"eth", "", {"eth0", "eth1", "eth10"}},
      {"eth1", "", {"eth1", "eth10"}},  // a prefix
      {"=eth1", "", {"eth1"}},
      {"=eth1,eth0", "", {"eth0", "eth1"}},
      {"eth0,six", "", {"eth0", "six0"}},
      {"^eth", "", {"docker0", "six0"}},  // an exclusion list need not mention loopback
      {"^eth,docker", "", {"six0"}},
      {"^=eth1", "", {"eth0", "eth10", "docker0", "six0"}},
      {"^eth,docker,six", "", {"lo"}},
      {"lo", "", {"lo"}},
      {"docker0", "", {"docker0"}},
      {"", "AF_INET", {"eth0", "eth1", "eth10"}},
      {"", "AF_INET6", {"eth0", "six0"}},
      {"eth1,", "", {"eth1", "eth10"}},
      {"down", "", {}},
      {"bare", "", {}},
      {"wlan", "", {}},
      {"=eth", "", {}},
      {"^", "", {}},
      {"=", "", {}},
      {"^=,", "", {}},
      {"eth1", "AF_INET6", {}},
      {"", "inet", {}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(std::string(row.ifname) + " / " + row.family);
    Settings settings;
    settings.socket_ifname = row.ifname;
    settings.socket_family = row.family;
    const Result<std::vector<Interface>> chosen = select_interfaces(machine(), settings);
    if (row.names.empty()) {
      ASSERT_FALSE(chosen.is_ok());
      EXPECT_EQ(chosen.status().code(), Code::invalid_argument);
      EXPECT_THAT(chosen.status().text(), testing::HasSubstr("NCCL_SOCKET_"));
      continue;
    }
    ASSERT_TRUE(chosen.is_ok()) << chosen.status().text();
    std::vector<std::string> names;
    for (const Interface& interface : *chosen) {
      names.push_back(interface.name);
      EXPECT_FALSE(interface.addresses.empty());
    }
    EXPECT_EQ(names, row.names);
  }
}

TEST(Interfaces, DefaultFallsBackStepByStep) {
  const auto names = [](const std::vector<Interface>& from) {
    std::string list;
    const Result<std::vector<Interface>> chosen = select_interfaces(from, Settings());
    if (!chosen.is_ok()) return std::string(name_of(chosen.status().code()));
    for (const Interface& interface : *chosen) list += interface.name + ' ';
    return list;
  };
  const Interface lo = made("lo", {"127.0.0.1/8"}), docker = made("docker0", {"172.17.0.1/16"});
  const Interface eth = made("eth0", {"10.0.0.1/24"}), ib = made("ib0", {"10.1.0.1/24"});
  EXPECT_EQ(names({lo, docker, eth, ib}), "ib0 ");
  EXPECT_EQ(names({lo, docker, eth}), "eth0 ");
  EXPECT_EQ(names({lo, docker}), "docker0 ");
  EXPECT_EQ(names({lo}), "lo ");
  EXPECT_EQ(names({}), name_of(Code::system));
  EXPECT_EQ(names({made("eth0", {})}), name_of(Code::system));
}

TEST(Interfaces, AddressesInAndOut) {
  for (const char* same : {"10.0.1.2/24", "0.0.0.0/0", "fe80::1/64", "fd00:1:2:3::/128"})
    EXPECT_EQ(text_of(*parse_address(same)), same);
  EXPECT_EQ(text_of(*parse_address("10.0.1.2")), "10.0.1.2/32");
  EXPECT_EQ(text_of(*parse_address("::1")), "::1/128");
  for (const char* bad : {"", "/", "10.0.0", "10.0.0.256/24", "10.0.0.1/33", "10.0.0.1/-1",
                          "10.0.0.1/", "10.0.0.1/2x", "fe80::1/129", "fe80::1%eth0/64", "x/24"})
    EXPECT_FALSE(parse_address(bad).is_ok()) << bad;
}

TEST(Interfaces, Subnets) {
  const auto subnet = [](const char* text) { return subnet_of(*parse_address(text)); };
  EXPECT_EQ(subnet("10.0.1.2/24"), "10.0.1.0/24");
  EXPECT_EQ(subnet("10.0.1.130/25"), "10.0.1.128/25");
  EXPECT_EQ(subnet("10.0.1.2/0"), "0.0.0.0/0");
  EXPECT_EQ(subnet("10.0.1.2/32"), "10.0.1.2/32");
  EXPECT_EQ(subnet("fd00:0:0:1:2:3:4:5/64"), "fd00:0:0:1::/64");
  EXPECT_EQ(subnet("fd00::ffff/127"), "fd00::fffe/127");

  const auto same = [](const char* mine, const char* other) {
    return same_subnet(*parse_address(mine), parse_address(other)->address);
  };
  EXPECT_TRUE(same("10.0.1.2/24", "10.0.1.200"));
  EXPECT_FALSE(same("10.0.1.2/24", "10.0.2.2"));
  EXPECT_FALSE(same("10.0.1.2/0", "fd00::1"));
  EXPECT_TRUE(same("fd00::1/64", "fd00::2"));
}

TEST(Interfaces, SpecialAddresses) {
  const auto address = [](const char* text) { return parse_address(text)->address; };
  EXPECT_TRUE(is_loopback(address("127.9.9.9")));
  EXPECT_TRUE(is_loopback(address("::1")));
  EXPECT_FALSE(is_loopback(address("::2")));
  EXPECT_FALSE(is_loopback(address("128.0.0.1")));
  EXPECT_TRUE(is_link_local(address("169.254.1.1")));
  EXPECT_TRUE(is_link_local(address("febf::1")));
  EXPECT_FALSE(is_link_local(address("fec0::1")));
  EXPECT_FALSE(is_link_local(address("169.255.1.1")));
  EXPECT_FALSE(is_loopback(sockaddr_storage{}));
  EXPECT_EQ(text_of(sockaddr_storage{}), "");
}

TEST(Interfaces, OfThisMachine) {
  const Result<std::vector<Interface>> all = all_interfaces();
  ASSERT_TRUE(all.is_ok()) << all.status().text();
  int loopbacks = 0;
  unsigned last = 0;
  for (const Interface& interface : *all) {
    EXPECT_FALSE(interface.name.empty());
    EXPECT_GT(interface.index, last);  // each once, ascending
    last = interface.index;
    EXPECT_GE(interface.bytes_per_s, 0);
    if (!interface.loopback) continue;
    loopbacks++;
    for (const InterfaceAddress& address : interface.addresses)
      EXPECT_TRUE(address.address.ss_family != AF_INET || address.prefix_bits == 8);
  }
  EXPECT_EQ(loopbacks, 1);
  Settings settings;
  settings.socket_ifname = "lo";
  const Result<std::vector<Interface>> lo = usable_interfaces(settings);
  ASSERT_TRUE(lo.is_ok()) << lo.status().text();
  EXPECT_TRUE(lo->front().loopback);
}

}  // namespace
}  // namespace railccl
