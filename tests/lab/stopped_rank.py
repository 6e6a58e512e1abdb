#!/usr/bin/env python3
"""One rank of status_test.py: stopped_rank.py LIBRARY FOLDER

All ranks all-reduce twice; before the second time the last one stops itself. A child of it lets it go on
when the file FOLDER/go is there.
"""
import ctypes
import os
import pathlib
import signal
import sys
import time

FLOAT32, SUM = 7, 0
COUNT = 1000


class UniqueId(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 128)]


def stop_until(file):
    """Stops this process; a child wakes it."""
    process = os.getpid()
    if os.fork() == 0:
        for _ in range(6000):
            if file.exists():
                break
            time.sleep(0.01)
        os.kill(process, signal.SIGCONT)
        os._exit(0)
    os.kill(process, signal.SIGSTOP)
    os.wait()


def main():
    library, folder = ctypes.CDLL(sys.argv[1]), pathlib.Path(sys.argv[2])
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def call(name, *arguments):
        code = getattr(library, name)(*arguments)
        if code != 0:
            sys.exit(f"{name}: {code}")

    one, comm = UniqueId(), ctypes.c_void_p()
    call("railcclGetUniqueIdAt", os.environ["MASTER_ADDR"].encode(),
         int(os.environ["MASTER_PORT"]), b"status", ctypes.byref(one))
    call("ncclCommInitRank", ctypes.byref(comm), ranks, one, rank)
    data, sums = (ctypes.c_float * COUNT)(*[1.0] * COUNT), (ctypes.c_float * COUNT)()
    for turn in range(2):
        if turn == 1 and rank == ranks - 1:
            stop_until(folder / "go")
        call("ncclAllReduce", data, sums, ctypes.c_size_t(COUNT), FLOAT32, SUM, comm, None)
        if list(sums) != [float(ranks)] * COUNT:
            sys.exit("a wrong sum")
    call("ncclCommFinalize", comm)
    call("ncclCommDestroy", comm)


main()
