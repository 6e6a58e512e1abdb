// The host's side of NCCL's device API (nccl_device_host.h): teams and properties are answered,
// what would serve GPU code is refused.
#include <algorithm>
#include <cstring>

#include "api/config.h"
#include "api/errors.h"
#include "api/handle.h"

using namespace railccl;
using namespace railccl::api;

namespace {

ncclResult_t refuse(const char* function, const char* what) {
  return api::call(function, [&] {
    return Status(Code::unsupported,
                  "{} is for communication that GPU code starts by itself; this library works on "
                  "host memory and has none",
                  what);
  });
}

ncclResult_t refuse_pointer(const char* function) {
  return refuse(function, "a device pointer of a window");
}

/// All ranks; every number 0, and the reason as this thread's last error, for a bad communicator.
ncclTeam_t world_of(const char* function, ncclComm_t comm) {
  ncclTeam_t team{0, 0, 0};
  (void)api::call(function, [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    team = {use.communicator().size(), use.communicator().rank(), 1};
    return ok();
  });
  return team;
}

}  // namespace

extern "C" {

ncclTeam_t pncclTeamWorld(ncclComm_t comm) { return world_of("ncclTeamWorld", comm); }

ncclTeam_t pncclTeamLsa(ncclComm_t comm) {
  const ncclTeam_t world = world_of("ncclTeamLsa", comm);
  if (world.nRanks == 0) return world;
  return {1, 0, 1};
}

ncclTeam_t pncclTeamRail(ncclComm_t comm) { return world_of("ncclTeamRail", comm); }

int pncclTeamRankToWorld(ncclComm_t comm, ncclTeam_t team, int rank) {
  const ncclTeam_t world = world_of("ncclTeamRankToWorld", comm);
  return world.nRanks == 0 ? -1 : world.rank + (rank - team.rank) * team.stride;
}

int pncclTeamRankToLsa(ncclComm_t comm, ncclTeam_t team, int rank) {
  const ncclTeam_t world = world_of("ncclTeamRankToLsa", comm);
  return world.nRanks == 0 ? -1 : (rank - team.rank) * team.stride;
}

int pncclLLA2ACalcSlots(int maxElts, int maxEltSize) { return maxElts * ((maxEltSize + 7) / 8); }

ncclResult_t pncclDevCommCreate(ncclComm_t, ncclDevCommRequirements_t const*, ncclDevComm_t*) {
  return refuse("ncclDevCommCreate", "a device communicator");
}

ncclResult_t pncclDevCommDestroy(ncclComm_t, ncclDevComm_t const*) {
  return refuse("ncclDevCommDestroy", "a device communicator");
}

ncclResult_t pncclGinBarrierCreateRequirement(ncclComm_t, ncclTeam_t, int, ncclGinBarrierHandle_t*,
                                              ncclDevResourceRequirements_t*) {
  return refuse("ncclGinBarrierCreateRequirement", "a barrier between GPUs");
}

ncclResult_t pncclLLA2ACreateRequirement(int, int, ncclLLA2AHandle_t*,
                                         ncclDevResourceRequirements_t*) {
  return refuse("ncclLLA2ACreateRequirement", "an all-to-all between GPUs");
}

ncclResult_t pncclLsaBarrierCreateRequirement(ncclTeam_t, int, ncclLsaBarrierHandle_t*,
                                              ncclDevResourceRequirements_t*) {
  return refuse("ncclLsaBarrierCreateRequirement", "a barrier between GPUs");
}

ncclResult_t pncclGetLsaDevicePointer(ncclWindow_t, size_t, int, void**) {
  return refuse_pointer("ncclGetLsaDevicePointer");
}

ncclResult_t pncclGetLsaMultimemDevicePointer(ncclWindow_t, size_t, void**) {
  return refuse_pointer("ncclGetLsaMultimemDevicePointer");
}

ncclResult_t pncclGetMultimemDevicePointer(ncclWindow_t, size_t, ncclMultimemHandle_t, void**) {
  return refuse_pointer("ncclGetMultimemDevicePointer");
}

ncclResult_t pncclGetPeerDevicePointer(ncclWindow_t, size_t, int, void**) {
  return refuse_pointer("ncclGetPeerDevicePointer");
}

ncclResult_t pncclCommQueryProperties(ncclComm_t comm, ncclCommProperties_t* props) {
  return api::call("ncclCommQueryProperties", [&]() -> Status {
    RAILCCL_CHECK(not_null(props, "props"));
    size_t size = 0;
    std::memcpy(&size, props, sizeof size);
    RAILCCL_CHECK(check_layout("props", size, offsetof(ncclCommProperties_t, nLsaTeams),
                               props->magic, 0xcafebeef));
    RAILCCL_TRY(Use use, Use::of(comm));
    const auto topology = use.communicator().topology();
    if (topology == nullptr)
      return Status(Code::invalid_usage, "the communicator is still being made");
    ncclCommProperties_t all = NCCL_COMM_PROPERTIES_INITIALIZER;
    all.size = size;
    all.version = props->version;
    all.rank = use.communicator().rank();
    all.nRanks = use.communicator().size();
    all.cudaDev = all.nvmlDev = -1;
    all.nLsaTeams = all.nRanks;
    all.hostRmaSupport = topology->used_hosts().size() == 1;
    std::memcpy(props, &all, std::min(size, sizeof all));
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclTeamWorld);
RAILCCL_EXPORT(ncclTeamLsa);
RAILCCL_EXPORT(ncclTeamRail);
RAILCCL_EXPORT(ncclTeamRankToWorld);
RAILCCL_EXPORT(ncclTeamRankToLsa);
RAILCCL_EXPORT(ncclLLA2ACalcSlots);
RAILCCL_EXPORT(ncclDevCommCreate);
RAILCCL_EXPORT(ncclDevCommDestroy);
RAILCCL_EXPORT(ncclGinBarrierCreateRequirement);
RAILCCL_EXPORT(ncclLLA2ACreateRequirement);
RAILCCL_EXPORT(ncclLsaBarrierCreateRequirement);
RAILCCL_EXPORT(ncclGetLsaDevicePointer);
RAILCCL_EXPORT(ncclGetLsaMultimemDevicePointer);
RAILCCL_EXPORT(ncclGetMultimemDevicePointer);
RAILCCL_EXPORT(ncclGetPeerDevicePointer);
RAILCCL_EXPORT(ncclCommQueryProperties);
