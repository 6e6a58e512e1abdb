/* nccl_2_31.h: what NCCL added between 2.28.9 and 2.31.2. A part of nccl.h, which includes it for
 * programs that define RAILCCL_NCCL_VERSION as 23102; not to be included by itself.
 * Conventions as in nccl.h. */
#ifndef RAILCCL_NCCL_2_31_H_
#define RAILCCL_NCCL_2_31_H_

/* ---- Larger communicators (since 2.29.2) -------------------------------------------------- */

/* An id for those who are to join `comm` by ncclCommGrow; made by one of its ranks, and used once.
 * The ranks meet at this process, as with ncclGetUniqueId. */
RAILCCL_DECLARE(ncclResult_t, ncclCommGetUniqueId, (ncclComm_t comm, ncclUniqueId* uniqueId));

/* Collective: a communicator of nRanks ranks out of those of `comm`, who keep their numbers, and
 * newcomers.
 *   the rank of comm that made the id   comm, the id, rank -1
 *   the other ranks of comm             comm, a null id, rank -1
 *   newcomers                           a null comm, the id, their new rank
 * A null `config` means the options of comm, or the defaults. comm remains what it was. */
RAILCCL_DECLARE(ncclResult_t, ncclCommGrow,
                (ncclComm_t comm, int nRanks, const ncclUniqueId* uniqueId, int rank,
                 ncclComm_t* newcomm, ncclConfig_t* config));

/* ---- One-sided communication (since 2.29.2) ----------------------------------------------- */

/* Writes are visible at the target in the order of their signals. Always so on host memory. */
#define NCCL_WIN_STRICT_ORDERING 0x02

/* The address that this rank registered for a window. */
RAILCCL_DECLARE(ncclResult_t, ncclWinGetUserPtr,
                (ncclComm_t comm, ncclWindow_t win, void** outUserPtr));

/* Writes `count` elements into the peer's part of a window, from byte peerWinOffset on, and then
 * signals the peer, who need not call anything. `ctx` and `sigIdx` select one of the peer's
 * counters for this rank; flags must be 0. The window must be of memory from ncclMemAlloc (or the
 * peer a thread of this process), and the peer on the same host: else ncclInvalidUsage. */
RAILCCL_DECLARE(ncclResult_t, ncclPutSignal,
                (const void* localbuff, size_t count, ncclDataType_t datatype, int peer,
                 ncclWindow_t peerWin, size_t peerWinOffset, int sigIdx, int ctx,
                 unsigned int flags, ncclComm_t comm, cudaStream_t stream));
/* The signal alone. */
RAILCCL_DECLARE(ncclResult_t, ncclSignal,
                (int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm,
                 cudaStream_t stream));

typedef struct {
  int opCnt; /* so many signals, */
  int peer;  /* from this rank, */
  int sigIdx;
  int ctx;
} ncclWaitSignalDesc_t;

/* Waits for signals, which it uses up. What the peers wrote before them is there then. */
RAILCCL_DECLARE(ncclResult_t, ncclWaitSignal,
                (int nDesc, ncclWaitSignalDesc_t* signalDescs, ncclComm_t comm,
                 cudaStream_t stream));

/* ---- Memory of communicators (since 2.29.7) ----------------------------------------------- */

/* Gives memory back that only operations need. Concerns this rank alone; waits for what was called
 * before. Until ncclCommResume, calls on `comm` get ncclInvalidUsage. */
#define NCCL_SUSPEND_MEM 0x01
RAILCCL_DECLARE(ncclResult_t, ncclCommSuspend, (ncclComm_t comm, int flags));
RAILCCL_DECLARE(ncclResult_t, ncclCommResume, (ncclComm_t comm));

/* The names are NCCL's; what is told is host memory that this rank's operations use, in bytes. */
typedef enum {
  ncclStatGpuMemSuspend = 0,   /* that ncclCommSuspend would give back */
  ncclStatGpuMemSuspended = 1, /* 1: suspended */
  ncclStatGpuMemPersist = 2,   /* that peers look into, which stays */
  ncclStatGpuMemTotal = 3      /* both */
} ncclCommMemStat_t;
RAILCCL_DECLARE(ncclResult_t, ncclCommMemStats,
                (ncclComm_t comm, ncclCommMemStat_t stat, uint64_t* value));

/* ---- Parameters (since 2.30.3) ------------------------------------------------------------ */

/* The settings of the library (the variables that `railccl-env` lists), by the names of their
 * environment variables. Values are those of now. Any thread; what is returned belongs to the
 * library. A variable that it does not know is ncclInvalidArgument. */
typedef struct ncclParamHandle* ncclParamHandle_t;
RAILCCL_DECLARE(ncclResult_t, ncclParamBind, (ncclParamHandle_t * out, const char* key));
/* Numbers and booleans; ncclInvalidArgument for texts, and where the value does not fit. */
RAILCCL_DECLARE(ncclResult_t, ncclParamGetI8, (ncclParamHandle_t h, int8_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetI16, (ncclParamHandle_t h, int16_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetI32, (ncclParamHandle_t h, int32_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetI64, (ncclParamHandle_t h, int64_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetU8, (ncclParamHandle_t h, uint8_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetU16, (ncclParamHandle_t h, uint16_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetU32, (ncclParamHandle_t h, uint32_t* out));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetU64, (ncclParamHandle_t h, uint64_t* out));
/* Valid until this thread's next call of the same function. */
RAILCCL_DECLARE(ncclResult_t, ncclParamGetStr, (ncclParamHandle_t h, const char** out));
/* The bytes: of an int64_t for numbers and booleans, of the text without its end otherwise. *len
 * (may be null) is set to their number, and when that is above maxLen nothing is copied. */
RAILCCL_DECLARE(ncclResult_t, ncclParamGet, (ncclParamHandle_t h, void* out, int maxLen, int* len));
/* *value is valid until this thread's next call of the same function; valueLen may be null. */
RAILCCL_DECLARE(ncclResult_t, ncclParamGetParameter,
                (const char* key, const char** value, int* valueLen));
RAILCCL_DECLARE(ncclResult_t, ncclParamGetAllParameterKeys, (const char*** table, int* tableLen));
/* Writes all values to the log, whatever its level. */
RAILCCL_DECLARE(void, ncclParamDumpAll, (void));

/* ---- Options of a single collective (since 2.31.2) ---------------------------------------- */

/* A list of options that only certain vendors' libraries know. railccl knows none. */
typedef struct ncclConfigExt {
  struct ncclConfigExt* next;
  struct {
    int vendorId;
    int optionId;
  } key;
  union {
    int i;
    const char* s;
    void* raw;
  } val;
} ncclConfigExt_t;

/* Start from NCCL_COLLCONFIG_INITIALIZER. On host memory the channels and the algorithm follow from
 * agreed data: a field that would steer GPU work (minCTAs, maxCTAs, nvlsCTAs, cgaClusterSize,
 * CTAPolicy) is checked and has no effect. An algorithm that is only preferred (forceAlgSelection
 * 0) is not heeded; one that is demanded is refused with ncclInvalidUsage: NCCL_ALGO selects. */
typedef struct ncclCollConfig_v23100 {
  size_t size; /* the first three identify the layout: leave them alone */
  unsigned int magic;
  unsigned int version;
  ncclConfigExt_t* ext;
  int minCTAs;
  int maxCTAs;
  int nvlsCTAs;
  int cgaClusterSize;
  const char* algSelection; /* null or empty: any */
  int forceAlgSelection;
  int CTAPolicy;
  uint64_t userProfilerTag;
} ncclCollConfig_t;

#define NCCL_COLLCONFIG_INITIALIZER                                                       \
  {                                                                                       \
    sizeof(ncclCollConfig_t), 0xcafebeef, NCCL_VERSION_CODE, NULL, NCCL_CONFIG_UNDEF_INT, \
        NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NULL, 1,     \
        NCCL_CONFIG_UNDEF_INT, 0                                                          \
  }

/* As the functions without Config. A null `config` makes no difference; all ranks give the same. */
RAILCCL_DECLARE(ncclResult_t, ncclAllReduceConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream,
                 const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclBroadcastConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream, const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclReduceConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream,
                 const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclAllGatherConfig,
                (const void* sendbuff, void* recvbuff, size_t sendcount, ncclDataType_t datatype,
                 ncclComm_t comm, cudaStream_t stream, const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclReduceScatterConfig,
                (const void* sendbuff, void* recvbuff, size_t recvcount, ncclDataType_t datatype,
                 ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream,
                 const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclAlltoAllConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 ncclComm_t comm, cudaStream_t stream, const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclGatherConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream, const ncclCollConfig_t* config));
RAILCCL_DECLARE(ncclResult_t, ncclScatterConfig,
                (const void* sendbuff, void* recvbuff, size_t count, ncclDataType_t datatype,
                 int root, ncclComm_t comm, cudaStream_t stream, const ncclCollConfig_t* config));

#endif /* RAILCCL_NCCL_2_31_H_ */
