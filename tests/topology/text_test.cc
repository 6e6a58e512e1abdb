// Shows that topology files and exchanged facts refuse what is malformed with the line and field
// named, survive any single mutation of a good text, and keep odd names and doubles exactly.
#include "topology/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "base/random.h"
#include "topology/facts.h"
#include "topology/host_records.h"
#include "topology/synthetic.h"

namespace railccl::topology {
namespace {

const std::string kHead = "railccl-topology version=1\n";

struct Bad {
  std::string text;
  const char* says;
};

TEST(TopologyText, ErrorsNameLineAndField) {
  const Bad bad[] = {
      {"", "the topology is empty"},
      {"# only a comment\n\n", "the topology is empty"},
      {"hello\n", "line 1: not a topology file"},
      {"railccl-topology\n", "line 1: version is missing"},
      {"railccl-topology version=2\n", "line 1: version: expected an integer from 1 to 1"},
      {"railccl-facts version=1\n", "line 1: not a topology file"},
      {kHead + "tree a=1\n", "line 2: unknown record \"tree\""},
      {kHead + "\n\nhost\n", "line 4: name is missing"},
      {kHead + "host name=a cores=0\n", "line 2: cores: expected an integer from 1"},
      {kHead + "host name=a cores=1 cores=2\n", "line 2: cores is given twice"},
      {kHead + "host name=a colour=red\n", "line 2: host has no \"colour\""},
      {kHead + "host name=a id=12\n", "line 2: id: expected a hexadecimal number"},
      {kHead + "host name=a copy=0\n", "line 2: copy: expected a number of at least 1"},
      {kHead + "host name=a inner=nan\n", "line 2: inner: expected a number"},
      {kHead + "host name=a inner=1e999\n", "line 2: inner: expected a number"},
      {kHead + "host name=\"a\n", "line 2: name: the quoted value is malformed"},
      {kHead + "host name=\"a\\q\"\n", "line 2: name: the quoted value is malformed"},
      {kHead + "host name=\"a\"b\n", "line 2: expected a blank before \"b\""},
      {kHead + "host name=a\"b\n", "line 2: name: the value needs quotes"},
      {kHead + "host name\n", "line 2: expected key=value at \"name\""},
      {kHead + "host name=\n", "line 2: name: the value needs quotes"},
      {kHead + "host =x\n", "line 2: expected key=value"},
      {kHead + "!\n", "line 2: expected a word"},
      {kHead + "nic name=a\n", "line 2: nic before the first host"},
      {kHead + "host name=a\nnic name=e numa=0\n",
       "line 3: numa: expected an integer from -1 to -1"},
      {kHead + "host name=a\nnic name=e rail=0\n",
       "line 3: rail: expected an integer from -1 to -1"},
      {kHead + "host name=a\nnic name=e up=maybe\n", "line 3: up: expected yes or no"},
      {kHead + "host name=a\nnic name=e speed=-1\n", "line 3: speed: expected a number"},
      {kHead + "rank host=0\n", "line 2: rank before the first host"},
      {kHead + "host name=a\nrank host=1\n", "line 3: host: expected an integer from 0 to 0"},
      {kHead + "host name=a\nrank numa=0\n", "line 3: host is missing"},
      {kHead + "host name=a\nrank host=0 gpu=0\n", "line 3: gpu: expected"},
      {kHead + "host name=a\nrank host=0 nic=0\n", "line 3: nic: expected"},
      {kHead + "host name=a\nrank host=0\nnic name=e\n", "line 4: nic after the first rank"},
      {kHead + "network oversubscription=0.5\n", "line 2: oversubscription: expected a number"},
      {kHead + "network alpha=-1\n", "line 2: alpha: expected a number of at least 0"},
      {kHead + std::string("host name=a\0b\n", 14), "line 2: name: the value needs quotes"},
  };
  for (const Bad& row : bad) {
    const Result<Topology> read = from_text(row.text);
    ASSERT_FALSE(read.is_ok()) << row.text;
    EXPECT_EQ(read.status().code(), Code::invalid_argument);
    EXPECT_THAT(read.status().text(), testing::HasSubstr(row.says));
    EXPECT_LT(read.status().text().size(), 300u);
  }
}

TEST(TopologyText, BoundsWhatAHostileTextCanAskFor) {
  std::string nics = kHead + "host name=a\n";
  for (int i = 0; i <= kPartsPerHostMax; i++) nics += "nic name=e\n";
  EXPECT_THAT(from_text(nics).status().text(), testing::HasSubstr("too many"));
  std::string rails = kHead;
  for (int i = 0; i <= kRailsMax; i++) rails += "rail\n";
  EXPECT_THAT(from_text(rails).status().text(), testing::HasSubstr("too many rails"));
  std::string ranks = kHead + "host name=a\n";
  for (int i = 0; i <= kRanksMax; i++) ranks += "rank host=0\n";
  EXPECT_THAT(from_text(ranks).status().text(), testing::HasSubstr("too many ranks"));
  std::string addresses = kHead + "host name=a\nnic name=e";
  for (int i = 0; i <= kAddressesPerNicMax; i++) addresses += " address=x";
  EXPECT_THAT(from_text(addresses).status().text(), testing::HasSubstr("more than 64"));
  EXPECT_FALSE(from_text(std::string(kTopologyTextMax + 1, '\n')).is_ok());
  EXPECT_FALSE(decode(std::string(kFactsTextMax + 1, '\n')).is_ok());
}

TEST(TopologyText, KeepsOddNamesAndDoublesExactly) {
  Host host;
  host.name = "a \"quoted\" \\ name\twith\nbreaks # and = and \x01\x7f \xc3\xa9 \xff";
  host.id = std::numeric_limits<uint64_t>::max();
  host.inner_alpha_s = 0.1 + 0.2;
  host.copy_bytes_per_s = 1.0 / 3.0 * 1e10;
  host.numas = {{1, ""}};
  Nic nic;
  nic.name = "";
  nic.bytes_per_s = std::numeric_limits<double>::max();
  nic.up = false;
  nic.rdma = "mlx5_0:2";
  host.nics = {nic};
  Rank rank;
  rank.nic = 0;
  rank.cache = 1 << 20;
  const Topology t({host}, {{"because \"so\"", 5e-324}}, {rank}, 1e-300, 1.0000000000000002);
  const Result<Topology> read = from_text(to_text(t));
  ASSERT_TRUE(read.is_ok()) << read.status().text();
  EXPECT_EQ(*read, t);
}

/// Speeds that no two rows share.
Speeds odd_speeds() {
  Speeds speeds;
  double value = 1.0 / 3.0;
  for (const SpeedRow& row : kSpeedRows)
    speeds.*row.member = (value += 1.0 / 7.0) * (row.unit == SpeedUnit::seconds ? 1e-7 : 1e10);
  return speeds;
}

TEST(TopologyText, KeepsMeasuredSpeedsExactly) {
  Host host;
  host.name = "a";
  host.cores_per_cache = 8;
  host.set_speeds(odd_speeds());
  const Topology t({host, Host()}, {}, {Rank()});
  const Result<Topology> read = from_text(to_text(t));
  ASSERT_TRUE(read.is_ok()) << read.status().text();
  EXPECT_EQ(*read, t);
  EXPECT_TRUE(read->hosts()[0].speeds.known());
  EXPECT_FALSE(read->hosts()[1].speeds.known());
  const Result<Speeds> alone = speeds_from_text(speeds_to_text(odd_speeds()));
  ASSERT_TRUE(alone.is_ok()) << alone.status().text();
  EXPECT_EQ(*alone, odd_speeds());
}

TEST(TopologyText, RefusesSpeedsThatNoMachineHas) {
  const std::string good = speeds_to_text(odd_speeds());
  const auto with = [&](const SpeedRow& changed, double value) {
    Speeds speeds = odd_speeds();
    speeds.*changed.member = value;
    return speeds_from_text(speeds_to_text(speeds));
  };
  for (const SpeedRow& row : kSpeedRows) {
    for (const double value : {0.0, -1.0, 1e-30, 1e30}) {
      EXPECT_THAT(with(row, value).status().text(), testing::HasSubstr(row.key)) << value;
    }
    std::string without = good;
    const size_t at = without.find(fmt::format(" {}=", row.key));
    ASSERT_NE(at, std::string::npos);
    without.erase(at, without.find(' ', at + 1) - at);
    EXPECT_THAT(speeds_from_text(without).status().text(),
                testing::HasSubstr(fmt::format("{} is missing", row.key)));
  }
  EXPECT_FALSE(speeds_from_text("").is_ok());
  EXPECT_FALSE(speeds_from_text("numa memory=1").is_ok());
  EXPECT_FALSE(speeds_from_text(good + " more=1").is_ok());
  EXPECT_THAT(from_text(kHead + "host name=a\n" + good + "\n" + good + "\n").status().text(),
              testing::HasSubstr("has its speeds already"));
}

TEST(Topology, WithSpeedsSetsThoseThatAreKnown) {
  const Topology before({Host(), Host()}, {}, {Rank()});
  const Topology after = before.with_speeds({Speeds(), odd_speeds()});
  EXPECT_EQ(after.hosts()[0], before.hosts()[0]);
  EXPECT_EQ(after.hosts()[1].speeds, odd_speeds());
  EXPECT_EQ(after.hosts()[1].inner_alpha_s, odd_speeds().signal_s);
  EXPECT_LT(after.hosts()[1].inner_bytes_per_s, odd_speeds().copy_bytes_per_s);
}

TEST(TopologyText, WindowsLineEndsAndMissingLastBreakAreFine) {
  const Result<Topology> read =
      from_text("railccl-topology version=1\r\nhost name=a # comment\r\n\r\nrank host=0");
  ASSERT_TRUE(read.is_ok()) << read.status().text();
  EXPECT_EQ(read->size(), 1);
}

/// Calls `use` with `rounds` random mutations of `text`.
template <typename Use>
void mutate(const std::string& text, int rounds, Use use) {
  Random random(1);
  for (int i = 0; i < rounds; i++) {
    std::string changed = text;
    for (uint64_t edits = 1 + random.below(3); edits > 0 && !changed.empty(); edits--) {
      const size_t at = random.below(changed.size());
      switch (random.below(4)) {
        case 0:
          changed[at] = static_cast<char>(random.below(256));
          break;
        case 1:
          changed.erase(at, 1 + random.below(20));
          break;
        case 2:
          changed.insert(at, changed.substr(random.below(changed.size()), random.below(30)));
          break;
        default:
          changed.resize(at);
      }
    }
    use(changed);
  }
}

TEST(TopologyText, AnyMutationIsReadOrRefused) {
  Result<Topology> made = synthetic("hosts=2,gpus=2,nics=2:1,rails=2");
  ASSERT_TRUE(made.is_ok());
  int read_count = 0;
  mutate(to_text(*made), 5000, [&](const std::string& text) {
    const Result<Topology> read = from_text(text);
    if (!read.is_ok()) {
      EXPECT_FALSE(read.status().text().empty());
      return;
    }
    read_count++;
    // What was taken is sound: every index leads somewhere, and it reads back equal.
    for (int r = 0; r < read->size(); r++) (void)read->path(0, r);
    EXPECT_EQ(*from_text(to_text(*read)), *read);
  });
  EXPECT_GT(read_count, 100);
}

TEST(FactsText, AnyMutationIsReadOrRefused) {
  Facts facts;
  facts.host = std::move(synthetic("hosts=1,gpus=2,nics=2")).value().hosts()[0];
  facts.host.nics[0].addresses = {"10.0.0.1/24", "fe80::1/64"};
  facts.host.set_speeds(odd_speeds());
  facts.process = 42;
  facts.numa = 1;
  facts.cache = 64;
  facts.cpus = "0-3,8";
  facts.gpu = 1;
  const std::string text = encode(facts);
  EXPECT_EQ(*decode(text), facts);
  mutate(text, 5000, [&](const std::string& changed) {
    const Result<Facts> read = decode(changed);
    if (!read.is_ok()) return;
    EXPECT_LT(read->numa, static_cast<int>(read->host.numas.size()));
    EXPECT_LT(read->gpu, static_cast<int>(read->host.gpus.size()));
    EXPECT_EQ(*decode(encode(*read)), *read);
  });
}

TEST(FactsText, Errors) {
  const std::string head = "railccl-facts version=1\n";
  const Bad bad[] = {
      {"", "end before their place"},
      {"junk\n", "line 1: not railccl facts"},
      {"railccl-facts version=9\n", "line 1: version"},
      {head + "place process=0x1\n", "line 2: \"place\" is unknown or out of place"},
      {head + "host name=a\n", "end before their place"},
      {head + "host name=a\nhost name=b\n", "line 3: \"host\" is unknown or out of place"},
      {head + "host name=a\nplace numa=0\n", "line 3: numa"},
      {head + "host name=a\nplace gpu=0\n", "line 3: gpu"},
      {head + "host name=a\nplace process=0x1\nnic name=e\n", "line 4: \"nic\""},
      {head + "host name=a\nplace process=0x1 zz=1\n", "line 3: place has no \"zz\""},
  };
  for (const Bad& row : bad) {
    const Result<Facts> read = decode(row.text);
    ASSERT_FALSE(read.is_ok()) << row.text;
    EXPECT_THAT(read.status().text(), testing::HasSubstr(row.says));
  }
}

TEST(TopologyFile, ErrorsNameTheFile) {
  const Result<Topology> absent = load_topology("/nonexistent/x.topo");
  EXPECT_EQ(absent.status().code(), Code::system);
  EXPECT_THAT(absent.status().text(), testing::HasSubstr("/nonexistent/x.topo"));
  EXPECT_FALSE(load_topology("/").is_ok());
  EXPECT_FALSE(load_topology("/dev/zero").is_ok());  // without end, yet refused
  EXPECT_FALSE(save_topology(Topology(), "/nonexistent/x.topo").is_ok());

  const std::string path =
      (std::filesystem::path(testing::TempDir()) / "railccl_topology_text_test.topo").string();
  std::ofstream(path) << kHead << "oops=1\n";
  const Result<Topology> bad = load_topology(path);
  EXPECT_THAT(bad.status().text(), testing::HasSubstr(path));
  EXPECT_THAT(bad.status().text(), testing::HasSubstr("line 2"));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace railccl::topology
