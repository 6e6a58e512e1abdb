// Seeded random calls: collectives and sends in and out of groups, on several streams, buffers of
// GPUs, pinned, managed and of the host as each rank likes, sizes around what is pinned. Each call
// is made again with buffers of the host on a second communicator, and the results compared.
#include "base/random.h"

#include "../api/api_ranks.h"
#include "gpu_parts.h"
#include "railccl/types.h"

namespace railccl::test {
namespace {

using Bytes = std::vector<uint8_t>;

/// One call as all ranks have it.
struct Drawn {
  int kind = 0;  // as in issue()
  size_t count = 0;
  ncclDataType_t type = ncclInt32;
  ncclRedOp_t op = ncclSum;
  int root = 0;
  bool in_place = false;
};
constexpr int kKinds = 9;

size_t bytes_of(const Drawn& drawn) {
  return drawn.count * size_of(static_cast<Datatype>(drawn.type));
}

/// Does the buffer of that side have a block for every rank?
bool wide_input(int kind) { return kind == 1 || kind == 3 || kind == 7; }
bool wide_output(int kind) { return kind == 2 || kind == 3 || kind == 6; }

ncclResult_t issue(const Drawn& drawn, const void* in, void* out, int rank, int ranks,
                   ncclComm_t comm, cudaStream_t stream) {
  const auto [kind, count, type, op, root, in_place] = drawn;
  switch (kind) {
    case 0:
      return ncclAllReduce(in, out, count, type, op, comm, stream);
    case 1:
      return ncclReduceScatter(in, out, count, type, op, comm, stream);
    case 2:
      return ncclAllGather(in, out, count, type, comm, stream);
    case 3:
      return ncclAlltoAll(in, out, count, type, comm, stream);
    case 4:
      return ncclBroadcast(in, out, count, type, root, comm, stream);
    case 5:
      return ncclReduce(in, out, count, type, op, root, comm, stream);
    case 6:
      return ncclGather(in, out, count, type, root, comm, stream);
    case 7:
      return ncclScatter(in, out, count, type, root, comm, stream);
    default:
      break;
  }
  ncclResult_t results[4] = {ncclGroupStart()};
  results[1] = ncclSend(in, count, type, (rank + 1) % ranks, comm, stream);
  results[2] = ncclRecv(out, count, type, (rank + ranks - 1) % ranks, comm, stream);
  results[3] = ncclGroupEnd();
  return *std::max_element(std::begin(results), std::end(results));
}

/// A rank's buffers for one call, and a copy of them in the host's memory.
struct Operands {
  Operands(const Drawn& call, int rank, int ranks, Random& own)
      : drawn(call), input_where(where(own)), output_where(where(own)) {
    const size_t block = bytes_of(drawn), all = block * static_cast<size_t>(ranks);
    Bytes content(wide_input(drawn.kind) ? all : block);
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(own.below(64));
    const size_t out_bytes = wide_output(drawn.kind) ? all : block;
    // In place: one buffer, in which the smaller side is the rank's block of the larger.
    const size_t at = static_cast<size_t>(rank) * block;
    if (drawn.in_place) {
      Bytes shared(std::max(content.size(), out_bytes), 0x5a);
      input_at = wide_output(drawn.kind) ? at : 0;
      output_at = wide_input(drawn.kind) ? at : 0;
      std::copy(content.begin(), content.end(), shared.begin() + static_cast<ptrdiff_t>(input_at));
      content = std::move(shared);
    }
    input = std::make_unique<Buffer<uint8_t>>(content.size(), input_where);
    input->set(content);
    host_input = content;
    if (drawn.in_place) return;
    output = std::make_unique<Buffer<uint8_t>>(out_bytes, output_where);
    host_output.assign(out_bytes, 0x5a);
    output->set(host_output);
  }
  void issue_on(ncclComm_t comm, int rank, int ranks, cudaStream_t stream) {
    uint8_t* const out = drawn.in_place ? input->data() + output_at : output->data();
    OK(issue(drawn, input->data() + input_at, out, rank, ranks, comm, stream));
  }
  void check(ncclComm_t comm, int rank, int ranks) {
    uint8_t* const out = drawn.in_place ? host_input.data() + output_at : host_output.data();
    OK(issue(drawn, host_input.data() + input_at, out, rank, ranks, comm, nullptr));
    const Bytes got = (drawn.in_place ? input : output)->get();
    const Bytes& wanted = drawn.in_place ? host_input : host_output;
    // In place a reduce-scatter may leave anything in the other blocks.
    const bool part = drawn.in_place && wide_input(drawn.kind);
    const size_t from = part ? output_at : 0, until = part ? from + bytes_of(drawn) : wanted.size();
    EXPECT_TRUE(std::equal(got.begin() + static_cast<ptrdiff_t>(from),
                           got.begin() + static_cast<ptrdiff_t>(until),
                           wanted.begin() + static_cast<ptrdiff_t>(from)))
        << "kind " << drawn.kind << ", " << drawn.count << " of type " << drawn.type << ", rank "
        << rank << (drawn.in_place ? ", in place" : "");
  }
  static Where where(Random& own) {
    const Where places[] = {Where::device, Where::device, Where::managed, Where::host};
    return places[own.below(4)];
  }

  const Drawn drawn;
  const Where input_where, output_where;
  std::unique_ptr<Buffer<uint8_t>> input, output;
  size_t input_at = 0, output_at = 0;
  Bytes host_input, host_output;
};

Drawn draw(Random& common, int ranks) {
  // Integers: any order of summing gives the same.
  const ncclDataType_t types[] = {ncclInt8, ncclInt32, ncclUint64};
  const ncclRedOp_t ops[] = {ncclSum, ncclProd, ncclMax, ncclMin};
  Drawn drawn;
  drawn.kind = static_cast<int>(common.below(kKinds));
  drawn.type = types[common.below(3)];
  drawn.op = ops[common.below(4)];
  drawn.root = static_cast<int>(common.below(static_cast<uint64_t>(ranks)));
  drawn.count = common.below(10) == 0
                    ? (size_t{2} << 20) / size_of(static_cast<Datatype>(drawn.type))
                    : common.below(3000);
  drawn.in_place = drawn.kind <= 2 && drawn.count > 0 && common.below(3) == 0;
  return drawn;
}

TEST(GpuRandom, CallsGiveWhatTheHostGives) {
#ifdef __SANITIZE_THREAD__
  constexpr int kRounds = 15;
#else
  constexpr int kRounds = 40;
#endif
  Ranks ranks(3), host_ranks(3);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    Random common(7), own(static_cast<uint64_t>(rank) + 100);
    CudaStream streams[2];
    for (int round = 0; round < kRounds && !::testing::Test::HasFailure(); round++) {
      const bool grouped = common.below(2) == 0;
      std::vector<std::unique_ptr<Operands>> calls;
      const auto count = 1 + common.below(5);
      for (uint64_t i = 0; i < count; i++)
        calls.push_back(std::make_unique<Operands>(draw(common, 3), rank, 3, own));
      if (grouped) {
        OK(ncclGroupStart());
      }
      for (auto& call : calls) call->issue_on(comm, rank, 3, streams[own.below(2)]);
      if (grouped) {
        OK(ncclGroupEnd());
      }
      for (const CudaStream& stream : streams) stream.synchronize();
      for (auto& call : calls) call->check(host_ranks.comm(rank), rank, 3);
    }
  });
}

}  // namespace
}  // namespace railccl::test
