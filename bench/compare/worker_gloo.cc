// Gloo's processes in compare_host: its TCP transport on the loopback interface, the only transport
// for one host that it has on Linux, or on the interface it is given; every all-reduce algorithm.
//
// Variants: "new_ring" and "new_bcube" are gloo::allreduce's two algorithms; "ring",
// "ring_chunked", "halving_doubling" and "bcube" are the older classes, which work in place.
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_bcube.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/alltoall.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <vector>

#include "worker.h"

namespace railccl::compare {
namespace {

class Gloo : public Library {
 public:
  /// `folder` must exist and be empty: the ranks find each other through files in it.
  Gloo(std::string folder, std::string interface)
      : folder_(std::move(folder)), interface_(std::move(interface)) {}

  bool connect(Page& page, int rank, std::string* error) override {
    try {
      gloo::transport::tcp::attr address(interface_.empty() ? "127.0.0.1" : "");
      address.iface = interface_;
      address.ai_family = AF_INET;
      auto device = gloo::transport::tcp::CreateDevice(address);
      gloo::rendezvous::FileStore store(folder_);
      auto context = std::make_shared<gloo::rendezvous::Context>(rank, page.ranks);
      context->connectFullMesh(store, device);
      context_ = context;
      return true;
    } catch (const std::exception& failed) {
      *error = failed.what();
      return false;
    }
  }

  bool bind(Work& work, std::string* error) override {
    work_ = &work;
    if (work.type != Type::float32) {
      *error = "only float32 is compared";
      return false;
    }
    if (work.operation == Operation::reduce_scatter) {
      *error = "Gloo has no reduce-scatter that keeps the order of the blocks";
      return false;
    }
    try {
      return work.operation != Operation::all_reduce || bind_all_reduce(work, error);
    } catch (const std::exception& failed) {
      *error = failed.what();
      return false;
    }
  }

  void unbind() override {
    algorithm_.reset();
    options_.reset();
  }

  bool call() override {
    try {
      auto* in = static_cast<float*>(work_->in);
      auto* out = static_cast<float*>(work_->out);
      switch (work_->operation) {
        case Operation::all_reduce:
          if (algorithm_) {
            algorithm_->run();
          } else {
            gloo::allreduce(*options_);
          }
          return true;
        case Operation::all_gather: {
          gloo::AllgatherOptions options(context_);
          options.setInput(in, work_->block);
          options.setOutput(out, work_->count);
          gloo::allgather(options);
          return true;
        }
        case Operation::broadcast: {
          gloo::BroadcastOptions options(context_);
          options.setOutput(out, work_->count);
          options.setRoot(0);
          gloo::broadcast(options);
          return true;
        }
        case Operation::all_to_all: {
          gloo::AlltoallOptions options(context_);
          options.setInput(in, work_->count);
          options.setOutput(out, work_->count);
          gloo::alltoall(options);
          return true;
        }
        case Operation::reduce_scatter:
          break;
      }
      return false;
    } catch (const std::exception& failed) {
      failure_ = failed.what();
      return false;
    }
  }

  std::string failure() override { return failure_; }

 private:
  bool bind_all_reduce(Work& work, std::string* error) {
    auto* out = static_cast<float*>(work.out);
    const std::string& name = work.variant;
    if (name.rfind("new_", 0) == 0) {
      using Algorithm = gloo::AllreduceOptions::Algorithm;
      using Sum = void (*)(void*, const void*, const void*, size_t);
      options_ = std::make_unique<gloo::AllreduceOptions>(context_);
      options_->setAlgorithm(name == "new_bcube" ? Algorithm::BCUBE : Algorithm::RING);
      options_->setInput(static_cast<float*>(work.in), work.count);
      options_->setOutput(out, work.count);
      options_->setReduceFunction(static_cast<Sum>(&gloo::sum<float>));
      return true;
    }
    work.in_place = true;
    const std::vector<float*> buffers{out};
    const int count = static_cast<int>(work.count);
    if (name == "ring") {
      algorithm_ = std::make_unique<gloo::AllreduceRing<float>>(context_, buffers, count);
    } else if (name == "ring_chunked") {
      algorithm_ = std::make_unique<gloo::AllreduceRingChunked<float>>(context_, buffers, count);
    } else if (name == "halving_doubling") {
      algorithm_ =
          std::make_unique<gloo::AllreduceHalvingDoubling<float>>(context_, buffers, count);
    } else if (name == "bcube") {
      algorithm_ = std::make_unique<gloo::AllreduceBcube<float>>(context_, buffers, count);
    } else {
      *error = "no algorithm " + name;
      return false;
    }
    return true;
  }

  std::string folder_;
  std::string interface_;
  std::string failure_;
  std::shared_ptr<gloo::Context> context_;
  const Work* work_ = nullptr;
  std::unique_ptr<gloo::AllreduceOptions> options_;
  std::unique_ptr<gloo::Algorithm> algorithm_;
};

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  const int rank = std::atoi(argv[2]);
  {
    railccl::compare::PageFile page;
    if (!page.attach(argv[1])) return 2;
    railccl::compare::pin_if_asked(*page, rank);
  }
  railccl::compare::Gloo library(argv[3], argc == 5 ? argv[4] : "");
  return railccl::compare::run_worker(library, argv[1], rank);
}
