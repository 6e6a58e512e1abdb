// An MPI library's processes in compare_host: compiled once for Open MPI and once for MPICH.
//
// MPI has no half-precision types of its own: only float32 is offered. The rank's number is known
// only after MPI_Init, while threads should be bound before; both launchers tell it by environment.
//
// The C interface only: the C++ one, gone from the standard, would need a library of its own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdlib>

#include "worker.h"

namespace railccl::compare {
namespace {

class Mpi : public Library {
 public:
  bool connect(Page& page, int rank, std::string* error) override {
    int size = 0;
    int mine = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &mine);
    if (size == page.ranks && mine == rank) return true;
    *error = "the launcher made " + std::to_string(size) + " ranks, or numbers them differently";
    return false;
  }

  bool bind(Work& work, std::string* error) override {
    work_ = &work;
    count_ = static_cast<int>(work.count);
    block_ = static_cast<int>(work.block);
    if (work.type != Type::float32) *error = "MPI has no such datatype";
    return work.type == Type::float32;
  }

  bool call() override {
    const Work& w = *work_;
    switch (w.operation) {
      case Operation::all_reduce:
        return ok(MPI_Allreduce(w.in, w.out, count_, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
      case Operation::reduce_scatter:
        return ok(
            MPI_Reduce_scatter_block(w.in, w.out, block_, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
      case Operation::all_gather:
        return ok(MPI_Allgather(w.in, block_, MPI_FLOAT, w.out, block_, MPI_FLOAT, MPI_COMM_WORLD));
      case Operation::broadcast:
        return ok(MPI_Bcast(w.out, count_, MPI_FLOAT, 0, MPI_COMM_WORLD));
      case Operation::all_to_all:
        return ok(MPI_Alltoall(w.in, block_, MPI_FLOAT, w.out, block_, MPI_FLOAT, MPI_COMM_WORLD));
    }
    return false;
  }

 private:
  static bool ok(int result) { return result == MPI_SUCCESS; }

  const Work* work_ = nullptr;
  int count_ = 0;
  int block_ = 0;
};

int rank_by_environment() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"}) {
    const char* text = std::getenv(name);
    if (text != nullptr) return std::atoi(text);
  }
  return -1;
}

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  const int rank = railccl::compare::rank_by_environment();
  if (argc != 2 || rank < 0 || rank >= railccl::compare::kRanksMax) return 2;
  {
    railccl::compare::PageFile page;
    if (!page.attach(argv[1])) return 2;
    railccl::compare::pin_if_asked(*page, rank);
  }
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  int code = 0;
  {
    railccl::compare::Mpi library;
    code = railccl::compare::run_worker(library, argv[1], rank);
  }
  if (code == 0) MPI_Finalize();
  return code;
}
