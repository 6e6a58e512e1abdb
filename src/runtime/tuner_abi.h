// The binary interfaces of NCCL's tuner plugins, versions 2 to 5: what a library has under the
// symbols ncclTunerPlugin_v2 to ncclTunerPlugin_v5. Layouts, numbers and signatures are others' and
// never change; names are ours.
//
//   v2  the plugin names an algorithm and a protocol
//   v3  it is given a table of what each pair of them costs, in microseconds, and changes it
//   v4  the same, and is told whether buffers are registered
//   v5  the same, and init() knows more
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/plugin.h"

namespace railccl::runtime::tuner_abi {

enum Function : int { kBroadcast, kReduce, kAllGather, kReduceScatter, kAllReduce };
/// Rows of the table.
enum Algorithm : int {
  kTree,
  kRing,
  kCollnetDirect,
  kCollnetChain,
  kNvls,
  kNvlsTree,
  kPat,
  kAlgorithms,
};
/// Its columns: LL, LL128, Simple.
inline constexpr int kProtocols = 3;
/// Stands where there is no such pair.
inline constexpr float kIgnore = -1;

using Init2 = PluginResult(size_t ranks, size_t hosts, PluginLogger logger, void** context);
using Ask2 = PluginResult(void* context, int function, size_t bytes, int collnet, int nvls,
                          int operations, int* algorithm, int* protocol, int* channels);
/// `table` is not a pointer to pointers, but to the first of algorithms x protocols figures.
using Ask3 = PluginResult(void* context, int function, size_t bytes, int operations, float** table,
                          int algorithms, int protocols, int* channels);
using Ask4 = PluginResult(void* context, int function, size_t bytes, int operations, float** table,
                          int algorithms, int protocols, int registered, int* channels);
using End = PluginResult(void* context);

struct Tuner2 {
  const char* name;
  Init2* init;
  Ask2* ask;
  End* end;
};

struct Tuner3 {
  const char* name;
  Init2* init;
  Ask3* ask;
  End* end;
};

struct Tuner4 {
  const char* name;
  Init2* init;
  Ask4* ask;
  End* end;
};

/// Groups of ranks at one NVLink switch; of hosts, where there is none between them.
struct Domains5 {
  int count;
  int ranks_min;
  int ranks_max;
};

/// Of NCCL's model of what algorithms cost: the plugin may change them.
struct Constants5 {
  double base_latencies[kAlgorithms][kProtocols];
  double link_latencies[3][kAlgorithms][kProtocols];
  double ll_most[4][3];
  double ring_ll128_most[4][3];
  double tree_ll128_most[4][3];
  double tree_most[4][3];
  double nvls_tree_most[4][3];
};

using Init5 = PluginResult(void** context, uint64_t communicator, size_t ranks, size_t hosts,
                           PluginLogger logger, Domains5* domains, Constants5* constants);

struct Tuner5 {
  const char* name;
  Init5* init;
  Ask4* ask;
  End* end;
};

static_assert(kAllReduce == 4 && kPat == 6 && kAlgorithms == 7);
static_assert(sizeof(Tuner2) == 32 && offsetof(Tuner2, ask) == 16 && offsetof(Tuner2, end) == 24);
static_assert(sizeof(Tuner3) == 32 && offsetof(Tuner3, ask) == 16 && offsetof(Tuner3, end) == 24);
static_assert(sizeof(Tuner4) == 32 && offsetof(Tuner4, ask) == 16 && offsetof(Tuner4, end) == 24);
static_assert(sizeof(Tuner5) == 32 && offsetof(Tuner5, ask) == 16 && offsetof(Tuner5, end) == 24);
static_assert(sizeof(Domains5) == 12 && sizeof(Constants5) == 1152);
static_assert(offsetof(Constants5, link_latencies) == 168 && offsetof(Constants5, ll_most) == 672);
static_assert(offsetof(Constants5, tree_ll128_most) == 864);
static_assert(offsetof(Constants5, nvls_tree_most) == 1056);

}  // namespace railccl::runtime::tuner_abi
