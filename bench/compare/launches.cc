// Launches: reading the file.
#include "launches.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace railccl::compare {

bool read_launches(const std::string& path, std::vector<Planned>* planned, std::string* error) {
  std::ifstream file(path);
  try {
    for (const nlohmann::json& one : nlohmann::json::parse(file)) {
      Planned contender;
      contender.family = one.at("family").get<std::string>();
      contender.launch.label = one.at("label").get<std::string>();
      contender.variants = one.at("variants").get<std::vector<std::string>>();
      contender.launch.commands = one.at("commands").get<std::vector<std::vector<std::string>>>();
      for (const auto& command : contender.launch.commands) {
        if (command.empty()) throw std::runtime_error("a command without words");
      }
      planned->push_back(std::move(contender));
    }
  } catch (const std::exception& failed) {
    *error = path + ": " + failed.what();
    return false;
  }
  if (planned->empty()) *error = path + ": nothing to compare";
  return !planned->empty();
}

}  // namespace railccl::compare
