// railccl-topo: shows what the library knows about a machine or cluster, and why.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/settings.h"
#include "runtime/host_speeds.h"
#include "runtime/rails_file.h"
#include "topo_show.h"
#include "topology/draw.h"
#include "topology/facts.h"
#include "topology/merge.h"
#include "topology/probe.h"
#include "topology/synthetic.h"
#include "topology/text.h"

namespace {

using railccl::Code;
using railccl::Result;
using railccl::Settings;
using railccl::Status;
using railccl::topology::Facts;
using railccl::topology::Topology;

struct Options {
  std::string synthetic, load, save, svg;
  std::vector<std::string> merge;
  bool facts = false, why = false, json = false, all = false, measure = false;
};

std::string synthetic_help() {
  std::string text = "Synthetic descriptions: key=value pairs separated by commas,\n";
  for (const auto& row : railccl::topology::synthetic_keys())
    text += fmt::format("  {:<12} {}\n", row.name, row.meaning);
  text += "or a machine and how many hosts of it (dgx-h100:16, cpu:4x8), then changes to it:\n";
  for (const auto& row : railccl::topology::synthetic_machines())
    text += fmt::format("  {:<12} {}\n", row.name, row.meaning);
  return text +
         "A cluster out of its machines: run `railccl-topo --facts > HOST.facts` on each, bring\n"
         "the files together and run `railccl-topo --merge *.facts --why`.";
}

Result<Facts> read_facts(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status(Code::system, "cannot read \"{}\"", path);
  std::string text(railccl::topology::kFactsTextMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  Result<Facts> facts = railccl::topology::decode(text);
  if (!facts.is_ok()) return facts.status().context("\"{}\"", path);
  return facts;
}

/// This machine's facts; with --measure also its speeds, as a communicator would take them.
Result<Facts> detect(const Options& options, const Settings& settings) {
  RAILCCL_TRY(Facts facts, railccl::topology::detect(settings));
  if (!options.measure) return facts;
  RAILCCL_TRY(const railccl::runtime::HostSpeeds found,
              railccl::runtime::host_speeds(settings, facts.host.last_level_cache_bytes));
  facts.host.set_speeds(found.speeds);
  if (!options.facts) std::fprintf(stderr, "railccl-topo: speeds: %s\n", found.source.c_str());
  return facts;
}

/// What a communicator of these machines found out by probing, if it did and this user's cache
/// knows.
std::optional<railccl::topology::Discovery> known_rails(const Settings& settings,
                                                        std::vector<Facts>* facts) {
  std::vector<railccl::topology::Host> hosts;
  std::vector<railccl::topology::Host*> places;
  for (const size_t r : railccl::topology::describers_of(*facts)) {
    hosts.push_back((*facts)[r].host);
    places.push_back(&(*facts)[r].host);
  }
  auto found = railccl::runtime::remembered_rails(settings, hosts);
  if (found) railccl::topology::mark_rails(*found, places);
  return found;
}

Result<Topology> find_topology(const Options& options, const Settings& settings) {
  if (!options.synthetic.empty()) return railccl::topology::synthetic(options.synthetic);
  if (!options.load.empty()) return railccl::topology::load_topology(options.load);
  if (options.merge.empty() && !options.measure && !settings.topo_file.empty())
    return railccl::topology::load_topology(settings.topo_file);
  std::vector<Facts> facts;
  for (const std::string& path : options.merge) {
    RAILCCL_TRY(Facts one, read_facts(path));
    facts.push_back(std::move(one));
  }
  if (facts.empty()) {
    RAILCCL_TRY(Facts mine, detect(options, settings));
    facts.push_back(std::move(mine));
  }
  const auto found = known_rails(settings, &facts);
  return railccl::topology::merge(facts, found ? found->oversubscription : 1);
}

Status write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.flush();
  if (!file) return Status(Code::system, "cannot write \"{}\"", path);
  return railccl::ok();
}

Status show(const Options& options) {
  RAILCCL_TRY(const Settings settings, Settings::load());
  if (options.facts) {
    RAILCCL_TRY(const Facts facts, detect(options, settings));
    std::fputs(railccl::topology::encode(facts).c_str(), stdout);
    return railccl::ok();
  }
  RAILCCL_TRY(const Topology topology, find_topology(options, settings));
  if (!options.save.empty())
    RAILCCL_CHECK(railccl::topology::save_topology(topology, options.save));
  if (!options.svg.empty())
    RAILCCL_CHECK(write_file(options.svg, railccl::topology::draw_svg(topology)));
  std::string text;
  if (options.json) text = railccl::tools::json_of(topology);
  if (options.why) text += railccl::tools::reasons_of(topology);
  // A picture or file was all that was asked for: say nothing.
  if (text.empty() && options.save.empty() && options.svg.empty())
    text = railccl::tools::tree_of(topology, options.all);
  std::fputs(text.c_str(), stdout);
  return railccl::ok();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Shows this machine, or a described cluster, as railccl sees it.", "railccl-topo");
  app.set_version_flag("--version", std::string("railccl-topo ") + RAILCCL_VERSION);
  app.footer(synthetic_help());
  Options options;
  auto* source = app.add_option_group("source", "what to show; default: this machine");
  auto* synthetic =
      source->add_option("--synthetic", options.synthetic, "a cluster from a description");
  auto* load = source->add_option("--load", options.load, "a topology file");
  auto* merge =
      source->add_option("--merge", options.merge, "files of facts, one rank each, in rank order");
  source->add_flag("--facts", options.facts, "print this machine's facts, for --merge");
  source->require_option(0, 1);
  app.add_flag("--measure", options.measure,
               "with this machine's speeds, measured now (under a second) or kept from before; "
               "RAILCCL_MEASURE=force measures anew")
      ->excludes(synthetic)
      ->excludes(load)
      ->excludes(merge);
  app.add_option("--save", options.save, "write a topology file");
  app.add_option("--svg", options.svg, "draw a picture");
  auto* json = app.add_flag("--json", options.json, "print JSON instead of a tree");
  app.add_flag("--why", options.why, "say why each rail was formed and each rank got its NIC")
      ->excludes(json);
  app.add_flag("--all", options.all, "list each host, also those built as the one before");
  CLI11_PARSE(app, argc, argv);

  const Status status = show(options);
  if (!status.is_ok()) {
    std::fprintf(stderr, "railccl-topo: %s\n", status.text().c_str());
    return 1;
  }
  return 0;
}
