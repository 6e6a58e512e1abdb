// Writes small datasets in the IDX format for the trainer's tests, whole or damaged on purpose.
#pragma once

#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "random.h"

namespace railccl::train {

/// A folder that is removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "railccl-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

using Bytes = std::vector<uint8_t>;

inline void append_number(Bytes& bytes, uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<uint8_t>(number >> shift));
}

inline Bytes image_file(uint32_t count, uint32_t rows, uint32_t columns, const Bytes& pixels,
                        uint32_t magic = 0x803) {
  Bytes bytes;
  for (const uint32_t number : {magic, count, rows, columns}) append_number(bytes, number);
  bytes.insert(bytes.end(), pixels.begin(), pixels.end());
  return bytes;
}

inline Bytes label_file(const Bytes& labels, uint32_t magic = 0x801) {
  Bytes bytes;
  append_number(bytes, magic);
  append_number(bytes, static_cast<uint32_t>(labels.size()));
  bytes.insert(bytes.end(), labels.begin(), labels.end());
  return bytes;
}

inline void write_plain(const std::string& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline void write_compressed(const std::string& path, const Bytes& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

/// A dataset that can be learned, though not at once: each class is a pattern under much noise.
inline void write_dataset(const TemporaryFolder& folder, uint32_t train, uint32_t test) {
  constexpr uint32_t kSize = 28;
  Random random(42);
  Bytes patterns(10 * kSize * kSize);
  for (uint8_t& pixel : patterns) pixel = static_cast<uint8_t>(random.next() % 128);
  for (const bool training : {true, false}) {
    const uint32_t count = training ? train : test;
    Bytes pixels;
    Bytes labels;
    for (uint32_t i = 0; i < count; i++) {
      const auto label = static_cast<uint8_t>(random.next() % 10);
      labels.push_back(label);
      for (uint32_t p = 0; p < kSize * kSize; p++)
        pixels.push_back(
            static_cast<uint8_t>(patterns[label * kSize * kSize + p] / 2 + random.next() % 192));
    }
    const std::string name = folder.file(training ? "train" : "t10k");
    write_compressed(name + "-images-idx3-ubyte.gz", image_file(count, kSize, kSize, pixels));
    write_plain(name + "-labels-idx1-ubyte", label_file(labels));
  }
}

}  // namespace railccl::train
