/* railccl/mpi.h: a communicator for the ranks of an MPI communicator. Header only: it is compiled
 * by the program that uses it, with that program's MPI, so the library needs none.
 *
 *   ncclComm_t comm;
 *   ncclResult_t result = railcclCommInitMpi(&comm, MPI_COMM_WORLD);
 */
#ifndef RAILCCL_MPI_H_
#define RAILCCL_MPI_H_

#include <mpi.h>
#include <string.h>

#include "nccl.h"

/* Makes `*comm` over all ranks of `world`, rank for rank. Collective over `world`; MPI must be
 * initialised. A failure to make the unique id on rank 0 fails on all ranks. */
static inline ncclResult_t railcclCommInitMpi(ncclComm_t* comm, MPI_Comm world) {
  struct {
    ncclUniqueId id;
    ncclResult_t result;
  } shared;
  int rank = 0, ranks = 0;
  memset(&shared, 0, sizeof shared);
  if (MPI_Comm_rank(world, &rank) != MPI_SUCCESS || MPI_Comm_size(world, &ranks) != MPI_SUCCESS)
    return ncclInvalidUsage;
  if (rank == 0) shared.result = ncclGetUniqueId(&shared.id);
  if (MPI_Bcast(&shared, (int)sizeof shared, MPI_BYTE, 0, world) != MPI_SUCCESS)
    return ncclSystemError;
  if (shared.result != ncclSuccess) return shared.result;
  return ncclCommInitRank(comm, ranks, shared.id, rank);
}

#endif /* RAILCCL_MPI_H_ */
