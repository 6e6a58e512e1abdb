/* One rank of two, each a process, for instructions_test.py: 8-byte all-reduces over shared memory.
 *
 *   instructions RANK FILE CALLS   FILE: a page that both ranks map, zero-filled at first
 *
 * Rank 0 makes each counted call inside counted(), some time after rank 1 has made the same call:
 * the peer's message is there already, and nothing is waited for. Rank 1 says so in the page. */
#include <fcntl.h>
#include <nccl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct page {
  ncclUniqueId id;
  atomic_int id_known;
  atomic_int calls; /* that rank 1 has begun */
};

enum { kWarmUp = 50, kSettleUs = 20 };

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The instructions in here and below are what is counted. */
__attribute__((noinline)) ncclResult_t counted(const float* input, float* output, ncclComm_t comm);
__attribute__((noinline)) ncclResult_t counted(const float* input, float* output, ncclComm_t comm) {
  return ncclAllReduce(input, output, 2, ncclFloat, ncclSum, comm, NULL);
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int rank = atoi(argv[1]);
  const int calls = atoi(argv[3]);
  const int fd = open(argv[2], O_RDWR);
  if (fd < 0) return 3;
  struct page* page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return 3;
  if (rank == 0) {
    if (ncclGetUniqueId(&page->id) != ncclSuccess) return 4;
    atomic_store(&page->id_known, 1);
  } else {
    while (!atomic_load(&page->id_known)) usleep(1000);
  }
  ncclComm_t comm;
  if (ncclCommInitRank(&comm, 2, page->id, rank) != ncclSuccess) {
    fprintf(stderr, "%s\n", ncclGetLastError(NULL));
    return 5;
  }
  for (int i = 0; i < kWarmUp + calls; i++) {
    const float input[2] = {(float)(rank + i), 1};
    float output[2] = {0, 0};
    ncclResult_t result;
    if (rank == 1 || i < kWarmUp) {
      if (rank == 1) atomic_store(&page->calls, i + 1);
      result = ncclAllReduce(input, output, 2, ncclFloat, ncclSum, comm, NULL);
    } else {
      while (atomic_load(&page->calls) <= i) {
      }
      for (const int64_t since = now_ns(); now_ns() - since < kSettleUs * 1000;) {
      }
      result = counted(input, output, comm);
    }
    if (result != ncclSuccess || output[0] != (float)(2 * i + 1) || output[1] != 2) {
      fprintf(stderr, "rank %d, call %d: %g %g, %s\n", rank, i, output[0], output[1],
              ncclGetLastError(comm));
      return 6;
    }
  }
  return ncclCommDestroy(comm) == ncclSuccess ? 0 : 7;
}
