// Shows that IDX files are read whether compressed or not, and that each way in which one can be
// wrong is refused with a sentence that names the file and the fault. Files are written on the
// spot.
#include "dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "idx_files.h"

namespace railccl::train {
namespace {

using ::testing::HasSubstr;

/// Three images of 2x2 with labels.
class DatasetTest : public ::testing::Test {
 protected:
  const Bytes pixels_ = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const Bytes labels_ = {0, 9, 4};
  TemporaryFolder folder_;
  const std::string images_path_ = folder_.file("images");
  const std::string labels_path_ = folder_.file("labels");
  std::string error_;

  bool load(const Bytes& images, const Bytes& labels) {
    write_plain(images_path_, images);
    write_plain(labels_path_, labels);
    return load_samples(images_path_, labels_path_, &error_).has_value();
  }
};

TEST_F(DatasetTest, PlainAndCompressed) {
  write_compressed(images_path_ + ".gz", image_file(3, 2, 2, pixels_));
  write_plain(labels_path_, label_file(labels_));
  const auto samples = load_samples(images_path_, labels_path_, &error_);
  ASSERT_TRUE(samples) << error_;
  EXPECT_EQ(samples->count, 3u);
  EXPECT_EQ(samples->rows, 2u);
  EXPECT_EQ(samples->columns, 2u);
  EXPECT_EQ(samples->pixels, pixels_);
  EXPECT_EQ(samples->labels, labels_);
}

TEST_F(DatasetTest, MissingFileAndFolder) {
  EXPECT_FALSE(load_samples(images_path_, labels_path_, &error_));
  EXPECT_THAT(error_, HasSubstr("images"));
  EXPECT_THAT(error_, HasSubstr("cannot be opened"));
  EXPECT_FALSE(load_dataset(folder_.file("nowhere"), &error_));
  EXPECT_THAT(error_, HasSubstr("No such file"));
}

// Cut at every byte, header and data alike, in both forms.
TEST_F(DatasetTest, Truncated) {
  const Bytes images = image_file(3, 2, 2, pixels_);
  for (size_t length = 0; length < images.size(); length++) {
    EXPECT_FALSE(load(Bytes(images.begin(), images.begin() + static_cast<ptrdiff_t>(length)),
                      label_file(labels_)));
    EXPECT_THAT(error_, HasSubstr("truncated")) << length;
  }
  const Bytes labels = label_file(labels_);
  for (size_t length = 0; length < labels.size(); length++) {
    EXPECT_FALSE(
        load(images, Bytes(labels.begin(), labels.begin() + static_cast<ptrdiff_t>(length))));
    EXPECT_THAT(error_, HasSubstr("labels"));
    EXPECT_THAT(error_, HasSubstr("truncated")) << length;
  }
}

TEST_F(DatasetTest, CompressedFileCutShort) {
  Bytes noise(40 * 40 * 10);
  Random random(1);
  for (uint8_t& pixel : noise) pixel = static_cast<uint8_t>(random.next());
  write_compressed(images_path_ + ".gz", image_file(10, 40, 40, noise));
  write_plain(labels_path_, label_file(Bytes(10, 1)));
  ASSERT_TRUE(load_samples(images_path_, labels_path_, &error_)) << error_;
  for (const size_t length : {9000, 100, 12, 3}) {
    std::filesystem::resize_file(images_path_ + ".gz", length);
    EXPECT_FALSE(load_samples(images_path_, labels_path_, &error_)) << length;
    EXPECT_THAT(error_, HasSubstr("images.gz"));
  }
}

TEST_F(DatasetTest, DamagedCompressedFile) {
  write_compressed(images_path_ + ".gz", image_file(1000, 2, 2, Bytes(4000, 77)));
  write_plain(labels_path_, label_file(Bytes(1000, 1)));
  std::fstream file(images_path_ + ".gz", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(14);
  file.write("\xff\xff\xff\xff\xff\xff", 6);
  file.close();
  EXPECT_FALSE(load_samples(images_path_, labels_path_, &error_));
  EXPECT_THAT(error_, HasSubstr("images.gz"));
}

TEST_F(DatasetTest, AnotherFormat) {
  EXPECT_FALSE(load(label_file(labels_), label_file(labels_)));
  EXPECT_THAT(error_, HasSubstr("is not an IDX file of images"));
  EXPECT_FALSE(load(image_file(3, 2, 2, pixels_), image_file(3, 2, 2, pixels_)));
  EXPECT_THAT(error_, HasSubstr("is not an IDX file of labels"));
}

TEST_F(DatasetTest, CountsThatCannotBe) {
  EXPECT_FALSE(load(image_file(0, 2, 2, {}), label_file({})));
  EXPECT_THAT(error_, HasSubstr("no images"));
  EXPECT_FALSE(load(image_file(0xffffffff, 0xffffffff, 0xffffffff, pixels_), label_file(labels_)));
  EXPECT_THAT(error_, HasSubstr("damaged"));
  EXPECT_FALSE(load(image_file(3, 2, 2, pixels_), label_file({1, 2})));
  EXPECT_THAT(error_, HasSubstr("2 labels for 3 images"));
  Bytes longer = pixels_;
  longer.push_back(0);
  EXPECT_FALSE(load(image_file(3, 2, 2, longer), label_file(labels_)));
  EXPECT_THAT(error_, HasSubstr("goes on"));
}

TEST_F(DatasetTest, LabelOutOfRange) {
  EXPECT_FALSE(load(image_file(3, 2, 2, pixels_), label_file({0, 10, 4})));
  EXPECT_THAT(error_, HasSubstr("label 10 at index 1"));
}

TEST_F(DatasetTest, WholeFolder) {
  write_dataset(folder_, 30, 20);
  const auto dataset = load_dataset(folder_.path(), &error_);
  ASSERT_TRUE(dataset) << error_;
  EXPECT_EQ(dataset->train.count, 30u);
  EXPECT_EQ(dataset->test.count, 20u);
  write_plain(folder_.file("t10k-images-idx3-ubyte"), image_file(20, 2, 2, Bytes(80)));
  EXPECT_FALSE(load_dataset(folder_.path(), &error_));
  EXPECT_THAT(error_, HasSubstr("differ in size"));
}

}  // namespace
}  // namespace railccl::train
