// Shows that rails that were found are kept in a file that only its own fabric takes, that nothing
// in such a file or in what ranks tell each other is believed unseen, and that a probe that cannot
// be made leaves everything as it was, at once, the same on all ranks. Ranks are threads that
// exchange through memory; the probe itself runs in tests/lab/flat_test.py.
#include "runtime/find_rails.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "runtime/rails_file.h"

namespace railccl::test {
namespace {

namespace fs = std::filesystem;
using runtime::RailSearch;
using testing::HasSubstr;
using topology::Discovery;
using topology::FlatNetwork;
using topology::FoundBy;
using topology::Host;
using topology::Nic;

std::vector<Host> flat_hosts(size_t hosts, size_t nics) {
  std::vector<Host> made(hosts);
  for (size_t h = 0; h < hosts; h++) {
    made[h].name = fmt::format("h{}", h);
    made[h].id = h + 1;
    for (size_t n = 0; n < nics; n++) {
      Nic nic;
      nic.name = fmt::format("none{}", n);  // no such interface: what is tried fails at once
      nic.bytes_per_s = 1e9;
      nic.addresses = {fmt::format("192.0.2.{}/24", 10 * h + n + 1)};
      made[h].nics.push_back(nic);
    }
  }
  return made;
}

Discovery sample() {
  Discovery found;
  found.by = FoundBy::bandwidth;
  found.rails = {{{0, 0}, {1, 1}, {2, 0}}, {{0, 1}, {1, 0}, {2, 1}}};
  found.leaves = {0, 1};
  found.inside_bytes_per_s = 24.7e6;
  found.across_bytes_per_s = 6.1e6;
  found.inside_s = 1.6e-5;
  found.oversubscription = 4;
  return found;
}

class FindRails : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::path(testing::TempDir()) / "railccl_rails_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    home_ = pattern;
    settings_.cache_home = home_;
    network_ = *topology::flat_network(hosts_);
    key_ = runtime::fabric_key(hosts_, network_);
  }
  void TearDown() override { fs::remove_all(home_); }

  fs::path file() const { return fs::path(home_) / "railccl" / ("rails-" + key_ + ".json"); }
  void write(const std::string& text) {
    fs::create_directories(file().parent_path());
    fs::permissions(file().parent_path(), fs::perms::owner_all);
    std::ofstream(file()) << text;
  }

  std::string home_;
  Settings settings_;
  std::vector<Host> hosts_ = flat_hosts(3, 2);
  FlatNetwork network_;
  std::string key_;
};

TEST_F(FindRails, AreKeptInAFile) {
  std::string where;
  runtime::remember_rails(settings_, key_, runtime::rails_text(sample(), key_), &where);
  EXPECT_EQ(where, file().string());
  // As another process sees it: the folder by another name, so that memory does not help.
  Settings other = settings_;
  other.cache_home += "/";
  const auto found = runtime::remembered_rails(other, hosts_);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(*found, sample());
  EXPECT_EQ(fs::status(file()).permissions() & fs::perms::all,
            fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(FindRails, AnythingThatHostsSayOfThemselvesMakesAnotherFabric) {
  std::vector<std::string> keys = {key_};
  const auto add = [&](const std::vector<Host>& hosts) {
    const auto network = topology::flat_network(hosts);
    ASSERT_TRUE(network.has_value());
    keys.push_back(runtime::fabric_key(hosts, *network));
  };
  std::vector<Host> changed = hosts_;
  changed[1].id = 99;  // it was started anew
  add(changed);
  changed = hosts_;
  changed[1].nics[1].name = "other";
  add(changed);
  changed = hosts_;
  changed[2].nics[0].addresses = {"192.0.2.77/24"};
  add(changed);
  changed = hosts_;
  changed[0].nics[0].bytes_per_s = 2e9;
  add(changed);
  changed = hosts_;
  changed[0].nics[0].up = false;
  add(changed);
  changed = hosts_;
  changed.pop_back();
  add(changed);
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::unique(keys.begin(), keys.end()), keys.end());
}

TEST_F(FindRails, AFileThatMakesNoSenseIsAsGoodAsNone) {
  const std::string good = runtime::rails_text(sample(), key_);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string rails = "[[[0,0],[1,1],[2,0]],[[0,1],[1,0],[2,1]]]";
  const std::pair<std::string, const char*> rows[] = {
      {"", "not a JSON object"},
      {good.substr(0, good.size() / 2), "not a JSON object"},
      {"[]", "not a JSON object"},
      {with(key_, "0123"), "another fabric"},
      {with("\"bandwidth\"", "\"guess\""), "what told"},
      {with(rails, "7"), "lacks rails"},
      {with(rails, "[[[0,0],[1,1],[2,0]]]"), "lacks rails"},
      {with(rails, "[[],[[0,1],[1,0],[2,1]]]"), "not a list of NICs"},
      {with("[2,0]", "[2]"), "not a pair"},
      {with("[2,0]", "[-2,0]"), "out of range"},
      {with("[2,0]", "[2,1e3]"), "out of range"},
      {with("[2,0]", "[7,0]"), "not in the network"},
      {with("[2,0]", "[0,0]"), "or twice"},
      {with("[[0,0],[1,1],[2,0]]", "[[0,0],[0,1],[2,0]]"), "two NICs of host 0"},
      {with(",[2,0]", ""), "is on no rail"},
      {with("\"leaves\":[0,1]", "\"leaves\":[0]"), "a leaf for each"},
      {with("\"oversubscription\":4.0", "\"oversubscription\":0.5"), "no fabric has"},
      {with("\"oversubscription\":4.0", "\"oversubscription\":\"4\""), "not a number"},
      {with("\"inside_s\":1.6e-05", "\"inside_s\":-1"), "no fabric has"},
  };
  ASSERT_TRUE(runtime::parse_rails(good, key_, network_).is_ok());
  for (const auto& [text, why] : rows) {
    const auto parsed = runtime::parse_rails(text, key_, network_);
    ASSERT_FALSE(parsed.is_ok()) << text;
    EXPECT_EQ(parsed.status().code(), Code::invalid_argument);
    EXPECT_THAT(parsed.status().text(), HasSubstr(why)) << text;
  }
  write(with("[2,0]", "[7,0]"));
  EXPECT_EQ(runtime::remembered_rails(settings_, key_, network_), "");
  write(good);
  EXPECT_EQ(runtime::remembered_rails(settings_, key_, network_), good);
  fs::permissions(file(), fs::perms::others_write, fs::perm_options::add);
  EXPECT_EQ(runtime::remembered_rails(settings_, key_, network_), "") << "others may write it";
}

TEST_F(FindRails, OldFilesMakeRoom) {
  std::string where;
  for (int i = 0; i < 70; i++)
    runtime::remember_rails(settings_, fmt::format("{:032x}", i), "x", &where);
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(home_) / "railccl")) {
    EXPECT_THAT(entry.path().filename().string(), testing::StartsWith("rails-"));
    files++;
  }
  EXPECT_EQ(files, 64u);
  EXPECT_TRUE(fs::exists(where)) << "the newest stays";
}

/// Runs find_rails on all ranks, two per host, each with settings of its own. Counts exchanges.
std::vector<std::optional<Discovery>> on_all(const std::vector<Host>& hosts,
                                             const std::vector<Settings>& settings,
                                             const std::string& forged, int* exchanges) {
  const size_t ranks = settings.size();
  std::vector<std::string> board(ranks);
  std::barrier meet(static_cast<std::ptrdiff_t>(ranks));
  std::vector<std::optional<Discovery>> results(ranks);
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks; r++)
    threads.emplace_back([&, r] {
      RailSearch search;
      search.rank = static_cast<int>(r);
      search.hosts = hosts;
      for (size_t h = 0; h < hosts.size(); h++) search.probers.push_back(static_cast<int>(2 * h));
      search.exchange = [&, r](const std::string& mine) -> Result<std::vector<std::string>> {
        board[r] = r == 0 && !forged.empty() ? forged : mine;
        meet.arrive_and_wait();
        std::vector<std::string> all = board;
        if (r == 0) ++*exchanges;
        meet.arrive_and_wait();
        return all;
      };
      auto found = runtime::find_rails(settings[r], search);
      ASSERT_TRUE(found.is_ok()) << found.status().text();
      results[r] = std::move(found).value();
    });
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST_F(FindRails, WhatRankZeroRemembersIsEveryonesWithoutAProbe) {
  write(runtime::rails_text(sample(), key_));
  Settings elsewhere = settings_;
  elsewhere.cache_home = home_ + "/none";
  std::vector<Settings> settings(6, elsewhere);
  settings[0] = settings_;
  int exchanges = 0;
  for (const auto& found : on_all(hosts_, settings, "", &exchanges)) {
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(*found, sample());
  }
  EXPECT_EQ(exchanges, 1);
}

TEST_F(FindRails, AProbeThatCannotBeMadeChangesNothing) {
  int exchanges = 0;
  for (const auto& found : on_all(hosts_, std::vector<Settings>(6, settings_), "", &exchanges))
    EXPECT_FALSE(found.has_value());
  EXPECT_EQ(exchanges, 1);
  EXPECT_FALSE(fs::exists(file()));
  for (const std::string& forged : {std::string("x"), std::string(24, '\xff')})
    for (const auto& found :
         on_all(hosts_, std::vector<Settings>(6, settings_), forged, &exchanges))
      EXPECT_FALSE(found.has_value());
}

TEST_F(FindRails, NothingIsExchangedWhereThereIsNothingToFind) {
  int exchanges = 0;
  Settings off = settings_;
  off.probe = "off";
  std::vector<Host> one_nic = flat_hosts(3, 1), by_hand = hosts_;
  by_hand[0].nics[0].rail = 0;
  for (const auto& found : on_all(hosts_, std::vector<Settings>(6, off), "", &exchanges))
    EXPECT_FALSE(found.has_value());
  for (const auto& hosts : {one_nic, by_hand})
    for (const auto& found : on_all(hosts, std::vector<Settings>(6, settings_), "", &exchanges))
      EXPECT_FALSE(found.has_value());
  EXPECT_EQ(exchanges, 0);
}

TEST(FindRailsValues, ComeBackAndHostileOnesAreLeftOut) {
  const std::map<uint64_t, double> values = {{0, 0}, {3, 2.5e7}, {uint64_t{1} << 40, 1e-6}};
  const std::string bytes = runtime::encode_values(values);
  EXPECT_EQ(runtime::decode_values(bytes), values);
  for (size_t cut = 0; cut < bytes.size(); cut++)
    EXPECT_LE(runtime::decode_values(bytes.substr(0, cut)).size(), 2u);
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(runtime::decode_values(
                  runtime::encode_values({{1, -1.0}, {2, std::nan("")}, {3, inf}, {4, -inf}}))
                  .empty());
  EXPECT_TRUE(runtime::decode_values(std::string(8, '\xff')).empty());
}

TEST(FindRailsSetting, IsOneOfThree) {
  Settings settings;
  for (const char* good : {"auto", "force", "off"}) {
    settings.probe = good;
    EXPECT_TRUE(runtime::check_probe_setting(settings).is_ok());
  }
  settings.probe = "yes";
  EXPECT_THAT(runtime::check_probe_setting(settings).text(),
              HasSubstr("RAILCCL_PROBE=yes: expected auto, force or off"));
}

}  // namespace
}  // namespace railccl::test
