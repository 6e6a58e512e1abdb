// Shows that pictures hold what they promise: each rail's colour and reason, abbreviation that says
// by how much, and names that cannot break out of the markup.
#include "topology/draw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "topology/synthetic.h"

namespace railccl::topology {
namespace {

using testing::HasSubstr;
using testing::Not;

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) found++;
  return found;
}

/// Every tag that opens also closes, in order.
void expect_balanced(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t at = svg.find('<'); at != std::string::npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag.starts_with('/')) {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), tag.substr(1));
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(Draw, TheReadmePicture) {
  const std::string svg = draw_svg(*synthetic("hosts=4,gpus=4,rails=4"));
  expect_balanced(svg);
  EXPECT_THAT(svg, HasSubstr("4 hosts, 16 ranks, 4 rails"));
  for (const char* colour : {"#0072b2", "#d55e00", "#009e73", "#b8579a"}) {
    EXPECT_EQ(count(svg, fmt::format("fill=\"{}\"", colour)), 6u) << colour;  // leaf, 4 NICs, key
    EXPECT_EQ(count(svg, fmt::format("fill=\"none\" stroke=\"{}\"", colour)), 4u) << colour;
  }
  for (int r = 0; r < 16; r++) EXPECT_EQ(count(svg, fmt::format(">rank {}<", r)), 1u);
  EXPECT_THAT(svg, HasSubstr("rail 3: leaf 3 joins nic3 of 4 hosts"));
  EXPECT_THAT(svg, Not(HasSubstr("not drawn")));
}

TEST(Draw, TheReadmePictureIsUpToDate) {
  // After an intended change:
  //   railccl-topo --synthetic hosts=4,gpus=4,rails=4 --svg docs/rails.svg
  std::ifstream file(RAILCCL_TEST_DATA "/../../docs/rails.svg", std::ios::binary);
  std::ostringstream committed;
  committed << file.rdbuf();
  EXPECT_EQ(committed.str(), draw_svg(*synthetic("hosts=4,gpus=4,rails=4")));
}

TEST(Draw, LargeClustersAreAbbreviated) {
  const std::string svg = draw_svg(*synthetic("hosts=100,gpus=16,nics=20,rails=20,spine=1:4"));
  expect_balanced(svg);
  EXPECT_THAT(svg, HasSubstr("and 96 hosts not drawn"));
  EXPECT_THAT(svg, HasSubstr("and 4 rails not drawn"));
  EXPECT_THAT(svg, HasSubstr("12 NICs more, 8 ranks more"));
  EXPECT_THAT(svg, HasSubstr("oversubscribed 1:4"));
  EXPECT_LT(svg.size(), 200'000u);
}

TEST(Draw, NoRailsDownNicsAndEmptyHosts) {
  Host host;
  host.name = "a & <b> \"c\"\n\xff";
  Nic nic;
  nic.name = "<script>";
  nic.up = false;
  host.nics = {nic};
  Rank rank;
  rank.nic = 0;
  const std::string svg = draw_svg(Topology({host, Host()}, {}, {rank}));
  expect_balanced(svg);
  EXPECT_THAT(svg, HasSubstr("a &amp; &lt;b&gt; &quot;c&quot;??"));
  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
  EXPECT_THAT(svg, HasSubstr("(down)"));
  EXPECT_THAT(svg, HasSubstr("no NIC"));
  EXPECT_THAT(svg, HasSubstr("no rails"));
  expect_balanced(draw_svg(Topology()));
}

TEST(Draw, Speeds) {
  EXPECT_EQ(speed_text(0), "unknown speed");
  EXPECT_EQ(speed_text(50e9), "50 GB/s");
  EXPECT_EQ(speed_text(12.5e6), "12.5 MB/s");
  EXPECT_EQ(speed_text(1.25e12), "1.25 TB/s");
  EXPECT_EQ(speed_text(1000), "1 kB/s");
}

}  // namespace
}  // namespace railccl::topology
