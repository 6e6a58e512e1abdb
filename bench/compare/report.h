// Report: cells as table rows and JSON lines, ratios and their geometric means.
#pragma once

#include <string>
#include <vector>

#include "session.h"

namespace railccl::compare {

/// Sizes like railccl-bench takes them: "8", "64K", "1M", "2G". 0 when malformed.
uint64_t parse_size(const std::string& text);
std::string size_text(uint64_t bytes);

void print_header(const Cell& cell, int ranks);
void print_cell(const CellResult& result, bool details);
/// Geometric means over the cells of one table, and how many cells are lost.
void print_means(const std::vector<CellResult>& table);
std::string json_of(const CellResult& result, const std::string& machine);
/// The inverse. False, with nothing set, when the line is not of that form.
bool cell_from_json(const std::string& text, CellResult* cell, std::string* machine);

/// Elements that were wrong over all results; failures of contenders are told by print_cell.
uint64_t wrong_in(const std::vector<CellResult>& table);

}  // namespace railccl::compare
