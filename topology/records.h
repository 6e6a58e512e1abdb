// Records: the line grammar that topology files and exchanged facts are written in.
//
//     # comment
//     nic name=eth0 speed=1.25e+10 up=yes address=10.0.1.2/24 neighbourhood="subnet 10.0.1.0/24"
//
// One record per line: a word, then key=value pairs; values with blanks or quotes are put in double
// quotes with \" \\ and \xNN escapes. A reader names the line and key of whatever it refuses, and
// takes memory in proportion to the text it was given. Values, not thread-aware.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace railccl::topology {

/// Writes one record.
class RecordWriter {
 public:
  explicit RecordWriter(std::string_view word) : line_(word) {}
  RecordWriter& text(std::string_view key, std::string_view value);
  RecordWriter& integer(std::string_view key, int64_t value);
  RecordWriter& unsigned_integer(std::string_view key, uint64_t value);
  RecordWriter& id(std::string_view key, uint64_t value);  // hexadecimal
  RecordWriter& real(std::string_view key, double value);  // shortest form that reads back equal
  RecordWriter& flag(std::string_view key, bool value);    // yes, no
  /// The record without a line break.
  const std::string& line() const { return line_; }

 private:
  std::string line_;
};

/// Reads one record: ask for each key that may be there, then finish(). A key that is absent leaves
/// its variable as it was; the first failure is kept and later calls do nothing.
class RecordReader {
 public:
  /// Blank lines and comments give a record whose word is empty.
  static Result<RecordReader> parse(std::string_view line, int number);

  const std::string& word() const { return word_; }
  bool has(std::string_view key) const;

  void require(std::string_view key);
  void text(std::string_view key, std::string& value);
  /// All values of a key that may be repeated; at most `most`.
  void texts(std::string_view key, std::vector<std::string>& values, size_t most);
  void integer(std::string_view key, int& value, int low, int high);
  void unsigned_integer(std::string_view key, uint64_t& value);
  void id(std::string_view key, uint64_t& value);
  /// Finite and at least `low`.
  void real(std::string_view key, double& value, double low);
  void flag(std::string_view key, bool& value);

  /// The first failure; else a failure when a key was not asked for or given twice; else ok.
  Status finish();
  /// A failure that names this line.
  Status error(std::string_view why) const;

 private:
  struct Pair {
    std::string key;
    std::string value;
    bool taken = false;
  };
  Pair* take(std::string_view key);
  void fail(std::string_view key, std::string_view expected, std::string_view value);

  int number_ = 0;
  std::string word_;
  std::vector<Pair> pairs_;
  Status failure_;
};

/// Calls `use(line, number)` for each line of `text` until one fails; numbers start at 1.
template <typename Use>
Status for_each_line(std::string_view text, Use use) {
  for (int number = 1; !text.empty(); number++) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    RAILCCL_CHECK(use(line, number));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return ok();
}

}  // namespace railccl::topology
