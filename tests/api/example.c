/* The README's example: two ranks in one program add their numbers. */
#include <nccl.h>
#include <stdio.h>

int main(void) {
  ncclComm_t comms[2];
  float data[2] = {1, 2};
  if (ncclCommInitAll(comms, 2, NULL) != ncclSuccess) return 1;
  ncclGroupStart();
  for (int rank = 0; rank < 2; rank++)
    ncclAllReduce(&data[rank], &data[rank], 1, ncclFloat, ncclSum, comms[rank], NULL);
  if (ncclGroupEnd() != ncclSuccess) printf("%s\n", ncclGetLastError(NULL));
  printf("%g %g\n", data[0], data[1]);
  for (int rank = 0; rank < 2; rank++) ncclCommDestroy(comms[rank]);
  return 0;
}
