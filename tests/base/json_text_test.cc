// Shows that JsonText writes JSON, whatever the text and the numbers are that it is given.
#include "base/json_text.h"

#include <gtest/gtest.h>

#include <limits>

namespace railccl::test {
namespace {

std::string text_of(std::string_view text) { return JsonText().value(text).take(); }

TEST(JsonText, NestsAndSeparates) {
  JsonText json;
  json.object().field("a", 1).key("b").array().value(true).null().object().end().array().end();
  json.raw("[1]").value("x").end().field("c", "").field("d", std::string("[")).field("e", 2).end();
  EXPECT_EQ(json.text(), R"({"a":1,"b":[true,null,{},[],[1],"x"],"c":"","d":"[","e":2})");
}

TEST(JsonText, Numbers) {
  JsonText json;
  json.array().value(std::numeric_limits<uint64_t>::max()).value(int64_t{-5}).value(0.25);
  json.value(1e300).value(std::numeric_limits<double>::infinity()).value(std::nan("")).end();
  EXPECT_EQ(json.text(), "[18446744073709551615,-5,0.25,1e+300,null,null]");
}

TEST(JsonText, WhatIsNoUtf8IsReplacedWhereItIsNot) {
  EXPECT_EQ(text_of("a\"b\\c\n\x01\x7f"), "\"a\\\"b\\\\c\\u000a\\u0001\x7f\"");
  for (const char* good : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"})
    EXPECT_EQ(text_of(good), '"' + std::string(good) + '"');
  const std::string odd = "\xef\xbf\xbd";
  EXPECT_EQ(text_of("a\xff"
                    "b"),
            "\"a" + odd + "b\"");
  EXPECT_EQ(text_of("\xe2\x82"), '"' + odd + odd + '"');            // cut off
  EXPECT_EQ(text_of("\xc0\xaf"), '"' + odd + odd + '"');            // longer than it need be
  EXPECT_EQ(text_of("\xed\xa0\x80"), '"' + odd + odd + odd + '"');  // half of a pair
  EXPECT_EQ(text_of("\xf4\x90\x80\x80"), '"' + odd + odd + odd + odd + '"');
}

}  // namespace
}  // namespace railccl::test
