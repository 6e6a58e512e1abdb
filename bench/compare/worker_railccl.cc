// railccl's processes in compare_host: the public C API on host memory.
#include <nccl.h>

#include <cstdlib>
#include <cstring>

#include "worker.h"

namespace railccl::compare {
namespace {

ncclDataType_t datatype_of(Type type) {
  switch (type) {
    case Type::float32:
      return ncclFloat32;
    case Type::bfloat16:
      return ncclBfloat16;
    case Type::float16:
      return ncclFloat16;
  }
  return ncclFloat32;
}

class Railccl : public Library {
 public:
  ~Railccl() override {
    if (comm_ != nullptr) ncclCommDestroy(comm_);
  }

  bool connect(Page& page, int rank, std::string* error) override {
    ncclUniqueId id;
    static_assert(sizeof id <= sizeof page.shared_id);
    if (rank == 0) {
      if (ncclGetUniqueId(&id) != ncclSuccess) {
        *error = ncclGetLastError(nullptr);
        return false;
      }
      std::memcpy(page.shared_id, &id, sizeof id);
      // release: partner of the acquire load below.
      page.id_ready.store(1, std::memory_order_release);
      wake_all(&page.id_ready);
    }
    while (page.id_ready.load(std::memory_order_acquire) == 0) sleep_while(&page.id_ready, 0, 100);
    std::memcpy(&id, page.shared_id, sizeof id);
    const ncclResult_t result = ncclCommInitRank(&comm_, page.ranks, id, rank);
    if (result != ncclSuccess) *error = ncclGetLastError(nullptr);
    return result == ncclSuccess;
  }

  void* allocate(size_t bytes, bool registered) override {
    if (!registered) return Library::allocate(bytes, false);
    void* memory = nullptr;
    return ncclMemAlloc(&memory, bytes) == ncclSuccess ? memory : nullptr;
  }

  void release(void* memory, size_t bytes, bool registered) override {
    if (registered) {
      ncclMemFree(memory);
    } else {
      Library::release(memory, bytes, false);
    }
  }

  bool bind(Work& work, std::string*) override {
    work_ = &work;
    type_ = datatype_of(work.type);
    return true;
  }

  bool call() override {
    const Work& w = *work_;
    switch (w.operation) {
      case Operation::all_reduce:
        return ok(ncclAllReduce(w.in, w.out, w.count, type_, ncclSum, comm_, nullptr));
      case Operation::reduce_scatter:
        return ok(ncclReduceScatter(w.in, w.out, w.block, type_, ncclSum, comm_, nullptr));
      case Operation::all_gather:
        return ok(ncclAllGather(w.in, w.out, w.block, type_, comm_, nullptr));
      case Operation::broadcast:
        return ok(ncclBroadcast(w.out, w.out, w.count, type_, 0, comm_, nullptr));
      case Operation::all_to_all:
        return ok(ncclAlltoAll(w.in, w.out, w.block, type_, comm_, nullptr));
    }
    return false;
  }

  std::string failure() override { return ncclGetLastError(comm_); }

 private:
  static bool ok(ncclResult_t result) { return result == ncclSuccess; }

  ncclComm_t comm_ = nullptr;
  const Work* work_ = nullptr;
  ncclDataType_t type_ = ncclFloat32;
};

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int rank = std::atoi(argv[2]);
  {
    railccl::compare::PageFile page;
    if (!page.attach(argv[1])) return 2;
    railccl::compare::pin_if_asked(*page, rank);
  }
  railccl::compare::Railccl library;
  return railccl::compare::run_worker(library, argv[1], rank);
}
