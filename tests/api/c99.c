/* Shows that the headers are plain C99 and that a C program can use every function: takes the
 * address of each, and runs one communicator of one rank through its life. */
#include <nccl.h>
#include <railccl/railccl.h>
#include <stdio.h>
#include <string.h>

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      printf("line %d: %s: %s\n", __LINE__, #condition, ncclGetLastError(NULL)); \
      return 1;                                                                  \
    }                                                                            \
  } while (0)

typedef void (*function)(void);
#define PAIR(name) (function) name, (function)p##name
static const function functions[] = {
    PAIR(ncclMemAlloc),
    PAIR(ncclMemFree),
    PAIR(ncclGetVersion),
    PAIR(ncclGetUniqueId),
    PAIR(ncclCommInitRankConfig),
    PAIR(ncclCommInitRank),
    PAIR(ncclCommInitAll),
    PAIR(ncclCommFinalize),
    PAIR(ncclCommDestroy),
    PAIR(ncclCommAbort),
    PAIR(ncclCommRevoke),
    PAIR(ncclCommSplit),
    PAIR(ncclCommShrink),
    PAIR(ncclCommInitRankScalable),
    PAIR(ncclGetErrorString),
    PAIR(ncclGetLastError),
    PAIR(ncclCommGetAsyncError),
    PAIR(ncclCommCount),
    PAIR(ncclCommCuDevice),
    PAIR(ncclCommUserRank),
    PAIR(ncclCommRegister),
    PAIR(ncclCommDeregister),
    PAIR(ncclCommWindowRegister),
    PAIR(ncclCommWindowDeregister),
    PAIR(ncclRedOpCreatePreMulSum),
    PAIR(ncclRedOpDestroy),
    PAIR(ncclReduce),
    PAIR(ncclBcast),
    PAIR(ncclBroadcast),
    PAIR(ncclAllReduce),
    PAIR(ncclReduceScatter),
    PAIR(ncclAllGather),
    PAIR(ncclAlltoAll),
    PAIR(ncclGather),
    PAIR(ncclScatter),
    PAIR(ncclSend),
    PAIR(ncclRecv),
    PAIR(ncclGroupStart),
    PAIR(ncclGroupEnd),
    PAIR(ncclGroupSimulateEnd),
};

int main(void) {
  ncclUniqueId id;
  ncclComm_t comm = NCCL_COMM_NULL;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
  railcclChoice_t choice = RAILCCL_CHOICE_INITIALIZER;
  railcclMeeting_t meeting = RAILCCL_MEETING_INITIALIZER;
  cudaStream_t stream = NULL;
  double in[3] = {1, 2, 3}, out[3] = {0, 0, 0};
  int version = 0, count = 0;

  CHECK(sizeof functions / sizeof functions[0] == 80);
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) CHECK(functions[i] != NULL);
  CHECK(ncclGetVersion(&version) == ncclSuccess && version == 22809);
  CHECK(ncclGetUniqueId(&id) == ncclSuccess);
  config.commName = "c99";
  CHECK(ncclCommInitRankConfig(&comm, 1, id, 0, &config) == ncclSuccess);
  CHECK(ncclCommCount(comm, &count) == ncclSuccess && count == 1);
  CHECK(railcclStreamCreate(&stream) == ncclSuccess);
  CHECK(ncclAllReduce(in, out, 3, ncclDouble, ncclSum, comm, stream) == ncclSuccess);
  CHECK(railcclStreamSynchronize(stream) == ncclSuccess);
  CHECK(memcmp(in, out, sizeof in) == 0);
  CHECK(ncclGroupStart() == ncclSuccess);
  CHECK(ncclAllReduce(in, out, 3, ncclDouble, ncclSum, comm, stream) == ncclSuccess);
  CHECK(ncclGroupSimulateEnd(&info) == ncclSuccess && info.estimatedTime >= 0);
  CHECK(railcclCommLastChoice(comm, &choice) == ncclSuccess && choice.algorithm[0] != 0);
  CHECK(railcclCommMeeting(comm, &meeting) == ncclSuccess && meeting.messagesSent == 1);
  char paths[16];
  size_t length = 0;
  CHECK(railcclCommPaths(comm, paths, sizeof paths, &length) == ncclSuccess);
  CHECK(paths[0] == '{' && paths[15] == 0 && length > sizeof paths);
  CHECK(railcclStreamDestroy(stream) == ncclSuccess);
  CHECK(ncclCommFinalize(comm) == ncclSuccess);
  CHECK(ncclCommDestroy(comm) == ncclSuccess);
  puts("ok");
  return 0;
}
