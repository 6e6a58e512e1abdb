// Reads IDX files through zlib, which passes plain files on as they are.
#include "dataset.h"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace railccl::train {
namespace {

// An IDX file begins with 0, 0, element type (8 is unsigned bytes), number of dimensions.
constexpr uint32_t kImagesMagic = 0x00000803;
constexpr uint32_t kLabelsMagic = 0x00000801;
// Larger than any dataset in this format, small enough to be allocated.
constexpr uint64_t kBytesMax = uint64_t{1} << 31;

struct Closer {
  void operator()(gzFile file) const { gzclose(file); }
};
using File = std::unique_ptr<gzFile_s, Closer>;

/// One IDX file being read. After a failure `error` has the sentence.
class IdxFile {
 public:
  explicit IdxFile(const std::string& path) {
    path_ = access(path.c_str(), F_OK) == 0 ? path : path + ".gz";
    errno = 0;
    file_.reset(gzopen(path_.c_str(), "rb"));
    if (!file_)
      fail(std::string("cannot be opened (also tried without .gz): ") + std::strerror(errno));
  }
  const std::string& error() const { return error_; }

  bool read(void* data, size_t bytes) {
    auto* at = static_cast<char*>(data);
    while (bytes > 0 && error_.empty()) {
      const auto part = static_cast<unsigned>(std::min(bytes, size_t{1} << 30));
      const int got = gzread(file_.get(), at, part);
      if (got <= 0) {
        int code = Z_OK;
        const char* text = gzerror(file_.get(), &code);
        // A compressed file that stops early reports Z_BUF_ERROR, a plain one just ends.
        const bool cut = code == Z_OK || code == Z_BUF_ERROR;
        return fail(cut ? "ends too early: the file is truncated"
                        : std::string("cannot be read: ") + text);
      }
      at += got;
      bytes -= static_cast<size_t>(got);
    }
    return error_.empty();
  }

  /// Appends `bytes` to `data`, which grows with what the file really has: a broken header must
  /// not ask for memory.
  bool read(std::vector<uint8_t>* data, size_t bytes) {
    constexpr size_t kPieceMax = size_t{8} << 20;
    while (bytes > 0) {
      const size_t at = data->size(), piece = std::min(bytes, kPieceMax);
      data->resize(at + piece);
      if (!read(data->data() + at, piece)) return false;
      bytes -= piece;
    }
    return true;
  }

  /// Big-endian, as the format has it.
  bool read_number(uint32_t* number) {
    uint8_t bytes[4];
    if (!read(bytes, sizeof bytes)) return false;
    *number = uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 |
              uint32_t{bytes[3]};
    return true;
  }

  bool expect_magic(uint32_t magic, const char* what) {
    uint32_t found = 0;
    if (!read_number(&found)) return false;
    if (found == magic) return true;
    char text[96];
    std::snprintf(text, sizeof text, "is not an IDX file of %s: it begins with 0x%08x, not 0x%08x",
                  what, found, magic);
    return fail(text);
  }

  bool expect_end() {
    if (!error_.empty()) return false;
    char extra;
    if (gzread(file_.get(), &extra, 1) == 0) return true;
    return fail("goes on after the data that its header announces");
  }

  bool fail(const std::string& reason) {
    if (error_.empty()) error_ = path_ + " " + reason;
    return false;
  }

 private:
  std::string path_;
  File file_;
  std::string error_;
};

bool read_images(IdxFile& file, Samples* samples) {
  uint32_t count = 0;
  uint32_t rows = 0;
  uint32_t columns = 0;
  if (!file.error().empty() || !file.expect_magic(kImagesMagic, "images")) return false;
  if (!file.read_number(&count) || !file.read_number(&rows) || !file.read_number(&columns))
    return false;
  const uint64_t size = uint64_t{rows} * columns;
  if (count == 0 || size == 0) return file.fail("announces no images, or images without pixels");
  if (size > kBytesMax || size * count > kBytesMax)
    return file.fail("announces more than 2 GiB of images: its header is damaged");
  samples->count = count;
  samples->rows = rows;
  samples->columns = columns;
  return file.read(&samples->pixels, static_cast<size_t>(size * count)) && file.expect_end();
}

bool read_labels(IdxFile& file, Samples* samples) {
  uint32_t count = 0;
  if (!file.error().empty() || !file.expect_magic(kLabelsMagic, "labels")) return false;
  if (!file.read_number(&count)) return false;
  if (count != samples->count)
    return file.fail("has " + std::to_string(count) + " labels for " +
                     std::to_string(samples->count) + " images");
  samples->labels.resize(count);
  if (!file.read(samples->labels.data(), count) || !file.expect_end()) return false;
  for (size_t i = 0; i < count; i++)
    if (samples->labels[i] >= Dataset::kClasses)
      return file.fail("has label " + std::to_string(samples->labels[i]) + " at index " +
                       std::to_string(i) + "; labels are 0 to 9");
  return true;
}

}  // namespace

std::optional<Samples> load_samples(const std::string& images_path, const std::string& labels_path,
                                    std::string* error) {
  Samples samples;
  IdxFile images(images_path);
  if (!read_images(images, &samples)) {
    *error = images.error();
    return std::nullopt;
  }
  IdxFile labels(labels_path);
  if (!read_labels(labels, &samples)) {
    *error = labels.error();
    return std::nullopt;
  }
  return samples;
}

std::optional<Dataset> load_dataset(const std::string& folder, std::string* error) {
  auto train =
      load_samples(folder + "/train-images-idx3-ubyte", folder + "/train-labels-idx1-ubyte", error);
  if (!train) return std::nullopt;
  auto test =
      load_samples(folder + "/t10k-images-idx3-ubyte", folder + "/t10k-labels-idx1-ubyte", error);
  if (!test) return std::nullopt;
  if (train->rows != test->rows || train->columns != test->columns) {
    *error = folder + ": training and test images differ in size";
    return std::nullopt;
  }
  return Dataset{std::move(*train), std::move(*test)};
}

}  // namespace railccl::train
