// The medium by which a rank of a simulated world reaches itself.
#pragma once

#include <memory>
#include <string_view>

#include "transport/registry.h"

namespace railccl::test {

inline std::unique_ptr<transport::Transport> self_transport(int rank, int ranks) {
  transport::Context context;
  context.rank = rank;
  context.ranks = ranks;
  for (const transport::TransportKind* kind : transport::all())
    if (std::string_view(kind->name) == "self") return kind->create(context).value();
  return nullptr;
}

}  // namespace railccl::test
