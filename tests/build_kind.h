// Which build a test is part of: sweeps are whole in plain builds, and shorter under sanitizers,
// which take ten times as long and see in a tenth of the cases what they would see in all.
#pragma once

namespace railccl::test {

enum class BuildKind { plain, address, thread };
#if defined(__SANITIZE_THREAD__)
inline constexpr BuildKind kBuildKind = BuildKind::thread;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr BuildKind kBuildKind = BuildKind::address;
#else
inline constexpr BuildKind kBuildKind = BuildKind::plain;
#endif

/// The figure for this build: for a plain one, under the address and under the thread sanitizer.
template <typename T>
constexpr T by_build(T plain, T address, T thread) {
  if (kBuildKind == BuildKind::thread) return thread;
  return kBuildKind == BuildKind::address ? address : plain;
}

/// Ends a test that has one thread, in which the thread sanitizer finds no races.
#define RAILCCL_SKIP_WITHOUT_THREADS()                                   \
  if (::railccl::test::kBuildKind == ::railccl::test::BuildKind::thread) \
  GTEST_SKIP() << "one thread: no races to look for"

}  // namespace railccl::test
