/* A tuner plugin for the tests, in the version of NCCL's plugin interface that -DVERSION=2 ... 5
 * asks for, declared from the interface's documentation, apart from src/runtime/tuner_abi.h: the
 * two have to fit. It wants what the tests say: "ALGORITHM:CHANNELS", each of which may be missing,
 * or a way to misbehave. */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#error "which version of the interface?"
#endif

enum { kSuccess = 0, kSystemError = 2, kInternalError = 3, kInfo = 3, kTuningTopic = 64 };
enum { kAlgorithms = 7, kProtocols = 3, kSimple = 2 };
typedef int result_t;
typedef void (*logger_t)(int, unsigned long, const char*, int, const char*, ...);

static const char* const kNames[kAlgorithms] = {
    "tree", "ring", "collnet_direct", "collnet_chain", "nvls", "nvls_tree", "pat"};

/* What the tests look at and set. */
__attribute__((visibility("default"))) char example_wish[64];
__attribute__((visibility("default"))) int example_contexts; /* that were not given back */
__attribute__((visibility("default"))) int example_asked;
__attribute__((visibility("default"))) int example_function; /* of the last question */
__attribute__((visibility("default"))) size_t example_bytes, example_ranks, example_hosts;
__attribute__((visibility("default"))) float example_table[kAlgorithms][kProtocols];

static int wished(const char* what) { return strcmp(example_wish, what) == 0; }

static result_t begin(size_t ranks, size_t hosts, logger_t logger, void** context) {
  if (logger == NULL || context == NULL) return kInternalError;
  logger(kInfo, kTuningTopic, __FILE__, __LINE__, "example tuner v%d", VERSION);
  if (wished("fail_init")) return kSystemError;
  example_ranks = ranks;
  example_hosts = hosts;
  *context = malloc(1);
  __atomic_add_fetch(&example_contexts, 1, __ATOMIC_RELAXED);
  return kSuccess;
}

#if VERSION >= 5
typedef struct {
  int nNvlDomains;
  int minRanksPerNvlDomain;
  int maxRanksPerNvlDomain;
} domains_t;
typedef struct {
  double baseLatencies[7][3];
  double hwLatencies[3][7][3];
  double llMaxBws[4][3];
  double perChMaxRingLL128Bws[4][3];
  double perChMaxTreeLL128Bws[4][3];
  double perChMaxTreeBws[4][3];
  double perChMaxNVLSTreeBws[4][3];
} constants_t;

static result_t init(void** context, uint64_t communicator, size_t ranks, size_t hosts,
                     logger_t logger, domains_t* domains, constants_t* constants) {
  (void)communicator;
  if (domains == NULL || constants == NULL || domains->nNvlDomains != (int)hosts ||
      domains->minRanksPerNvlDomain > domains->maxRanksPerNvlDomain ||
      (size_t)(domains->nNvlDomains * domains->maxRanksPerNvlDomain) < ranks)
    return kInternalError;
  if (wished("constants")) constants->perChMaxNVLSTreeBws[3][2] = 1;
  return begin(ranks, hosts, logger, context);
}
#else
static result_t init(size_t ranks, size_t hosts, logger_t logger, void** context) {
  return begin(ranks, hosts, logger, context);
}
#endif

static int wanted_algorithm(void) {
  for (int i = 0; i < kAlgorithms; i++) {
    const size_t length = strlen(kNames[i]);
    const char end = strncmp(example_wish, kNames[i], length) == 0 ? example_wish[length] : 'x';
    if (end == '\0' || end == ':') return i;
  }
  return -1;
}

static result_t note(int function, size_t bytes, int* channels) {
  const char* const colon = strchr(example_wish, ':');
  example_asked++;
  example_function = function;
  example_bytes = bytes;
  if (colon != NULL) *channels = atoi(colon + 1);
  return wished("fail") ? kSystemError : kSuccess;
}

#if VERSION >= 3
#if VERSION >= 4
static result_t ask(void* context, int function, size_t bytes, int operations, float** opaque,
                    int algorithms, int protocols, int registered, int* channels) {
  if (registered != 0 && registered != 1) return kInternalError;
#else
static result_t ask(void* context, int function, size_t bytes, int operations, float** opaque,
                    int algorithms, int protocols, int* channels) {
#endif
  float* const table = (float*)opaque;
  if (context == NULL || operations < 1 || algorithms != kAlgorithms || protocols != kProtocols)
    return kInternalError;
  memcpy(example_table, table, sizeof(example_table));
  const int wanted = wanted_algorithm();
  if (wanted >= 0) table[wanted * kProtocols + kSimple] = 0;
  for (int i = 0; i < kAlgorithms * kProtocols; i++) {
    if (wished("none")) table[i] = -1;
    if (wished("no_numbers")) table[i] = NAN;
  }
  return note(function, bytes, channels);
}
#else
static result_t ask(void* context, int function, size_t bytes, int collnet, int nvls,
                    int operations, int* algorithm, int* protocol, int* channels) {
  if (context == NULL || operations < 1 || collnet != 0 || nvls != 0) return kInternalError;
  if (wanted_algorithm() >= 0) {
    *algorithm = wanted_algorithm();
    *protocol = kSimple;
  }
  if (wished("absurd")) *algorithm = *protocol = 1000;
  return note(function, bytes, channels);
}
#endif

static result_t end(void* context) {
  free(context);
  __atomic_sub_fetch(&example_contexts, 1, __ATOMIC_RELAXED);
  return kSuccess;
}

struct tuner {
  const char* name;
#if VERSION >= 5
  result_t (*init)(void**, uint64_t, size_t, size_t, logger_t, domains_t*, constants_t*);
#else
  result_t (*init)(size_t, size_t, logger_t, void**);
#endif
#if VERSION >= 4
  result_t (*getCollInfo)(void*, int, size_t, int, float**, int, int, int, int*);
#elif VERSION >= 3
  result_t (*getCollInfo)(void*, int, size_t, int, float**, int, int, int*);
#else
  result_t (*getCollInfo)(void*, int, size_t, int, int, int, int*, int*, int*);
#endif
  result_t (*end)(void*); /* destroy; from v5 on: finalize */
};

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
__attribute__((visibility("default"))) struct tuner JOIN(ncclTunerPlugin_v, VERSION) = {
    "Example", init, ask, end};
