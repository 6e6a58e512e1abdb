// Text: a program as lines for people, golden files and tools, and back.
//
//   railccl-plan 1
//   program "ring" rank 1 of 4
//   request all_reduce count 8 float sum root 0
//   scratch 2
//   channel 0
//     loop 1
//       send input[2+2] to 2 pre
//       recv_reduce input[0+2] from 0 -> output[0+2] pre
//       copy scratch@3[0+2 stride 2 modulo 4 clamp 2 limit 8] -> output[4+2], output@2[4+2]
//
// docs/plan.md explains every line. The parser takes any bytes: it reads at most kTextMax of them,
// needs memory in proportion, and names the line of what it refuses.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "plan/checker.h"
#include "plan/plan.h"

namespace railccl::plan {
namespace {

constexpr size_t kTextMax = size_t{16} << 20;
constexpr size_t kNameMax = 256;
constexpr uint64_t kNoLimit = ~uint64_t{0};

constexpr std::string_view kBuffers[] = {"input", "output", "scratch"};

// ---- printing

using Out = std::back_insert_iterator<std::string>;

void print_slice(Out out, const Slice& slice) {
  fmt::format_to(out, "{}", kBuffers[static_cast<size_t>(slice.buffer)]);
  if (slice.owner != kHere) fmt::format_to(out, "@{}", slice.owner);
  fmt::format_to(out, "[{}+{}", slice.offset, slice.count);
  if (slice.stride != 0) fmt::format_to(out, " stride {}", slice.stride);
  if (slice.modulo != 0) fmt::format_to(out, " modulo {}", slice.modulo);
  if (slice.clamp_stride != 0) fmt::format_to(out, " clamp {}", slice.clamp_stride);
  if (slice.limit != kNoLimit) fmt::format_to(out, " limit {}", slice.limit);
  fmt::format_to(out, "]");
}

void print_name(Out out, const std::string& name) {
  fmt::format_to(out, "\"");
  for (const char c : name) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\')
      fmt::format_to(out, "\\x{:02x}", byte);
    else
      fmt::format_to(out, "{}", c);
  }
  fmt::format_to(out, "\"");
}

void print_step(Out out, const Program& program, const Step& step) {
  fmt::format_to(out, "    {}", name_of(step.verb));
  const auto slice = [&](const char* before, const Slice& what) {
    fmt::format_to(out, "{}", before);
    print_slice(out, what);
  };
  switch (step.verb) {
    case Verb::copy:
    case Verb::reduce:
      slice(" ", step.src);
      for (uint32_t s = 0; s < step.source_count; s++)
        slice(" + ", program.sources[step.first_source + s]);
      slice(" -> ", step.dst);
      for (uint32_t t = 0; t < step.target_count; t++)
        slice(", ", program.targets[step.first_target + t]);
      break;
    case Verb::send:
      slice(" ", step.src);
      fmt::format_to(out, " to {}", step.peer);
      break;
    case Verb::recv:
      slice(" ", step.dst);
      fmt::format_to(out, " from {}", step.peer);
      break;
    case Verb::recv_reduce:
      slice(" ", step.src);
      fmt::format_to(out, " from {}", step.peer);
      slice(" -> ", step.dst);
      break;
    case Verb::signal:
    case Verb::wait:
      if (step.peer == kHere)
        fmt::format_to(out, " channel {}", step.channel);
      else
        fmt::format_to(out, " {} {}", step.verb == Verb::signal ? "to" : "from", step.peer);
      break;
  }
  fmt::format_to(out, "{}{}\n", step.pre ? " pre" : "", step.post ? " post" : "");
}

// ---- parsing

/// Reads words and numbers of one line. Every function says whether it found what it wanted, and
/// only then moves on.
class Line {
 public:
  explicit Line(std::string_view text) : rest_(text) { skip_blanks(); }
  bool at_end() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }

  /// A word of letters, digits and underscores, whole.
  bool word(std::string_view wanted) {
    const size_t length = word_length();
    if (rest_.substr(0, length) != wanted) return false;
    return advance(length);
  }
  std::string_view any_word() {
    const std::string_view found = rest_.substr(0, word_length());
    advance(found.size());
    return found;
  }
  bool mark(std::string_view wanted) {
    return rest_.substr(0, wanted.size()) == wanted && advance(wanted.size());
  }
  template <typename T>
  bool number(T& value) {
    T read{};
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), read);
    if (error != std::errc{}) return false;
    value = read;
    return advance(static_cast<size_t>(end - rest_.data()));
  }
  bool name(std::string& value) {
    if (rest_.empty() || rest_.front() != '"') return false;
    std::string read;
    for (size_t i = 1; i < rest_.size() && read.size() <= kNameMax; i++) {
      if (rest_[i] == '"') {
        value = std::move(read);
        return advance(i + 1);
      }
      if (rest_[i] != '\\') {
        read += rest_[i];
        continue;
      }
      unsigned byte = 0;
      if (i + 3 >= rest_.size() || rest_[i + 1] != 'x') return false;
      const char* digits = rest_.data() + i + 2;
      const auto [end, error] = std::from_chars(digits, digits + 2, byte, 16);
      if (error != std::errc{} || end != digits + 2) return false;
      read += static_cast<char>(byte);
      i += 3;
    }
    return false;
  }

 private:
  size_t word_length() const {
    const auto in_word = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    };
    return static_cast<size_t>(std::find_if_not(rest_.begin(), rest_.end(), in_word) -
                               rest_.begin());
  }
  bool advance(size_t n) {
    rest_.remove_prefix(n);
    skip_blanks();
    return true;
  }
  void skip_blanks() {
    const size_t blanks = rest_.find_first_not_of(" \t\r");
    rest_.remove_prefix(blanks == std::string_view::npos ? rest_.size() : blanks);
  }
  std::string_view rest_;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}
  Result<Program> parse();

 private:
  /// The next line that is neither empty nor a comment; false at the end of the text.
  bool next_line();
  Status header(std::string_view wanted, bool (Parser::*read)(Line&));
  bool version(Line& line) {
    int number = 0;
    return line.mark("railccl-plan") && line.number(number) && number == 1;
  }
  bool program(Line& line) {
    return line.word("program") && line.name(program_.algorithm) && line.word("rank") &&
           line.number(program_.rank) && line.word("of") && line.number(program_.ranks);
  }
  bool request(Line& line);
  bool scratch(Line& line) {
    return line.word("scratch") && line.number(program_.scratch_elements);
  }
  bool channel(Line& line);
  bool loop(Line& line);
  Status step(Line& line, Verb verb);
  bool step_body(Line& line, Step& step);
  bool destinations(Line& line, Step& step);
  bool slice(Line& line, Slice& slice);
  bool peer(Line& line, const char* direction, Step& step) {
    return line.word(direction) && line.number(step.peer) && step.peer >= 0;
  }
  template <typename... Args>
  Status refuse(fmt::format_string<Args...> format, Args&&... args) const {
    return Status(Code::invalid_argument, "line {}: {}", number_,
                  fmt::format(format, std::forward<Args>(args)...));
  }
  /// The line as it can be shown: short and printable.
  std::string shown() const;

  std::string_view text_;
  std::string_view line_;
  size_t number_ = 0;
  Program program_;
};

bool Parser::next_line() {
  while (!text_.empty()) {
    const size_t end = std::min(text_.find('\n'), text_.size());
    line_ = text_.substr(0, end);
    text_.remove_prefix(std::min(end + 1, text_.size()));
    number_++;
    const Line line(line_);
    if (!line.at_end() && line.rest().front() != '#') return true;
  }
  number_++;
  line_ = {};
  return false;
}

std::string Parser::shown() const {
  constexpr size_t kShownMax = 80;
  std::string text(line_.substr(0, kShownMax));
  for (char& c : text)
    if (c < 0x20 || c >= 0x7f) c = '?';
  return line_.size() > kShownMax ? text + "..." : text;
}

Status Parser::header(std::string_view wanted, bool (Parser::*read)(Line&)) {
  if (!next_line()) return refuse("the text ends where \"{}\" is expected", wanted);
  Line line(line_);
  if (!(this->*read)(line) || !line.at_end())
    return refuse("\"{}\" is not of the form \"{}\"", shown(), wanted);
  return ok();
}

Result<Program> Parser::parse() {
  if (text_.size() > kTextMax)
    return Status(Code::invalid_argument, "a plan of {} bytes; at most {} are read", text_.size(),
                  kTextMax);
  RAILCCL_CHECK(header("railccl-plan 1", &Parser::version));
  RAILCCL_CHECK(header("program \"NAME\" rank R of N", &Parser::program));
  RAILCCL_CHECK(
      header("request COLLECTIVE count N TYPE OPERATOR root R [in_place]", &Parser::request));
  RAILCCL_CHECK(header("scratch N", &Parser::scratch));
  while (next_line()) {
    Line line(line_);
    const std::string_view first = Line(line_).any_word();
    if (first == "channel") {
      if (!channel(line))
        return refuse("\"{}\" is not \"channel {}\", the next one", shown(),
                      program_.channels.size());
      continue;
    }
    if (program_.channels.empty()) return refuse("\"{}\" comes before any channel", shown());
    if (first == "loop") {
      if (!loop(line)) return refuse("\"{}\" is not of the form \"loop ITERATIONS\"", shown());
      continue;
    }
    bool found = false;
    for (int v = 0; v <= static_cast<int>(Verb::wait) && !found; v++) {
      const Verb verb = static_cast<Verb>(v);
      if (first != name_of(verb)) continue;
      found = true;
      RAILCCL_CHECK(step(line, verb));
    }
    if (!found) return refuse("\"{}\" starts with no verb of the language", shown());
  }
  if (const Status valid = validate(program_); !valid)
    return Status(Code::invalid_argument, "{}", valid.text());
  return std::move(program_);
}

bool Parser::request(Line& line) {
  if (!line.word("request")) return false;
  Request& request = program_.request;
  const std::string_view collective = line.any_word();
  bool known = false;
#define RAILCCL_ROW(name, text, in, out, reduces, rooted) \
  if (collective == text) known = true, request.collective = Collective::name;
  RAILCCL_COLLECTIVES(RAILCCL_ROW)
#undef RAILCCL_ROW
  if (!known || !line.word("count") || !line.number(request.count)) return false;
  const std::string_view type = line.any_word();
  known = false;
#define RAILCCL_ROW(name, number, bytes, text) \
  if (type == text) known = true, request.datatype = Datatype::name;
  RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
  if (!known) return false;
  const std::string_view op = line.any_word();
  known = false;
#define RAILCCL_ROW(name, number, text) \
  if (op == text) known = true, request.op = Reduction::name;
  RAILCCL_REDUCTIONS(RAILCCL_ROW)
#undef RAILCCL_ROW
  if (!known || !line.word("root") || !line.number(request.root)) return false;
  request.in_place = line.word("in_place");
  return true;
}

bool Parser::channel(Line& line) {
  size_t number = 0;
  if (!line.word("channel") || !line.number(number) || !line.at_end()) return false;
  // Steps name channels with 16 bits.
  if (number != program_.channels.size() || number > std::numeric_limits<uint16_t>::max())
    return false;
  program_.channels.emplace_back();
  return true;
}

bool Parser::loop(Line& line) {
  Channel& channel = program_.channels.back();
  Loop loop{static_cast<uint32_t>(channel.steps.size()), 0, 0};
  if (!line.word("loop") || !line.number(loop.iterations) || !line.at_end()) return false;
  channel.loops.push_back(loop);
  return true;
}

Status Parser::step(Line& line, Verb verb) {
  Channel& channel = program_.channels.back();
  if (channel.loops.empty()) return refuse("\"{}\" comes before any loop of its channel", shown());
  Step step;
  step.verb = verb;
  line.any_word();
  if (!step_body(line, step)) return refuse("\"{}\" is no right {} step", shown(), name_of(verb));
  step.pre = line.word("pre");
  step.post = line.word("post");
  if (!line.at_end()) return refuse("\"{}\" goes on after the end of the step", shown());
  channel.steps.push_back(step);
  channel.loops.back().step_count++;
  return ok();
}

bool Parser::step_body(Line& line, Step& step) {
  switch (step.verb) {
    case Verb::copy:
      return slice(line, step.src) && destinations(line, step);
    case Verb::reduce:
      if (!slice(line, step.src)) return false;
      step.first_source = static_cast<uint32_t>(program_.sources.size());
      for (; line.mark("+"); step.source_count++)
        if (!slice(line, program_.sources.emplace_back())) return false;
      return destinations(line, step);
    case Verb::send:
      return slice(line, step.src) && peer(line, "to", step);
    case Verb::recv:
      return slice(line, step.dst) && peer(line, "from", step);
    case Verb::recv_reduce:
      return slice(line, step.src) && peer(line, "from", step) && line.mark("->") &&
             slice(line, step.dst);
    case Verb::signal:
    case Verb::wait:
      if (line.word("channel")) return line.number(step.channel);
      return peer(line, step.verb == Verb::signal ? "to" : "from", step);
  }
  return false;
}

bool Parser::destinations(Line& line, Step& step) {
  if (!line.mark("->") || !slice(line, step.dst)) return false;
  const size_t first = program_.targets.size();
  while (line.mark(","))
    if (!slice(line, program_.targets.emplace_back())) return false;
  step.target_count = static_cast<uint32_t>(program_.targets.size() - first);
  step.first_target = step.target_count == 0 ? 0 : static_cast<uint32_t>(first);
  return true;
}

bool Parser::slice(Line& line, Slice& slice) {
  const std::string_view name = line.any_word();
  const auto found = std::find(std::begin(kBuffers), std::end(kBuffers), name);
  if (found == std::end(kBuffers)) return false;
  slice.buffer = static_cast<Buffer>(found - std::begin(kBuffers));
  if (line.mark("@") && (!line.number(slice.owner) || slice.owner < 0)) return false;
  if (!line.mark("[") || !line.number(slice.offset) || !line.mark("+") || !line.number(slice.count))
    return false;
  if (line.word("stride") && !line.number(slice.stride)) return false;
  if (line.word("modulo") && !line.number(slice.modulo)) return false;
  if (line.word("clamp") && !line.number(slice.clamp_stride)) return false;
  if (line.word("limit") && !line.number(slice.limit)) return false;
  return line.mark("]");
}

}  // namespace

std::string print(const Program& program) {
  std::string text;
  const Out out(text);
  const Request& request = program.request;
  fmt::format_to(out, "railccl-plan 1\nprogram ");
  print_name(out, program.algorithm);
  fmt::format_to(out, " rank {} of {}\n", program.rank, program.ranks);
  fmt::format_to(out, "request {} count {} {} {} root {}{}\n", name_of(request.collective),
                 request.count, name_of(request.datatype), name_of(request.op), request.root,
                 request.in_place ? " in_place" : "");
  fmt::format_to(out, "scratch {}\n", program.scratch_elements);
  for (size_t c = 0; c < program.channels.size(); c++) {
    const Channel& channel = program.channels[c];
    fmt::format_to(out, "channel {}\n", c);
    for (const Loop& loop : channel.loops) {
      fmt::format_to(out, "  loop {}\n", loop.iterations);
      for (uint32_t s = 0; s < loop.step_count; s++)
        print_step(out, program, channel.steps[loop.first_step + s]);
    }
  }
  return text;
}

Result<Program> parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace railccl::plan
