/* nccl.h: collective communication between ranks, source and binary compatible with NCCL 2.28.9,
 * and with 2.31.2 where that is asked for.
 *
 * This header is railccl's own text for NCCL's interface: the same names, numbers, structure
 * layouts and function signatures, so that programs written for NCCL compile against it and
 * programs linked with NCCL run with it. It works with the CUDA toolkit (whose headers it then
 * includes, as NCCL's does) and without it; define RAILCCL_NO_CUDA to do without in any case.
 * Plain C99 or C++. What NCCL has added up to 2.31.2 is in every library; programs that want it
 * declared define RAILCCL_NCCL_VERSION as 23102 before they include this header.
 *
 * Conventions
 *   Buffers    ordinary host memory of any origin. Counts are in elements.
 *   Streams    a null stream means complete on return. railcclStreamCreate() in railccl/railccl.h
 *              makes an ordered queue that is usable as a cudaStream_t.
 *   Errors     every call returns ncclSuccess or why not; ncclGetLastError() has the sentence.
 *              Outputs are set on success only.
 *   Threads    a communicator is used by one thread at a time; ncclCommAbort and
 *              ncclCommGetAsyncError may be called from any thread at any time. Everything else
 *              may be called concurrently.
 *   Order      all ranks of a communicator make the same collective calls in the same order. When
 *              they do not, all of them get ncclInvalidUsage and a text naming both calls.
 *   Profilers  each ncclX is a weak alias of pncclX: a tool may define ncclX and call pncclX.
 */
#ifndef NCCL_H_
#define NCCL_H_

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(RAILCCL_NO_CUDA) && defined(__has_include)
#if __has_include(<cuda_runtime.h>)
#define RAILCCL_HAVE_CUDA_HEADERS 1
#endif
#endif
#ifdef RAILCCL_HAVE_CUDA_HEADERS
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#if CUDART_VERSION >= 11000
#include <cuda_bf16.h>
#endif
#if defined(__cplusplus) && CUDART_VERSION >= 11080
#include <cuda_fp8.h>
#endif
#else
/* The same type that CUDA's own headers give this name, so that both may be included. */
typedef struct CUstream_st* cudaStream_t;
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ---------------------------------------------------------------------------- */

/* The interface version this header follows; railccl's own version is in railccl/railccl.h. */
#ifndef RAILCCL_NCCL_VERSION
#define RAILCCL_NCCL_VERSION 22809
#endif
#define NCCL_MAJOR 2
#if RAILCCL_NCCL_VERSION == 22809
#define NCCL_MINOR 28
#define NCCL_PATCH 9
#define NCCL_VERSION_CODE 22809
#elif RAILCCL_NCCL_VERSION == 23102
#define NCCL_MINOR 31
#define NCCL_PATCH 2
#define NCCL_VERSION_CODE 23102
#else
#error "RAILCCL_NCCL_VERSION must be 22809 (the default) or 23102"
#endif
#define NCCL_SUFFIX ""
/* Up to 2.8 a version was coded with two digits less. */
#define NCCL_VERSION(X, Y, Z) \
  (((X) <= 2 && (Y) <= 8) ? (X)*1000 + (Y)*100 + (Z) : (X)*10000 + (Y)*100 + (Z))

/* ---- Types ------------------------------------------------------------------------------ */

/* A rank's membership in a communicator; owned by the caller until destroy or abort. */
typedef struct ncclComm* ncclComm_t;
#define NCCL_COMM_NULL NULL

/* A registered range of memory; see ncclCommWindowRegister. */
typedef struct ncclWindow_vidmem* ncclWindow_t;

/* How the ranks of a new communicator find each other: 128 bytes to copy from one to all. They
 * contain a secret that keeps strangers out, so hand them around by a private channel. */
#define NCCL_UNIQUE_ID_BYTES 128
typedef struct {
  char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

typedef enum {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1, /* the call needs a GPU or its driver, and that failed */
  ncclSystemError = 2,        /* an operating system call failed */
  ncclInternalError = 3,      /* a bug in the library */
  ncclInvalidArgument = 4,    /* an argument is wrong by itself */
  ncclInvalidUsage = 5,       /* arguments are fine, their combination or order is not */
  ncclRemoteError = 6,        /* another rank failed, vanished or did not come in time */
  ncclInProgress = 7,         /* a non-blocking call goes on in the background */
#if RAILCCL_NCCL_VERSION >= 23003
  ncclTimeout = 8, /* not given by railccl: whoever waited too long gets ncclRemoteError */
  ncclNumResults = 9
#else
  ncclNumResults = 8
#endif
} ncclResult_t;

typedef enum {
  ncclInt8 = 0,
  ncclChar = 0,
  ncclUint8 = 1,
  ncclInt32 = 2,
  ncclInt = 2,
  ncclUint32 = 3,
  ncclInt64 = 4,
  ncclUint64 = 5,
  ncclFloat16 = 6, /* IEEE half */
  ncclHalf = 6,
  ncclFloat32 = 7,
  ncclFloat = 7,
  ncclFloat64 = 8,
  ncclDouble = 8,
  ncclBfloat16 = 9,
  ncclFloat8e4m3 = 10, /* 4 exponent bits, finite values only */
  ncclFloat8e5m2 = 11, /* 5 exponent bits, with infinities */
  ncclNumTypes = 12
} ncclDataType_t;

/* Only there to learn the size of an enum in the next type. */
typedef enum { ncclNumOps_dummy = 5 } ncclRedOp_dummy_t;

typedef enum {
  ncclSum = 0,
  ncclProd = 1,
  ncclMax = 2,
  ncclMin = 3,
  ncclAvg = 4, /* the sum divided by the number of ranks */
  /* The number of built-in operators, and the first value a made operator can have. */
  ncclNumOps = 5,
  /* The last value a made operator can have: the enum's size never changes with it. */
  ncclMaxRedOp = 0x7fffffff >> (32 - 8 * sizeof(ncclRedOp_dummy_t))
} ncclRedOp_t;

/* When the scalar of a made operator is read. */
typedef enum {
  ncclScalarDevice = 0,       /* while a collective runs; on host memory: when it is called */
  ncclScalarHostImmediate = 1 /* before the operator's creation returns */
} ncclScalarResidence_t;

/* ---- Options of a communicator ---------------------------------------------------------- */

#define NCCL_CONFIG_UNDEF_INT INT_MIN
#define NCCL_CONFIG_UNDEF_PTR NULL
#define NCCL_UNDEF_FLOAT -1.0f

/* ncclConfig_t::CTAPolicy */
#define NCCL_CTA_POLICY_DEFAULT 0x00
#define NCCL_CTA_POLICY_EFFICIENCY 0x01
#define NCCL_CTA_POLICY_ZERO 0x02

/* Start from NCCL_CONFIG_INITIALIZER and set what you care about. Fields that steer GPU work are
 * checked and otherwise without effect on host memory: cgaClusterSize, netName, trafficClass,
 * collnetEnable, CTAPolicy, nvlsCTAs, nChannelsPerNetPeer, nvlinkCentricSched, and of the later
 * ones all but numRmaCtx and numRmaSig. The library takes this struct from programs built with any
 * header since 2.14, and reads no field that their version did not have. */
#if RAILCCL_NCCL_VERSION >= 23102
typedef struct ncclConfig_v23100 {
#else
typedef struct ncclConfig_v22800 {
#endif
  size_t size; /* the first three identify the layout: leave them alone */
  unsigned int magic;
  unsigned int version;
  int blocking; /* 0: calls return at once, ask ncclCommGetAsyncError; default 1 */
  int cgaClusterSize;
  int minCTAs; /* least number of channels */
  int maxCTAs; /* largest number of channels */
  const char* netName;
  int splitShare; /* 1: communicators split from this one may share its resources */
  int trafficClass;
  const char* commName; /* for logs and error texts; copied */
  int collnetEnable;
  int CTAPolicy;
  int shrinkShare; /* as splitShare, for ncclCommShrink */
  int nvlsCTAs;
  int nChannelsPerNetPeer;
  int nvlinkCentricSched;
#if RAILCCL_NCCL_VERSION >= 23102
  int graphUsageMode;
  int numRmaCtx; /* contexts of one-sided operations; default 1 */
  int maxP2pPeers;
  int graphStreamOrdering;
  int launchOrderImplicit;
  int numRmaSig; /* signals per context and peer; default 1 */
  int rmaEagerInit;
  int hostCftMode;
#endif
} ncclConfig_t;

#if RAILCCL_NCCL_VERSION >= 23102
#define RAILCCL_CONFIG_LATER                                                                    \
  , NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, \
      NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT
#else
#define RAILCCL_CONFIG_LATER
#endif
#define NCCL_CONFIG_INITIALIZER                                                         \
  {                                                                                     \
    sizeof(ncclConfig_t), 0xcafebeef, NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH), \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT,            \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_PTR, NCCL_CONFIG_UNDEF_INT,            \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_PTR, NCCL_CONFIG_UNDEF_INT,            \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT,            \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT RAILCCL_CONFIG_LATER               \
  }

/* What ncclGroupSimulateEnd tells. */
typedef struct ncclSimInfo_v22200 {
  size_t size; /* the first three identify the layout: leave them alone */
  unsigned int magic;
  unsigned int version;
  float estimatedTime; /* microseconds */
} ncclSimInfo_t;

#define NCCL_SIM_INFO_INITIALIZER                                                        \
  {                                                                                      \
    sizeof(ncclSimInfo_t), 0x74685283, NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH), \
        NCCL_UNDEF_FLOAT                                                                 \
  }

/* Each line declares the function and its profiling twin pncclX. */
#define RAILCCL_DECLARE(result, name, arguments) \
  result name arguments;                         \
  result p##name arguments

/* ---- The library ------------------------------------------------------------------------ */

/* NCCL_VERSION_CODE of the interface that the library at hand implements. */
RAILCCL_DECLARE(ncclResult_t, ncclGetVersion, (int* version));

/* A constant sentence for a result code; never null. */
RAILCCL_DECLARE(const char*, ncclGetErrorString, (ncclResult_t result));

/* What went wrong last, in words: in this thread, or, with a communicator whose failure came in
 * the background, there. `comm` may be null. Valid until this thread's next failing call. */
RAILCCL_DECLARE(const char*, ncclGetLastError, (ncclComm_t comm));

/* Reads the logging variables of the environment again. */
#if defined(__GNUC__)
__attribute__((deprecated("not part of the interface; will go away"))) void ncclResetDebugInit(
    void);
__attribute__((deprecated("not part of the interface; will go away"))) void pncclResetDebugInit(
    void);
#else
RAILCCL_DECLARE(void, ncclResetDebugInit, (void));
#endif

/* Zeroed memory that suits every transport, at least NCCL_WIN_REQUIRED_ALIGNMENT aligned; `size`
 * is rounded up. Give it back with ncclMemFree. */
RAILCCL_DECLARE(ncclResult_t, ncclMemAlloc, (void** ptr, size_t size));
/* A null pointer is allowed and does nothing. */
RAILCCL_DECLARE(ncclResult_t, ncclMemFree, (void* ptr));

/* ---- Communicators ---------------------------------------------------------------------- */

/* Makes an id; one rank calls this and gives the id to all. The ranks meet at this process, which
 * has to live until they have. With NCCL_COMM_ID=host:port every process gets the same id and
 * nothing needs to be handed around. */
RAILCCL_DECLARE(ncclResult_t, ncclGetUniqueId, (ncclUniqueId * uniqueId));

/* Joins as `rank` of `nranks`; returns when all have. Within a group the ranks of one thread join
 * together at ncclGroupEnd. */
RAILCCL_DECLARE(ncclResult_t, ncclCommInitRank,
                (ncclComm_t * comm, int nranks, ncclUniqueId commId, int rank));
/* The same with options; `config` may be null. */
RAILCCL_DECLARE(ncclResult_t, ncclCommInitRankConfig,
                (ncclComm_t * comm, int nranks, ncclUniqueId commId, int rank,
                 ncclConfig_t* config));
/* The same with `nId` ids made by different processes, alike on all ranks. The ranks meet at the
 * first; the others are only accepted for compatibility. */
RAILCCL_DECLARE(ncclResult_t, ncclCommInitRankScalable,
                (ncclComm_t * newcomm, int nranks, int myrank, int nId, ncclUniqueId* commIds,
                 ncclConfig_t* config));
/* All `ndev` ranks of a communicator within this process; comm[i] is rank i. `devlist` may be
 * null; on host memory its entries are only checked for being distinct and not negative. */
RAILCCL_DECLARE(ncclResult_t, ncclCommInitAll, (ncclComm_t * comm, int ndev, const int* devlist));

/* Completes everything that was called, on all ranks; then only destroy is left to do. */
RAILCCL_DECLARE(ncclResult_t, ncclCommFinalize, (ncclComm_t comm));
/* Finalizes if that was not done, and frees the communicator. */
RAILCCL_DECLARE(ncclResult_t, ncclCommDestroy, (ncclComm_t comm));
/* Ends all that runs, here and on the other ranks, in bounded time, and frees the communicator. */
RAILCCL_DECLARE(ncclResult_t, ncclCommAbort, (ncclComm_t comm));

/* Ends all that runs on this communicator, on all its ranks, but keeps the handle: to be shrunk
 * with NCCL_SHRINK_ABORT, or destroyed. */
#define NCCL_REVOKE_DEFAULT 0x00
RAILCCL_DECLARE(ncclResult_t, ncclCommRevoke, (ncclComm_t comm, int revokeFlags));

/* Collective: ranks that give the same color form a new communicator, ordered by key, then by old
 * rank. With NCCL_SPLIT_NOCOLOR *newcomm is null. A null `config` inherits the options. */
#define NCCL_SPLIT_NOCOLOR -1
RAILCCL_DECLARE(ncclResult_t, ncclCommSplit,
                (ncclComm_t comm, int color, int key, ncclComm_t* newcomm, ncclConfig_t* config));

/* Called by the ranks that stay: a new communicator without the listed ones, in the old order.
 * After a failure or a revocation with NCCL_SHRINK_ABORT, by all ranks that live, alike: it fails
 * on all of them when one that stays is found gone, and can be called again. railcclCommLost tells
 * whom to list; railcclCommRecover needs no list. */
#define NCCL_SHRINK_DEFAULT 0x00 /* the old communicator is sound and idle */
#define NCCL_SHRINK_ABORT 0x01   /* end what runs on the old one first; it may have failed */
RAILCCL_DECLARE(ncclResult_t, ncclCommShrink,
                (ncclComm_t comm, int* excludeRanksList, int excludeRanksCount, ncclComm_t* newcomm,
                 ncclConfig_t* config, int shrinkFlags));

/* *asyncError: ncclSuccess, ncclInProgress, or the failure that ended the communicator. */
RAILCCL_DECLARE(ncclResult_t, ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t* asyncError));
RAILCCL_DECLARE(ncclResult_t, ncclCommCount, (const ncclComm_t comm, int* count));
/* The CUDA device that was current when the communicator was made; -1: none was. */
RAILCCL_DECLARE(ncclResult_t, ncclCommCuDevice, (const ncclComm_t comm, int* device));
RAILCCL_DECLARE(ncclResult_t, ncclCommUserRank, (const ncclComm_t comm, int* rank));

/* ---- Registered memory ------------------------------------------------------------------ */

/* Announces a buffer that will be used often. The handle is needed to take that back. */
RAILCCL_DECLARE(ncclResult_t, ncclCommRegister,
                (const ncclComm_t comm, void* buff, size_t size, void** handle));
RAILCCL_DECLARE(ncclResult_t, ncclCommDeregister, (const ncclComm_t comm, void* handle));

/* The same, collectively: every rank registers a range of the same size. */
#define NCCL_WIN_DEFAULT 0x00
#define NCCL_WIN_COLL_SYMMETRIC 0x01 /* offsets mean the same on every rank */
#define NCCL_WIN_REQUIRED_ALIGNMENT 4096
RAILCCL_DECLARE(ncclResult_t, ncclCommWindowRegister,
                (ncclComm_t comm, void* buff, size_t size, ncclWindow_t* win, int winFlags));
RAILCCL_DECLARE(ncclResult_t, ncclCommWindowDeregister, (ncclComm_t comm, ncclWindow_t win));

/* ---- Operators made by the caller ------------------------------------------------------- */

/* An operator that multiplies each rank's input by *scalar (of type `datatype`) and sums. Valid for
 * this communicator and datatype; ranks may use different scalars. */
RAILCCL_DECLARE(ncclResult_t, ncclRedOpCreatePreMulSum,
                (ncclRedOp_t * op, void* scalar, ncclDataType_t datatype,
                 ncclScalarResidence_t residence, ncclComm_t comm));
/* Allowed as soon as the last call that uses the operator has returned. */
RAILCCL_DECLARE(ncclResult_t, ncclRedOpDestroy, (ncclRedOp_t op, ncclComm_t comm));

/* ---- Collectives ------------------------------------------------------------------------ */

/* Notation: n ranks, this one is r. "In place" says how the two buffers may coincide; they must
 * not overlap in any other way. */

/* recvbuff[i] = op over all ranks of sendbuff[i]. In place: sendbuff == recvbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclAllReduce,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream));

/* As all-reduce, at root only; elsewhere recvbuff is not used. In place: sendbuff == recvbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclReduce,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream));

/* Reduces n blocks of recvcount elements and keeps block r. In place: recvbuff is block r of
 * sendbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclReduceScatter,
                (const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype,
                 ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream));

/* Block i of recvbuff = sendbuff of rank i. In place: sendbuff is block r of recvbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclAllGather,
                (const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype,
                 ncclComm_t comm, cudaStream_t stream));

/* recvbuff = root's sendbuff; elsewhere sendbuff is not used. In place: sendbuff == recvbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclBroadcast,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream));
/* The older form, always in place. */
RAILCCL_DECLARE(ncclResult_t, ncclBcast,
                (void* buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                 cudaStream_t stream));

/* Block i of recvbuff = block r of rank i's sendbuff. Not in place. */
RAILCCL_DECLARE(ncclResult_t, ncclAlltoAll,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclComm_t comm, cudaStream_t stream));

/* At root: block i of recvbuff = sendbuff of rank i. In place: root's sendbuff is its block of
 * recvbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclGather,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream));

/* recvbuff = block r of root's sendbuff. In place: root's recvbuff is its block of sendbuff. */
RAILCCL_DECLARE(ncclResult_t, ncclScatter,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream));

/* ---- Pairs ------------------------------------------------------------------------------ */

/* A send meets the peer's receive of the same count and type, in order. Outside a group each
 * waits for the other side; sends and receives of one group make progress together. */
RAILCCL_DECLARE(ncclResult_t, ncclSend,
                (const void* sendbuff, size_t count, ncclDataType_t datatype, int peer,
                 ncclComm_t comm, cudaStream_t stream));
RAILCCL_DECLARE(ncclResult_t, ncclRecv,
                (void* recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                 cudaStream_t stream));

/* ---- Groups ----------------------------------------------------------------------------- */

/* Calls of this thread up to the matching ncclGroupEnd are checked and recorded, and start
 * together at the outermost end: so one thread may drive several ranks, and sends and receives
 * cannot block each other. A group holds either communications or the making of communicators. */
RAILCCL_DECLARE(ncclResult_t, ncclGroupStart, (void));
RAILCCL_DECLARE(ncclResult_t, ncclGroupEnd, (void));
/* Ends a group without running it and tells how long it would have taken. */
RAILCCL_DECLARE(ncclResult_t, ncclGroupSimulateEnd, (ncclSimInfo_t * simInfo));

#if RAILCCL_NCCL_VERSION >= 23102
#include "railccl/nccl_2_31.h"
#endif

#undef RAILCCL_DECLARE

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* NCCL_H_ */
