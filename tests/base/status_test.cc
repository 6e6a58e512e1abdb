// Status and Result: chains keep every cause, scopes only widen, and the macros pass failures on.
#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace railccl {
namespace {

Status cause() { return Status(Code::remote, Scope::link, "rank {} closed the socket", 3); }

TEST(Status, ChainReadsFromTheOutsideIn) {
  const Status status = cause().context("link {}", "tcp").context("all_reduce number {}", 7);
  EXPECT_EQ(status.text(), "all_reduce number 7: link tcp: rank 3 closed the socket");
  EXPECT_EQ(status.code(), Code::remote);
  EXPECT_EQ(status.scope(), Scope::link);
}

TEST(Status, SuccessStaysFreeOfContext) {
  const Status status = ok().context("never {}", "seen").widen(Scope::communicator);
  EXPECT_TRUE(status.is_ok());
  EXPECT_EQ(status.text(), "ok");
}

TEST(Status, ScopeWidensAndNeverNarrows) {
  EXPECT_EQ(cause().widen(Scope::communicator).scope(), Scope::communicator);
  EXPECT_EQ(cause().widen(Scope::call).scope(), Scope::link);
  EXPECT_EQ(cause().widen(Scope::communicator).text(), cause().text());
}

TEST(Status, SystemErrorsNameTheReason) {
  EXPECT_EQ(system_error(ENOENT, "open /x").text(), "open /x: No such file or directory");
  EXPECT_EQ(system_error(ENOENT, "open /x").code(), Code::system);
}

Result<std::unique_ptr<int>> half(int value) {
  if (value % 2 != 0) return Status(Code::invalid_argument, "{} is odd", value);
  return std::make_unique<int>(value / 2);
}

Result<int> quarter(int value) {
  RAILCCL_TRY(const std::unique_ptr<int> once, half(value));
  RAILCCL_TRY(const std::unique_ptr<int> twice, half(*once));
  return *twice;
}

Status check_quarter(int value) {
  RAILCCL_CHECK(quarter(value).status().context("quarter of {}", value));
  return ok();
}

TEST(Result, MacrosPassValuesAndFailuresOn) {
  ASSERT_TRUE(quarter(12).is_ok());
  EXPECT_EQ(*quarter(12), 3);
  EXPECT_EQ(quarter(6).status().text(), "3 is odd");
  EXPECT_EQ(check_quarter(6).text(), "quarter of 6: 3 is odd");
  EXPECT_TRUE(check_quarter(8).is_ok());
}

}  // namespace
}  // namespace railccl
