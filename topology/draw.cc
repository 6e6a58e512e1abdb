// The SVG picture: spine on top, one leaf switch per rail below it, hosts at the bottom.
#include "topology/draw.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

namespace railccl::topology {

namespace {

// All lengths are SVG user units, shown as pixels.
constexpr double kMargin = 28, kCell = 62, kCellGap = 6, kHostGap = 22, kHostPad = 14;
constexpr double kSpineY = 74, kSpineHeight = 34, kLeafY = 168, kLeafHeight = 42;
constexpr double kHostY = 306, kNicHeight = 24, kRankY = 70, kRankHeight = 40;
constexpr double kBusY = 128, kHostHeight = 168, kLegendLine = 19;

// Distinct for the colour-blind (after Okabe and Ito), with enough contrast to white and to black.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#b8579a",
                                    "#c98a00", "#3d9bd6", "#7b61c9", "#8c6d31"};
constexpr const char* kNoRail = "#8b949e";

std::string colour_of(int rail) {
  if (rail < 0) return kNoRail;
  constexpr int kFixed = static_cast<int>(std::size(kColours));
  if (rail < kFixed) return kColours[rail];
  // Steps of the golden angle never come close to each other.
  return fmt::format("hsl({:.0f},55%,45%)", std::fmod(rail * 137.508, 360.0));
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c >= ' ' && c < 0x7f ? c : '?';
  }
  return out;
}

std::string shortened(const std::string& text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most - 1) + "~";
}

/// Appends shapes; x and y are the middle of texts and the upper left corner of boxes.
class Svg {
 public:
  void box(double x, double y, double width, double height, std::string_view attributes) {
    body_ +=
        fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="6" {}/>)", x,
                    y, width, height, attributes);
    body_ += '\n';
  }
  void text(double x, double y, std::string_view kind, std::string_view content) {
    body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>)", x, y, kind,
                         escaped(content));
    body_ += '\n';
  }
  void line(double x1, double y1, double x2, double y2, std::string_view attributes) {
    body_ += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" {}/>)", x1, y1,
                         x2, y2, attributes);
    body_ += '\n';
  }
  /// An S-shaped line that leaves and arrives vertically.
  void curve(double x1, double y1, double x2, double y2, std::string_view attributes) {
    const double middle = (y1 + y2) / 2;
    body_ += fmt::format(
        R"(<path d="M{:.1f} {:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}" fill="none" {}/>)",
        x1, y1, x1, middle, x2, middle, x2, y2, attributes);
    body_ += '\n';
  }
  std::string finish(double width, double height, const std::string& title) const {
    // The mid-grey ink reads on white and on black where the media query is not understood.
    return fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" )"
                       R"(width="{0:.0f}" height="{1:.0f}" role="img">
<title>{2}</title>
<style>
text {{ font-family: Helvetica, Arial, sans-serif; fill: #6e7781; text-anchor: middle }}
.title {{ font-size: 20px; font-weight: bold }}
.label {{ font-size: 13px; font-weight: bold }}
.small {{ font-size: 11px }}
.note {{ font-size: 13px; text-anchor: start }}
.on {{ font-size: 11px; font-weight: bold; fill: #ffffff }}
.frame {{ fill: #8b949e; fill-opacity: 0.10; stroke: #8b949e; stroke-width: 1.2 }}
.rank {{ fill: #8b949e; fill-opacity: 0.08; stroke: #8b949e; stroke-width: 1 }}
.bus {{ fill: #8b949e; fill-opacity: 0.35 }}
.up {{ stroke: #8b949e; stroke-width: 1.6; stroke-dasharray: 5 4 }}
@media (prefers-color-scheme: light) {{ text {{ fill: #24292f }} .on {{ fill: #ffffff }} }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #d0d7de }} .on {{ fill: #ffffff }} }}
</style>
{3}</svg>
)",
                       width, height, escaped(title), body_);
  }

 private:
  std::string body_;
};

std::string plural(size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string title_of(const Topology& topology) {
  return fmt::format("{}, {}, {}", plural(topology.hosts().size(), "host"),
                     plural(topology.ranks().size(), "rank"),
                     plural(topology.rails().size(), "rail"));
}

/// One drawing: sizes first, then from top to bottom.
class Picture {
 public:
  Picture(const Topology& topology, const DrawOptions& options) : topology_(topology) {
    hosts_ = std::min(topology.hosts().size(), static_cast<size_t>(std::max(1, options.hosts_max)));
    rails_ = std::min(topology.rails().size(), static_cast<size_t>(std::max(1, options.rails_max)));
    columns_max_ = static_cast<size_t>(std::max(1, options.columns_max));
    double x = kMargin;
    for (size_t h = 0; h < hosts_; h++) {
      host_x_.push_back(x);
      const size_t columns = std::max({size_t{2}, shown_nics(h), shown_ranks(h)});
      host_width_.push_back(static_cast<double>(columns) * (kCell + kCellGap) - kCellGap +
                            2 * kHostPad);
      x += host_width_.back() + kHostGap;
    }
    const double leaves = static_cast<double>(rails_) * (leaf_width() + 24) + 2 * kMargin;
    width_ = std::max({x - kHostGap + kMargin, leaves, 560.0});
    const double used = x - kHostGap - kMargin;
    for (double& left : host_x_) left += (width_ - 2 * kMargin - used) / 2;
  }

  std::string draw() {
    svg_.text(width_ / 2, 36, "title", title_of(topology_));
    draw_fabric();
    // Wires first, so that boxes lie on top of their ends.
    for (size_t h = 0; h < hosts_; h++) draw_wires(h);
    for (size_t r = 0; r < rails_; r++) draw_leaf(r);
    for (size_t h = 0; h < hosts_; h++) draw_host(h);
    const double height = draw_legend(kHostY + kHostHeight + 44);
    return svg_.finish(width_, height, title_of(topology_));
  }

 private:
  const Host& host(size_t h) const { return topology_.hosts()[h]; }
  const std::vector<int>& ranks(size_t h) const {
    return topology_.ranks_of_host(static_cast<int>(h));
  }
  size_t shown_nics(size_t h) const { return std::min(host(h).nics.size(), columns_max_); }
  size_t shown_ranks(size_t h) const { return std::min(ranks(h).size(), columns_max_); }
  double leaf_width() const { return rails_ > 8 ? 92 : 132; }
  double leaf_x(size_t r) const {
    return width_ * (static_cast<double>(r) + 0.5) / static_cast<double>(rails_);
  }
  /// Middle of column i of `columns` that share the width of host h.
  double column_x(size_t h, size_t i, size_t columns) const {
    const double inner = host_width_[h] - 2 * kHostPad;
    return host_x_[h] + kHostPad +
           inner * (static_cast<double>(i) + 0.5) / static_cast<double>(columns);
  }

  void draw_fabric() {
    if (rails_ == 0) return;
    const double spine_width = std::min(width_ - 2 * kMargin, 340.0);
    for (size_t r = 0; r < rails_; r++)
      svg_.line(width_ / 2 + (leaf_x(r) / width_ - 0.5) * spine_width, kSpineY + kSpineHeight,
                leaf_x(r), kLeafY, R"(class="up")");
    svg_.box(width_ / 2 - spine_width / 2, kSpineY, spine_width, kSpineHeight, R"(class="frame")");
    const double factor = topology_.oversubscription();
    svg_.text(width_ / 2, kSpineY + 22, "label",
              factor > 1 ? fmt::format("spine, oversubscribed 1:{:g}", factor)
                         : "spine (idle when traffic keeps to its rail)");
  }

  void draw_leaf(size_t r) {
    const Rail& rail = topology_.rails()[r];
    svg_.box(leaf_x(r) - leaf_width() / 2, kLeafY, leaf_width(), kLeafHeight,
             fmt::format(R"(fill="{}")", colour_of(static_cast<int>(r))));
    svg_.text(leaf_x(r), kLeafY + 18, "on", fmt::format("leaf of rail {}", r));
    svg_.text(leaf_x(r), kLeafY + 33, "on", speed_text(rail.bytes_per_s));
  }

  void draw_wires(size_t h) {
    for (size_t n = 0; n < shown_nics(h); n++) {
      const Nic& nic = host(h).nics[n];
      if (!nic.up || nic.rail < 0 || static_cast<size_t>(nic.rail) >= rails_) continue;
      svg_.curve(column_x(h, n, shown_nics(h)), kHostY + 14, leaf_x(static_cast<size_t>(nic.rail)),
                 kLeafY + kLeafHeight,
                 fmt::format(R"(stroke="{}" stroke-width="2.4" stroke-opacity="0.85")",
                             colour_of(nic.rail)));
    }
  }

  void draw_host(size_t h) {
    const double x = host_x_[h], width = host_width_[h];
    svg_.box(x, kHostY, width, kHostHeight, R"(class="frame")");
    for (size_t i = 0; i < shown_ranks(h); i++) draw_rank_wire(h, i);
    for (size_t n = 0; n < shown_nics(h); n++) draw_nic(h, n);
    for (size_t i = 0; i < shown_ranks(h); i++) draw_rank(h, i);
    svg_.box(x + kHostPad, kHostY + kBusY, width - 2 * kHostPad, 8, R"(class="bus")");
    svg_.text(x + width / 2, kHostY + kHostHeight - 12, "label",
              fmt::format("{} ({} inside)", shortened(host(h).name, 20),
                          speed_text(host(h).inner_bytes_per_s)));
    std::string missing;
    if (host(h).nics.empty()) missing = "no NIC";
    if (shown_nics(h) < host(h).nics.size())
      missing = plural(host(h).nics.size() - shown_nics(h), "NIC") + " more";
    if (shown_ranks(h) < ranks(h).size())
      missing += (missing.empty() ? "" : ", ") + plural(ranks(h).size() - shown_ranks(h), "rank") +
                 " more";
    if (!missing.empty()) svg_.text(x + width / 2, kHostY + kHostHeight + 16, "small", missing);
  }

  void draw_nic(size_t h, size_t n) {
    const Nic& nic = host(h).nics[n];
    const double x = column_x(h, n, shown_nics(h));
    const std::string colour = colour_of(nic.rail);
    svg_.box(x - kCell / 2, kHostY + 14, kCell, kNicHeight,
             nic.up ? fmt::format(R"(fill="{}")", colour)
                    : fmt::format(R"(fill="none" stroke="{}" stroke-dasharray="4 3")", colour));
    svg_.text(x, kHostY + 30, nic.up ? "on" : "small",
              shortened(nic.name, 9) + (nic.up ? "" : " (down)"));
  }

  void draw_rank_wire(size_t h, size_t i) {
    const Rank& rank = topology_.rank(ranks(h)[i]);
    const double x = column_x(h, i, shown_ranks(h));
    svg_.line(x, kHostY + kRankY + kRankHeight, x, kHostY + kBusY + 4,
              R"(stroke="#8b949e" stroke-width="3")");
    if (rank.nic < 0 || static_cast<size_t>(rank.nic) >= shown_nics(h)) return;
    svg_.line(x, kHostY + kRankY, column_x(h, static_cast<size_t>(rank.nic), shown_nics(h)),
              kHostY + 14 + kNicHeight,
              fmt::format(R"(stroke="{}" stroke-width="2")", colour_of(rank.rail)));
  }

  void draw_rank(size_t h, size_t i) {
    const int r = ranks(h)[i];
    const Rank& rank = topology_.rank(r);
    const double x = column_x(h, i, shown_ranks(h));
    svg_.box(x - kCell / 2, kHostY + kRankY, kCell, kRankHeight, R"(class="rank")");
    svg_.text(x, kHostY + kRankY + 17, "small",
              rank.gpu >= 0 ? fmt::format("GPU {}", rank.gpu) : "CPU");
    svg_.text(x, kHostY + kRankY + 32, "small", fmt::format("rank {}", r));
  }

  /// Returns the height of the whole picture.
  double draw_legend(double y) {
    const auto note = [&](const std::string& text) {
      svg_.text(kMargin + 20, y, "note", shortened(text, 120));
      y += kLegendLine;
    };
    for (size_t r = 0; r < rails_; r++) {
      svg_.box(kMargin, y - 11, 12, 12,
               fmt::format(R"(fill="{}")", colour_of(static_cast<int>(r))));
      note(fmt::format("rail {}: {}", r, topology_.rails()[r].reason));
    }
    if (rails_ == 0) note("no rails: no two hosts share a network neighbourhood");
    if (rails_ < topology_.rails().size())
      note(fmt::format("and {} not drawn", plural(topology_.rails().size() - rails_, "rail")));
    if (hosts_ < topology_.hosts().size())
      note(fmt::format("and {} not drawn", plural(topology_.hosts().size() - hosts_, "host")));
    return y + kMargin / 2;
  }

  const Topology& topology_;
  size_t hosts_ = 0, rails_ = 0, columns_max_ = 0;  // drawn
  std::vector<double> host_x_, host_width_;
  double width_ = 0;
  Svg svg_;
};

}  // namespace

std::string draw_svg(const Topology& topology, const DrawOptions& options) {
  return Picture(topology, options).draw();
}

std::string speed_text(double bytes_per_s) {
  if (bytes_per_s <= 0) return "unknown speed";
  if (bytes_per_s >= 1e12) return fmt::format("{:.4g} TB/s", bytes_per_s / 1e12);
  if (bytes_per_s >= 1e9) return fmt::format("{:.4g} GB/s", bytes_per_s / 1e9);
  if (bytes_per_s >= 1e6) return fmt::format("{:.4g} MB/s", bytes_per_s / 1e6);
  return fmt::format("{:.4g} kB/s", bytes_per_s / 1e3);
}

}  // namespace railccl::topology
