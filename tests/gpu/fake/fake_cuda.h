/* What tests tell and ask the driver that stands in for CUDA's (fake_cuda.cc). A real driver has
 * none of this: tests find these functions at run time, or do without. */
#ifndef RAILCCL_TESTS_GPU_FAKE_CUDA_H_
#define RAILCCL_TESTS_GPU_FAKE_CUDA_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From now on it says that it supports this version (12040 for 12.4), and has so many devices. */
void fakeCudaSet(int version, int devices);

typedef struct {
  size_t pinned;              /* bytes of host memory registered or allocated now */
  size_t pinnedMost;          /* the most there were since this was asked last */
  size_t pageableCopies;      /* copies of streams from or to other memory of the host */
  size_t callsWhileCapturing; /* that queued something to a stream being captured */
  size_t launches;            /* calls that queued something */
} fakeCudaFigures_t;
void fakeCudaFigures(fakeCudaFigures_t* figures);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* RAILCCL_TESTS_GPU_FAKE_CUDA_H_ */
