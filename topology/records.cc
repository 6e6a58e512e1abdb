// Reading and writing of records, the line grammar of topology files.
#include "topology/records.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace railccl::topology {

namespace {

// Hostile lines must not make errors that flood the log.
constexpr size_t kQuotedInErrorMax = 60;

bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}
bool plain(std::string_view value) {
  return !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '#' && c != '=';
  });
}

std::string quoted(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + '"';
}

std::string shortened(std::string_view value) {
  if (value.size() <= kQuotedInErrorMax) return quoted(value);
  return quoted(value.substr(0, kQuotedInErrorMax)) + "...";
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Takes a name (word or key) off the front; empty when there is none.
std::string take_name(std::string_view& rest) {
  size_t length = 0;
  while (length < rest.size() && name_char(rest[length])) length++;
  const std::string name(rest.substr(0, length));
  rest.remove_prefix(length);
  return name;
}

/// Takes a quoted value off the front of `rest`, which begins with its quote; false if malformed.
bool take_quoted(std::string_view& rest, std::string& value) {
  for (size_t i = 1; i < rest.size(); i++) {
    if (rest[i] == '"') {
      rest.remove_prefix(i + 1);
      return true;
    }
    if (rest[i] != '\\') {
      value += rest[i];
      continue;
    }
    if (++i >= rest.size()) return false;
    if (rest[i] == '"' || rest[i] == '\\') {
      value += rest[i];
    } else if (rest[i] == 'x' && i + 2 < rest.size() && hex_digit(rest[i + 1]) >= 0 &&
               hex_digit(rest[i + 2]) >= 0) {
      value += static_cast<char>(hex_digit(rest[i + 1]) * 16 + hex_digit(rest[i + 2]));
      i += 2;
    } else {
      return false;
    }
  }
  return false;
}

template <typename T>
bool parse_number(std::string_view text, T& value, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

RecordWriter& RecordWriter::text(std::string_view key, std::string_view value) {
  line_ += fmt::format(" {}={}", key, plain(value) ? std::string(value) : quoted(value));
  return *this;
}
RecordWriter& RecordWriter::integer(std::string_view key, int64_t value) {
  line_ += fmt::format(" {}={}", key, value);
  return *this;
}
RecordWriter& RecordWriter::unsigned_integer(std::string_view key, uint64_t value) {
  line_ += fmt::format(" {}={}", key, value);
  return *this;
}
RecordWriter& RecordWriter::id(std::string_view key, uint64_t value) {
  line_ += fmt::format(" {}=0x{:x}", key, value);
  return *this;
}
RecordWriter& RecordWriter::real(std::string_view key, double value) {
  line_ += fmt::format(" {}={}", key, value);
  return *this;
}
RecordWriter& RecordWriter::flag(std::string_view key, bool value) {
  line_ += fmt::format(" {}={}", key, value ? "yes" : "no");
  return *this;
}

Result<RecordReader> RecordReader::parse(std::string_view line, int number) {
  RecordReader record;
  record.number_ = number;
  std::string_view rest = line;
  const auto skip_blanks = [&] {
    while (!rest.empty() && blank(rest.front())) rest.remove_prefix(1);
  };
  skip_blanks();
  if (rest.empty() || rest.front() == '#') return record;
  record.word_ = take_name(rest);
  if (record.word_.empty()) return record.error("expected a word at " + shortened(rest));
  for (;;) {
    const bool apart = rest.empty() || blank(rest.front());
    skip_blanks();
    if (rest.empty() || rest.front() == '#') return record;
    if (!apart) return record.error("expected a blank before " + shortened(rest));
    Pair pair;
    const std::string_view at = rest;
    pair.key = take_name(rest);
    if (pair.key.empty() || rest.empty() || rest.front() != '=')
      return record.error("expected key=value at " + shortened(at));
    rest.remove_prefix(1);
    if (!rest.empty() && rest.front() == '"') {
      if (!take_quoted(rest, pair.value))
        return record.error(pair.key + ": the quoted value is malformed or does not end");
    } else {
      size_t length = 0;
      while (length < rest.size() && !blank(rest[length])) length++;
      pair.value = rest.substr(0, length);
      if (!plain(pair.value))
        return record.error(pair.key + ": the value needs quotes: " + shortened(pair.value));
      rest.remove_prefix(length);
    }
    record.pairs_.push_back(std::move(pair));
  }
}

bool RecordReader::has(std::string_view key) const {
  return std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& p) { return p.key == key; });
}

void RecordReader::require(std::string_view key) {
  if (failure_.is_ok() && !has(key)) failure_ = error(fmt::format("{} is missing", key));
}

RecordReader::Pair* RecordReader::take(std::string_view key) {
  if (!failure_.is_ok()) return nullptr;
  for (Pair& pair : pairs_) {
    if (pair.key != key || pair.taken) continue;
    pair.taken = true;
    return &pair;
  }
  return nullptr;
}

void RecordReader::fail(std::string_view key, std::string_view expected, std::string_view value) {
  failure_ = error(fmt::format("{}: expected {}, got {}", key, expected, shortened(value)));
}

void RecordReader::text(std::string_view key, std::string& value) {
  if (Pair* pair = take(key)) value = std::move(pair->value);
}

void RecordReader::texts(std::string_view key, std::vector<std::string>& values, size_t most) {
  while (Pair* pair = take(key)) {
    if (values.size() == most) {
      failure_ = error(fmt::format("{}: more than {} are given", key, most));
      return;
    }
    values.push_back(std::move(pair->value));
  }
}

void RecordReader::integer(std::string_view key, int& value, int low, int high) {
  const Pair* pair = take(key);
  if (pair == nullptr) return;
  int read = 0;
  if (!parse_number(pair->value, read) || read < low || read > high)
    return fail(key, fmt::format("an integer from {} to {}", low, high), pair->value);
  value = read;
}

void RecordReader::unsigned_integer(std::string_view key, uint64_t& value) {
  const Pair* pair = take(key);
  if (pair == nullptr) return;
  uint64_t read = 0;
  if (!parse_number(pair->value, read)) return fail(key, "an unsigned integer", pair->value);
  value = read;
}

void RecordReader::id(std::string_view key, uint64_t& value) {
  const Pair* pair = take(key);
  if (pair == nullptr) return;
  const std::string_view text = pair->value;
  uint64_t read = 0;
  if (!text.starts_with("0x") || !parse_number(text.substr(2), read, 16))
    return fail(key, "a hexadecimal number such as 0x1f", text);
  value = read;
}

void RecordReader::real(std::string_view key, double& value, double low) {
  const Pair* pair = take(key);
  if (pair == nullptr) return;
  double read = 0;
  const std::string_view text = pair->value;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(read) || read < low)
    return fail(key, fmt::format("a number of at least {}", low), text);
  value = read;
}

void RecordReader::flag(std::string_view key, bool& value) {
  const Pair* pair = take(key);
  if (pair == nullptr) return;
  if (pair->value != "yes" && pair->value != "no") return fail(key, "yes or no", pair->value);
  value = pair->value == "yes";
}

Status RecordReader::finish() {
  if (!failure_.is_ok()) return failure_;
  for (const Pair& pair : pairs_) {
    if (pair.taken) continue;
    const bool twice = std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& other) {
      return other.taken && other.key == pair.key;
    });
    return error(twice ? fmt::format("{} is given twice", pair.key)
                       : fmt::format("{} has no {}", word_, shortened(pair.key)));
  }
  return ok();
}

Status RecordReader::error(std::string_view why) const {
  return Status(Code::invalid_argument, "line {}: {}", number_, why);
}

}  // namespace railccl::topology
