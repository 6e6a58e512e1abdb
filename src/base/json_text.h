// JsonText: writes JSON, piece by piece, into one string: no tree in memory, and light to compile.
// Readers use nlohmann-json.
//
//   JsonText json;
//   json.object().field("name", name).key("ranks").array().value(0).value(1).end().end();
//
// The caller closes what he opens. Text that is not UTF-8 (names come from other machines) is
// replaced where it is not; numbers that JSON does not have are null.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace railccl {

class JsonText {
 public:
  JsonText& object() { return open('{', '}'); }
  JsonText& array() { return open('[', ']'); }
  /// Of the innermost object or array that is open.
  JsonText& end() {
    text_ += open_.back();
    open_.pop_back();
    return *this;
  }
  JsonText& key(std::string_view name) {
    value(name);
    text_ += ':';
    return *this;
  }

  JsonText& value(std::string_view text);
  JsonText& value(const char* text) { return value(std::string_view(text)); }
  JsonText& value(const std::string& text) { return value(std::string_view(text)); }
  JsonText& value(bool yes) { return raw(yes ? "true" : "false"); }
  JsonText& value(double number);
  template <std::integral Integer>
  JsonText& value(Integer number) {
    return raw(std::to_string(number));
  }
  JsonText& null() { return raw("null"); }
  /// What is JSON already.
  JsonText& raw(std::string_view json) {
    separate();
    text_ += json;
    return *this;
  }
  template <typename Value>
  JsonText& field(std::string_view name, const Value& what) {
    return key(name).value(what);
  }

  /// What has been written so far.
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  JsonText& open(char first, char last) {
    separate();
    text_ += first;
    open_ += last;
    return *this;
  }
  /// A comma, unless this is the first in its place: nothing but what opens a place ends in these.
  void separate() {
    if (!text_.empty() && text_.back() != '{' && text_.back() != '[' && text_.back() != ':')
      text_ += ',';
  }

  std::string text_;
  std::string open_;  // what closes those that are open
};

}  // namespace railccl
