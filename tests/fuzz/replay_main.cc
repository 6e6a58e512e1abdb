// Runs a fuzz target without a fuzzer: every file of its corpus, then seeded mutations of them.
//
//   fuzz_replay_plan_text tests/fuzz/corpus/plan_text              the test
//   fuzz_replay_plan_text fuzz-crash.bin --mutations 0             one input again
//   fuzz_replay_plan_text CORPUS --mutations 100000 --seconds 600  longer
//
// The input that crashes the target is left in fuzz-crash.bin in the current folder.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Sanitizers end the process themselves; this is how to be told.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<uint8_t>;
const Bytes* running = nullptr;  // for the handler of a crash

void save_input() {
  if (running == nullptr) return;
  const int fd = ::open("fuzz-crash.bin", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  const ssize_t written = ::write(fd, running->data(), running->size());
  ::close(fd);
  constexpr char kNote[] = "the input that failed is in fuzz-crash.bin\n";
  if (written >= 0) (void)!::write(STDERR_FILENO, kNote, sizeof kNote - 1);
  running = nullptr;
}

void on_signal(int signal) {
  save_input();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(const Bytes& input) {
  running = &input;
  LLVMFuzzerTestOneInput(input.data(), input.size());
  running = nullptr;
}

/// One to four small changes: what a parser's branches hang on.
Bytes mutate(const std::vector<Bytes>& corpus, railccl::Random& random) {
  Bytes bytes = corpus[random.below(corpus.size())];
  for (uint64_t changes = 1 + random.below(4); changes > 0; changes--) {
    const size_t at = random.below(bytes.size() + 1);
    const auto here = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const size_t length = std::min<size_t>(1 + random.below(16), bytes.size() - at);
    const auto there = here + static_cast<std::ptrdiff_t>(length);
    switch (random.below(8)) {
      case 0:  // a bit
        if (at < bytes.size()) bytes[at] ^= static_cast<uint8_t>(1U << random.below(8));
        break;
      case 1:  // a byte
        if (at < bytes.size()) bytes[at] = static_cast<uint8_t>(random.below(256));
        break;
      case 2:  // a range goes
        bytes.erase(here, there);
        break;
      case 3: {  // a range comes twice
        const Bytes copy(here, there);
        bytes.insert(here, copy.begin(), copy.end());
        break;
      }
      case 4:  // the rest goes
        bytes.resize(at);
        break;
      case 5: {  // a piece of another input
        const Bytes& other = corpus[random.below(corpus.size())];
        const size_t from = random.below(other.size() + 1);
        const size_t count = std::min<size_t>(random.below(64), other.size() - from);
        bytes.insert(here, other.begin() + static_cast<std::ptrdiff_t>(from),
                     other.begin() + static_cast<std::ptrdiff_t>(from + count));
        break;
      }
      case 6: {  // a number at a limit, as text
        constexpr const char* kNumbers[] = {"0",          "-1",         "2147483647",
                                            "2147483648", "4294967296", "18446744073709551615",
                                            "1e308",      "nan"};
        const std::string number = kNumbers[random.below(std::size(kNumbers))];
        bytes.insert(bytes.erase(here, there), number.begin(), number.end());
        break;
      }
      default:  // a number at a limit, as bytes
        for (size_t i = at; i < at + length && i < bytes.size(); i++)
          bytes[i] = random.chance(0.5) ? 0xff : 0;
    }
  }
  return bytes;
}

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t mutations = 20'000, seed = 1;
  int64_t seconds = 10;
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    const bool option = argument.starts_with("--");
    if (!option) {
      paths.emplace_back(argument);
      continue;
    }
    const char* value = i + 1 < argc ? argv[++i] : "";
    char* end = nullptr;
    const uint64_t number = std::strtoull(value, &end, 10);
    if (*value == '\0' || *end != '\0') {
      std::fprintf(stderr, "%s wants a number\n", argument.c_str());
      return 2;
    }
    if (argument == "--mutations") mutations = number;
    if (argument == "--seed") seed = number;
    if (argument == "--seconds") seconds = static_cast<int64_t>(number);
  }
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) files.push_back(path);
    if (std::filesystem::is_directory(path))
      for (const auto& entry : std::filesystem::directory_iterator(path))
        if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Bytes> corpus;
  for (const auto& file : files) corpus.push_back(read_file(file));
  if (corpus.empty()) {
    std::fprintf(stderr, "usage: %s CORPUS... [--mutations N] [--seed S] [--seconds T]\n", argv[0]);
    return 2;
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(save_input);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
    std::signal(signal, on_signal);

  for (const Bytes& input : corpus) run(input);
  const railccl::Deadline deadline = railccl::Deadline::after_ms(seconds * 1000);
  railccl::Random random(seed);
  uint64_t done = 0;
  for (; done < mutations && !deadline.passed(); done++) run(mutate(corpus, random));
  std::printf("%zu files and %llu mutations of them (seed %llu): no failure\n", corpus.size(),
              static_cast<unsigned long long>(done), static_cast<unsigned long long>(seed));
  return 0;
}
