// Calls with buffers of GPUs: every collective, sends and receives, groups; in the order of
// streams, and beside ranks whose buffers are of the host. Ranks are threads with a device each, or
// share one.
#include "../api/api_ranks.h"
#include "gpu_parts.h"

namespace railccl::test {
namespace {

using Numbers = std::vector<int>;

int value_of(int rank, size_t i) { return static_cast<int>(i * 7 % 1000) + 1000 * rank; }
Numbers values_of(int rank, size_t count, size_t from = 0) {
  Numbers values(count);
  for (size_t i = 0; i < count; i++) values[i] = value_of(rank, from + i);
  return values;
}
Numbers sum_of(int ranks, size_t count, size_t from = 0) {
  Numbers sum(count);
  for (int rank = 0; rank < ranks; rank++)
    for (size_t i = 0; i < count; i++) sum[i] += value_of(rank, from + i);
  return sum;
}
/// Blocks of `count` that begin at from, of all ranks one after the other.
Numbers blocks_of(int ranks, size_t count, size_t from = 0) {
  Numbers all;
  for (int rank = 0; rank < ranks; rank++) {
    const Numbers one = values_of(rank, count, from);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

/// Every collective with `count` numbers, each out of place and, but all-to-all, in place.
void all_collectives(ncclComm_t comm, int rank, int ranks, size_t count, Where where,
                     cudaStream_t stream) {
  const auto n = static_cast<size_t>(ranks), r = static_cast<size_t>(rank);
  const int root = ranks - 1;
  const bool is_root = rank == root;
  const auto done = [&](Buffer<int>& buffer, const Numbers& wanted, const char* what) {
    EXPECT_EQ(cuStreamSynchronize(stream), 0);
    EXPECT_EQ(buffer.get(), wanted) << what << " of " << count << ", rank " << rank;
  };
  Buffer<int> in(count, where), out(count, where), wide_in(n * count, where),
      wide_out(n * count, where);
  in.set(values_of(rank, count));
  wide_in.set(values_of(rank, n * count));

  OK(ncclAllReduce(in.data(), out.data(), count, ncclInt, ncclSum, comm, stream));
  done(out, sum_of(ranks, count), "all-reduce");
  OK(ncclAllReduce(in.data(), in.data(), count, ncclInt, ncclSum, comm, stream));
  done(in, sum_of(ranks, count), "all-reduce in place");
  in.set(values_of(rank, count));

  OK(ncclReduceScatter(wide_in.data(), out.data(), count, ncclInt, ncclSum, comm, stream));
  done(out, sum_of(ranks, count, r * count), "reduce-scatter");
  OK(ncclAllGather(in.data(), wide_out.data(), count, ncclInt, comm, stream));
  done(wide_out, blocks_of(ranks, count), "all-gather");
  OK(ncclAlltoAll(wide_in.data(), wide_out.data(), count, ncclInt, comm, stream));
  done(wide_out, blocks_of(ranks, count, r * count), "all-to-all");
  OK(ncclBroadcast(in.data(), out.data(), count, ncclInt, root, comm, stream));
  done(out, values_of(root, count), "broadcast");
  OK(ncclReduce(in.data(), is_root ? out.data() : nullptr, count, ncclInt, ncclSum, root, comm,
                stream));
  if (is_root) done(out, sum_of(ranks, count), "reduce");
  OK(ncclGather(in.data(), is_root ? wide_out.data() : nullptr, count, ncclInt, root, comm,
                stream));
  if (is_root) done(wide_out, blocks_of(ranks, count), "gather");
  OK(ncclScatter(is_root ? wide_in.data() : nullptr, out.data(), count, ncclInt, root, comm,
                 stream));
  done(out, values_of(root, count, r * count), "scatter");

  Buffer<int> own(n * count, where);
  Numbers wanted(n * count);
  // In place: a rank's block of the larger buffer is its smaller buffer.
  own.set(values_of(rank, n * count));
  OK(ncclAllGather(own.data() + r * count, own.data(), count, ncclInt, comm, stream));
  for (int other = 0; other < ranks; other++) {
    const size_t begin = static_cast<size_t>(other) * count;
    const Numbers block = values_of(other, count, begin);
    std::copy(block.begin(), block.end(), wanted.begin() + static_cast<ptrdiff_t>(begin));
  }
  done(own, wanted, "all-gather in place");
  own.set(values_of(rank, n * count));
  wanted = values_of(rank, n * count);
  OK(ncclReduceScatter(own.data(), own.data() + r * count, count, ncclInt, ncclSum, comm, stream));
  EXPECT_EQ(cuStreamSynchronize(stream), 0);
  const Numbers whole = own.get(), sum = sum_of(ranks, count, r * count);
  EXPECT_TRUE(std::equal(sum.begin(), sum.end(), whole.begin() + static_cast<ptrdiff_t>(r * count)))
      << "reduce-scatter in place of " << count << ", rank " << rank;
  OK(ncclBcast(in.data(), count, ncclInt, root, comm, stream));
  done(in, values_of(root, count), "broadcast in place");
}

TEST(GpuCalls, EveryCollective) {
  Ranks ranks(3);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    for (const size_t count : {0ul, 1ul, 1000ul, 70'001ul})
      all_collectives(comm, rank, ranks.size(), count, Where::device, stream);
    all_collectives(comm, rank, ranks.size(), 100, Where::managed, stream);
  });
}

TEST(GpuCalls, ThroughThePinnedMemoryInPieces) {
  // Blocks of 4 MiB and a little: two in and two out do not fit into 16 MiB.
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    all_collectives(comm, rank, ranks.size(), (size_t{1} << 20) + 5, Where::device, stream);
  });
}

TEST(GpuCalls, BesideRanksOfTheHost) {
  Ranks ranks(4);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    if (rank % 2 == 0) {
      all_collectives(comm, rank, ranks.size(), 5000, Where::host, nullptr);
    } else {
      CudaStream stream;
      all_collectives(comm, rank, ranks.size(), 5000, Where::device, stream);
    }
  });
}

TEST(GpuCalls, OnTheDefaultStreams) {
  const auto per_thread = reinterpret_cast<cudaStream_t>(2);
  const auto legacy = reinterpret_cast<cudaStream_t>(1);
  int devices = 0;
  use_device(0);
  CU(cuDeviceGetCount(&devices));
  if (devices < 2) GTEST_SKIP() << "ranks of one device need streams of their own";
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    for (const cudaStream_t stream : {cudaStream_t{}, legacy, per_thread})
      all_collectives(comm, rank, ranks.size(), 300, Where::device, stream);
  });
}

TEST(GpuCalls, WithOneBufferOfTheHost) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<int> device(1000), host(1000, Where::host);
    device.set(values_of(rank, 1000));
    OK(ncclAllReduce(device.data(), host.data(), 1000, ncclInt, ncclSum, comm, stream));
    OK(ncclAllReduce(host.data(), device.data(), 1000, ncclInt, ncclMax, comm, stream));
    stream.synchronize();
    EXPECT_EQ(host.get(), sum_of(2, 1000));
    EXPECT_EQ(device.get(), sum_of(2, 1000));
    // None of a GPU, but in a stream's order; and pinned, which CUDA's null stream orders.
    Buffer<int> other(1000, Where::host);
    OK(ncclAllReduce(host.data(), other.data(), 1000, ncclInt, ncclMax, comm, stream));
    stream.synchronize();
    EXPECT_EQ(other.get(), sum_of(2, 1000));
  });
}

TEST(GpuCalls, CallsReturnWhileTheStreamIsBusyAndRunInItsOrder) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    constexpr size_t kCount = 2000;
    CudaStream stream;
    Buffer<int> in(kCount), out(kCount);
    in.set(Numbers(kCount, -1));
    const Numbers later = values_of(rank, kCount);
    Numbers result(kCount);
    CU(cuMemHostRegister_v2(result.data(), kCount * sizeof(int), 3));
    CU(cuMemHostRegister_v2(const_cast<int*>(later.data()), kCount * sizeof(int), 3));
    Gate gate(stream.handle());
    CU(cuMemcpyAsync(reinterpret_cast<uintptr_t>(in.data()),
                     reinterpret_cast<uintptr_t>(later.data()), kCount * sizeof(int),
                     stream.handle()));
    for (int i = 0; i < 50; i++)
      OK(ncclAllReduce(in.data(), out.data(), kCount, ncclInt, ncclSum, comm, stream));
    OK(ncclBroadcast(out.data(), in.data(), kCount, ncclInt, 0, comm, stream));
    CU(cuMemcpyAsync(reinterpret_cast<uintptr_t>(result.data()),
                     reinterpret_cast<uintptr_t>(in.data()), kCount * sizeof(int),
                     stream.handle()));
    EXPECT_NE(cuStreamQuery(stream.handle()), 0);
    EXPECT_EQ(result, Numbers(kCount));
    gate.open();
    stream.synchronize();
    EXPECT_EQ(result, sum_of(2, kCount));
    CU(cuMemHostUnregister(result.data()));
    CU(cuMemHostUnregister(const_cast<int*>(later.data())));
  });
}

TEST(GpuCalls, SeveralStreamsOfACommunicatorTakeTurns) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    constexpr size_t kCount = 3000;
    std::vector<std::unique_ptr<CudaStream>> streams;
    Buffer<int> in(kCount);
    std::vector<std::unique_ptr<Buffer<int>>> out;
    in.set(values_of(rank, kCount));
    for (int i = 0; i < 40; i++) {
      // Handles of ended streams come again.
      if (i % 5 == 0) streams.clear();
      if (i % 5 < 3) streams.push_back(std::make_unique<CudaStream>());
      out.push_back(std::make_unique<Buffer<int>>(kCount));
      OK(ncclAllReduce(in.data(), out.back()->data(), kCount, ncclInt, ncclSum, comm,
                       *streams[static_cast<size_t>(i) % streams.size()]));
    }
    CudaStream last;
    OK(ncclAllReduce(in.data(), in.data(), kCount, ncclInt, ncclSum, comm, last));
    last.synchronize();
    for (auto& buffer : out) EXPECT_EQ(buffer->get(), sum_of(2, kCount));
    EXPECT_EQ(in.get(), sum_of(2, kCount));
  });
}

/// Everyone sends to everyone in one group, and reduces beside it.
void exchange(ncclComm_t comm, int rank, int ranks, size_t count, cudaStream_t stream) {
  const auto n = static_cast<size_t>(ranks);
  Buffer<int> in(n * count), out(n * count), sum(count);
  in.set(values_of(rank, n * count));
  OK(ncclGroupStart());
  for (int peer = 0; peer < ranks; peer++) {
    const size_t at = static_cast<size_t>(peer) * count;
    OK(ncclRecv(out.data() + at, count, ncclInt, peer, comm, stream));
    OK(ncclSend(in.data() + at, count, ncclInt, peer, comm, stream));
  }
  OK(ncclAllReduce(in.data(), sum.data(), count, ncclInt, ncclSum, comm, stream));
  OK(ncclGroupEnd());
  EXPECT_EQ(cuStreamSynchronize(stream), 0);
  EXPECT_EQ(out.get(), blocks_of(ranks, count, static_cast<size_t>(rank) * count));
  EXPECT_EQ(sum.get(), sum_of(ranks, count));
}

TEST(GpuCalls, SendsAndReceivesInGroups) {
  Ranks ranks(3);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    for (const size_t count : {0ul, 1ul, 5000ul, size_t{3} << 18})
      exchange(comm, rank, ranks.size(), count, stream);
  });
}

TEST(GpuCalls, GroupsMakeProgressWhateverTheirPeersOrderIs) {
  // Rank 0 sends and receives in one group what rank 1 first receives and then sends: more than
  // the pinned memory holds, so that it would not do to wait for output while input is left.
  constexpr size_t kCount = size_t{5} << 20;
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<int> in(kCount), out(kCount);
    in.set(values_of(rank, kCount));
    const auto send = [&] { OK(ncclSend(in.data(), kCount, ncclInt, 1 - rank, comm, stream)); };
    const auto receive = [&] { OK(ncclRecv(out.data(), kCount, ncclInt, 1 - rank, comm, stream)); };
    if (rank == 0) {
      OK(ncclGroupStart());
      send();
      receive();
      OK(ncclGroupEnd());
    } else {
      receive();
      send();
    }
    stream.synchronize();
    EXPECT_EQ(out.get(), values_of(1 - rank, kCount));
  });
}

TEST(GpuCalls, OneThreadDrivesAllRanksOnOneStream) {
  Ranks ranks(3);
  use_device(0);
  CudaStream stream, other;
  constexpr size_t kCount = 4000;
  std::vector<std::unique_ptr<Buffer<int>>> in, out;
  for (int rank = 0; rank < 3; rank++) {
    in.push_back(std::make_unique<Buffer<int>>(kCount));
    out.push_back(std::make_unique<Buffer<int>>(kCount));
    in.back()->set(values_of(rank, kCount));
  }
  for (int i = 0; i < 20; i++) {
    OK(ncclGroupStart());
    for (size_t rank = 0; rank < 3; rank++) {
      const cudaStream_t on = i % 3 == 2 && rank == 1 ? other : stream;
      OK(ncclAllReduce(in[rank]->data(), out[rank]->data(), kCount, ncclInt, ncclSum,
                       ranks.comm(static_cast<int>(rank)), on));
      // A second stream for the same communicator.
      OK(ncclBroadcast(in[rank]->data(), in[rank]->data(), 1, ncclInt, 0,
                       ranks.comm(static_cast<int>(rank)), i % 2 == 0 ? other : stream));
    }
    OK(ncclGroupEnd());
  }
  stream.synchronize();
  other.synchronize();
  Numbers wanted = sum_of(3, kCount);
  wanted[0] = 3 * value_of(0, 0);
  for (auto& buffer : out) EXPECT_EQ(buffer->get(), wanted);
}

TEST(GpuCalls, AGroupOnSeveralStreamsIsInTheOrderOfEach) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    constexpr size_t kCount = 100;
    CudaStream first, second;
    Buffer<int> later(kCount), in(kCount), sum(kCount), out(kCount), copy(kCount);
    in.set(Numbers(kCount, -1));
    copy.set(Numbers(kCount, -1));
    later.set(values_of(rank, kCount));
    const auto move = [](Buffer<int>& to, Buffer<int>& from, const CudaStream& stream) {
      CU(cuMemcpyAsync(reinterpret_cast<uintptr_t>(to.data()),
                       reinterpret_cast<uintptr_t>(from.data()), kCount * sizeof(int),
                       stream.handle()));
    };
    Gate gate(second.handle());
    move(in, later, second);
    OK(ncclGroupStart());
    OK(ncclAllReduce(later.data(), sum.data(), kCount, ncclInt, ncclSum, comm, first));
    OK(ncclBroadcast(in.data(), out.data(), kCount, ncclInt, 1, comm, second));
    OK(ncclGroupEnd());
    move(copy, out, second);
    // Time for the first stream to read what the second one has not written yet.
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_NE(cuStreamQuery(second.handle()), 0);
    gate.open();
    second.synchronize();
    first.synchronize();
    EXPECT_EQ(sum.get(), sum_of(2, kCount));
    EXPECT_EQ(copy.get(), values_of(1, kCount));
  });
}

TEST(GpuCalls, AllDevicesOfAProcess) {
  use_device(0);
  int devices = 0;
  CU(cuDeviceGetCount(&devices));
  std::vector<ncclComm_t> comms(static_cast<size_t>(devices));
  OK(ncclCommInitAll(comms.data(), devices, nullptr));
  std::vector<std::unique_ptr<Buffer<int>>> buffers;
  std::vector<std::unique_ptr<CudaStream>> streams;
  for (int i = 0; i < devices; i++) {
    use_device(i);
    int device = -1;
    OK(ncclCommCuDevice(comms[static_cast<size_t>(i)], &device));
    EXPECT_EQ(device, i);
    streams.push_back(std::make_unique<CudaStream>());
    buffers.push_back(std::make_unique<Buffer<int>>(100));
    buffers.back()->set(values_of(i, 100));
  }
  // Each is queued in its own device's context, whichever is current.
  CU(cuCtxSetCurrent(nullptr));
  OK(ncclGroupStart());
  for (size_t i = 0; i < comms.size(); i++)
    OK(ncclAllReduce(buffers[i]->data(), buffers[i]->data(), 100, ncclInt, ncclSum, comms[i],
                     *streams[i]));
  OK(ncclGroupEnd());
  for (size_t i = 0; i < comms.size(); i++) {
    use_device(static_cast<int>(i));
    streams[i]->synchronize();
    EXPECT_EQ(buffers[i]->get(), sum_of(devices, 100));
    OK(ncclCommDestroy(comms[i]));
  }
  buffers.clear();
  ncclComm_t none[1];
  const int beyond[] = {devices};
  FAILS(ncclCommInitAll(none, 1, beyond), ncclInvalidArgument, "device");
}

TEST(GpuCalls, FactorsAreReadInTheOrderOfTheStream) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<float> in(10), first(10), second(10), factor(1), next(1);
    in.set(std::vector<float>(10, 1.0f));
    factor.set({static_cast<float>(rank + 2)});
    next.set({10.0f});
    ncclRedOp_t op;
    OK(ncclRedOpCreatePreMulSum(&op, factor.data(), ncclFloat, ncclScalarDevice, comm));
    Gate gate(stream.handle());
    OK(ncclAllReduce(in.data(), first.data(), 10, ncclFloat, op, comm, stream));
    CU(cuMemcpyAsync(reinterpret_cast<uintptr_t>(factor.data()),
                     reinterpret_cast<uintptr_t>(next.data()), sizeof(float), stream.handle()));
    OK(ncclAllReduce(in.data(), second.data(), 10, ncclFloat, op, comm, stream));
    gate.open();
    stream.synchronize();
    EXPECT_EQ(first.get(), std::vector<float>(10, 5.0f));
    EXPECT_EQ(second.get(), std::vector<float>(10, 20.0f));
    OK(ncclRedOpDestroy(op, comm));
  });
}

TEST(GpuCalls, NonblockingCommunicatorsAndSplits) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  use_device(0);
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  on_threads(2, [&](int rank) {
    use_device(rank);
    CudaStream stream;
    const auto wait = [](ncclComm_t comm) {
      ncclResult_t state = ncclInProgress;
      while (state == ncclInProgress) OK(ncclCommGetAsyncError(comm, &state));
      EXPECT_EQ(state, ncclSuccess);
    };
    ncclComm_t comm = nullptr, half = nullptr;
    EXPECT_EQ(ncclCommInitRankConfig(&comm, 2, id, rank, &config), ncclInProgress);
    wait(comm);
    all_collectives(comm, rank, 2, 100, Where::device, stream);
    EXPECT_EQ(ncclCommSplit(comm, 0, 1 - rank, &half, nullptr), ncclInProgress);
    wait(half);
    all_collectives(half, 1 - rank, 2, 100, Where::device, stream);
    int device = -1;
    OK(ncclCommCuDevice(half, &device));
    EXPECT_EQ(device, use_device(rank));
    OK(ncclCommDestroy(half));
    OK(ncclCommDestroy(comm));
  });
}

TEST(GpuCalls, SeveralCommunicatorsOfARank) {
  Ranks ranks(2), others(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream one, two;
    const ncclComm_t other = others.comm(rank);
    Buffer<int> in(5000), first(5000), second(5000), third(5000);
    in.set(values_of(rank, 5000));
    for (int i = 0; i < 10; i++) {
      // The ranks queue them in different orders, on streams that know nothing of each other.
      for (const bool now : {rank == 0, rank != 0}) {
        const ncclComm_t on = now ? comm : other;
        int* const out = now ? first.data() : second.data();
        OK(ncclAllReduce(in.data(), out, 5000, ncclInt, ncclSum, on, now ? one : two));
      }
    }
    one.synchronize();
    OK(ncclAllReduce(first.data(), third.data(), 5000, ncclInt, ncclMax, other, two));
    two.synchronize();
    for (Buffer<int>* buffer : {&first, &second, &third}) EXPECT_EQ(buffer->get(), sum_of(2, 5000));
  });
}

TEST(GpuCalls, RequestsStart) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<int> in(500), out(500);
    in.set(values_of(rank, 500));
    railcclRequest_t request = nullptr;
    OK(railcclRequestCreate(railcclAllReduce, in.data(), out.data(), 500, ncclInt, ncclSum, 0, comm,
                            &request));
    for (int i = 0; i < 3; i++) OK(railcclRequestStart(request, stream));
    stream.synchronize();
    EXPECT_EQ(out.get(), sum_of(2, 500));
    OK(railcclRequestDestroy(request));
  });
}

}  // namespace
}  // namespace railccl::test
