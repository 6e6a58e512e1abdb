// The Python module railccl_torch._C: makes the backend, and what railccl_torch needs beside it.
#include <pybind11/chrono.h>
#include <torch/csrc/utils/pybind.h>

#include "group.h"

PYBIND11_MODULE(_C, module) {
  namespace py = pybind11;
  module.def(
      "create",
      [](const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
         std::chrono::milliseconds timeout) -> c10::intrusive_ptr<railccl_torch::Base> {
        return railccl_torch::Group::create(store, rank, size, timeout);
      },
      py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("timeout"),
      py::call_guard<py::gil_scoped_release>());
  // PyTorch has it in Python only where it was built with NCCL.
  module.def("premul_sum", [](double factor) {
    c10d::ReduceOp op;
    op.op_ = c10d::ReduceOp::PREMUL_SUM;
    op.supplement_ = c10::make_intrusive<c10d::NCCLPreMulSumSupplement>(factor);
    return op;
  });
}
