// Shows that reduce_to() and copy_to() give every destination the bits that reduce() and copy()
// give one, for every datatype, operator, instruction set, number of destinations, kind of store
// and misalignment, also when destinations are sources, and write nothing else.
#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

constexpr uint8_t kGuard = 0xa5;
constexpr size_t kMargin = 64;  // guard bytes on both sides

/// `bytes` bytes, `skew` bytes off a cache line, between guards.
class Guarded {
 public:
  Guarded(size_t bytes, size_t skew)
      : bytes_(bytes), memory_(kMargin + 64 + skew + bytes + kMargin, kGuard) {
    const size_t misfit = reinterpret_cast<uintptr_t>(memory_.data() + kMargin) % 64;
    start_ = kMargin + (64 - misfit) + skew;
  }
  uint8_t* data() { return memory_.data() + start_; }
  bool guards_are_whole() const {
    for (size_t i = 0; i < memory_.size(); i++)
      if ((i < start_ || i >= start_ + bytes_) && memory_[i] != kGuard) return false;
    return true;
  }

 private:
  size_t bytes_;
  std::vector<uint8_t> memory_;
  size_t start_;
};

struct Case {
  Datatype type;
  Reduction op;
  size_t count;
  int n_srcs;
  int n_dsts;
  int aliases;  // so many destinations are sources
  bool same_skew;
  Store store;
};

void check(const Case& c, Random& random) {
  const size_t bytes = c.count * size_of(c.type);
  const Scale factor{Scale::Kind::multiply, 0.7, -3};
  const Scaling scaling = scaling_of(c.op, c.type, c.n_srcs, factor);
  std::vector<Guarded> srcs, dsts;
  std::vector<const void*> src_pointers;
  std::vector<void*> dst_pointers;
  const size_t skew = random.below(64);
  for (int s = 0; s < c.n_srcs; s++) {
    srcs.emplace_back(bytes, c.same_skew ? skew : random.below(64));
    fill(srcs.back().data(), c.count, c.type, random);
  }
  for (int d = 0; d < c.n_dsts; d++)
    dsts.emplace_back(bytes, c.same_skew ? skew : random.below(64));
  for (Guarded& src : srcs) src_pointers.push_back(src.data());
  for (int d = 0; d < c.n_dsts; d++) {
    const auto at = static_cast<size_t>(d);
    dst_pointers.push_back(d < c.aliases ? srcs[at].data() : dsts[at].data());
  }
  std::vector<uint8_t> expected(bytes);
  for (size_t i = 0; i < c.count; i++)
    reference::reduce(expected.data(), src_pointers.data(), c.n_srcs, i, c.type, c.op, scaling.pre,
                      scaling.post);
  reduce_to(dst_pointers.data(), c.n_dsts, src_pointers.data(), c.n_srcs, c.count, c.type, c.op,
            scaling.pre, scaling.post, c.store);
  for (const Guarded& src : srcs) ASSERT_TRUE(src.guards_are_whole());
  for (const Guarded& dst : dsts) ASSERT_TRUE(dst.guards_are_whole());
  for (int d = 0; d < c.n_dsts; d++)
    for (size_t i = 0; i < c.count; i++)
      ASSERT_TRUE(same(dst_pointers[static_cast<size_t>(d)], expected.data(), i, c.type))
          << name_of(c.op) << " of " << c.n_srcs << " " << name_of(c.type) << ", destination " << d
          << " of " << c.n_dsts << ", " << c.aliases << " aliases, element " << i << " of "
          << c.count << ": got " << show(dst_pointers[static_cast<size_t>(d)], i, c.type)
          << ", want " << show(expected.data(), i, c.type);
}

// Lengths of nothing, of less than a vector, and beyond one tile of any implementation.
TEST(ReduceTo, EveryDestinationGetsTheResult) {
  Random random(21);
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      for (const Reduction op : reductions()) {
        for (int trial = 0; trial < 12; trial++) {
          Case c{type, op, random.below(trial < 6 ? 40 : 400), 0, 0, 0, trial % 2 == 0, {}};
          if (trial == 11) c.count = (size_t{9} << 10) / size_of(type) + random.below(100);
          c.n_srcs = 1 + static_cast<int>(random.below(5));
          c.n_dsts = 1 + static_cast<int>(random.below(5));
          c.aliases = static_cast<int>(
              random.below(static_cast<uint64_t>(std::min(c.n_srcs, c.n_dsts)) + 1));
          c.store = trial % 3 == 0 ? Store::cached : Store::streaming;
          check(c, random);
          if (HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(ReduceTo, MoreSourcesAndDestinationsThanAnyHasRanks) {
  Random random(22);
  for (const int n : {63, 64, 65, 130})
    for (const Store store : {Store::cached, Store::streaming})
      for (const Datatype type : {Datatype::float32, Datatype::int8, Datatype::bfloat16}) {
        check({type, Reduction::avg, 3000, n, n, n / 2, true, store}, random);
        ASSERT_FALSE(HasFatalFailure());
      }
}

TEST(CopyTo, EveryDestinationGetsTheBytes) {
  Random random(23);
  on_each_target([&] {
    for (const Store store : {Store::by_size, Store::cached, Store::streaming}) {
      for (const size_t bytes : {0, 1, 63, 255, 4096, 8191, 8192, 8193, 70001}) {
        for (int n_dsts = 1; n_dsts <= 4; n_dsts++) {
          Guarded src(bytes, random.below(64));
          fill(src.data(), bytes, Datatype::uint8, random);
          const std::vector<uint8_t> expected(src.data(), src.data() + bytes);
          std::vector<Guarded> dsts;
          std::vector<void*> pointers;
          for (int d = 0; d < n_dsts; d++) dsts.emplace_back(bytes, random.below(64));
          for (Guarded& dst : dsts) pointers.push_back(dst.data());
          // The last destination is the source itself, now and then.
          if (bytes % 2 == 1) pointers.back() = src.data();
          copy_to(pointers.data(), n_dsts, src.data(), bytes, store);
          ASSERT_TRUE(src.guards_are_whole());
          for (const Guarded& dst : dsts) ASSERT_TRUE(dst.guards_are_whole());
          for (void* dst : pointers)
            ASSERT_TRUE(bytes == 0 || std::memcmp(dst, expected.data(), bytes) == 0) << bytes;
        }
      }
    }
  });
}

}  // namespace
}  // namespace railccl::kernels
