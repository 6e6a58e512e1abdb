// The binary interfaces of NCCL's network plugins, versions 6 to 11: what a library has under the
// symbols ncclNetPlugin_v6 to ncclNetPlugin_v11. Layouts and signatures are others' and never
// change; names are ours. Functions that are never called from here are untyped pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/plugin.h"

namespace railccl::transport::net_abi {

inline constexpr size_t kHandleBytes = 128;
/// Of one send or receive side at once: so many every version promises.
inline constexpr int kRequestsMax = 8;
inline constexpr int kHostMemory = 1;        // bit of pointers, and a memory's type
inline constexpr int kDeviceTypeHost = 0;    // no part of it runs on a GPU
inline constexpr int kTrafficClassAny = -1;  // the plugin's default
inline constexpr int kFusedMax = 4;

struct Properties6 {
  char* name;
  char* pci_path;  // in sysfs; null: not a device of the machine
  uint64_t guid;   // equal for devices that are one chip
  int pointers;
  int mbps;
  int port;
  float latency_us;
  int comms_max;
  int receives_max;
};

struct Properties7 {
  char* name;
  char* pci_path;
  uint64_t guid;
  int pointers;
  int mbps;
  int port;
  float latency_us;
  int comms_max;
  int receives_max;
  int device_type;
  int device_version;
};

struct Properties8 {
  char* name;
  char* pci_path;
  uint64_t guid;
  int pointers;
  int registers_globally;
  int mbps;
  int port;
  float latency_us;
  int comms_max;
  int receives_max;
  int device_type;
  int device_version;
};

struct Fused {
  int count;
  int devices[kFusedMax];
};

struct Properties9 {
  char* name;
  char* pci_path;
  uint64_t guid;
  int pointers;
  int registers_globally;
  int flushes_always;
  int mbps;
  int port;
  float latency_us;
  int comms_max;
  int receives_max;
  int device_type;
  int device_version;
  Fused fused;
  size_t bytes_max;
  size_t collective_bytes_max;
};

using Properties10 = Properties9;

struct Properties11 {
  char* name;
  char* pci_path;
  uint64_t guid;
  int pointers;
  int registers_globally;
  int flushes_always;
  int mbps;
  int port;
  float latency_us;
  int comms_max;
  int receives_max;
  int device_type;
  int device_version;
  Fused fused;
  size_t bytes_max;
  size_t collective_bytes_max;
  int requests_at_once_max;
};

/// How a communicator's bytes are to be treated.
struct Wishes {
  int traffic_class;
};

/// Of a GPU that talks to the network itself; always asked for as none.
struct OnDevice;
/// Tells a profiler what the network does.
using Profile = PluginResult(void** event, int what, void* parent, int64_t plugin, void* data);

using Init6 = PluginResult(PluginLogger logger);
using Init10 = PluginResult(PluginLogger logger, Profile* profile);
using Init11 = PluginResult(void** context, uint64_t communicator, Wishes* wishes,
                            PluginLogger logger, Profile* profile);
using Devices = PluginResult(int* count);
template <typename Properties>
using GetProperties = PluginResult(int device, Properties* properties);
using Listen6 = PluginResult(int device, void* handle, void** listen);
using Listen11 = PluginResult(void* context, int device, void* handle, void** listen);
using Connect6 = PluginResult(int device, void* handle, void** send);
using Connect7 = PluginResult(int device, void* handle, void** send, OnDevice** on_device);
using Connect10 = PluginResult(int device, Wishes* wishes, void* handle, void** send,
                               OnDevice** on_device);
using Connect11 = PluginResult(void* context, int device, void* handle, void** send,
                               OnDevice** on_device);
using Accept6 = PluginResult(void* listen, void** receive);
using Accept7 = PluginResult(void* listen, void** receive, OnDevice** on_device);
using Register6 = PluginResult(void* comm, void* data, int bytes, int type, void** memory);
using Register8 = PluginResult(void* comm, void* data, size_t bytes, int type, void** memory);
using Deregister = PluginResult(void* comm, void* memory);
using Send6 = PluginResult(void* send, void* data, int bytes, int tag, void* memory,
                           void** request);
using Send9 = PluginResult(void* send, void* data, size_t bytes, int tag, void* memory,
                           void** request);
using Send10 = PluginResult(void* send, void* data, size_t bytes, int tag, void* memory,
                            void* parent, void** request);
using Receive6 = PluginResult(void* receive, int count, void** data, int* bytes, int* tags,
                              void** memories, void** request);
using Receive9 = PluginResult(void* receive, int count, void** data, size_t* bytes, int* tags,
                              void** memories, void** request);
using Receive10 = PluginResult(void* receive, int count, void** data, size_t* bytes, int* tags,
                               void** memories, void** parents, void** request);
using Test = PluginResult(void* request, int* done, int* bytes);
using Close = PluginResult(void* comm);
using Finalize = PluginResult(void* context);

struct Net6 {
  const char* name;
  Init6* init;
  Devices* devices;
  GetProperties<Properties6>* get_properties;
  Listen6* listen;
  Connect6* connect;
  Accept6* accept;
  Register6* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send6* send;
  Receive6* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
};

struct Net7 {
  const char* name;
  Init6* init;
  Devices* devices;
  GetProperties<Properties7>* get_properties;
  Listen6* listen;
  Connect7* connect;
  Accept7* accept;
  Register6* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send6* send;
  Receive6* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
  void* memory_on_device;
  void* receive_consumed;
};

struct Net8 {
  const char* name;
  Init6* init;
  Devices* devices;
  GetProperties<Properties8>* get_properties;
  Listen6* listen;
  Connect7* connect;
  Accept7* accept;
  Register8* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send6* send;
  Receive6* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
  void* memory_on_device;
  void* receive_consumed;
};

struct Net9 {
  const char* name;
  Init6* init;
  Devices* devices;
  GetProperties<Properties9>* get_properties;
  Listen6* listen;
  Connect7* connect;
  Accept7* accept;
  Register8* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send9* send;
  Receive9* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
  void* memory_on_device;
  void* receive_consumed;
  void* fuse;
};

struct Net10 {
  const char* name;
  Init10* init;
  Devices* devices;
  GetProperties<Properties10>* get_properties;
  Listen6* listen;
  Connect10* connect;
  Accept7* accept;
  Register8* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send10* send;
  Receive10* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
  void* memory_on_device;
  void* receive_consumed;
  void* fuse;
};

struct Net11 {
  const char* name;
  Init11* init;
  Devices* devices;
  GetProperties<Properties11>* get_properties;
  Listen11* listen;
  Connect11* connect;
  Accept7* accept;
  Register8* register_memory;
  void* register_dma_buffer;
  Deregister* deregister;
  Send10* send;
  Receive10* receive;
  void* flush;
  Test* test;
  Close* close_send;
  Close* close_receive;
  Close* close_listen;
  void* memory_on_device;
  void* receive_consumed;
  void* fuse;
  Finalize* finalize;
  void* set_attributes;
};

// Offsets as the System V ABI lays out the documented structs.
static_assert(offsetof(Properties6, receives_max) == 44 && sizeof(Properties6) == 48);
static_assert(offsetof(Properties7, device_version) == 52 && sizeof(Properties7) == 56);
static_assert(offsetof(Properties8, mbps) == 32 && sizeof(Properties8) == 64);
static_assert(offsetof(Properties9, mbps) == 36 && offsetof(Properties9, fused) == 64);
static_assert(offsetof(Properties9, bytes_max) == 88 && sizeof(Properties9) == 104);
static_assert(offsetof(Properties11, requests_at_once_max) == 104 && sizeof(Properties11) == 112);
static_assert(sizeof(Net6) == 17 * 8 && sizeof(Net7) == 19 * 8 && sizeof(Net8) == 19 * 8);
static_assert(sizeof(Net9) == 20 * 8 && sizeof(Net10) == 20 * 8 && sizeof(Net11) == 22 * 8);

}  // namespace railccl::transport::net_abi
