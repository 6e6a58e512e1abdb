/* nccl_device_host.h: the host's side of NCCL's device API, in which GPU code communicates.
 *
 * NCCL declares these functions in nccl_device.h, 11 of them in 2.28.9 and five more since 2.29.2.
 * A program that links them, or looks them up, finds them; on host memory there is no GPU code, so
 * what makes or needs a device communicator returns ncclInvalidUsage and says so. What only
 * computes computes. Include either this header or NVIDIA's nccl_device.h. Plain C99 or C++. */
#ifndef RAILCCL_NCCL_DEVICE_HOST_H_
#define RAILCCL_NCCL_DEVICE_HOST_H_

#include <stdbool.h>

#include "nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every stride-th rank of a communicator, nRanks of them; the caller is number `rank`. */
typedef struct ncclTeam {
  int nRanks, rank, stride;
} ncclTeam_t;

/* Never made: these are known by name only. */
typedef struct ncclDevComm ncclDevComm_t;
typedef struct ncclDevCommRequirements ncclDevCommRequirements_t;
typedef struct ncclDevResourceRequirements ncclDevResourceRequirements_t;
typedef struct ncclGinBarrierHandle ncclGinBarrierHandle_t;
typedef struct ncclLsaBarrierHandle ncclLsaBarrierHandle_t;
typedef struct ncclLLA2AHandle ncclLLA2AHandle_t;
typedef struct ncclMultimemHandle {
  void* mcBasePtr;
} ncclMultimemHandle_t;

#define RAILCCL_DECLARE(result, name, arguments) \
  result name arguments;                         \
  result p##name arguments

/* Teams: all ranks; those whose memory GPU code of this rank can reach, which is this rank alone;
 * and those with the same number in their such teams, so all ranks again. A communicator that is
 * not valid has none: all three numbers are 0. */
RAILCCL_DECLARE(ncclTeam_t, ncclTeamWorld, (ncclComm_t comm));
RAILCCL_DECLARE(ncclTeam_t, ncclTeamLsa, (ncclComm_t comm));
RAILCCL_DECLARE(ncclTeam_t, ncclTeamRail, (ncclComm_t comm));
/* The number in the first or second of them of a team's `rank`; -1 without a communicator. */
RAILCCL_DECLARE(int, ncclTeamRankToWorld, (ncclComm_t comm, ncclTeam_t team, int rank));
RAILCCL_DECLARE(int, ncclTeamRankToLsa, (ncclComm_t comm, ncclTeam_t team, int rank));
/* Slots of eight bytes of data that so many elements of at most that size take. */
RAILCCL_DECLARE(int, ncclLLA2ACalcSlots, (int maxElts, int maxEltSize));

/* ncclInvalidUsage. */
RAILCCL_DECLARE(ncclResult_t, ncclDevCommCreate,
                (ncclComm_t comm, ncclDevCommRequirements_t const* reqs,
                 ncclDevComm_t* outDevComm));
RAILCCL_DECLARE(ncclResult_t, ncclDevCommDestroy, (ncclComm_t comm, ncclDevComm_t const* devComm));
RAILCCL_DECLARE(ncclResult_t, ncclGinBarrierCreateRequirement,
                (ncclComm_t comm, ncclTeam_t team, int nBarriers, ncclGinBarrierHandle_t* outHandle,
                 ncclDevResourceRequirements_t* outReq));
RAILCCL_DECLARE(ncclResult_t, ncclLLA2ACreateRequirement,
                (int nBlocks, int nSlots, ncclLLA2AHandle_t* outHandle,
                 ncclDevResourceRequirements_t* outReq));
RAILCCL_DECLARE(ncclResult_t, ncclLsaBarrierCreateRequirement,
                (ncclTeam_t team, int nBarriers, ncclLsaBarrierHandle_t* outHandle,
                 ncclDevResourceRequirements_t* outReq));
RAILCCL_DECLARE(ncclResult_t, ncclGetLsaDevicePointer,
                (ncclWindow_t window, size_t offset, int lsaRank, void** outPtr));
RAILCCL_DECLARE(ncclResult_t, ncclGetLsaMultimemDevicePointer,
                (ncclWindow_t window, size_t offset, void** outPtr));
RAILCCL_DECLARE(ncclResult_t, ncclGetMultimemDevicePointer,
                (ncclWindow_t window, size_t offset, ncclMultimemHandle_t multimem, void** outPtr));
RAILCCL_DECLARE(ncclResult_t, ncclGetPeerDevicePointer,
                (ncclWindow_t window, size_t offset, int peer, void** outPtr));

/* What a communicator is and can. Callers set the first three fields by the initializer; one with
 * the shorter struct of 2.29 (40 bytes, up to ginType) is served, too. */
typedef struct ncclCommProperties {
  size_t size;
  unsigned int magic;
  unsigned int version;
  int rank;
  int nRanks;
  int cudaDev; /* -1: a rank on host memory */
  int nvmlDev; /* -1 */
  bool deviceApiSupport;
  bool multimemSupport;
  int ginType; /* 0: none */
  int nLsaTeams;
  bool hostRmaSupport; /* are all ranks in reach of ncclPutSignal? */
  int railedGinType;
} ncclCommProperties_t;

#define NCCL_COMM_PROPERTIES_INITIALIZER \
  { sizeof(ncclCommProperties_t), 0xcafebeef, NCCL_VERSION_CODE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

RAILCCL_DECLARE(ncclResult_t, ncclCommQueryProperties,
                (ncclComm_t comm, ncclCommProperties_t* props));

#undef RAILCCL_DECLARE

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* RAILCCL_NCCL_DEVICE_HOST_H_ */
