// What compare_host makes of its figures: the best peer, ratios, JSON there and back, the picture.
#include <gtest/gtest.h>

#include "plot.h"
#include "report.h"

namespace railccl::compare {
namespace {

Result result_of(const std::string& family, const std::string& label, double us,
                 uint64_t wrong = 0) {
  Result result;
  result.family = family;
  result.label = label;
  result.median_us = us;
  result.us = {us, us + 1};
  result.wrong = wrong;
  return result;
}

CellResult cell_of(uint64_t bytes, double ours, double registered) {
  CellResult cell;
  cell.cell = {Operation::all_reduce, bytes};
  cell.ranks = 2;
  cell.results = {result_of("railccl", "railccl", ours),
                  result_of("railccl", "railccl registered", registered),
                  result_of("Open MPI", "Open MPI default", 9),
                  result_of("Open MPI", "Open MPI UCX", 8),
                  result_of("MPICH", "MPICH default", 7, 3),
                  result_of("Gloo", "Gloo ring", 100)};
  Result refused;
  refused.family = "MPICH";
  refused.label = "MPICH other";
  refused.refused = "gone";
  cell.results.push_back(refused);
  return cell;
}

std::string printed_means(const std::vector<CellResult>& table) {
  testing::internal::CaptureStdout();
  print_means(table);
  return testing::internal::GetCapturedStdout();
}

TEST(CompareReport, MedianOfOddEvenAndNone) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(median({}), 0);
}

TEST(CompareReport, TheBestPeerIsTheFastestWithRightResults) {
  const CellResult cell = cell_of(1024, 4, 2);
  EXPECT_EQ(cell.best("")->label, "Open MPI UCX");  // MPICH is faster, but wrong
  EXPECT_EQ(cell.best("MPICH"), nullptr);
  EXPECT_EQ(cell.best("Gloo")->label, "Gloo ring");
  EXPECT_EQ(cell.find("MPICH other"), nullptr);
}

TEST(CompareReport, MeansAreGeometricAndTellWhereWeAreBehind) {
  // Ratios 8/4 and 8/16: their geometric mean is 1.
  const std::string text = printed_means({cell_of(1024, 4, 1), cell_of(4096, 16, 2)});
  EXPECT_NE(text.find("best peer / railccl: 1.00 over 2 cells; least 0.50, behind in 1"),
            std::string::npos)
      << text;
  // 8/1 and 8/2.
  EXPECT_NE(text.find("best peer / railccl registered: 5.66 over 2 cells; least 4.00, behind in 0"),
            std::string::npos)
      << text;
}

TEST(CompareReport, JsonComesBackAsItWas) {
  CellResult cell = cell_of(1 << 24, 4, 2);
  cell.stream_bytes_per_s = 25e9;
  cell.foreign_percent = 1.5;
  CellResult back;
  std::string machine;
  ASSERT_TRUE(cell_from_json(json_of(cell, "a machine"), &back, &machine));
  EXPECT_EQ(machine, "a machine");
  EXPECT_EQ(json_of(back, machine), json_of(cell, "a machine"));
  EXPECT_EQ(back.best("")->label, "Open MPI UCX");
  for (const char* bad : {"", "{}", "[]", "{\"collective\":\"dance\"}", "{\"collective\":1"}) {
    EXPECT_FALSE(cell_from_json(bad, &back, &machine)) << bad;
  }
}

TEST(CompareReport, SizesHaveSuffixes) {
  EXPECT_EQ(parse_size("8"), 8U);
  EXPECT_EQ(parse_size("64K"), 65536U);
  EXPECT_EQ(parse_size("256m"), 256U << 20);
  for (const char* bad : {"", "K", "8X", "8KB", "x"}) EXPECT_EQ(parse_size(bad), 0U) << bad;
  EXPECT_EQ(size_text(64 << 10), "64 KiB");
  EXPECT_EQ(size_text(1500), "1500 B");
}

TEST(ComparePlot, EveryLineThatWasMeasuredIsDrawn) {
  const std::string picture = plot_of({{cell_of(1024, 4, 1), cell_of(4096, 16, 2)}}, "<a> & b");
  size_t lines = 0;
  for (size_t at = 0; (at = picture.find("class=\"line\"", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines,
            4U + 4U);  // the legend's and the panel's: all but MPICH's, which were not measured
  EXPECT_NE(picture.find("&lt;a> &amp; b"), std::string::npos);
  EXPECT_EQ(picture.find("nan"), std::string::npos);
  EXPECT_EQ(picture.find("inf"), std::string::npos);
  EXPECT_NE(plot_of({}, "").find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace railccl::compare
