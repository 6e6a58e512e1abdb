// Shows that copy() copies exactly the bytes asked for, with ordinary and streaming stores, at odd
// sizes and alignments and above the size where it changes over by itself.
#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

void check_copy(size_t bytes, size_t dst_skew, size_t src_skew, Store store) {
  Random random(bytes + dst_skew);
  std::vector<uint8_t> src(bytes + src_skew);
  for (uint8_t& byte : src) byte = static_cast<uint8_t>(random.next());
  std::vector<uint8_t> dst(bytes + dst_skew + 64, 0xa5);
  copy(dst.data() + dst_skew, src.data() + src_skew, bytes, store);
  for (size_t i = 0; i < dst_skew; i++) ASSERT_EQ(dst[i], 0xa5);
  for (size_t i = dst_skew + bytes; i < dst.size(); i++) ASSERT_EQ(dst[i], 0xa5);
  if (bytes == 0) return;
  ASSERT_EQ(std::memcmp(dst.data() + dst_skew, src.data() + src_skew, bytes), 0)
      << bytes << " bytes, skews " << dst_skew << " and " << src_skew;
}

TEST(Copy, SizesSkewsAndStores) {
  Random random(9);
  on_each_target([&] {
    for (const Store store : {Store::by_size, Store::cached, Store::streaming})
      for (const size_t bytes : {0, 1, 63, 64, 255, 256, 257, 4095, 4096, 4097, 4400, 70001})
        for (int trial = 0; trial < 4; trial++)
          check_copy(bytes, random.below(64), random.below(64), store);
  });
}

TEST(Copy, AboveTheStreamingSize) {
  ASSERT_GE(streaming_bytes(), size_t{64} << 10);
  check_copy(std::min(streaming_bytes(), size_t{32} << 20) + 12345, 5, 9, Store::by_size);
}

TEST(Copy, OntoItself) {
  std::vector<uint8_t> bytes(10000, 7);
  copy(bytes.data(), bytes.data(), bytes.size(), Store::streaming);
  EXPECT_EQ(bytes, std::vector<uint8_t>(10000, 7));
}

}  // namespace
}  // namespace railccl::kernels
