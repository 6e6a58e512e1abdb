// Session: plays one cell.
#include "session.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>

#include "machine.h"

namespace railccl::compare {
namespace {

constexpr uint64_t kTinyBytes = 4 << 10;     // up to here blocks of calls are timed
constexpr double kBlockUs = 60;              // aimed at per block
constexpr uint64_t kLineBytes = 64;          // up to here the cache-line round trip is quoted
constexpr uint64_t kStreamBytes = 16 << 20;  // from here the streaming copy is quoted
constexpr int kTrialRepeats = 3;
constexpr double kHopeless = 20;    // times the best peer at first sight
constexpr double kWarmUs = 200000;  // a call this long needs no warm-up in each turn
constexpr double kSlowUs = 500;     // no need of blocks to find out how long a call takes

std::atomic<bool> interrupted{false};

double busy_us() {
  std::ifstream facts("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  facts >> name >> user >> nice >> system >> idle >> wait >> irq >> soft >> steal;
  return (user + nice + system + steal) * 1e6 / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double own_us() {
  rusage used = {};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

double figure_of(const std::vector<double>& samples, bool crowded) {
  if (!crowded) return median(samples);
  double sum = 0;
  for (const double us : samples) sum += us;
  return sum / static_cast<double>(samples.size());
}

/// One contender's way through the cell.
struct Entrant {
  const Contender* contender = nullptr;
  Result result;
  Turn turn;
  double trial_us = 0;
  bool dropped = false;
};

class Game {
 public:
  Game(const Cell& cell, int ranks, const Rules& rules) : cell_(cell), rules_(rules) {
    out_.cell = cell;
    out_.ranks = ranks;
  }

  CellResult play(const std::vector<Contender>& contenders) {
    const double busy = busy_us();
    const double own = own_us();
    const double start = now_us();
    for (const Contender& contender : contenders) enter(contender);
    drop_the_hopeless();
    const size_t count = entrants_.size();
    for (int repeat = 0; repeat < rules_.repeats && going_on(); ++repeat) {
      for (size_t i = 0; i < count; ++i) take_turn(entrants_[(i + repeat) % count]);
      if (rules_.limits) measure_limits();
      if (repeat + 1 == kTrialRepeats) drop_the_slow();
    }
    for (Entrant& entrant : entrants_) {
      if (!entrant.result.us.empty()) entrant.result.median_us = median(entrant.result.us);
      out_.results.push_back(entrant.result);
    }
    out_.round_trip_ns = median(round_trips_);
    out_.stream_bytes_per_s = median(streams_);
    const double others = busy_us() - busy - (own_us() - own) - processor_us_;
    const double all = (now_us() - start) * static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
    out_.foreign_percent = std::max(0.0, 100 * others / all);
    return out_;
  }

 private:
  /// Short turns that find out how long a call takes, and so how many to time.
  void enter(const Contender& contender) {
    Entrant entrant;
    entrant.contender = &contender;
    entrant.result.label = contender.label;
    entrant.result.family = contender.family;
    entrant.result.type = contender.type;
    Turn& turn = entrant.turn;
    turn.operation = cell_.operation;
    turn.type = contender.type;
    turn.bytes = cell_.bytes;
    turn.registered = contender.registered ? 1 : 0;
    contender.variant.copy(turn.variant, sizeof turn.variant - 1);
    const bool tiny = cell_.bytes <= kTinyBytes;
    turn.blocks = cell_.bytes >= rules_.single_bytes ? 1 : 3;
    turn.warmup_blocks = cell_.bytes >= rules_.single_bytes ? 1 : 2;
    Played played = go(entrant);
    if (tiny && entrant.result.refused.empty() && median(played.us) < kSlowUs) {
      turn.calls_per_block = 16;
      played = go(entrant);
    }
    if (entrant.result.refused.empty()) {
      const double call_us = std::max(0.02, median(played.us));
      entrant.trial_us = call_us;
      if (tiny) {
        turn.calls_per_block =
            static_cast<uint32_t>(std::clamp(std::ceil(kBlockUs / call_us), 1.0, 8192.0));
      }
      const double rewrite_us = static_cast<double>(cell_.bytes) * 2 / 8e3;
      const double sample_us = call_us * turn.calls_per_block + rewrite_us + 2;
      const double least = cell_.bytes >= rules_.single_bytes ? 1 : 3;
      turn.blocks = static_cast<uint32_t>(
          std::clamp(rules_.turn_ms * 1e3 / sample_us, least, kSamplesMax * 1.0));
      turn.warmup_blocks = call_us < kWarmUs ? 1 : 0;
    }
    entrants_.push_back(entrant);
  }

  Played go(Entrant& entrant) {
    Played played = entrant.contender->group->play(entrant.turn, rules_.timeout_s);
    processor_us_ += played.processor_us;
    entrant.result.wrong += played.wrong;
    if (!played.refused.empty()) entrant.result.refused = played.refused;
    return played;
  }

  void take_turn(Entrant& entrant) {
    if (entrant.dropped || !entrant.result.refused.empty() || !going_on()) return;
    const Played played = go(entrant);
    if (entrant.result.refused.empty()) {
      entrant.result.us.push_back(figure_of(played.us, rules_.crowded));
    }
  }

  void measure_limits() {
    if (cell_.bytes <= kLineBytes) round_trips_.push_back(line_round_trip_ns());
    if (cell_.bytes >= kStreamBytes) streams_.push_back(stream_copy_bytes_per_s());
  }

  /// Peers that took many times the best peer's time when they were tried do not play at all: with
  /// more ranks than cores a library that cannot yield takes a thousand times as long.
  void drop_the_hopeless() {
    double best = 0;
    for (const Entrant& entrant : entrants_) {
      if (entrant.trial_us > 0 && peer(entrant) && (best == 0 || entrant.trial_us < best)) {
        best = entrant.trial_us;
      }
    }
    const double beyond = cell_.bytes < rules_.single_bytes ? kHopeless : rules_.hopeless_single;
    for (Entrant& entrant : entrants_) {
      if (!peer(entrant) || entrant.trial_us <= best * beyond) continue;
      entrant.dropped = true;
      entrant.result.us.push_back(entrant.trial_us);
    }
  }

  void drop_the_slow() {
    double best = 0;
    for (const Entrant& entrant : entrants_) {
      if (entrant.result.us.empty() || !peer(entrant)) continue;
      const double us = median(entrant.result.us);
      if (best == 0 || us < best) best = us;
    }
    for (Entrant& entrant : entrants_) {
      if (entrant.result.us.empty() || !peer(entrant)) continue;
      if (median(entrant.result.us) > best * rules_.dropped_beyond) entrant.dropped = true;
    }
  }

  static bool peer(const Entrant& entrant) { return entrant.result.family != "railccl"; }

  const Cell cell_;
  const Rules& rules_;
  std::vector<Entrant> entrants_;
  std::vector<double> round_trips_;
  std::vector<double> streams_;
  double processor_us_ = 0;
  CellResult out_;
};

}  // namespace

const Result* CellResult::find(const std::string& label) const {
  for (const Result& result : results) {
    if (result.label == label && result.median_us > 0) return &result;
  }
  return nullptr;
}

const Result* CellResult::best(const std::string& family) const {
  const Result* best = nullptr;
  for (const Result& result : results) {
    const std::string& its = result.family;
    if (family.empty() ? its == "railccl" : its != family) continue;
    if (result.median_us <= 0 || result.wrong > 0 || !result.refused.empty()) continue;
    if (best == nullptr || result.median_us < best->median_us) best = &result;
  }
  return best;
}

CellResult play_cell(const Cell& cell, int ranks, const std::vector<Contender>& contenders,
                     const Rules& rules) {
  return Game(cell, ranks, rules).play(contenders);
}

bool going_on() { return !interrupted.load(std::memory_order_relaxed); }

void stop_on_interrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted.store(true, std::memory_order_relaxed); };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace railccl::compare
