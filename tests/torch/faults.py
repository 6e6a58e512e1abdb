"""What goes wrong: ranks that come late, never, with another call, or die. Each check spoils a group of its
own; the world lives until the last."""
import os
import time

import torch
import torch.distributed as dist

import railccl_torch
from common import Fails, same, seconds, start


def begin(rank, ranks, meeting):
    start(rank, ranks, meeting)


def rank():
    return dist.get_rank()


def outcome(call):
    """The text of what a call raises."""
    try:
        call()
    except RuntimeError as failure:
        return str(failure)
    return ""


def everybodys(text):
    texts = [None] * 4
    dist.all_gather_object(texts, text)
    return texts


def check_late_collective_fails_in_time():
    group = dist.new_group(timeout=seconds(0.7))
    started = time.monotonic()
    texts = [""] * 4
    if rank() != 3:
        texts = outcome(lambda: dist.all_reduce(torch.ones(4), group=group))
        assert time.monotonic() - started < 5
    texts = everybodys(texts if rank() != 3 else "-")
    assert all(texts), texts
    assert any("allreduce has timed out after 700 ms" in text for text in texts), texts
    with Fails(RuntimeError, "railccl", within=2):  # the group is of no more use, and says so
        dist.barrier(group)
    total = torch.ones(1)
    dist.all_reduce(total)  # other groups are
    same(total, torch.full((1,), 4.0))


def check_waiting_may_end_before_the_work():
    tensor = torch.full((2,), float(rank()))
    store = dist.distributed_c10d._get_default_store()
    if rank() != 0:
        store.wait(["rank 0 has waited"])
    work = dist.all_reduce(tensor, async_op=True)
    if rank() == 0:
        with Fails(RuntimeError, "allreduce is not done after 100 ms"):
            work.wait(seconds(0.1))
        assert not work.is_completed()
        store.set("rank 0 has waited", "yes")
    assert work.wait()
    same(tensor, torch.full((2,), 6.0))


def check_message_that_never_comes():
    group = dist.new_group(timeout=seconds(1.5))
    tensor = torch.ones(3)
    if rank() == 0:
        with Fails(RuntimeError, "recv has timed out after 1500 ms", "rank 0 from rank 1"):
            dist.recv(tensor, 1, group)  # rank 1 never joins
    dist.barrier()
    if rank() == 0:
        dist.recv(tensor, 2, group)
        with Fails(RuntimeError, "recv has timed out", "rank 0 from rank 2"):
            dist.recv(tensor, 2, group)  # rank 2 has joined
        with Fails(RuntimeError, "recv has timed out", within=1.4):  # for good
            dist.recv(tensor, 2, group)
    if rank() == 2:
        dist.send(tensor, 0, group)
    dist.barrier()
    if rank() == 0:
        dist.send(tensor, 1, group)  # the other direction
    elif rank() == 1:
        dist.recv(tensor, 0, group)
    dist.barrier(group)  # collectives know nothing of it


def check_calls_that_differ_are_named():
    group = dist.new_group()
    texts = everybodys(outcome(lambda: dist.all_reduce(torch.ones(7 if rank() == 1 else 5),
                                                       group=group)))
    assert all(texts), texts
    assert any("7" in text and "5" in text for text in texts), texts


def check_message_of_another_size():
    group = dist.new_group()
    if rank() == 0:
        outcome(lambda: dist.send(torch.ones(3), 1, group))
    elif rank() == 1:
        with Fails(RuntimeError, "12", "16"):
            dist.recv(torch.ones(4), 0, group)
    dist.barrier()


def check_monitored_barrier_names_the_missing():
    group = dist.new_group()
    if rank() < 2:
        with Fails(RuntimeError, "after 400 ms: 2, 3", within=3):
            railccl_torch.monitored_barrier(group, seconds(0.4), wait_all_ranks=True)
    dist.barrier()
    group = dist.new_group()
    if rank() != 2:
        with Fails(RuntimeError, "after 400 ms: 2", within=3):
            railccl_torch.monitored_barrier(group, seconds(0.4))
    dist.barrier()
    group = dist.new_group()
    if rank() == 1:
        with Fails(RuntimeError, "rank 0 has not come", within=4):
            railccl_torch.monitored_barrier(group, seconds(0.3))
    dist.barrier()


def check_missing_rank_is_named_at_the_meeting():
    store = dist.distributed_c10d._get_default_store()
    if rank() < 2:
        with Fails(RuntimeError, "have not come: 2" if rank() == 0 else "rank 0 has not called",
                   within=3):
            railccl_torch._C.create(dist.PrefixStore("alone", store), rank(), 3, seconds(0.4))
    dist.barrier()


def check_destroyed_under_way():
    group = dist.new_group()
    works = []
    if rank() == 0:
        works = [dist.irecv(torch.ones(1), 1, group), dist.all_reduce(torch.ones(1), group=group,
                                                                      async_op=True)]
    dist.destroy_process_group(group)
    del group
    for work in works:
        with Fails(RuntimeError, "the process group was destroyed", within=3):
            work.wait()
        assert work.is_completed() and not work.is_success()
        with Fails(RuntimeError, "the process group was destroyed"):
            work.get_future().wait()
    dist.barrier()


def check_world_after_another():
    """Last but one: the default group is made a second time, over another store."""
    port = [None]
    # 2.x asks for a libuv that it may be built without.
    how = {"use_libuv": False} if torch.__version__ >= "2" else {}
    if rank() == 0:
        store = dist.TCPStore("127.0.0.1", 0, 4, True, seconds(30), wait_for_workers=False, **how)
        port = [store.port]
    dist.broadcast_object_list(port)
    if rank() != 0:
        store = dist.TCPStore("127.0.0.1", port[0], 4, False, seconds(30), **how)
    number = rank()
    dist.destroy_process_group()
    dist.init_process_group("railccl", store=store, rank=number, world_size=4, timeout=seconds(20))
    total = torch.ones(1)
    dist.all_reduce(total)
    same(total, torch.full((1,), 4.0))
    dist.barrier()


def check_death_of_a_rank():
    """Last: nobody has a world any more."""
    if rank() == 3:
        os._exit(0)
    with Fails(RuntimeError, "rank 3", within=8):
        for _ in range(1000):
            dist.all_reduce(torch.ones(1000))
