// Drawing: a Topology as an SVG picture of hosts, ranks, NICs, rails, leaf switches and spine.
//
// One colour per rail; legible on light and dark backgrounds (the background is left transparent).
// Large clusters are abbreviated, and the picture says by how much. Pure.
#pragma once

#include <string>

#include "topology/topology.h"

namespace railccl::topology {

struct DrawOptions {
  int hosts_max = 4;    // hosts drawn in full
  int columns_max = 8;  // ranks, and NICs, drawn per host
  int rails_max = 16;   // leaf switches drawn
};

std::string draw_svg(const Topology& topology, const DrawOptions& options = {});

/// "50 GB/s", "12.5 MB/s", "unknown speed": for people.
std::string speed_text(double bytes_per_s);

}  // namespace railccl::topology
