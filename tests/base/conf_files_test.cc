// Configuration files: what their lines mean, and which file counts.
#include "base/conf_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace railccl {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(ConfFiles, LinesThatSaySomething) {
  EXPECT_THAT(parse_conf("# NCCL_ALGO=tree\n"
                         "NCCL_SOCKET_IFNAME==eth0,eth1  \r\n"
                         "\n"
                         "  NCCL_DEBUG = INFO\n"
                         "NCCL_DEBUG=TRACE\n"
                         "LD_PRELOAD=evil.so\n"
                         "nonsense\n"
                         "RAILCCL_MEASURE=off"),
              ElementsAre(Pair("NCCL_DEBUG", "INFO"), Pair("NCCL_SOCKET_IFNAME", "=eth0,eth1"),
                          Pair("RAILCCL_MEASURE", "off")));
  EXPECT_THAT(parse_conf(""), IsEmpty());
  EXPECT_THAT(parse_conf("=\n\n="), IsEmpty());
  EXPECT_THAT(parse_conf(std::string_view("NCCL_ALGO=ri\0ng\n", 16)), IsEmpty());
  EXPECT_THAT(parse_conf("NCCL_ALGO="), ElementsAre(Pair("NCCL_ALGO", "")));
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("conf." + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return path_ / name;
  }
  std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(ConfFiles, TheUsersFileCountsBeforeTheSystems) {
  const Folder folder;
  const std::string home = folder.path();
  const std::string users = folder.write(".nccl.conf", "NCCL_ALGO=ring\n");
  const std::string named = folder.write("named", "NCCL_ALGO=tree\n");
  const std::string systems = folder.write("system", "NCCL_ALGO=pat\nNCCL_DEBUG=INFO\n");
  std::map<std::string, std::string> environment;
  const auto values = [&] {
    return conf_values(
        [&](const char* name) -> const char* {
          const auto found = environment.find(name);
          return found == environment.end() ? nullptr : found->second.c_str();
        },
        systems);
  };
  EXPECT_EQ(values().at("NCCL_ALGO").file, systems) << "nobody's home";
  environment["HOME"] = home;
  EXPECT_EQ(values().at("NCCL_ALGO").value, "ring");
  EXPECT_EQ(values().at("NCCL_ALGO").file, users);
  EXPECT_EQ(values().at("NCCL_DEBUG").file, systems);
  environment["NCCL_CONF_FILE"] = named;
  EXPECT_EQ(values().at("NCCL_ALGO").value, "tree");
  environment["NCCL_CONF_FILE"] = home + "/missing";
  EXPECT_EQ(values().at("NCCL_ALGO").value, "pat");
  environment["NCCL_CONF_FILE"] = home;  // a folder
  EXPECT_EQ(values().at("NCCL_ALGO").value, "pat");
}

}  // namespace
}  // namespace railccl
