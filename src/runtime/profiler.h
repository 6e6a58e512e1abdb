// Profiler: a profiler plugin of NCCL as one communicator uses it, whatever the version of its
// interface.
//
// It is told when groups, collectives, sends and receives begin and end, and what collectives move
// over each link of a network, as far as it wants to know, which it may change at any time. What is
// told when is profiled_share.h's.
//
// One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "base/plugin.h"
#include "base/settings.h"
#include "base/status.h"
#include "runtime/communicator.h"

namespace railccl::runtime {

/// Whose profiler it is.
struct ProfiledRank {
  std::string name;  // of the communicator; may be empty
  uint64_t communicator = 0;
  int hosts = 1;
  int ranks = 1;
  int rank = 0;
};

/// What begins. Members that the kind does not need mean nothing.
struct ProfiledEvent {
  enum class Kind : uint8_t {
    group_api,  // these three from version 5 on
    collective_api,
    transfer_api,
    group,
    collective,
    transfer,
    proxy_op,
  };
  Kind kind = Kind::group;
  void* parent = nullptr;
  void* group = nullptr;
  const Call* call = nullptr;
  uint64_t sequence = 0;
  int channels = 0;
  const char* algorithm = "";  // our name
  int channel = 0;             // from here on of proxy_op
  int peer = 0;
  uint64_t messages = 0;
  uint64_t bytes = 0;
  uint64_t message_bytes = 0;  // the longest
  bool sends = false;
};

class Profiler {
 public:
  /// The plugin that the settings mean, begun. Fails with unsupported where there is none, and why.
  static Result<std::unique_ptr<Profiler>> open(const Settings& settings,
                                                const ProfiledRank& whose);
  virtual ~Profiler() = default;
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// "Example (v5)".
  std::string text() const;
  const std::string& file() const { return file_; }
  bool wants(ProfiledEvent::Kind kind) const;
  /// Are calls of the API events of their own?
  bool has_api() const { return version_ >= kSinceApi; }

  /// A handle for stop(); null when the plugin does not want it, or does not know it.
  void* start(const ProfiledEvent& event);
  void stop(const ProfiledEvent& event, void* handle);

  static constexpr int kOldest = 1, kNewest = 5, kSinceApi = 5;

 protected:
  Profiler(const char* name, int version, std::string file, ProfiledRank whose)
      : whose_(std::move(whose)),
        name_(name == nullptr ? "?" : name),
        version_(version),
        file_(std::move(file)) {}
  virtual Status begin() = 0;
  virtual PluginResult tell_start(const ProfiledEvent& event, void** handle) = 0;
  virtual PluginResult tell_stop(void* handle) = 0;
  virtual PluginResult tell_state(void* handle, int state, uint64_t bytes, uint64_t steps) = 0;
  Status check(const char* function, PluginResult result) const;
  /// In capital letters; stays.
  const char* algorithm_text(const char* name);

  const ProfiledRank whose_;
  int mask_ = 0;  // the plugin's to change, from any thread

 private:
  void note(const char* function, PluginResult result);

  const std::string name_;
  const int version_;
  const std::string file_;
  std::set<std::string> algorithms_;
  bool failed_ = false;
};

}  // namespace railccl::runtime
