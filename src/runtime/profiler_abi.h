// The binary interfaces of NCCL's profiler plugins, versions 1 to 5: what a library has under the
// symbols ncclProfiler_v1 to ncclProfiler_v5. Layouts, numbers and signatures are others' and never
// change; names are ours, and only what is told here is spelt out.
//
//   v1  collectives, datatypes and algorithms are numbers
//   v2  they are text
//   v3  kernels and network plugins have events, too, which there are none of here
//   v4  the communicator's name and number are told once, to init(), and the log to write to
//   v5  calls of the API have events of their own, of which those of before are children
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "base/plugin.h"

namespace railccl::runtime::profiler_abi {

/// Bits of the mask of what the plugin wants, and an event's type.
enum Bit : int {
  kGroup = 1 << 0,
  kCollective = 1 << 1,
  kTransfer = 1 << 2,
  kProxyOp = 1 << 3,
  kGroupApi = 1 << 8,
  kCollectiveApi = 1 << 9,
  kTransferApi = 1 << 10,
};

enum State : int {
  kSendPosted = 0,
  kSendDone = 3,
  kReceivePosted = 4,
  kReceiveDone = 7,
  kProxyOpInProgress = 19,
  kEndGroupApiStart = 23,
  kBeginGroupApiEnd = 24,
};

/// Version 1: a collective's number where it has one.
enum Function1 : uint8_t {
  kBroadcast,
  kReduce,
  kAllGather,
  kReduceScatter,
  kAllReduce,
  kSend = 6,
  kReceive = 7,
  kOther = 255,
};
enum Algorithm1 : uint8_t { kTree = 0, kRing = 1, kPat = 6, kOtherAlgorithm = 255 };
inline constexpr uint8_t kSimple1 = 2;

struct ProxyOp {
  pid_t pid;
  uint8_t channel;
  int peer;
  int steps;
  int chunk_bytes;
  int sends;
};

struct Collective1 {
  const char* name;
  uint64_t communicator;
  uint64_t sequence;
  uint8_t function;
  const void* input;
  void* output;
  size_t count;
  int root;
  uint8_t datatype;
  uint32_t op;
  size_t traffic_bytes;
  uint8_t channels;
  uint8_t warps;
  uint8_t algorithm;
  uint8_t protocol;
  int collnet;
  int nvls;
};
struct Transfer1 {
  const char* name;
  uint64_t communicator;
  uint8_t function;
  void* buffer;
  uint8_t datatype;
  size_t count;
  int peer;
};
struct Event1 {
  uint8_t type;
  void* parent;
  int rank;
  union {
    Collective1 collective;
    Transfer1 transfer;
    ProxyOp proxy_op;
  };
};

struct Collective2 {
  const char* name;
  uint64_t communicator;
  uint64_t sequence;
  const char* function;
  const void* input;
  void* output;
  size_t count;
  int root;
  const char* datatype;
  size_t traffic_bytes;
  uint8_t channels;
  uint8_t warps;
  const char* algorithm;
  const char* protocol;
};
struct Transfer2 {
  const char* name;
  uint64_t communicator;
  const char* function;
  void* buffer;
  const char* datatype;
  size_t count;
  int peer;
};
struct Event2 {
  uint8_t type;
  void* parent;
  int rank;
  union {
    Collective2 collective;
    Transfer2 transfer;
    ProxyOp proxy_op;
  };
};

struct Collective3 {
  const char* name;
  uint64_t communicator;
  uint64_t sequence;
  const char* function;
  const void* input;
  void* output;
  size_t count;
  int root;
  const char* datatype;
  uint8_t channels;
  uint8_t warps;
  const char* algorithm;
  const char* protocol;
};
struct Event3 {
  uint8_t type;
  void* parent;
  int rank;
  union {
    Collective3 collective;
    Transfer2 transfer;
    ProxyOp proxy_op;
  };
};

struct Collective4 {
  uint64_t sequence;
  const char* function;
  const void* input;
  void* output;
  size_t count;
  int root;
  const char* datatype;
  uint8_t channels;
  uint8_t warps;
  const char* algorithm;
  const char* protocol;
};
struct Transfer4 {
  const char* function;
  void* buffer;
  const char* datatype;
  size_t count;
  int peer;
  uint8_t channels;
};
struct Event4 {
  uint8_t type;
  void* parent;
  int rank;
  union {
    Collective4 collective;
    Transfer4 transfer;
    ProxyOp proxy_op;
  };
};

struct GroupApi5 {
  bool captured;
  int depth;
};
struct CollectiveApi5 {
  const char* function;
  size_t count;
  const char* datatype;
  int root;
  void* stream;
  bool captured;
};
struct TransferApi5 {
  const char* function;
  size_t count;
  const char* datatype;
  void* stream;
  bool captured;
};
struct Collective5 {
  uint64_t sequence;
  const char* function;
  const void* input;
  void* output;
  size_t count;
  int root;
  const char* datatype;
  uint8_t channels;
  uint8_t warps;
  const char* algorithm;
  const char* protocol;
  void* group;
};
struct Transfer5 {
  const char* function;
  void* buffer;
  const char* datatype;
  size_t count;
  int peer;
  uint8_t channels;
  void* group;
};
struct Event5 {
  uint64_t type;
  void* parent;
  int rank;
  union {
    GroupApi5 group_api;
    CollectiveApi5 collective_api;
    TransferApi5 transfer_api;
    Collective5 collective;
    Transfer5 transfer;
    ProxyOp proxy_op;
  };
};

/// What a new state brings; from version 4 on a proxy operation's brings nothing.
struct Arguments {
  size_t bytes;
  int steps;
};

template <typename Event>
using Start = PluginResult(void* context, void** handle, Event* event);
using Stop = PluginResult(void* handle);
using Record = PluginResult(void* handle, State state, Arguments* arguments);
using End = PluginResult(void* context);
using Init1 = PluginResult(void** context, int* mask);
using Init4 = PluginResult(void** context, int* mask, const char* name, uint64_t communicator,
                           int hosts, int ranks, int rank, PluginLogger logger);
using Init5 = PluginResult(void** context, uint64_t communicator, int* mask, const char* name,
                           int hosts, int ranks, int rank, PluginLogger logger);

template <typename Init, typename Event>
struct Functions {
  const char* name;
  Init* init;
  Start<Event>* start;
  Stop* stop;
  Record* record;
  End* end;
};
using Profiler1 = Functions<Init1, Event1>;
using Profiler2 = Functions<Init1, Event2>;
using Profiler3 = Functions<Init1, Event3>;
using Profiler4 = Functions<Init4, Event4>;
using Profiler5 = Functions<Init5, Event5>;

}  // namespace railccl::runtime::profiler_abi
