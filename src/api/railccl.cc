// The functions of railccl/railccl.h.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "api/calls.h"
#include "api/config.h"
#include "api/errors.h"
#include "base/log.h"

using namespace railccl;
using namespace railccl::api;

namespace {

Result<runtime::Stream*> own_stream(cudaStream_t stream) {
  RAILCCL_CHECK(not_null(stream, "stream"));
  if (runtime::Stream* ours = runtime::Stream::from_handle(stream)) return ours;
  return Status(Code::invalid_argument, "stream {} was not made by railcclStreamCreate",
                static_cast<const void*>(stream));
}

void copy_text(const std::string& from, char* to, size_t bytes) {
  const size_t length = std::min(from.size(), bytes - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

}  // namespace

extern "C" {

ncclResult_t railcclGetVersion(int* major, int* minor, int* patch) {
  return api::call("railcclGetVersion", [&]() -> Status {
    int parts[3] = {0, 0, 0};
    std::sscanf(RAILCCL_VERSION, "%d.%d.%d", &parts[0], &parts[1], &parts[2]);
    if (major != nullptr) *major = parts[0];
    if (minor != nullptr) *minor = parts[1];
    if (patch != nullptr) *patch = parts[2];
    return ok();
  });
}

ncclResult_t railcclStreamCreate(cudaStream_t* stream) {
  return api::call("railcclStreamCreate", [&]() -> Status {
    RAILCCL_CHECK(not_null(stream, "stream"));
    *stream = reinterpret_cast<cudaStream_t>(new runtime::Stream);
    return ok();
  });
}

ncclResult_t railcclStreamSynchronize(cudaStream_t stream) {
  return api::call("railcclStreamSynchronize", [&]() -> Status {
    RAILCCL_TRY(runtime::Stream * ours, own_stream(stream));
    return ours->synchronize();
  });
}

ncclResult_t railcclStreamQuery(cudaStream_t stream) {
  bool idle = true;
  const ncclResult_t result = api::call("railcclStreamQuery", [&]() -> Status {
    RAILCCL_TRY(runtime::Stream * ours, own_stream(stream));
    idle = ours->idle();
    return ok();
  });
  return result == ncclSuccess && !idle ? ncclInProgress : result;
}

ncclResult_t railcclStreamDestroy(cudaStream_t stream) {
  if (stream == nullptr) return ncclSuccess;
  return api::call("railcclStreamDestroy", [&]() -> Status {
    RAILCCL_TRY(runtime::Stream * ours, own_stream(stream));
    const Status status = ours->synchronize();
    delete ours;
    return status;
  });
}

ncclResult_t railcclGetUniqueIdAt(const char* host, int port, const char* secret,
                                  ncclUniqueId* uniqueId) {
  return api::call("railcclGetUniqueIdAt", [&]() -> Status {
    RAILCCL_CHECK(not_null(host, "host"));
    RAILCCL_CHECK(not_null(uniqueId, "uniqueId"));
    if (port < 1 || port > 65535)
      return Status(Code::invalid_argument, "port is {}; it must be from 1 to 65535", port);
    RAILCCL_TRY(const runtime::UniqueId id, runtime::unique_id_at(host, static_cast<uint16_t>(port),
                                                                  secret == nullptr ? "" : secret));
    std::memcpy(uniqueId, id.data(), id.size());
    return ok();
  });
}

ncclResult_t railcclCommLastChoice(ncclComm_t comm, railcclChoice_t* choice) {
  return api::call("railcclCommLastChoice", [&]() -> Status {
    RAILCCL_CHECK(not_null(choice, "choice"));
    if (choice->size != sizeof *choice)
      return Status(Code::invalid_argument, "choice was not set to its initializer (size {})",
                    choice->size);
    RAILCCL_TRY(Use use, Use::of(comm));
    const runtime::Choice last = use.communicator().last_choice();
    copy_text(last.algorithm, choice->algorithm, sizeof choice->algorithm);
    copy_text(last.transport, choice->transport, sizeof choice->transport);
    choice->channels = last.channels;
    choice->chunkBytes = last.chunk_bytes;
    choice->predictedUs = last.predicted_s * 1e6;
    choice->boundUs = last.bound_s * 1e6;
    return ok();
  });
}

ncclResult_t railcclCommMeeting(ncclComm_t comm, railcclMeeting_t* meeting) {
  return api::call("railcclCommMeeting", [&]() -> Status {
    RAILCCL_CHECK(not_null(meeting, "meeting"));
    if (meeting->size != sizeof *meeting)
      return Status(Code::invalid_argument, "meeting was not set to its initializer (size {})",
                    meeting->size);
    RAILCCL_TRY(Use use, Use::of(comm));
    RAILCCL_TRY(const runtime::Joining joining, use.communicator().joining());
    meeting->seconds = joining.seconds;
    meeting->messagesSent = joining.traffic.sent;
    meeting->messagesReceived = joining.traffic.received;
    return ok();
  });
}

ncclResult_t railcclCommPaths(ncclComm_t comm, char* text, size_t size, size_t* length) {
  return api::call("railcclCommPaths", [&]() -> Status {
    RAILCCL_CHECK(not_null(text, "text"));
    if (size == 0) return Status(Code::invalid_argument, "size is 0");
    RAILCCL_TRY(Use use, Use::of(comm));
    RAILCCL_TRY(const std::string paths, use.communicator().paths());
    const size_t written = std::min(size - 1, paths.size());
    std::memcpy(text, paths.data(), written);
    text[written] = '\0';
    if (length != nullptr) *length = paths.size();
    return ok();
  });
}

ncclResult_t railcclGetSettings(const railcclSetting_t** settings, int* count) {
  return api::call("railcclGetSettings", [&]() -> Status {
    RAILCCL_CHECK(not_null(settings, "settings"));
    RAILCCL_CHECK(not_null(count, "count"));
    static const std::vector<SettingRow>* rows = new std::vector<SettingRow>(setting_rows());
    static const std::vector<railcclSetting_t>* table = [] {
      auto* made = new std::vector<railcclSetting_t>;
      for (const SettingRow& row : *rows)
        made->push_back({row.variable, row.kind, row.default_text.c_str(), row.meaning});
      return made;
    }();
    *settings = table->data();
    *count = static_cast<int>(table->size());
    return ok();
  });
}

ncclResult_t railcclGetSetting(const char* name, const char** value, const char** file) {
  return api::call("railcclGetSetting", [&]() -> Status {
    RAILCCL_CHECK(not_null(name, "name"));
    RAILCCL_CHECK(not_null(value, "value"));
    RAILCCL_CHECK(not_null(file, "file"));
    const SettingOrigin origin = origin_of(name);
    *value = origin.value;
    *file = origin.file;
    return ok();
  });
}

ncclResult_t railcclCheckEnvironment(void) {
  return api::call("railcclCheckEnvironment", []() -> Status {
    RAILCCL_TRY(const Settings settings, Settings::load());
    (void)settings;
    return ok();
  });
}

}  // extern "C"
