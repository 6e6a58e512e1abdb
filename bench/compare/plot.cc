// Plot: panels, axes, lines, legend.
#include "plot.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "report.h"

namespace railccl::compare {
namespace {

constexpr double kPanelWidth = 430;
constexpr double kPanelHeight = 300;
constexpr double kLeft = 58;
constexpr double kRight = 14;
constexpr double kTop = 34;
constexpr double kBottom = 46;
constexpr double kLegendHeight = 44;

struct Series {
  const char* name;
  const char* colour;
  const char* dashes;
  const char* label;   // of one contender, or null:
  const char* family;  // the best of a family per cell
};

// Colours that stay apart for colour-blind readers, after Okabe and Ito.
constexpr Series kSeries[] = {
    {"railccl, registered buffers", "#0072b2", "", "railccl registered", nullptr},
    {"railccl", "#0072b2", "5 3", "railccl", nullptr},
    {"Open MPI", "#d55e00", "", nullptr, "Open MPI"},
    {"MPICH", "#009e73", "", nullptr, "MPICH"},
    {"Gloo", "#999999", "", nullptr, "Gloo"},
};

__attribute__((format(printf, 2, 3))) void append(std::string* out, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  *out += text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else {
      out += c;
    }
  }
  return out;
}

double busbw_gbs(const CellResult& cell, const Result& result) {
  return bus_factor(cell.cell.operation, cell.ranks) * static_cast<double>(cell.cell.bytes) /
         result.median_us / 1e3;
}

const Result* pick(const CellResult& cell, const Series& series) {
  return series.label != nullptr ? cell.find(series.label) : cell.best(series.family);
}

std::string power_text(int exponent) {
  char text[16];
  snprintf(text, sizeof text, "%g", std::pow(10.0, exponent));
  return text;
}

/// Where a table's values lie on paper.
class Axes {
 public:
  explicit Axes(const std::vector<CellResult>& table) {
    double least = 1e9, most = 1e-9;
    for (const CellResult& cell : table) {
      const double size = std::log2(static_cast<double>(cell.cell.bytes));
      from_size_ = std::min(from_size_, size);
      to_size_ = std::max(to_size_, size);
      for (const Series& series : kSeries) {
        const Result* result = pick(cell, series);
        if (result == nullptr) continue;
        least = std::min(least, busbw_gbs(cell, *result));
        most = std::max(most, busbw_gbs(cell, *result));
      }
    }
    if (to_size_ <= from_size_) to_size_ = from_size_ + 1;
    low_ = static_cast<int>(std::floor(std::log10(least)));
    high_ = std::max(low_ + 1, static_cast<int>(std::ceil(std::log10(most))));
  }

  double x(uint64_t bytes) const {
    const double share =
        (std::log2(static_cast<double>(bytes)) - from_size_) / (to_size_ - from_size_);
    return kLeft + share * (kPanelWidth - kLeft - kRight);
  }
  double y(double gbs) const {
    const double share = (std::log10(gbs) - low_) / (high_ - low_);
    return kPanelHeight - kBottom - share * (kPanelHeight - kTop - kBottom);
  }
  int low() const { return low_; }
  int high() const { return high_; }

 private:
  double from_size_ = 64;
  double to_size_ = 0;
  int low_ = 0;
  int high_ = 1;
};

void draw_frame(std::string* out, const std::vector<CellResult>& table, const Axes& axes) {
  const CellResult& first = table.front();
  const double bottom = kPanelHeight - kBottom;
  append(out, "<text x=\"%.0f\" y=\"20\" font-weight=\"bold\">%s, %d ranks</text>\n", kLeft,
         name_of(first.cell.operation), first.ranks);
  for (int power = axes.low(); power <= axes.high(); ++power) {
    const double y = axes.y(std::pow(10.0, power));
    append(out, "<path d=\"M%.1f %.1fH%.1f\" class=\"grid\"/>\n", kLeft, y, kPanelWidth - kRight);
    append(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", kLeft - 6, y + 4,
           power_text(power).c_str());
  }
  // At most seven labels fit under a panel.
  const size_t every = (table.size() + 6) / 7;
  for (size_t i = 0; i < table.size(); ++i) {
    const double x = axes.x(table[i].cell.bytes);
    append(out, "<path d=\"M%.1f %.1fv4\" class=\"tick\"/>\n", x, bottom);
    if (i % every != 0) continue;
    append(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x, bottom + 18,
           size_text(table[i].cell.bytes).c_str());
  }
  append(out, "<path d=\"M%.1f %.1fV%.1fH%.1f\" class=\"tick\"/>\n", kLeft, kTop, bottom,
         kPanelWidth - kRight);
  append(out,
         "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">bus "
         "bandwidth, GB/s</text>\n",
         (kTop + bottom) / 2);
  append(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">bytes per rank</text>\n",
         (kLeft + kPanelWidth - kRight) / 2, bottom + 36);
}

void draw_lines(std::string* out, const std::vector<CellResult>& table, const Axes& axes) {
  // Ours last, so that they lie on top.
  for (auto series = std::rbegin(kSeries); series != std::rend(kSeries); ++series) {
    std::string path;
    std::string dots;
    for (const CellResult& cell : table) {
      const Result* result = pick(cell, *series);
      if (result == nullptr) continue;
      const double x = axes.x(cell.cell.bytes);
      const double y = axes.y(busbw_gbs(cell, *result));
      append(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", x, y);
      append(&dots, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\"/>\n", x, y,
             series->colour);
    }
    if (path.empty()) continue;
    *out += "<path d=\"" + path + "\" class=\"line\" stroke=\"" + series->colour + "\"";
    if (series->dashes[0] != 0) append(out, " stroke-dasharray=\"%s\"", series->dashes);
    *out += "/>\n" + dots;
  }
}

using Tables = std::vector<const std::vector<CellResult>*>;

/// Of what is drawn in some panel.
void draw_legend(std::string* out, const Tables& tables, const std::string& machine) {
  double x = kLeft;
  for (const Series& series : kSeries) {
    const bool drawn = std::any_of(tables.begin(), tables.end(), [&](const auto* table) {
      return std::any_of(table->begin(), table->end(),
                         [&](const CellResult& cell) { return pick(cell, series) != nullptr; });
    });
    if (!drawn) continue;
    append(out, "<path d=\"M%.0f 16h26\" class=\"line\" stroke=\"%s\"", x, series.colour);
    if (series.dashes[0] != 0) append(out, " stroke-dasharray=\"%s\"", series.dashes);
    append(out, "/>\n<text x=\"%.0f\" y=\"20\">%s</text>\n", x + 32, series.name);
    x += 56 + 6.4 * static_cast<double>(std::char_traits<char>::length(series.name));
  }
  *out += "<text x=\"58\" y=\"38\" class=\"note\">" + escaped(machine) +
          "; each peer at its best setting per size</text>\n";
}

}  // namespace

std::string plot_of(const std::vector<std::vector<CellResult>>& tables,
                    const std::string& machine) {
  Tables shown;
  for (const auto& table : tables) {
    const auto measured = [](const CellResult& cell) {
      return std::any_of(std::begin(kSeries), std::end(kSeries),
                         [&](const Series& s) { return pick(cell, s) != nullptr; });
    };
    if (std::any_of(table.begin(), table.end(), measured)) shown.push_back(&table);
  }
  const size_t columns = std::min<size_t>(2, std::max<size_t>(1, shown.size()));
  const size_t rows = (shown.size() + columns - 1) / columns;
  const double width = std::max(kPanelWidth * static_cast<double>(columns), 700.0);
  const double height = kLegendHeight + kPanelHeight * static_cast<double>(rows);
  std::string out;
  append(&out,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
         "height=\"%.0f\">\n",
         width, height, width, height);
  out +=
      "<style>text{font:12px sans-serif;fill:#333}.note{font-size:11px;fill:#777}"
      ".grid{stroke:#ddd;fill:none}.tick{stroke:#888;fill:none}"
      ".line{fill:none;stroke-width:2;stroke-linejoin:round}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  draw_legend(&out, shown, machine);
  for (size_t i = 0; i < shown.size(); ++i) {
    append(&out, "<g transform=\"translate(%.0f %.0f)\">\n",
           kPanelWidth * static_cast<double>(i % columns),
           kLegendHeight + kPanelHeight * static_cast<double>(i / columns));
    const Axes axes(*shown[i]);
    draw_frame(&out, *shown[i], axes);
    draw_lines(&out, *shown[i], axes);
    out += "</g>\n";
  }
  return out + "</svg>\n";
}

}  // namespace railccl::compare
