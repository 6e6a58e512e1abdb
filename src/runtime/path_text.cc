// Writes the JSON of rails and paths.
#include "runtime/path_text.h"

#include <nlohmann/json.hpp>

namespace railccl::runtime {
namespace {

const char* name_of(transport::PathState::What what) {
  switch (what) {
    case transport::PathState::What::works:
      return "works";
    case transport::PathState::What::silent:
      return "silent";
    case transport::PathState::What::lost:
      return "lost";
  }
  return "?";
}

}  // namespace

std::string text_of(const transport::PathReport& report, const topology::Topology& topology,
                    int rank) {
  using Json = nlohmann::ordered_json;
  const topology::Host& host = topology.host_of(rank);
  Json rails = Json::array();
  for (size_t rail = 0; rail < topology.rails().size(); rail++) {
    const topology::Nic* ours = nullptr;
    for (const topology::Nic& nic : host.nics)
      if (nic.rail == static_cast<int>(rail)) ours = &nic;
    rails.push_back({{"rail", rail},
                     {"nic", ours == nullptr ? "" : ours->name},
                     {"bytes_per_s",
                      topology.rail_bytes_per_s(static_cast<int>(rail), topology.rank(rank).host)},
                     {"in_use", ours != nullptr && ours->up},
                     {"reason", topology.rails()[rail].reason}});
  }
  Json paths = Json::array();
  for (const transport::PathState& path : report.paths) {
    const bool known = path.peer >= 0 && path.peer < topology.size();
    paths.push_back({{"peer", path.peer},
                     {"peer_host", known ? topology.host_of(path.peer).name : ""},
                     {"channel", path.channel},
                     {"nic", path.nic},
                     {"far", path.far},
                     {"home", path.home},
                     {"state", name_of(path.what)},
                     {"bytes_per_s", path.bytes_per_s},
                     {"bytes_sent", path.bytes_sent}});
  }
  Json events = Json::array();
  for (const auto& event : report.events)
    events.push_back({{"unix_ms", event.unix_ms}, {"text", event.text}});
  const Json all = {{"rank", rank},   {"ranks", topology.size()}, {"host", host.name},
                    {"rails", rails}, {"paths", paths},           {"events", events}};
  // Names come from other machines: what is not UTF-8 is replaced, not thrown at the caller.
  return all.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace railccl::runtime
