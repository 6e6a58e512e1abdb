// Tuner: a tuner plugin of NCCL as one communicator uses it, whatever the version of its interface.
//
// It is shown what the algorithms cost that it knows by name (tree, ring, pat), and may say
// otherwise, and how many channels to use. Of its protocols there are none here: which way a
// message goes depends on its size alone; so the same price stands under each, and the cheapest of
// them counts. What it wishes for that is not here is said in the log, once, and ignored.
//
// All ranks have to get the same answers, as from NCCL. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/plugin.h"
#include "base/settings.h"
#include "base/status.h"
#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::runtime {

class Tuner {
 public:
  /// The algorithms that it knows by our names.
  static constexpr std::array<std::string_view, 3> kNames = {"tree", "ring", "pat"};
  /// Seconds for each; negative: not to be had.
  using Prices = std::array<double, kNames.size()>;
  struct Advice {
    std::optional<Prices> prices;  // nothing: it has changed none
    int channels = 0;              // 0: it does not say
  };

  /// The one that the settings mean, that loads and has a known version; not begun. Fails with
  /// unsupported when there is none, and why.
  static Result<std::unique_ptr<Tuner>> find(const Settings& settings);
  virtual ~Tuner() = default;
  Tuner(const Tuner&) = delete;
  Tuner& operator=(const Tuner&) = delete;

  /// "Example (v5)".
  std::string text() const;
  const std::string& file() const { return file_; }

  /// Once, before advise().
  Status begin(uint64_t communicator, const topology::Topology& topology);
  /// `registered`: can peers reach the buffers of the call? Nothing for collectives that it does
  /// not know, and when it fails.
  Advice advise(const plan::Request& request, int ranks, const Prices& prices, bool registered);

  static constexpr int kOldest = 2, kNewest = 5;

 protected:
  Tuner(const char* name, int version, std::string file)
      : name_(name == nullptr ? "?" : name), version_(version), file_(std::move(file)) {}
  struct Question {
    int function = 0;
    size_t bytes = 0;
    bool registered = false;
  };
  virtual Status init(uint64_t communicator, const topology::Topology& topology) = 0;
  /// Changes the table, of kAlgorithms x kProtocols figures.
  virtual PluginResult ask(const Question& question, float* table, int* channels) = 0;
  Status check(const char* function, PluginResult result) const;
  void say_once(const std::string& what);

 private:
  const std::string name_;
  const int version_;
  const std::string file_;
  std::mutex mutex_;
  std::set<std::string> said_;
};

}  // namespace railccl::runtime
