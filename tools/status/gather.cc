// Finding and asking processes; see gather.h.
#include "status/gather.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/clock.h"
#include "base/owners.h"

namespace railccl::status {

using runtime::StatusName;
using runtime::StatusQuestion;

namespace {

constexpr size_t kAnswerBytesMax = 24 << 20;
constexpr size_t kAllBytesMax = 512 << 20;  // of all answers
constexpr size_t kProcessesMax = 4096;

struct Line {
  UniqueFd socket;
  size_t asked = 0;
  bool over = false;
  Answer answer;
};

/// Connects without waiting; false where there is nobody who is what his name says.
bool connect(const StatusName& name, Line* line) {
  line->socket.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const std::string text = encode(name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, text.data(), text.size());
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  const bool connected =
      ::connect(line->socket.get(), reinterpret_cast<const sockaddr*>(&address), bytes) == 0;
  // Many wait there to be answered already.
  if (!connected && errno != EAGAIN) return false;
  line->over = !connected;
  line->answer.process = static_cast<int>(name.process);
  if (!connected) return true;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(line->socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (peer.uid != name.user) return false;
  if (peer.pid != 0) line->answer.process = peer.pid;
  return true;
}

/// `left`: what all may still say.
void go_on(Line* line, const std::string& question, size_t* left) {
  while (line->asked < question.size()) {
    const ssize_t sent = ::send(line->socket.get(), question.data() + line->asked,
                                question.size() - line->asked, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) break;  // what follows will show it
    line->asked += static_cast<size_t>(sent);
  }
  std::string& text = line->answer.text;
  while (text.size() < kAnswerBytesMax && *left > 0) {
    char bytes[64 << 10];
    const ssize_t got = ::recv(line->socket.get(), bytes, sizeof bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got > 0) {
      text.append(bytes, static_cast<size_t>(got));
      *left -= std::min(*left, static_cast<size_t>(got));
      continue;
    }
    line->over = true;
    const bool whole = got == 0 && !text.empty() && text.back() == '\n';
    line->answer.outcome = whole ? Answer::Outcome::answered : Answer::Outcome::broken;
    return;
  }
  line->over = true;
  line->answer.outcome = Answer::Outcome::broken;
}

std::string state_of(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const size_t end = text.rfind(')');
  if (end == std::string::npos || end + 2 >= text.size()) return "gone";
  switch (text[end + 2]) {
    case 'T':
    case 't':
      return "stopped";
    case 'R':
      return "running";
    case 'D':
      return "waits for a device";
    case 'Z':
    case 'X':
      return "dead";
    default:
      return "sleeps";
  }
}

}  // namespace

std::vector<StatusName> names_in(std::string_view table) {
  constexpr unsigned kListens = 0x10000;  // __SO_ACCEPTCON
  std::vector<StatusName> names;
  while (!table.empty() && names.size() < kProcessesMax) {
    const size_t end = std::min(table.find('\n'), table.size());
    std::istringstream line{std::string(table.substr(0, end))};
    table.remove_prefix(std::min(end + 1, table.size()));
    std::string number, references, protocol, flags, type, state, inode, path;
    if (!(line >> number >> references >> protocol >> flags >> type >> state >> inode >> path))
      continue;
    if (path.empty() || path[0] != '@') continue;
    if ((std::strtoul(flags.c_str(), nullptr, 16) & kListens) == 0) continue;
    if (const auto name = runtime::parse_status_name(std::string_view(path).substr(1)))
      names.push_back(*name);
  }
  return names;
}

Result<std::vector<Answer>> ask_all(StatusQuestion question, int64_t limit_ms) {
  std::ifstream file("/proc/net/unix");
  if (!file) return system_error(errno, "/proc/net/unix");
  std::stringstream table;
  table << file.rdbuf();
  const Deadline deadline = Deadline::after_ms(limit_ms);
  std::vector<Line> lines;
  for (const StatusName& name : names_in(table.str())) {
    Line line;
    const bool ours = name.user == ::geteuid() || ::geteuid() == 0;
    if (ours && connect(name, &line)) lines.push_back(std::move(line));
  }
  const std::string text = encode(question);
  size_t left = kAllBytesMax;
  while (true) {
    std::vector<pollfd> entries;
    std::vector<Line*> waiting;
    for (Line& line : lines) {
      if (line.over) continue;
      const bool asks = line.asked < text.size();
      entries.push_back({line.socket.get(), static_cast<short>(POLLIN | (asks ? POLLOUT : 0)), 0});
      waiting.push_back(&line);
    }
    if (entries.empty() || deadline.passed()) break;
    (void)::poll(entries.data(), entries.size(), deadline.left_ms(1000));
    for (size_t i = 0; i < entries.size(); i++)
      if (entries[i].revents != 0) go_on(waiting[i], text, &left);
  }
  std::vector<Answer> answers;
  for (Line& line : lines) {
    // Ended between being listed and being asked: nothing to tell.
    if (line.answer.outcome != Answer::Outcome::answered) {
      line.answer.text.clear();
      line.answer.state = state_of(line.answer.process);
      if (line.answer.state == "gone" || line.answer.state == "dead") continue;
    }
    answers.push_back(std::move(line.answer));
  }
  std::sort(answers.begin(), answers.end(),
            [](const Answer& a, const Answer& b) { return a.process < b.process; });
  return answers;
}

}  // namespace railccl::status
