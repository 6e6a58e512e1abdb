// Wires of all ranks in one process over a real medium, without rendezvous: for tests of what is
// built on wires. One thread may drive all ranks, or one thread each.
#pragma once

#include <gtest/gtest.h>

#include "base/host_id.h"
#include "runtime/wires.h"
#include "transport/registry.h"

namespace railccl::test {

/// `medium` carries everything between ranks; "self" what a rank sends to itself.
inline std::vector<std::unique_ptr<runtime::Wires>> local_wires(int ranks,
                                                                const std::string& medium) {
  Settings settings = Settings::load([](const char*) { return nullptr; }).value();
  settings.socket_ifname = "lo";
  std::vector<std::vector<std::unique_ptr<transport::Transport>>> media(static_cast<size_t>(ranks));
  std::vector<std::vector<transport::Address>> addresses;
  static uint64_t job = 1;
  job++;
  for (const std::string& name : {std::string("self"), medium}) {
    addresses.emplace_back();
    for (int r = 0; r < ranks; r++) {
      transport::Context context;
      context.rank = r;
      context.ranks = ranks;
      context.job = job;
      context.host_id = host_id(settings);
      context.process = process_id();
      context.local_ranks = ranks;
      context.settings = settings;
      for (const transport::TransportKind* kind : transport::all())
        if (kind->name == name) {
          auto made = kind->create(context);
          EXPECT_TRUE(made.is_ok()) << made.status().text();
          addresses.back().push_back((*made)->address());
          media[static_cast<size_t>(r)].push_back(std::move(made).value());
        }
    }
  }
  const std::vector<uint64_t> hosts(static_cast<size_t>(ranks), host_id(settings));
  const std::vector<uint64_t> processes(static_cast<size_t>(ranks), process_id());
  std::vector<std::unique_ptr<runtime::Wires>> wires;
  for (int r = 0; r < ranks; r++) {
    wires.push_back(
        std::make_unique<runtime::Wires>(r, ranks, std::move(media[static_cast<size_t>(r)])));
    const Status status = wires.back()->set_peers(addresses, hosts, processes);
    EXPECT_TRUE(status.is_ok()) << status.text();
  }
  return wires;
}

}  // namespace railccl::test
