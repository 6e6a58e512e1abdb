#!/usr/bin/env python3
"""The Python module on real processes: three ranks that meet by torchrun's variables, every method
once with values that tell one rank's data from another's; then what must be refused.

    python_test.py FOLDER_OF_MODULE LIBRARY
"""
import array
import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, sys.argv[1])
import railccl  # noqa: E402

RANKS = 3
LIMIT_S = 60


def raises(kind, part, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind as failure:
        assert part in str(failure), f"{part!r} is not in {failure}"
        return
    raise AssertionError(f"{call} was to raise {kind.__name__}")


def live_as_rank():
    comm = railccl.init()
    rank = comm.Get_rank()
    assert comm.Get_size() == RANKS and railccl.version() == (2, 28, 9)

    data, total = array.array("f", [rank + 1.0] * 5), array.array("f", [0.0] * 5)
    comm.Allreduce(data, total)
    assert total.tolist() == [6.0] * 5
    comm.Allreduce(data, op=railccl.MAX)
    assert data.tolist() == [3.0] * 5

    part = array.array("q", [0, 0])
    comm.Reduce_scatter_block(array.array("q", range(6)), part)
    assert part.tolist() == [6 * rank, 6 * rank + 3]

    everyone = bytearray(2 * RANKS)
    comm.Allgather(bytes([rank, 7]), everyone)  # bytes can be sent, though not written
    assert everyone == bytes([0, 7, 1, 7, 2, 7])

    word = bytearray(b"railccl" if rank == 2 else 7)
    comm.Bcast(word, root=2)
    assert word == b"railccl"

    there, here = array.array("I", [rank] * RANKS), array.array("I", [9] * RANKS)
    comm.Alltoall(there, here)
    assert here.tolist() == [0, 1, 2]

    at_root = array.array("I", [0] * 9) if rank == 1 else None
    comm.Gather(there, at_root, root=1)
    assert rank != 1 or at_root.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    comm.Scatter(at_root, here, root=1)
    assert here.tolist() == [rank] * 3
    highest = array.array("I", [0] * 3) if rank == 0 else None
    comm.Reduce(here, highest, op=railccl.MAX, root=0)
    assert rank != 0 or highest.tolist() == [2] * 3

    # 1.0 and 2.0 as bfloat16; their sum over three ranks.
    halves = bytearray(b"\x80\x3f\x00\x40")
    comm.Allreduce((halves, "bfloat16"))
    assert halves == b"\x40\x40\xc0\x40"

    token = array.array("d", [0.0])
    with railccl.Group():
        comm.Send(array.array("d", [float(rank)]), (rank + 1) % RANKS)
        comm.Recv(token, (rank - 1) % RANKS)
    assert token[0] == (rank - 1) % RANKS

    child = comm.Split(-1 if rank == 0 else 5, key=-rank)
    assert (child is None) == (rank == 0)
    if child:
        assert (child.rank, child.size) == (2 - rank, 2)
        child.free()
        raises(ValueError, "freed", child.Barrier)

    # Refused before anything is sent: one rank alone would wait for ever otherwise.
    if rank == 0:
        short = array.array("f", [0.0])
        raises(ValueError, "do not go with", comm.Allreduce, data, short)
        raises(ValueError, "do not go with", comm.Allgather, short, short)
        raises(TypeError, "different datatypes", comm.Allreduce, data, array.array("d", [0.0] * 5))
        raises(TypeError, "no datatype", comm.Allreduce, array.array("h", [1]))
        raises(TypeError, "none of", comm.Allreduce, (data, "float31"))
        raises(TypeError, "whole number", comm.Allreduce, (bytearray(3), "float16"))
        raises(BufferError, "", comm.Bcast, b"read only")
        raises(BufferError, "", comm.Allreduce, memoryview(bytearray(8))[::2])
        raises(railccl.Error, "peer", comm.Send, data, 99)
    comm.Barrier()
    comm.free()


def threads_of_one_process():
    comms = railccl.init_all(2)
    results = [array.array("i", [rank + 1]) for rank in range(2)]
    threads = [threading.Thread(target=comms[rank].Allreduce, args=(results[rank],))
               for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert [result[0] for result in results] == [3, 3]
    for comm in comms:
        comm.free()


def main():
    railccl.load(sys.argv[2])
    if "RANK" in os.environ:
        live_as_rank()
        return
    raises(ValueError, "RANK, WORLD_SIZE", railccl.init, {})
    raises(ValueError, "not a number", railccl.init,
           {"RANK": "x", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"})
    raises(ValueError, "128 bytes", railccl.init_rank, 1, b"short", 0)
    raises(OSError, "not found", railccl.load, "/nowhere/librailccl.so")
    threads_of_one_process()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [subprocess.Popen([sys.executable, *sys.argv],
                              env=dict(os.environ, RANK=str(rank), WORLD_SIZE=str(RANKS),
                                       MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)))
             for rank in range(RANKS)]
    try:
        codes = [rank.wait(LIMIT_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert codes == [0] * RANKS, f"ranks ended with {codes}"
    print("ok")


main()
