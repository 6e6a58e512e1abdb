// Group: starting, commanding and ending the processes of one contender.
#include "group.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

extern char** environ;

namespace railccl::compare {
namespace {

std::string filled(std::string text, const std::string& name, const std::string& value) {
  const size_t at = text.find(name);
  return at == std::string::npos ? text : text.replace(at, name.size(), value);
}

}  // namespace

std::unique_ptr<Group> Group::start(const Launch& launch, int ranks, const std::string& folder,
                                    int timeout_s, std::string* error) {
  std::unique_ptr<Group> group(new Group);
  std::string name = launch.label;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == ' ' || c == '/'; }, '_');
  const std::string path = folder + "/" + name + ".page";
  group->ranks_ = ranks;
  if (!group->page_.create(path, ranks, launch.pin, launch.crowded)) {
    *error = "cannot make " + path + ": " + std::strerror(errno);
    return nullptr;
  }
  group->log_ = memfd_create("log", MFD_CLOEXEC);
  const bool each =
      std::any_of(launch.arguments.begin(), launch.arguments.end(),
                  [](const std::string& a) { return a.find("{rank}") != std::string::npos; });
  std::vector<std::vector<std::string>> commands = launch.commands;
  if (commands.empty()) commands.assign(each ? ranks : 1, launch.arguments);
  bool good = group->log_ >= 0;
  for (size_t i = 0; good && i < commands.size(); ++i) {
    good = group->spawn(commands[i], launch, static_cast<int>(i), path);
  }
  if (!good) *error = std::string("cannot start: ") + std::strerror(errno);
  good = good && group->wait_ready(timeout_s, error);
  unlink(path.c_str());
  if (!good) return nullptr;
  group->lives_ = true;
  return group;
}

bool Group::spawn(const std::vector<std::string>& command, const Launch& launch, int rank,
                  const std::string& page_path) {
  std::vector<std::string> words;
  for (const std::string& word : command) {
    words.push_back(filled(filled(word, "{page}", page_path), "{rank}", std::to_string(rank)));
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  std::vector<std::string> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string entry = *at;
    const auto same = [&](const auto& pair) { return entry.rfind(pair.first + "=", 0) == 0; };
    if (std::none_of(launch.environment.begin(), launch.environment.end(), same)) {
      variables.push_back(entry);
    }
  }
  for (const auto& [key, value] : launch.environment) variables.push_back(key + "=" + value);
  std::vector<char*> environment;
  for (std::string& entry : variables) environment.push_back(entry.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, log_, 1);
  posix_spawn_file_actions_adddup2(&actions, log_, 2);
  pid_t child = -1;
  errno = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (child > 0 && errno == 0) children_.push_back(child);
  return errno == 0;
}

bool Group::any_gone() {
  for (pid_t& child : children_) {
    if (child <= 0) return true;
    if (waitpid(child, nullptr, WNOHANG) == child) {
      child = 0;
      return true;
    }
  }
  return false;
}

std::string Group::last_words() const {
  char text[4096];
  const off_t size = lseek(log_, 0, SEEK_END);
  const off_t from = std::max<off_t>(0, size - static_cast<off_t>(sizeof text));
  const ssize_t got = pread(log_, text, sizeof text, from);
  std::string words(text, got > 0 ? static_cast<size_t>(got) : 0);
  while (!words.empty() && (words.back() == '\n' || words.back() == '-')) words.pop_back();
  constexpr size_t kShown = 300;
  if (words.size() > kShown) words = words.substr(words.size() - kShown);
  std::replace(words.begin(), words.end(), '\n', ' ');
  return words;
}

bool Group::wait_ready(int timeout_s, std::string* error) {
  const double deadline = now_us() + timeout_s * 1e6;
  while (true) {
    int ready = 0;
    for (int rank = 0; rank < ranks_; ++rank) {
      // acquire: partner of the worker's release store; a failure's text is complete.
      if (page_->answer[rank].ready.load(std::memory_order_acquire) == 0) continue;
      ++ready;
      if (page_->answer[rank].failed == 0) continue;
      *error = page_->answer[rank].text;
      return false;
    }
    if (ready == ranks_) return true;
    if (any_gone()) {
      *error = "ended at the start: " + last_words();
      return false;
    }
    if (now_us() > deadline) {
      *error = std::to_string(ranks_ - ready) + " ranks not connected after " +
               std::to_string(timeout_s) + " s: " + last_words();
      return false;
    }
    usleep(2000);
  }
}

Played Group::play(const Turn& turn, int timeout_s) {
  Played played;
  if (!lives_) {
    played.refused = "its processes are gone";
    return played;
  }
  page_->turn = turn;
  const double deadline = now_us() + timeout_s * 1e6;
  ++turns_;
  // release: the turn is complete; partner of the workers' acquire load.
  page_->turn_number.store(turns_, std::memory_order_release);
  wake_all(&page_->turn_number);
  const uint32_t wanted = turns_ * static_cast<uint32_t>(ranks_);
  while (true) {
    // acquire: partner of the workers' release count; their answers are complete.
    const uint32_t answers = page_->answers.load(std::memory_order_acquire);
    if (answers == wanted) break;
    sleep_while(&page_->answers, answers, 200);
    if (page_->answers.load(std::memory_order_relaxed) != answers) continue;
    const bool late = now_us() > deadline;
    if (!late && !any_gone()) continue;
    lives_ = false;
    played.refused = late ? "no answer after " + std::to_string(timeout_s) + " s"
                          : "a process ended: " + last_words();
    break;
  }
  const uint32_t samples = std::min<uint32_t>(turn.blocks, kSamplesMax);
  played.us.assign(samples, 0);
  for (int rank = 0; rank < ranks_; ++rank) {
    const Answer& answer = page_->answer[rank];
    if (answer.failed != 0) played.refused = answer.text;
    played.wrong += answer.wrong;
    played.processor_us += answer.processor_us;
    for (uint32_t i = 0; i < samples; ++i) {
      played.us[i] = std::max(played.us[i], static_cast<double>(answer.us[i]));
    }
  }
  if (!lives_) kill_all();
  return played;
}

void Group::kill_all() {
  for (pid_t child : children_) {
    if (child > 0) kill(child, SIGTERM);
  }
  const double deadline = now_us() + 1e6;
  for (pid_t& child : children_) {
    while (child > 0 && waitpid(child, nullptr, WNOHANG) != child) {
      if (now_us() > deadline) kill(child, SIGKILL);
      usleep(5000);
    }
    child = 0;
  }
  // A launcher that had to be killed leaves its ranks behind.
  for (int rank = 0; rank < ranks_; ++rank) {
    const pid_t process = page_->answer[rank].process.load(std::memory_order_relaxed);
    if (process > 0 && getsid(process) == getsid(0)) kill(process, SIGKILL);
  }
}

Group::~Group() {
  if (lives_) {
    page_->turn.finish = 1;
    page_->turn_number.store(turns_ + 1, std::memory_order_release);
    wake_all(&page_->turn_number);
    const double deadline = now_us() + 10e6;
    for (pid_t& child : children_) {
      while (child > 0 && now_us() < deadline) {
        if (waitpid(child, nullptr, WNOHANG) == child) {
          child = 0;
        } else {
          usleep(2000);
        }
      }
    }
  }
  kill_all();
  if (log_ >= 0) close(log_);
}

}  // namespace railccl::compare
