"""What the checks share."""
import datetime
import time

import torch
import torch.distributed as dist


def seconds(number):
    return datetime.timedelta(seconds=number)


def start(rank, ranks, meeting, timeout=60, backend="railccl"):
    """The world; gloo's for comparison comes by new_group."""
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=ranks,
                            timeout=seconds(timeout))


class Fails:
    """with Fails(ValueError, "part of the text", within=3): the block must raise that, in time."""

    def __init__(self, kind, *texts, within=10):
        self.kind, self.texts, self.within = kind, texts, within

    def __enter__(self):
        self.started = time.monotonic()

    def __exit__(self, kind, failure, _):
        assert kind is not None, f"nothing was raised; expected {self.texts}"
        took = time.monotonic() - self.started
        assert isinstance(failure, self.kind), f"{kind}: {failure}"
        for text in self.texts:
            assert text in str(failure), f"{text!r} is not in: {failure}"
        assert took < self.within, f"took {took:.1f} s: {failure}"
        return True


def same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape, (found, expected)
    if found.dtype == torch.bool:  # true is 1 and nothing else
        found, expected = (one.contiguous().view(torch.uint8) for one in (found, expected))
    assert torch.equal(found, expected), f"\n{found}\nis not\n{expected}"


def near(found, expected, tolerance=1e-5):
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), \
        f"\n{found}\nis not near\n{expected}"
