// railccl-env: every environment variable the library reads, with value, default and meaning.
#include <nccl.h>
#include <railccl/railccl.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

namespace {

std::string or_dash(const char* text) { return text == nullptr || *text == 0 ? "-" : text; }

void print_table(const railcclSetting_t* rows, int count) {
  for (int i = 0; i < count; i++) {
    const railcclSetting_t& row = rows[i];
    const char *value = nullptr, *file = nullptr;
    std::string origin;
    if (railcclGetSetting(row.name, &value, &file) == ncclSuccess && value != nullptr)
      origin = std::string(", set in ") + (file == nullptr ? "the environment" : file);
    std::printf("%s=%s\n    %s, default %s%s\n    %s\n", row.name, value == nullptr ? "" : value,
                row.kind, or_dash(row.defaultText).c_str(), origin.c_str(), row.meaning);
  }
}

void print_markdown(const railcclSetting_t* rows, int count) {
  std::printf(
      "# Environment\n\n"
      "Every variable the library reads. Generated from `src/base/settings.def` by\n"
      "`railccl-env --markdown`; a malformed value is an error that names the variable.\n\n"
      "| variable | kind | default | meaning |\n|---|---|---|---|\n");
  for (int i = 0; i < count; i++) {
    const railcclSetting_t& row = rows[i];
    std::printf("| `%s` | %s | %s | %s |\n", row.name, row.kind, or_dash(row.defaultText).c_str(),
                row.meaning);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Lists the environment variables that railccl reads.", "railccl-env");
  app.set_version_flag("--version", std::string("railccl-env ") + RAILCCL_VERSION);
  bool markdown = false;
  app.add_flag("--markdown", markdown, "print docs/environment.md");
  CLI11_PARSE(app, argc, argv);

  const railcclSetting_t* rows = nullptr;
  int count = 0;
  if (railcclGetSettings(&rows, &count) != ncclSuccess) {
    std::fprintf(stderr, "railccl-env: %s\n", ncclGetLastError(nullptr));
    return 1;
  }
  if (markdown) {
    print_markdown(rows, count);
    return 0;
  }
  print_table(rows, count);
  if (railcclCheckEnvironment() != ncclSuccess) {
    std::fprintf(stderr, "railccl-env: %s\n", ncclGetLastError(nullptr));
    return 1;
  }
  return 0;
}
