/* railccl.h: what railccl adds to NCCL's interface. Plain C99 or C++; conventions as in nccl.h. */
#ifndef RAILCCL_RAILCCL_H_
#define RAILCCL_RAILCCL_H_

#include "nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ---------------------------------------------------------------------------- */

/* The version of the library at hand, for example 0, 1, 0. Any pointer may be null. */
ncclResult_t railcclGetVersion(int* major, int* minor, int* patch);

/* ---- Streams on the host ---------------------------------------------------------------- */

/* An ordered queue of work, usable wherever nccl.h takes a cudaStream_t: calls on it return when
 * they are queued, and run one after the other on the queue's own thread. Different streams run
 * concurrently. Buffers must stay valid and untouched until the work is done. Any thread may use
 * a stream. It is not a CUDA stream: CUDA's functions do not accept it, and it orders no work of a
 * GPU: calls with such buffers need a stream of CUDA's. */
ncclResult_t railcclStreamCreate(cudaStream_t* stream);
/* Waits until everything queued so far is done; the first failure since the last call. */
ncclResult_t railcclStreamSynchronize(cudaStream_t stream);
/* ncclSuccess when nothing is queued or running, else ncclInProgress; never blocks. */
ncclResult_t railcclStreamQuery(cudaStream_t stream);
/* Waits like railcclStreamSynchronize, then frees the stream. A null stream does nothing. */
ncclResult_t railcclStreamDestroy(cudaStream_t stream);

/* ---- Meeting without exchanging an id --------------------------------------------------- */

/* The id of a meeting point that all ranks know, for example from MASTER_ADDR and a free port:
 * every rank computes the same id and nothing needs to be handed around. The process that joins as
 * rank 0 serves the meeting and must own `host`. `host` is a name or an IPv4 or IPv6 address. Ranks
 * with a different `secret` (text; may be null) are refused. */
ncclResult_t railcclGetUniqueIdAt(const char* host, int port, const char* secret,
                                  ncclUniqueId* uniqueId);

/* ---- The same call again and again ------------------------------------------------------- */

typedef enum {
  railcclAllReduce = 0,
  railcclReduceScatter = 1,
  railcclAllGather = 2,
  railcclBroadcast = 3,
  railcclReduce = 4,
  railcclAlltoAll = 5,
  railcclGather = 6,
  railcclScatter = 7,
  railcclNumCollectives = 8
} railcclCollective_t;

/* A collective with its buffers, checked and planned. */
typedef struct railcclRequest* railcclRequest_t;

/* Checks a collective and makes its plan, so that starting it costs as little as can be. Arguments
 * are those of the NCCL function of that name; `op` and `root` are looked at where it has them.
 * Other ranks need not do the same: a start meets other ranks' starts and ordinary calls alike. The
 * request must be destroyed by its owner, before or after the communicator; not while it runs. */
ncclResult_t railcclRequestCreate(railcclCollective_t collective, const void* sendbuff,
                                  void* recvbuff, size_t count, ncclDataType_t datatype,
                                  ncclRedOp_t op, int root, ncclComm_t comm,
                                  railcclRequest_t* request);
/* As the NCCL function would: on a null stream complete on return, else queued; in a group
 * recorded. Any number of times; one thread at a time. */
ncclResult_t railcclRequestStart(railcclRequest_t request, cudaStream_t stream);
/* A null request does nothing. */
ncclResult_t railcclRequestDestroy(railcclRequest_t request);

/* ---- When ranks die --------------------------------------------------------------------- */

/* From now on a collective on `comm` ends only when its ranks know that all of them have the
 * result, so that railcclCommRecover can finish what a death interrupts. Costs an all-reduce of one
 * byte for each collective, and for each all-reduce, reduce or reduce-scatter in place whose input
 * has at most `saveBytesMax` bytes, a copy of it: the memory of the largest, and the time. 0 saves
 * none: such calls cannot be repeated then, unless they had not begun. All ranks must do it alike,
 * between the same calls; communicators made by railcclCommRecover inherit it. */
ncclResult_t railcclCommProtect(ncclComm_t comm, size_t saveBytesMax);

/* What became of the collectives that a failure has interrupted; the same on all ranks. */
typedef enum {
  railcclCallsNone = 0,     /* there were none, or their repetition was not asked for */
  railcclCallsFinished = 1, /* all ranks that live have their results, as if they had succeeded */
  railcclCallsTorn = 2,     /* some ranks had success from calls whose result the others lack */
  railcclCallsSpoiled = 3   /* nobody has their results, and they were not repeated */
} railcclCalls_t;

typedef struct railcclRecovery_v1 {
  size_t size;                  /* identifies the layout: leave it alone */
  railcclCalls_t calls;         /* what became of the interrupted ones */
  int kept;                     /* of this rank's, those that were complete */
  int repeated;                 /* of this rank's, those that were run again */
  unsigned long long tornBegin; /* torn: numbers of the collectives, counted on the communicator */
  unsigned long long tornEnd;   /* from 0, that some ranks have the results of: [begin, end) */
  int ranks;                    /* of the new communicator */
  int rank;                     /* this one's number there */
  double seconds;               /* that it took */
  char why[256];                /* torn, spoiled: the reason */
} railcclRecovery_t;
#define RAILCCL_RECOVERY_INITIALIZER \
  { sizeof(railcclRecovery_t), railcclCallsNone, 0, 0, 0, 0, 0, 0, 0.0, "" }

#define RAILCCL_RECOVER_CALLS 0x00      /* finish the interrupted collectives */
#define RAILCCL_RECOVER_WITHOUT_CALLS 1 /* only make the communicator */

/* After a failure, or to end what runs: called by all ranks that live. The survivors agree on who
 * is left, whoever dies meanwhile; *comm becomes a communicator of these, in the old order, and the
 * old one is freed. Then the collectives that failed are finished on it, in their order, into the
 * buffers that they were called with, which must still be there and untouched by the caller since;
 * sends and receives are not repeated. A rank that does not call within RAILCCL_INIT_TIMEOUT_MS is
 * left out.
 *
 * On a protected communicator (railcclCommProtect) all-reduces, broadcasts and reduces are all or
 * nothing: either every rank that lives gets a call's result, the same that any of them had success
 * from before, or none does; calls stays railcclCallsFinished then. Without protection calls that
 * some ranks had finished may be torn, and every rank is told. Collectives with a block for each
 * rank are not repeated among fewer ranks, nor those whose root is gone or whose input is
 * overwritten: spoiled. Source of the guarantee, and its limits: docs/operations.md.
 *
 * Fails, and leaves *comm as it is, where the ranks cannot agree: some of them want something else,
 * or more ranks are silent than are left. `recovery` may be null, else it must have been set to
 * RAILCCL_RECOVERY_INITIALIZER. Not in a group. Blocks also on a non-blocking communicator. */
ncclResult_t railcclCommRecover(ncclComm_t* comm, int flags, railcclRecovery_t* recovery);

/* Ranks of a failed communicator that the survivors have found gone: up to `size` of them to
 * `ranks`, ascending, and to *count how many there are. Any thread. */
ncclResult_t railcclCommLost(ncclComm_t comm, int* ranks, int size, int* count);

/* ---- What ran --------------------------------------------------------------------------- */

typedef struct railcclChoice_v1 {
  size_t size;        /* identifies the layout: leave it alone */
  char algorithm[32]; /* for example "ring" */
  char transport[32]; /* for example "shm+tcp" */
  int channels;
  size_t chunkBytes;  /* unit of pipelining; 0 when the algorithm has none */
  double predictedUs; /* by the cost model */
  double boundUs;     /* no algorithm can be faster on this topology */
} railcclChoice_t;
#define RAILCCL_CHOICE_INITIALIZER \
  { sizeof(railcclChoice_t), "", "", 0, 0, 0.0, 0.0 }

/* How the last collective that finished on `comm` was carried out. `choice` must have been set to
 * RAILCCL_CHOICE_INITIALIZER. */
ncclResult_t railcclCommLastChoice(ncclComm_t comm, railcclChoice_t* choice);

typedef struct railcclMeeting_v1 {
  size_t size;                         /* identifies the layout: leave it alone */
  double seconds;                      /* that making the communicator took on this rank */
  unsigned long long messagesSent;     /* by this rank to others beside the operations' data: */
  unsigned long long messagesReceived; /* to meet, and since then */
} railcclMeeting_t;
#define RAILCCL_MEETING_INITIALIZER \
  { sizeof(railcclMeeting_t), 0.0, 0, 0 }

/* How the ranks of `comm` met. `meeting` must have been set to RAILCCL_MEETING_INITIALIZER. */
ncclResult_t railcclCommMeeting(ncclComm_t comm, railcclMeeting_t* meeting);

/* What this rank knows of its rails and of its paths to other hosts: which work, what each carries,
 * what happened to them; JSON text, described in docs/operations.md. Writes at most `size` bytes to
 * `text`, its end cut off where that is too little, with a zero at the end; `length`, unless null,
 * gets how long the text is without the zero. Any thread, also while a call is running or hangs. */
ncclResult_t railcclCommPaths(ncclComm_t comm, char* text, size_t size, size_t* length);

/* ---- What is proven --------------------------------------------------------------------- */

typedef struct railcclProof_v1 {
  size_t size;                          /* identifies the layout: leave it alone */
  char algorithm[32];                   /* that was proven */
  unsigned long long rounds;            /* longest chain of messages that wait for each other */
  unsigned long long messages;          /* of all ranks, signals included */
  unsigned long long bytes;             /* of data in all messages */
  unsigned long long bytesBetweenHosts; /* of these */
  unsigned long long bytesAcrossRails;  /* of these, from one rail to another, over the spine */
  int rails;
  unsigned long long bytesOfRail[64]; /* between hosts along each rail; the last: and all further */
} railcclProof_t;
#define RAILCCL_PROOF_INITIALIZER                       \
  {                                                     \
    sizeof(railcclProof_t), "", 0, 0, 0, 0, 0, 0, { 0 } \
  }

/* How far ranks can reach into each other's buffers, call by call. */
typedef enum {
  railcclReachNone = 0,    /* not at all: all data go by messages */
  railcclReachFetched = 1, /* the system copies out of them (process_vm_readv) */
  railcclReachOpen = 2     /* all ranks can load and store them */
} railcclReach_t;

/* Makes the plan that all ranks would follow in such a call, on the rails as the ranks see them
 * now, and runs their programs together on symbols instead of numbers. ncclSuccess means: however
 * fast each rank and message is, every element of every output gets each contribution that it must
 * have exactly once, nothing waits for ever, and no two accesses race; `proof` tells what is moved.
 * Else the text says where the plan is wrong. `reach`: of the buffers of that call.
 * Concerns this rank only; takes as long as many calls. `proof` must have been set to
 * RAILCCL_PROOF_INITIALIZER. */
ncclResult_t railcclCommProve(railcclCollective_t collective, size_t count, ncclDataType_t datatype,
                              ncclRedOp_t op, int root, int inPlace, railcclReach_t reach,
                              ncclComm_t comm, railcclProof_t* proof);

/* ---- Settings --------------------------------------------------------------------------- */

/* One environment variable that the library reads. */
typedef struct railcclSetting_v1 {
  const char* name; /* "NCCL_ALGO" */
  const char* kind; /* "integer", "size", "boolean" or "text" */
  const char* defaultText;
  const char* meaning;
} railcclSetting_t;

/* All of them: *settings is an array of *count rows that lives as long as the library. */
ncclResult_t railcclGetSettings(const railcclSetting_t** settings, int* count);

/* What a variable is set to: *value is its text, null when nothing sets it, *file the configuration
 * file that does, null when it is the environment. Both live until the environment is changed. */
ncclResult_t railcclGetSetting(const char* name, const char** value, const char** file);

/* Checks the process's environment as making a communicator would: ncclInvalidArgument and a text
 * that names the variable and its value when one is malformed. */
ncclResult_t railcclCheckEnvironment(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* RAILCCL_RAILCCL_H_ */
