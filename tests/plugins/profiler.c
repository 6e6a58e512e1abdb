/* A profiler plugin for the tests, in the version of NCCL's plugin interface that -DVERSION=1 ... 5
 * asks for, declared from the interface's documentation, apart from src/runtime/profiler_abi.h: the
 * two have to fit. It writes a line for each event into a file that EXAMPLE_PROFILER_FILE names:
 *
 *   start NUMBER PARENT KIND WORDS...     state NUMBER STATE BYTES STEPS     stop NUMBER
 *
 * EXAMPLE_PROFILER_MASK says which kinds it wants, EXAMPLE_PROFILER_FAULT how it misbehaves. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#ifndef VERSION
#error "which version of the interface?"
#endif

enum { kSuccess = 0, kSystemError = 2, kInternalError = 3, kInfo = 3 };
enum {
  kGroup = 1,
  kColl = 2,
  kP2p = 4,
  kProxyOp = 8,
  kGroupApi = 256,
  kCollApi = 512,
  kP2pApi = 1024
};
typedef int result_t;
typedef void (*logger_t)(int, unsigned long, const char*, int, const char*, ...);

#if VERSION == 1
typedef uint8_t word_t;
#define WORD "%d"
#else
typedef const char* word_t;
#define WORD "%s"
#endif

typedef struct {
#if VERSION >= 5
  uint64_t type;
#else
  uint8_t type;
#endif
  void* parentObj;
  int rank;
  union {
#if VERSION >= 5
    struct {
      bool graphCaptured;
      int groupDepth;
    } groupApi;
    struct {
      const char* func;
      size_t count;
      const char* datatype;
      int root;
      void* stream;
      bool graphCaptured;
    } collApi;
    struct {
      const char* func;
      size_t count;
      const char* datatype;
      void* stream;
      bool graphCaptured;
    } p2pApi;
#endif
    struct {
#if VERSION <= 3
      const char* name;
      uint64_t commHash;
#endif
      uint64_t seqNumber;
      word_t func;
      void const* sendBuff;
      void* recvBuff;
      size_t count;
      int root;
      word_t datatype;
#if VERSION == 1
      uint32_t op;
#endif
#if VERSION <= 2
      size_t trafficBytes;
#endif
      uint8_t nChannels;
      uint8_t nWarps;
      word_t algo;
      word_t proto;
#if VERSION == 1
      int isCollnet;
      int isNvls;
#endif
#if VERSION >= 5
      void* parentGroup;
#endif
    } coll;
    struct {
#if VERSION <= 3
      const char* name;
      uint64_t commHash;
#endif
      word_t func;
      void* buff;
      word_t datatype;
      size_t count;
      int peer;
#if VERSION >= 4
      uint8_t nChannels;
#endif
#if VERSION >= 5
      void* parentGroup;
#endif
    } p2p;
    struct {
      pid_t pid;
      uint8_t channelId;
      int peer;
      int nSteps;
      int chunkSize;
      int isSend;
    } proxyOp;
#if VERSION >= 4
    struct {
      uint8_t channelId;
      uint64_t pTimer;
    } kernelCh;
#endif
  } of;
} event_t;

typedef union {
#if VERSION <= 3
  struct {
    size_t transSize;
    int steps;
  } proxyOp;
#else
  struct {
    size_t transSize;
  } proxyStep;
#endif
} state_t;

/* Sizes and places as this compiler lays them out, for the tests to compare. */
#define PLACE(member) (int)offsetof(event_t, member)
__attribute__((visibility("default"))) const int example_layout[] = {
    (int)sizeof(event_t),  PLACE(parentObj),         PLACE(rank),         PLACE(of.coll.seqNumber),
    PLACE(of.coll.func),   PLACE(of.coll.recvBuff),  PLACE(of.coll.root), PLACE(of.coll.datatype),
    PLACE(of.coll.nWarps), PLACE(of.coll.proto),     PLACE(of.p2p.buff),  PLACE(of.p2p.peer),
    PLACE(of.proxyOp.pid), PLACE(of.proxyOp.isSend),
};
__attribute__((visibility("default"))) int example_contexts; /* that were not given back */

struct context {
  FILE* file;
  int events;
};
struct handle {
  struct context* context;
  int number;
};

static int faulty(const char* what) {
  const char* const fault = getenv("EXAMPLE_PROFILER_FAULT");
  return fault != NULL && strcmp(fault, what) == 0;
}

static result_t begin(void** context, int* mask, int rank) {
  const char* const name = getenv("EXAMPLE_PROFILER_FILE");
  const char* const wanted = getenv("EXAMPLE_PROFILER_MASK");
  if (faulty("init")) return kSystemError;
  if (name == NULL) return kInternalError;
  struct context* const made = calloc(1, sizeof(*made));
  char file[4096];
  snprintf(file, sizeof(file), "%s.%d", name, rank);
  made->file = fopen(file, "w");
  if (made->file == NULL) return kSystemError;
  *mask = wanted == NULL ? 4095 : atoi(wanted);
  *context = made;
  __atomic_add_fetch(&example_contexts, 1, __ATOMIC_RELAXED);
  return kSuccess;
}

#if VERSION >= 4
static result_t tell(void** context, int* mask, const char* name, int hosts, int ranks, int rank,
                     logger_t logger) {
  if (logger == NULL) return kInternalError;
  logger(kInfo, 1024, __FILE__, __LINE__, "example profiler v%d", VERSION);
  const result_t result = begin(context, mask, rank);
  if (result == kSuccess)
    fprintf(((struct context*)*context)->file, "init %s %d %d %d\n", name == NULL ? "-" : name,
            hosts, ranks, rank);
  return result;
}
#endif
#if VERSION >= 5
static result_t init(void** context, uint64_t commId, int* mask, const char* name, int hosts,
                     int ranks, int rank, logger_t logger) {
  (void)commId;
#elif VERSION == 4
static result_t init(void** context, int* mask, const char* name, uint64_t commHash, int hosts,
                     int ranks, int rank, logger_t logger) {
  (void)commHash;
#endif
#if VERSION >= 4
  return tell(context, mask, name, hosts, ranks, rank, logger);
}
#else
  static result_t init(void** context, int* mask) {
    static int ranks;
    return begin(context, mask, __atomic_fetch_add(&ranks, 1, __ATOMIC_RELAXED));
  }
#endif

static int number_of(const void* handle) {
  return handle == NULL ? 0 : ((const struct handle*)handle)->number;
}

static result_t start(void* opaque, void** handle, event_t* event) {
  struct context* const context = opaque;
  if (faulty("start")) return kInternalError;
  struct handle* const made = malloc(sizeof(*made));
  made->context = context;
  made->number = ++context->events;
  FILE* const file = context->file;
  fprintf(file, "start %d %d ", made->number, number_of(event->parentObj));
  switch ((int)event->type) {
    case kGroup:
      fprintf(file, "group\n");
      break;
    case kColl:
      fprintf(file, "coll " WORD " " WORD " " WORD " %zu %d %d %d\n", event->of.coll.func,
              event->of.coll.datatype, event->of.coll.algo, event->of.coll.count,
              event->of.coll.root, (int)event->of.coll.seqNumber, event->of.coll.nChannels);
      break;
    case kP2p:
      fprintf(file, "p2p " WORD " " WORD " %zu %d\n", event->of.p2p.func, event->of.p2p.datatype,
              event->of.p2p.count, event->of.p2p.peer);
      break;
    case kProxyOp:
      fprintf(file, "proxy %d %d %d %d %d\n", event->of.proxyOp.channelId, event->of.proxyOp.peer,
              event->of.proxyOp.nSteps, event->of.proxyOp.chunkSize, event->of.proxyOp.isSend);
      break;
#if VERSION >= 5
    case kGroupApi:
      fprintf(file, "group_api %d\n", event->of.groupApi.groupDepth);
      break;
    case kCollApi:
      fprintf(file, "coll_api %s %s %zu\n", event->of.collApi.func, event->of.collApi.datatype,
              event->of.collApi.count);
      break;
    case kP2pApi:
      fprintf(file, "p2p_api %s %s %zu\n", event->of.p2pApi.func, event->of.p2pApi.datatype,
              event->of.p2pApi.count);
      break;
#endif
    default:
      fprintf(file, "unknown %d\n", (int)event->type);
  }
  *handle = made;
  return kSuccess;
}

static result_t stop(void* opaque) {
  struct handle* const handle = opaque;
  fprintf(handle->context->file, "stop %d\n", handle->number);
  free(handle);
  return kSuccess;
}

static result_t record(void* opaque, int state, state_t* arguments) {
  struct handle* const handle = opaque;
#if VERSION <= 3
  const size_t bytes = arguments == NULL ? 0 : arguments->proxyOp.transSize;
  const int steps = arguments == NULL ? 0 : arguments->proxyOp.steps;
#else
    const size_t bytes = arguments == NULL ? 0 : arguments->proxyStep.transSize;
    const int steps = 0;
#endif
  fprintf(handle->context->file, "state %d %d %zu %d\n", handle->number, state, bytes, steps);
  return kSuccess;
}

static result_t finalize(void* opaque) {
  struct context* const context = opaque;
  fprintf(context->file, "end\n");
  fclose(context->file);
  free(context);
  __atomic_sub_fetch(&example_contexts, 1, __ATOMIC_RELAXED);
  return kSuccess;
}

struct profiler {
  const char* name;
#if VERSION >= 5
  result_t (*init)(void**, uint64_t, int*, const char*, int, int, int, logger_t);
#elif VERSION == 4
    result_t (*init)(void**, int*, const char*, uint64_t, int, int, int, logger_t);
#else
  result_t (*init)(void**, int*);
#endif
  result_t (*startEvent)(void*, void**, event_t*);
  result_t (*stopEvent)(void*);
  result_t (*recordEventState)(void*, int, state_t*);
  result_t (*finalize)(void*);
};

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
__attribute__((visibility("default"))) struct profiler JOIN(ncclProfiler_v, VERSION) = {
    "Example", init, start, stop, record, finalize};
