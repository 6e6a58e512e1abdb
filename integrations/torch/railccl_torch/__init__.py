"""PyTorch's distributed training over railccl: importing this registers the backend "railccl" for
tensors of the CPU.

    import torch.distributed as dist, railccl_torch
    dist.init_process_group("railccl")
"""
import datetime

import torch
import torch.distributed as dist

from . import _C

__all__ = ["monitored_barrier", "premul_sum"]


def premul_sum(factor):
    """A reduction: each rank's tensor is multiplied by its factor, then all are added."""
    return _C.premul_sum(factor)


def monitored_barrier(group=None, timeout=None, wait_all_ranks=False):
    """Returns when all ranks have called it; when one has not in time, fails on all, and says which.
    As torch.distributed.monitored_barrier, which is for gloo alone."""
    group = group or dist.group.WORLD
    if hasattr(group, "_get_backend"):  # 2.x: a group has a backend for each kind of device
        group = group._get_backend(torch.device("cpu"))
    group.monitored_barrier(timeout or datetime.timedelta(), wait_all_ranks=wait_all_ranks)


def _register():
    # What a process that exits at once waits for in 2.x is a list of devices; 1.13 has no such thing.
    try:
        dist.Backend.register_backend("railccl", _C.create, devices=["cpu"])
    except TypeError:
        dist.Backend.register_backend("railccl", _C.create)


_register()
