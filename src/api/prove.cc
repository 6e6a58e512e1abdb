// railcclCommProve: what the plan of a collective does, by the checker.
#include <algorithm>
#include <iterator>

#include "api/calls.h"

using namespace railccl;
using namespace railccl::api;

extern "C" {

ncclResult_t railcclCommProve(railcclCollective_t collective, size_t count, ncclDataType_t datatype,
                              ncclRedOp_t op, int root, int inPlace, railcclReach_t reach,
                              ncclComm_t comm, railcclProof_t* proof) {
  return api::call("railcclCommProve", [&]() -> Status {
    RAILCCL_CHECK(not_null(proof, "proof"));
    if (proof->size != sizeof *proof)
      return Status(Code::invalid_argument, "proof was not set to its initializer (size {})",
                    proof->size);
    if (reach < railcclReachNone || reach > railcclReachOpen)
      return Status(Code::invalid_argument, "{} is no reach", static_cast<int>(reach));
    RAILCCL_TRY(const Collective kind, collective_from(collective));
    RAILCCL_TRY(Use use, Use::of(comm));
    runtime::Call call;
    RAILCCL_CHECK(call_without_buffers({kind, nullptr, nullptr, count, datatype, op, root},
                                       *use.operator->(), &call));
    call.request.in_place = inPlace != 0 && kind != Collective::all_to_all;
    RAILCCL_TRY(const runtime::Proof proven,
                use.communicator().prove(call.request, static_cast<algorithms::Reach>(reach)));
    *proof = RAILCCL_PROOF_INITIALIZER;
    const size_t length = std::min(proven.algorithm.size(), std::size(proof->algorithm) - 1);
    std::copy_n(proven.algorithm.begin(), length, proof->algorithm);
    proof->rounds = proven.rounds;
    proof->messages = proven.messages;
    proof->bytes = proven.bytes;
    proof->bytesBetweenHosts = proven.bytes_between_hosts;
    proof->bytesAcrossRails = proven.bytes_across_rails;
    proof->rails = static_cast<int>(proven.bytes_of_rail.size());
    for (size_t rail = 0; rail < proven.bytes_of_rail.size(); rail++)
      proof->bytesOfRail[std::min(rail, std::size(proof->bytesOfRail) - 1)] +=
          proven.bytes_of_rail[rail];
    return ok();
  });
}

}  // extern "C"
