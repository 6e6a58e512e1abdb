// Dataset: images and labels from files in the IDX format (LeCun, Cortes and Burges, the MNIST
// database), plain or compressed by gzip.
//
// A dataset is four files in one folder, each with or without ".gz": train-images-idx3-ubyte,
// train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte. Whatever is wrong with
// one (missing, cut short, another format, labels out of range, counts that differ) is a sentence
// that names the file; nothing else of the result is touched then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace railccl::train {

/// Grey images of one size, a byte per pixel, row by row.
struct Samples {
  size_t count = 0;
  size_t rows = 0;
  size_t columns = 0;
  std::vector<uint8_t> pixels;  // count * rows * columns
  std::vector<uint8_t> labels;  // count, each below Dataset::classes
  size_t pixels_per_image() const { return rows * columns; }
};

struct Dataset {
  static constexpr int kClasses = 10;
  Samples train;
  Samples test;
};

/// The dataset in `folder`, or nothing and the reason in `error`.
std::optional<Dataset> load_dataset(const std::string& folder, std::string* error);

/// One pair of files, names without ".gz". Used by load_dataset.
std::optional<Samples> load_samples(const std::string& images_path, const std::string& labels_path,
                                    std::string* error);

}  // namespace railccl::train
