"""All calls with all their kinds of operands, against results that are computed here."""
import threading

import torch
import torch.distributed as dist

import railccl_torch
from common import Fails, near, same, start

Op = dist.ReduceOp
groups = []  # of 4, 3, 2 and 1 ranks, those that this rank is in


def begin(rank, ranks, meeting):
    start(rank, ranks, meeting)
    for members in ([0, 1, 2, 3], [0, 2, 3], [3, 1], [rank]):
        if len(members) == 1:  # every rank alone; all of them make all groups
            made = [dist.new_group([alone]) for alone in range(ranks)]
            groups.append((made[rank], members))
            continue
        group = dist.new_group(members)
        if rank in members:
            groups.append((group, sorted(members)))


def worlds():
    """(group, this rank's number in it, size, number in the world of each)"""
    for group, members in groups:
        yield group, dist.get_rank(group), len(members), members


def data(rank, dtype, shape=(3, 5), seed=0):
    """Every rank can make every other's data."""
    generator = torch.Generator().manual_seed(100 * seed + rank)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    return torch.randint(1, 4, shape, generator=generator).to(dtype)


def gaps(tensor):
    """The same values, in memory with gaps and turned around."""
    shape = tuple(reversed(tensor.shape))
    memory = torch.zeros(*shape, 2, dtype=tensor.dtype)
    view = memory[..., 0].permute(*reversed(range(tensor.dim())))
    view.copy_(tensor)
    assert not view.is_contiguous()
    return view


def combined(op, tensors):
    stacked = torch.stack(tensors)
    wide = stacked.to(torch.float64 if stacked.is_floating_point() else torch.int64)
    if op == Op.SUM:
        return wide.sum(0).to(stacked.dtype)
    if op == Op.PRODUCT:
        return wide.prod(0).to(stacked.dtype)
    if op == Op.MIN:
        return wide.amin(0).to(stacked.dtype)
    if op == Op.MAX:
        return wide.amax(0).to(stacked.dtype)
    result = tensors[0].clone()
    for tensor in tensors[1:]:
        result = {Op.BAND: torch.bitwise_and, Op.BOR: torch.bitwise_or,
                  Op.BXOR: torch.bitwise_xor}[op](result, tensor)
    return result


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ARITHMETIC, BITWISE = (Op.SUM, Op.PRODUCT, Op.MIN, Op.MAX), (Op.BAND, Op.BOR, Op.BXOR)


def types_and_operators():
    for dtype in INTEGERS + FLOATS:
        for op in ARITHMETIC + (BITWISE if dtype in INTEGERS else ()):
            yield dtype, op
    for op in ARITHMETIC + BITWISE:
        yield torch.bool, op


def check_all_reduce_of_every_type():
    for group, rank, size, _ in worlds():
        for dtype, op in types_and_operators():
            expected = combined(op, [data(r, dtype) for r in range(size)])
            for make in (torch.clone, gaps):
                tensor = make(data(rank, dtype))
                dist.all_reduce(tensor, op, group)
                same(tensor, expected)


def check_averages_and_factors():
    for group, rank, size, _ in worlds():
        tensor = data(rank, torch.float32)
        dist.all_reduce(tensor, Op.AVG, group)
        near(tensor, torch.stack([data(r, torch.float32) for r in range(size)]).mean(0))
        for dtype in (torch.float32, torch.float64, torch.float16):
            tensor = data(rank, dtype)
            dist.all_reduce(tensor, railccl_torch.premul_sum(0.5), group)
            same(tensor, combined(Op.SUM, [data(r, dtype) * 0.5 for r in range(size)]))
        tensor = torch.complex(data(rank, torch.float32), data(rank, torch.float32, seed=1))
        parts = [data(r, torch.float32) for r in range(size)], [data(r, torch.float32, seed=1)
                                                                for r in range(size)]
        dist.all_reduce(tensor, group=group)
        total = torch.complex(combined(Op.SUM, parts[0]), combined(Op.SUM, parts[1]))
        same(tensor, total)
        tensor = gaps(torch.complex(parts[0][rank], parts[1][rank]))
        group.allreduce(tensor, Op.AVG).wait()
        near(tensor, total / size)
    with Fails(ValueError, "no AVG of Bool"):
        dist.all_reduce(torch.ones(2).bool(), Op.AVG)
    with Fails(ValueError, "no BAND of Float"):
        dist.all_reduce(torch.ones(2), Op.BAND)
    with Fails(ValueError, "no AVG of Short"):
        dist.all_reduce(torch.ones(2).short(), Op.AVG)


def check_broadcast():
    for group, rank, size, members in worlds():
        for root in range(size):
            for dtype in (torch.float32, torch.bool, torch.int16, torch.complex64):
                for make in (torch.clone, gaps):
                    tensor = make(data(rank, dtype))
                    dist.broadcast(tensor, members[root], group)
                    same(tensor, data(root, dtype))


def check_reduce():
    for group, rank, size, members in worlds():
        for root in range(size):
            for dtype, op in ((torch.float32, Op.SUM), (torch.int32, Op.BXOR), (torch.int16, Op.MAX)):
                for make in (torch.clone, gaps):
                    tensor = make(data(rank, dtype))
                    dist.reduce(tensor, members[root], op, group)
                    same(tensor, combined(op, [data(r, dtype) for r in range(size)])
                         if rank == root else data(rank, dtype))


def check_all_gather():
    for group, rank, size, _ in worlds():
        for dtype in (torch.float32, torch.bool, torch.complex64):
            expected = [data(r, dtype) for r in range(size)]
            together = torch.zeros(size, 3, 5, dtype=dtype)
            outputs = ([torch.zeros(3, 5, dtype=dtype) for _ in range(size)],
                       [gaps(torch.zeros(3, 5, dtype=dtype)) for _ in range(size)],
                       list(together))  # one behind the other
            for output in outputs:
                for make in (torch.clone, gaps):
                    dist.all_gather(output, make(data(rank, dtype)), group)
                    for found, one in zip(output, expected):
                        same(found, one)
            same(together, torch.stack(expected))
            flat = torch.zeros(size * 3, 5, dtype=dtype)
            dist._all_gather_base(flat, data(rank, dtype), group)
            same(flat, torch.cat(expected))
        uneven = [torch.zeros(r + 1) for r in range(size)]
        dist.all_gather(uneven, torch.full((rank + 1,), rank + 0.5), group)
        for r, found in enumerate(uneven):
            same(found, torch.full((r + 1,), r + 0.5))


def check_coalesced_calls():
    for group, rank, size, _ in worlds():
        tensors = [data(rank, torch.float32), data(rank, torch.float32, (7,), 1),
                   gaps(data(rank, torch.float32, (2, 3), 2))]
        expected = [combined(Op.SUM, [data(r, torch.float32, tuple(tensor.shape), i)
                                      for r in range(size)]) for i, tensor in enumerate(tensors)]
        inputs = [tensor.clone() for tensor in tensors]
        dist.all_reduce_coalesced(tensors, group=group)
        for found, one in zip(tensors, expected):
            same(found, one)
        outputs = [[torch.zeros_like(tensor) for tensor in inputs] for _ in range(size)]
        dist.all_gather_coalesced(outputs, inputs, group)
        for r, output in enumerate(outputs):
            for i, found in enumerate(output):
                same(found, data(r, torch.float32, tuple(found.shape), i))


def check_gather_and_scatter():
    for group, rank, size, members in worlds():
        for root in range(size):
            for make in (torch.clone, gaps):
                output = [make(torch.zeros(3, 5)) for _ in range(size)] if rank == root else None
                dist.gather(make(data(rank, torch.float32)), output, members[root], group)
                for r, found in enumerate(output or []):
                    same(found, data(r, torch.float32))
                mine = make(torch.zeros(3, 5))
                pieces = [make(data(r, torch.float32, seed=root)) for r in range(size)]
                dist.scatter(mine, pieces if rank == root else None, members[root], group)
                same(mine, data(rank, torch.float32, seed=root))


def check_reduce_scatter():
    for group, rank, size, _ in worlds():
        for dtype, op in ((torch.float32, Op.SUM), (torch.float64, Op.MAX), (torch.int32, Op.BOR),
                          (torch.int16, Op.PRODUCT), (torch.bool, Op.SUM)):
            expected = combined(op, [data(r, dtype, seed=rank) for r in range(size)])
            pieces = [data(rank, dtype, seed=block) for block in range(size)]
            for make in (torch.clone, gaps):
                found = make(torch.zeros(3, 5, dtype=dtype))
                dist.reduce_scatter(found, [make(piece) for piece in pieces], op, group)
                same(found, expected)
            found = torch.zeros(3, 5, dtype=dtype)
            dist._reduce_scatter_base(found, torch.cat(pieces), op, group)
            same(found, expected)
        pieces = [torch.full((r + 1,), rank + 1.0) for r in range(size)]
        found = torch.zeros(rank + 1)
        dist.reduce_scatter(found, pieces, Op.SUM, group)
        same(found, torch.full((rank + 1,), size * (size + 1) / 2))


def check_all_to_all():
    for group, rank, size, _ in worlds():
        found = torch.zeros(size * 2, 3)
        block = lambda source, target: torch.full((2, 3), 10.0 * source + target)  # noqa: E731
        dist.all_to_all_single(found, torch.cat([block(rank, r) for r in range(size)]), group=group)
        same(found, torch.cat([block(r, rank) for r in range(size)]))
        # From s to t go (s + 2 t) % 3 rows, which may be none.
        rows = lambda source, target: (source + 2 * target) % 3  # noqa: E731
        piece = lambda source, target: torch.full((rows(source, target), 4),  # noqa: E731
                                                  10 * source + target)
        sent = torch.cat([piece(rank, r) for r in range(size)])
        expected = torch.cat([piece(r, rank) for r in range(size)])
        for make in (torch.clone, gaps):
            found = make(torch.zeros_like(expected)) if expected.numel() else expected.clone()
            dist.all_to_all_single(found, make(sent) if sent.numel() else sent,
                                   [rows(r, rank) for r in range(size)],
                                   [rows(rank, r) for r in range(size)], group)
            same(found, expected)
            lists = [make(torch.zeros(2, 3)) for _ in range(size)]
            dist.all_to_all(lists, [make(block(rank, r)) for r in range(size)], group)
            for r, one in enumerate(lists):
                same(one, block(r, rank))
        uneven = [torch.zeros_like(piece(r, rank)) for r in range(size)]
        dist.all_to_all(uneven, [piece(rank, r) for r in range(size)], group)
        for r, one in enumerate(uneven):
            same(one, piece(r, rank))


def check_messages():
    for group, rank, size, members in worlds():
        if size == 1:
            continue
        right, left = members[(rank + 1) % size], members[(rank - 1) % size]
        # Both ways at once, sends first everywhere: no send keeps a receive waiting.
        for make in (torch.clone, gaps):
            found = [make(torch.zeros(300, 100)) for _ in range(2)]
            sends = [dist.isend(make(data(rank, torch.float32, (300, 100), seed)), peer, group)
                     for seed, peer in enumerate((right, left))]
            receives = [dist.irecv(one, peer, group) for one, peer in zip(found, (left, right))]
            for work in receives + sends:
                work.wait()
            same(found[0], data((rank - 1) % size, torch.float32, (300, 100), 0))
            same(found[1], data((rank + 1) % size, torch.float32, (300, 100), 1))
        # Many in a row keep their order, and go on beside a collective.
        works = [dist.isend(torch.tensor([rank, i]), right, group) for i in range(20)]
        dist.barrier(group)
        for i in range(20):
            found = torch.zeros(2, dtype=torch.int64)
            assert dist.recv(found, left, group) == left
            same(found, torch.tensor([(rank - 1) % size, i]))
        for work in works:
            work.wait()
        found = torch.zeros(4)
        for work in dist.batch_isend_irecv([
                dist.P2POp(dist.irecv, found, left, group),
                dist.P2POp(dist.isend, torch.full((4,), float(rank)), right, group)]):
            work.wait()
        same(found, torch.full((4,), float((rank - 1) % size)))
    with Fails(RuntimeError, "name the source"):
        dist.recv(torch.zeros(1))


def check_asynchronous_work():
    for group, rank, size, _ in worlds():
        tensors = [torch.full((1 + 500 * i,), float(rank)) for i in range(30)]
        works = [dist.all_reduce(tensor, group=group, async_op=True) for tensor in tensors]
        total = float(sum(range(size)))
        seen = []
        futures = [work.get_future().then(lambda done, i=i: seen.append((i, done.value()[0][0].item())))
                   for i, work in enumerate(works)]
        for work in reversed(works):
            assert work.wait() is True
            assert work.is_completed() and work.is_success()
        for future in futures:
            future.wait()
        assert sorted(seen) == [(i, total) for i in range(30)], seen
        for tensor in tensors:
            same(tensor, torch.full_like(tensor, total))
        same(works[3].result()[0], tensors[3])
        assert works[3].get_future().done()  # asked for after the end
        # Waited for by several threads at once.
        tensor = torch.ones(5)
        work = dist.all_reduce(tensor, group=group, async_op=True)
        waiting = [threading.Thread(target=work.wait) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        same(tensor, torch.full((5,), float(size)))
        # What nobody waits for is done as well, in order.
        tensor = torch.full((7,), float(rank))
        dist.all_reduce(tensor, group=group, async_op=True)
        dist.barrier(group)
        same(tensor, torch.full((7,), total))


def check_gradients_keep_out():
    leaf = torch.nn.Parameter(torch.ones(3, 4).t().contiguous().t())
    assert not leaf.is_contiguous()
    dist.all_reduce(leaf)  # a copy comes back into a leaf, on another thread
    same(leaf.detach(), torch.full((3, 4), 4.0))
    outputs = [torch.zeros(3, 4, requires_grad=True) for _ in range(4)]
    dist.all_gather(outputs, leaf)
    same(outputs[2].detach(), torch.full((3, 4), 4.0))


def check_against_gloo():
    gloo = dist.new_group(backend="gloo")
    rank = dist.get_rank()
    for count in (1, 1000, 300001):
        mine = torch.randn(count, generator=torch.Generator().manual_seed(rank))
        ours, theirs = mine.clone(), mine.clone()
        dist.all_reduce(ours)
        dist.all_reduce(theirs, group=gloo)
        near(ours, theirs)
        ours = [torch.zeros(count) for _ in range(4)]
        theirs = [torch.zeros(count) for _ in range(4)]
        dist.all_gather(ours, mine)
        dist.all_gather(theirs, mine, gloo)
        same(torch.cat(ours), torch.cat(theirs))
    dist.destroy_process_group(gloo)


def check_objects():
    rank = dist.get_rank()
    found = [None] * 4
    dist.all_gather_object(found, {"rank": rank, "text": "x" * rank * 100})
    assert [one["rank"] for one in found] == [0, 1, 2, 3] and len(found[3]["text"]) == 300
    shared = [f"from {rank}", rank]
    dist.broadcast_object_list(shared, 2)
    assert shared == ["from 2", 2]
    mine = [None]
    dist.scatter_object_list(mine, [f"for {r}" for r in range(4)] if rank == 1 else None, 1)
    assert mine == [f"for {rank}"], mine
    gathered = [None] * 4 if rank == 3 else None
    dist.gather_object(rank * 2, gathered, 3)
    assert rank != 3 or gathered == [0, 2, 4, 6]


def check_wrong_operands():
    with Fails(ValueError, "Sparse tensors are not supported"):
        dist.all_reduce(torch.eye(3).to_sparse())
    with Fails(ValueError, "different types"):
        dist.group.WORLD.allgather([[torch.zeros(2), torch.zeros(2), torch.zeros(2).int(),
                                     torch.zeros(2)]], [torch.zeros(2)])
    with Fails(ValueError, "requires 4 tensors"):
        dist.all_gather([torch.zeros(2)], torch.zeros(2))
    with Fails(ValueError, "room for 3"):
        dist.all_gather([torch.zeros(3)] * 4, torch.zeros(2))
    with Fails(ValueError, "is not 4 x 3"):
        dist._all_gather_base(torch.zeros(10), torch.zeros(3))
    with Fails(ValueError, "is not 4 x 3"):
        dist._reduce_scatter_base(torch.zeros(3), torch.zeros(10))
    with Fails(RuntimeError, "Split sizes"):
        dist.all_to_all_single(torch.zeros(5), torch.zeros(5), [1, 1, 1, 1], [2, 2, 1, 1])
    with Fails(ValueError, "single-element tensor list"):
        dist.group.WORLD.allreduce([torch.zeros(1), torch.zeros(1)])
    with Fails(ValueError, "is this one"):
        dist.group.WORLD.send([torch.zeros(1)], dist.get_rank(), 0)
    options = dist.distributed_c10d.BroadcastOptions()
    options.rootRank = 9
    with Fails(ValueError, "invalid root rank: 9"):
        dist.group.WORLD.broadcast([torch.zeros(1)], options)
    dist.barrier()  # nothing of this has reached the others


def check_numbers_of_calls():
    for group, _, size, _ in worlds():
        # 2.x knows the numbers of its own backends only, unless it is asked for ours.
        ours = group._get_backend(torch.device("cpu")) if hasattr(group, "_get_backend") else group
        before = ours._get_sequence_number_for_group()
        dist.all_reduce(torch.ones(1), group=group)
        dist.barrier(group)
        assert ours._get_sequence_number_for_group() == before + 2
        numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
        dist.all_gather(numbers, torch.tensor([before]), group)
        assert len({number.item() for number in numbers}) == 1


def check_profiler_names_calls():
    with torch.autograd.profiler.profile() as profile:
        dist.all_reduce(torch.ones(10))
    assert any("railccl:allreduce" in event.name for event in profile.function_events)


def check_monitored_barrier():
    for group, _, _, _ in worlds():
        railccl_torch.monitored_barrier(group)
        railccl_torch.monitored_barrier(group, wait_all_ranks=True)
