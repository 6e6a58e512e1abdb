/* A network plugin for the tests: messages over plain TCP connections on the loopback interface, in
 * the version of NCCL's plugin interface that -DVERSION=6 ... 11 asks for, declared from the
 * interface's documentation, apart from transport/nccl_net_abi.h: the two have to fit. It insists
 * on what a real one may insist on: that buffers lie in registered memory, that connect() is given
 * the same handle again, that no more than 8 requests are under way, that contexts and
 * configurations are its own. And it misbehaves on demand: `example_fault`, also by the variable
 * EXAMPLE_NET_FAULT, "WHAT" or "WHAT:N" for from the N-th time on. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef VERSION
#error "which version of the interface?"
#endif

enum { kSuccess = 0, kSystemError = 2, kInternalError = 3, kInvalidUsage = 5, kRemoteError = 6 };
enum { kRequests = 8, kGroup = 8, kHandle = 0x6e657431, kInfo = 3, kInitTopic = 1 };
typedef int result_t;
typedef void (*logger_t)(int, unsigned long, const char*, int, const char*, ...);
typedef result_t (*profile_t)(void**, int, void*, int64_t, void*);
#if VERSION >= 9
typedef size_t bytes_t;
#else
typedef int bytes_t;
#endif
#if VERSION >= 8
typedef size_t region_t;
#else
typedef int region_t;
#endif

typedef struct {
  char* name;
  char* pciPath;
  uint64_t guid;
  int ptrSupport;
#if VERSION >= 8
  int regIsGlobal;
#endif
#if VERSION >= 9
  int forceFlush;
#endif
  int speed;
  int port;
  float latency;
  int maxComms;
  int maxRecvs;
#if VERSION >= 7
  int netDeviceType;
  int netDeviceVersion;
#endif
#if VERSION >= 9
  struct {
    int ndevs;
    int devs[4];
  } vProps;
  size_t maxP2pBytes;
  size_t maxCollBytes;
#endif
#if VERSION >= 11
  int maxMultiRequestSize;
#endif
} properties_t;

typedef struct {
  int trafficClass;
} config_t;

/* What the tests look at and set. */
__attribute__((visibility("default"))) char example_fault[64];
__attribute__((visibility("default"))) int example_devices = 2;
__attribute__((visibility("default"))) int example_alive; /* objects that were not closed */
__attribute__((visibility("default"))) int example_inits; /* less those finalized, from v11 on */
__attribute__((visibility("default"))) int example_times; /* that the fault was met */

__attribute__((constructor)) static void load(void) {
  const char* const fault = getenv("EXAMPLE_NET_FAULT");
  const char* const devices = getenv("EXAMPLE_NET_DEVICES");
  if (fault != NULL) strncpy(example_fault, fault, sizeof(example_fault) - 1);
  if (devices != NULL) example_devices = atoi(devices);
}

static int faulty(const char* what) {
  const size_t length = strlen(what);
  if (strncmp(example_fault, what, length) != 0) return 0;
  if (example_fault[length] == '\0') return 1;
  if (example_fault[length] != ':') return 0;
  return __atomic_add_fetch(&example_times, 1, __ATOMIC_RELAXED) >=
         atoi(example_fault + length + 1);
}

/* At one device: "isend1" is for the device of that number. */
static int faulty_at(const char* what, int device) {
  char named[32];
  snprintf(named, sizeof(named), "%s%d", what, device);
  return faulty(what) || faulty(named);
}

static void count(int more) { __atomic_add_fetch(&example_alive, more, __ATOMIC_RELAXED); }

struct context {
  int traffic_class;
};
struct listener {
  int fd, device;
};
struct region {
  char* data;
  size_t bytes;
};
struct comm;
struct request {
  struct comm* comm;
  int used, count, filled;
  char* data[kGroup];
  size_t room[kGroup];
  size_t bytes[kGroup];
  int tags[kGroup];
  int full[kGroup];
};

/* One direction of one connection. Requests are a queue, in order. */
struct comm {
  int fd, sends, device;
  struct request* queue[kRequests * kGroup];
  int length;
  struct request pool[kRequests * kGroup];
  int outstanding; /* not tested done */
  uint32_t header[2];
  size_t moved; /* of the header and what is behind it */
  result_t failure;
  struct comm *next, *previous; /* of all: those that nobody ever finished to connect, too */
};
static struct comm* all_comms;
static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;

struct handle {
  uint32_t magic;
  uint16_t port;
  struct comm* connecting; /* the side that connects */
};

static result_t open_network(logger_t logger) {
  if (logger != NULL) logger(kInfo, kInitTopic, __FILE__, __LINE__, "example plugin v%d", VERSION);
  if (faulty("init")) return kSystemError;
  __atomic_add_fetch(&example_inits, 1, __ATOMIC_RELAXED);
  return kSuccess;
}

#if VERSION >= 11
static result_t init(void** context, uint64_t communicator, config_t* config, logger_t logger,
                     profile_t profile) {
  (void)communicator;
  if (config == NULL || config->trafficClass != -1 || profile == NULL) return kInternalError;
  const result_t opened = open_network(logger);
  if (opened != kSuccess) return opened;
  struct context* const made = malloc(sizeof(*made));
  made->traffic_class = config->trafficClass;
  *context = made;
  return kSuccess;
}
static result_t finalize(void* context) {
  free(context);
  __atomic_sub_fetch(&example_inits, 1, __ATOMIC_RELAXED);
  return kSuccess;
}
#elif VERSION >= 10
static result_t init(logger_t logger, profile_t profile) {
  return profile == NULL ? kInternalError : open_network(logger);
}
#else
static result_t init(logger_t logger) { return open_network(logger); }
#endif

static result_t devices(int* number) {
  *number = faulty("no_devices") ? 0 : faulty("many_devices") ? 1 << 30 : example_devices;
  return faulty("devices") ? kSystemError : kSuccess;
}

static result_t get_properties(int device, properties_t* properties) {
  static char* const names[] = {"example0", "example1", "example2", "example3"};
  if (device < 0 || device >= example_devices || faulty("properties")) return kInternalError;
  memset(properties, 0, sizeof(*properties));
  properties->name = faulty("no_name") ? NULL : names[device % 4];
  properties->guid = (uint64_t)device;
  properties->ptrSupport = faulty("gpu_only") ? 2 : 1;
  properties->speed = 10000 + device;
  properties->port = 1;
  properties->latency = 12.5f;
  properties->maxComms = 65536;
  properties->maxRecvs = kGroup;
#if VERSION >= 7
  properties->netDeviceType = faulty("on_device") ? 1 : 0;
#endif
#if VERSION >= 9
  properties->vProps.ndevs = 1;
  properties->vProps.devs[0] = device;
  properties->maxP2pBytes = faulty("no_bytes") ? 0 : faulty("few_bytes") ? 8192 : 1 << 30;
  properties->maxCollBytes = 1 << 30;
#endif
#if VERSION >= 11
  properties->maxMultiRequestSize = 1;
#endif
  return kSuccess;
}

#if VERSION >= 11
#define CONTEXT void *context,
#define CHECK_CONTEXT() \
  if (((struct context*)context)->traffic_class != -1) return kInternalError
#else
#define CONTEXT
#define CHECK_CONTEXT() (void)0
#endif

static result_t listen_at(CONTEXT int device, void* opaque, void** made) {
  CHECK_CONTEXT();
  if (device < 0 || device >= example_devices || faulty("listen")) return kSystemError;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, length) != 0 || listen(fd, 16) != 0 ||
      getsockname(fd, (struct sockaddr*)&address, &length) != 0)
    return kSystemError;
  struct handle handle = {kHandle, address.sin_port, NULL};
  memcpy(opaque, &handle, sizeof(handle));
  struct listener* const listener = malloc(sizeof(*listener));
  listener->fd = fd;
  listener->device = device;
  count(1);
  *made = listener;
  return kSuccess;
}

static struct comm* make_comm(int fd, int sends, int device) {
  const int yes = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  struct comm* const comm = calloc(1, sizeof(*comm));
  comm->fd = fd;
  comm->sends = sends;
  comm->device = device;
  pthread_mutex_lock(&all_mutex);
  comm->next = all_comms;
  if (all_comms != NULL) all_comms->previous = comm;
  all_comms = comm;
  pthread_mutex_unlock(&all_mutex);
  count(1);
  return comm;
}

static result_t connect_device(int device, void* opaque, void** made) {
  struct handle* const handle = opaque;
  *made = NULL;
  if (device < 0 || device >= example_devices || handle->magic != kHandle) return kInternalError;
  if (faulty("connect")) return kSystemError;
  if (faulty("connect_never")) return kSuccess;
  if (handle->connecting == NULL) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = handle->port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return kSystemError;
    if (connect(fd, (struct sockaddr*)&address, sizeof(address)) != 0 && errno != EINPROGRESS) {
      close(fd);
      return kRemoteError;
    }
    handle->connecting = make_comm(fd, 1, device);
    return kSuccess; /* not at the first call */
  }
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(handle->connecting->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0)
    return kRemoteError;
  struct tcp_info info;
  length = sizeof(info);
  if (getsockopt(handle->connecting->fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
    return kSystemError;
  if (info.tcpi_state == TCP_SYN_SENT) return kSuccess;
  *made = handle->connecting;
  handle->connecting = NULL;
  return kSuccess;
}

#if VERSION >= 11
static result_t connect_to(void* context, int device, void* handle, void** made, void** offload) {
  CHECK_CONTEXT();
  if (offload == NULL || *offload != NULL) return kInternalError;
#elif VERSION >= 10
static result_t connect_to(int device, config_t* config, void* handle, void** made,
                           void** offload) {
  if (config == NULL || config->trafficClass != -1) return kInternalError;
  if (offload == NULL || *offload != NULL) return kInternalError;
#elif VERSION >= 7
static result_t connect_to(int device, void* handle, void** made, void** offload) {
  if (offload == NULL || *offload != NULL) return kInternalError;
#else
static result_t connect_to(int device, void* handle, void** made) {
#endif
  return connect_device(device, handle, made);
}

#if VERSION >= 7
static result_t accept_from(void* listener, void** made, void** offload) {
  if (offload == NULL || *offload != NULL) return kInternalError;
#else
static result_t accept_from(void* listener, void** made) {
#endif
  *made = NULL;
  if (faulty("accept")) return kSystemError;
  const int fd =
      accept4(((struct listener*)listener)->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return errno == EAGAIN ? kSuccess : kSystemError;
  *made = make_comm(fd, 0, ((struct listener*)listener)->device);
  return kSuccess;
}

static result_t register_memory(void* comm, void* data, region_t bytes, int type, void** made) {
  if (comm == NULL || data == NULL || bytes <= 0 || type != 1 || faulty("regmr"))
    return kInternalError;
  struct region* const region = malloc(sizeof(*region));
  region->data = data;
  region->bytes = (size_t)bytes;
  count(1);
  *made = region;
  return kSuccess;
}

static result_t deregister(void* comm, void* region) {
  if (comm == NULL || faulty("deregmr")) return kInternalError;
  free(region);
  count(-1);
  return kSuccess;
}

static int inside(const struct region* region, const char* data, size_t bytes) {
  return data >= region->data && data + bytes <= region->data + region->bytes;
}

/* As much of one message as goes, header first; 1: all of it, 0: not all, -1: failed. */
static int move(struct comm* comm, char* data, size_t bytes) {
  while (comm->moved < sizeof(comm->header) + bytes) {
    const int in_header = comm->moved < sizeof(comm->header);
    char* const at =
        in_header ? (char*)comm->header + comm->moved : data + (comm->moved - sizeof(comm->header));
    const size_t left =
        in_header ? sizeof(comm->header) - comm->moved : sizeof(comm->header) + bytes - comm->moved;
    const ssize_t some = comm->sends ? send(comm->fd, at, left, MSG_NOSIGNAL | MSG_DONTWAIT)
                                     : recv(comm->fd, at, left, MSG_DONTWAIT);
    if (some < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (some <= 0) return -1;
    comm->moved += (size_t)some;
    if (in_header && comm->moved == sizeof(comm->header) && !comm->sends) return 1;
  }
  return 1;
}

static void finish_front(struct comm* comm) {
  comm->length--;
  memmove(comm->queue, comm->queue + 1, sizeof(comm->queue[0]) * (size_t)comm->length);
}

static void push_sends(struct comm* comm) {
  while (comm->failure == kSuccess && comm->length > 0) {
    struct request* const first = comm->queue[0];
    comm->header[0] = (uint32_t)first->bytes[0];
    comm->header[1] = (uint32_t)first->tags[0];
    const int all = move(comm, first->data[0], first->bytes[0]);
    if (all < 0) comm->failure = kRemoteError;
    if (all <= 0) return;
    comm->moved = 0;
    first->filled = 1;
    finish_front(comm);
  }
}

static void pull_receives(struct comm* comm) {
  while (comm->failure == kSuccess && comm->length > 0) {
    struct request* const first = comm->queue[0];
    if (comm->moved < sizeof(comm->header)) {
      const int all = move(comm, NULL, 0);
      if (all < 0) comm->failure = kRemoteError;
      if (all <= 0) return;
    }
    int place = 0;
    while (place < first->count &&
           (first->full[place] || first->tags[place] != (int)comm->header[1]))
      place++;
    if (place == first->count || comm->header[0] > first->room[place]) {
      comm->failure = kInvalidUsage;
      return;
    }
    const int all = comm->header[0] == 0 ? 1 : move(comm, first->data[place], comm->header[0]);
    if (all < 0) comm->failure = kRemoteError;
    if (all <= 0) return;
    comm->moved = 0;
    first->bytes[place] = comm->header[0];
    first->full[place] = 1;
    if (++first->filled == first->count) finish_front(comm);
  }
}

static struct request* take_request(struct comm* comm, int most) {
  if (comm->outstanding >= most) return NULL;
  for (int i = 0; i < most; i++) {
    if (comm->pool[i].used) continue;
    memset(&comm->pool[i], 0, sizeof(comm->pool[i]));
    comm->pool[i].used = 1;
    comm->pool[i].comm = comm;
    comm->outstanding++;
    comm->queue[comm->length++] = &comm->pool[i];
    return &comm->pool[i];
  }
  return NULL;
}

/* Half of the calls find that it would block. */
static int reluctant(void) {
  return faulty("reluctant") && __atomic_add_fetch(&example_times, 1, __ATOMIC_RELAXED) % 2 == 0;
}

#if VERSION >= 10
static result_t isend(void* opaque, void* data, bytes_t bytes, int tag, void* region, void* parent,
                      void** request) {
  (void)parent;
#else
static result_t isend(void* opaque, void* data, bytes_t bytes, int tag, void* region,
                      void** request) {
#endif
  struct comm* const comm = opaque;
  *request = NULL;
  if (!comm->sends || !inside(region, data, (size_t)bytes)) return kInternalError;
  if (faulty_at("isend", comm->device)) return kSystemError;
  if (reluctant()) return kSuccess;
  struct request* const made = take_request(comm, kRequests * kGroup);
  if (made == NULL) return kInternalError;
  made->count = 1;
  made->data[0] = data;
  made->bytes[0] = (size_t)bytes;
  made->tags[0] = tag;
  push_sends(comm);
  *request = made;
  return kSuccess;
}

#if VERSION >= 10
static result_t irecv(void* opaque, int number, void** data, bytes_t* bytes, int* tags,
                      void** regions, void** parents, void** request) {
  if (parents == NULL) return kInternalError;
#else
static result_t irecv(void* opaque, int number, void** data, bytes_t* bytes, int* tags,
                      void** regions, void** request) {
#endif
  struct comm* const comm = opaque;
  *request = NULL;
  if (comm->sends || number < 1 || number > kGroup) return kInternalError;
  for (int i = 0; i < number; i++)
    if (!inside(regions[i], data[i], (size_t)bytes[i])) return kInternalError;
  if (faulty_at("irecv", comm->device)) return kSystemError;
  if (reluctant()) return kSuccess;
  struct request* const made = take_request(comm, kRequests);
  if (made == NULL) return kInternalError;
  made->count = number;
  for (int i = 0; i < number; i++) {
    made->data[i] = data[i];
    made->room[i] = (size_t)bytes[i];
    made->tags[i] = tags[i];
  }
  *request = made;
  return kSuccess;
}

static result_t test(void* opaque, int* done, int* bytes) {
  struct request* const request = opaque;
  struct comm* const comm = request->comm;
  *done = 0;
  if (faulty_at("never", comm->device)) return kSuccess;
  if (comm->sends) {
    push_sends(comm);
  } else {
    pull_receives(comm);
  }
  if (request->filled < request->count) return comm->failure;
  if (!comm->sends && faulty_at("test", comm->device)) return kSystemError;
  *done = 1;
  for (int i = 0; i < request->count && bytes != NULL; i++) bytes[i] = (int)request->bytes[i];
  if (!comm->sends && bytes != NULL && faulty("size")) bytes[0] = 1 << 30;
  if (!comm->sends && faulty("garble")) memset(request->data[0], 0xa5, 4);
  request->used = 0;
  comm->outstanding--;
  return kSuccess;
}

static result_t close_comm(void* opaque) {
  struct comm* const comm = opaque;
  close(comm->fd);
  pthread_mutex_lock(&all_mutex);
  if (comm->next != NULL) comm->next->previous = comm->previous;
  *(comm->previous != NULL ? &comm->previous->next : &all_comms) = comm->next;
  pthread_mutex_unlock(&all_mutex);
  free(comm);
  count(-1);
  return faulty("close") ? kSystemError : kSuccess;
}

static result_t close_listener(void* opaque) {
  struct listener* const listener = opaque;
  close(listener->fd);
  free(listener);
  count(-1);
  return kSuccess;
}

struct net {
  const char* name;
#if VERSION >= 11
  result_t (*init)(void**, uint64_t, config_t*, logger_t, profile_t);
#elif VERSION >= 10
  result_t (*init)(logger_t, profile_t);
#else
  result_t (*init)(logger_t);
#endif
  result_t (*devices)(int*);
  result_t (*getProperties)(int, properties_t*);
#if VERSION >= 11
  result_t (*listen)(void*, int, void*, void**);
  result_t (*connect)(void*, int, void*, void**, void**);
#else
  result_t (*listen)(int, void*, void**);
#if VERSION >= 10
  result_t (*connect)(int, config_t*, void*, void**, void**);
#elif VERSION >= 7
  result_t (*connect)(int, void*, void**, void**);
#else
  result_t (*connect)(int, void*, void**);
#endif
#endif
#if VERSION >= 7
  result_t (*accept)(void*, void**, void**);
#else
  result_t (*accept)(void*, void**);
#endif
  result_t (*regMr)(void*, void*, region_t, int, void**);
  result_t (*regMrDmaBuf)(void*, void*, size_t, int, uint64_t, int, void**);
  result_t (*deregMr)(void*, void*);
#if VERSION >= 10
  result_t (*isend)(void*, void*, bytes_t, int, void*, void*, void**);
  result_t (*irecv)(void*, int, void**, bytes_t*, int*, void**, void**, void**);
#else
  result_t (*isend)(void*, void*, bytes_t, int, void*, void**);
  result_t (*irecv)(void*, int, void**, bytes_t*, int*, void**, void**);
#endif
  result_t (*iflush)(void*, int, void**, int*, void**, void**);
  result_t (*test)(void*, int*, int*);
  result_t (*closeSend)(void*);
  result_t (*closeRecv)(void*);
  result_t (*closeListen)(void*);
#if VERSION >= 7
  result_t (*getDeviceMr)(void*, void*, void**);
  result_t (*irecvConsumed)(void*, int, void*);
#endif
#if VERSION >= 9
  result_t (*makeVDevice)(int*, void*);
#endif
#if VERSION >= 11
  result_t (*finalize)(void*);
  result_t (*setNetAttr)(void*, void*);
#endif
};

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
__attribute__((visibility("default"))) struct net JOIN(ncclNetPlugin_v, VERSION) = {
  .name = "Example",
  .init = init,
  .devices = devices,
  .getProperties = get_properties,
  .listen = listen_at,
  .connect = connect_to,
  .accept = accept_from,
  .regMr = register_memory,
  .deregMr = deregister,
  .isend = isend,
  .irecv = irecv,
  .test = test,
  .closeSend = close_comm,
  .closeRecv = close_comm,
  .closeListen = close_listener,
#if VERSION >= 11
  .finalize = finalize,
#endif
};
