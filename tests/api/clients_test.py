#!/usr/bin/env python3
"""Shows that programs which load the library by ctypes, or whose habits need processes, are served.
Each row is a client: a function that every rank runs in a process of its own, with the calls of
that program, in its order. Ids are handed around through a file.

    clients_test.py LIBRARY            all rows
    clients_test.py LIBRARY ROW        one of them
"""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_void_p

RANKS = 2
FLOAT, INT, SUM, PROD = 7, 2, 0, 1
LIMIT_S = 30


class UniqueId(ctypes.Structure):
    """Passed by value, as pynccl does."""
    _fields_ = [("internal", ctypes.c_byte * 128)]


class WaitSignalDesc(ctypes.Structure):
    _fields_ = [("opCnt", c_int), ("peer", c_int), ("sigIdx", c_int), ("ctx", c_int)]


FUNCTIONS = {
    "ncclGetErrorString": (c_char_p, [c_int]),
    "ncclGetLastError": (c_char_p, [c_void_p]),
    "ncclGetVersion": (c_int, [POINTER(c_int)]),
    "ncclGetUniqueId": (c_int, [POINTER(UniqueId)]),
    "ncclCommInitRank": (c_int, [POINTER(c_void_p), c_int, UniqueId, c_int]),
    "ncclAllReduce": (c_int, [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p]),
    "ncclReduce": (c_int, [c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_void_p, c_void_p]),
    "ncclAllGather": (c_int, [c_void_p, c_void_p, c_size_t, c_int, c_void_p, c_void_p]),
    "ncclReduceScatter": (c_int, [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p]),
    "ncclSend": (c_int, [c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p]),
    "ncclRecv": (c_int, [c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p]),
    "ncclBroadcast": (c_int, [c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p]),
    "ncclCommDestroy": (c_int, [c_void_p]),
    "ncclCommAbort": (c_int, [c_void_p]),
    "ncclCommCount": (c_int, [c_void_p, POINTER(c_int)]),
    "ncclCommUserRank": (c_int, [c_void_p, POINTER(c_int)]),
    "ncclCommCuDevice": (c_int, [c_void_p, POINTER(c_int)]),
    "ncclCommGetAsyncError": (c_int, [c_void_p, POINTER(c_int)]),
    "ncclGroupStart": (c_int, []),
    "ncclGroupEnd": (c_int, []),
    "ncclMemAlloc": (c_int, [POINTER(c_void_p), c_size_t]),
    "ncclMemFree": (c_int, [c_void_p]),
    "ncclCommWindowRegister": (c_int, [c_void_p, c_void_p, c_size_t, POINTER(c_void_p), c_int]),
    "ncclCommWindowDeregister": (c_int, [c_void_p, c_void_p]),
    "ncclPutSignal": (c_int, [c_void_p, c_size_t, c_int, c_int, c_void_p, c_size_t, c_int, c_int,
                              c_uint, c_void_p, c_void_p]),
    "ncclWaitSignal": (c_int, [c_int, POINTER(WaitSignalDesc), c_void_p, c_void_p]),
}


class Library:
    """The functions, each raising what went wrong."""

    def __init__(self, path):
        self.raw = ctypes.CDLL(path)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.raw, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function if result is c_char_p else self.checked(name, function))

    def checked(self, name, function):
        def call(*arguments):
            code = function(*arguments)
            if code != 0:
                raise RuntimeError(f"{name}: {self.ncclGetErrorString(code).decode()}: "
                                   f"{self.ncclGetLastError(None).decode()}")
        return call


def exchange(nccl, folder, rank):
    """The id that rank 0 makes."""
    place = pathlib.Path(folder) / "id"
    unique = UniqueId()
    if rank == 0:
        nccl.ncclGetUniqueId(byref(unique))
        place.with_suffix(".new").write_bytes(bytes(unique))
        place.with_suffix(".new").rename(place)
        return unique
    until = time.monotonic() + LIMIT_S
    while not place.exists():
        assert time.monotonic() < until, "rank 0 gave no id"
        time.sleep(0.01)
    ctypes.memmove(byref(unique), place.read_bytes(), 128)
    return unique


def join(nccl, folder, rank):
    comm = c_void_p()
    nccl.ncclCommInitRank(byref(comm), RANKS, exchange(nccl, folder, rank), rank)
    return comm


def floats(*values):
    return (ctypes.c_float * len(values))(*values)


def sum_of_ones(nccl, comm):
    one = floats(1)
    nccl.ncclAllReduce(one, one, 1, FLOAT, SUM, comm, None)
    assert one[0] == RANKS, one[0]


def vllm(nccl, folder, rank):
    """pynccl: a first all-reduce warms up; then whatever a tensor-parallel step needs."""
    version = c_int()
    nccl.ncclGetVersion(byref(version))
    assert version.value >= 22809, version.value
    comm = join(nccl, folder, rank)
    sum_of_ones(nccl, comm)
    mine, both = floats(rank + 1.0, rank + 2.0), floats(0, 0, 0, 0)
    out = floats(0, 0)
    nccl.ncclAllGather(mine, both, 2, FLOAT, comm, None)
    assert list(both) == [1, 2, 2, 3], list(both)
    nccl.ncclReduceScatter(mine, out, 1, FLOAT, SUM, comm, None)
    assert out[0] == (3 if rank == 0 else 5), out[0]
    nccl.ncclReduce(mine, out, 2, FLOAT, PROD, 0, comm, None)
    assert rank != 0 or list(out) == [2, 6], list(out)
    nccl.ncclBroadcast(mine, mine, 2, FLOAT, 1, comm, None)
    assert list(mine) == [2, 3], list(mine)
    if rank == 0:
        nccl.ncclSend(mine, 2, FLOAT, 1, comm, None)
    else:
        nccl.ncclRecv(out, 2, FLOAT, 0, comm, None)
        assert list(out) == [2, 3], list(out)
    nccl.ncclGroupStart()  # all_gatherv: one broadcast per rank
    for root in range(RANKS):
        nccl.ncclBroadcast(mine, ctypes.addressof(both) + 8 * root, 2, FLOAT, root, comm, None)
    nccl.ncclGroupEnd()
    assert list(both) == [2, 3, 2, 3], list(both)
    nccl.ncclCommDestroy(comm)


def sglang(nccl, folder, rank):
    """Symmetric memory: a pool of windows on ncclMemAlloc, on which collectives work in place."""
    comm = join(nccl, folder, rank)
    memory, window = c_void_p(), c_void_p()
    nccl.ncclMemAlloc(byref(memory), 1 << 20)
    nccl.ncclCommWindowRegister(comm, memory, 1 << 20, byref(window), 1)
    data = (ctypes.c_float * (1 << 18)).from_address(memory.value)
    for i in (0, 77777, (1 << 18) - 1):
        data[i] = rank + 1
    nccl.ncclAllReduce(memory, memory, 1 << 18, FLOAT, SUM, comm, None)
    assert data[77777] == 3 and data[1] == 0 and data[(1 << 18) - 1] == 3
    nccl.ncclCommWindowDeregister(comm, window)
    nccl.ncclMemFree(memory)
    nccl.ncclCommDestroy(comm)


def cupy(nccl, folder, rank):
    """Asks for what it was told, and ends by abort."""
    comm = join(nccl, folder, rank)
    number = c_int(-7)
    nccl.ncclCommUserRank(comm, byref(number))
    assert number.value == rank
    nccl.ncclCommCount(comm, byref(number))
    assert number.value == RANKS
    nccl.ncclCommCuDevice(comm, byref(number))
    assert number.value == -1
    nccl.ncclGroupStart()
    peer, mine, theirs = 1 - rank, floats(rank), floats(9)
    nccl.ncclSend(mine, 1, FLOAT, peer, comm, None)
    nccl.ncclRecv(theirs, 1, FLOAT, peer, comm, None)
    nccl.ncclGroupEnd()
    assert theirs[0] == peer
    sum_of_ones(nccl, comm)
    if rank == 1:
        time.sleep(0.5)  # the abort of one is no surprise for the other
    nccl.ncclCommAbort(comm)


def horovod(nccl, folder, rank):
    """Elastic: a peer dies. Who is left polls for the error, aborts, and goes on without."""
    comm = join(nccl, folder, rank)
    sum_of_ones(nccl, comm)
    if rank == 1:
        os.kill(os.getpid(), 9)
    error, until = c_int(0), time.monotonic() + 30
    while error.value == 0 and time.monotonic() < until:
        nccl.ncclCommGetAsyncError(comm, byref(error))
        time.sleep(0.01)
    assert error.value == 6, error.value
    assert b"rank 1" in nccl.ncclGetLastError(comm), nccl.ncclGetLastError(comm)
    nccl.ncclCommAbort(comm)


def never_destroyed(nccl, folder, rank):
    """Scripts that just end."""
    sum_of_ones(nccl, join(nccl, folder, rank))


def forks(nccl, folder, rank):
    """Data loaders: children of a process that has a communicator, which end as children of Python
    do, or as other programs do; the parent's communicator is not theirs and stays what it is."""
    comm = join(nccl, folder, rank)
    sum_of_ones(nccl, comm)
    for ending in (os._exit, sys.exit):
        child = os.fork()
        if child == 0:
            ending(0)
        until = time.monotonic() + 20
        done, status = 0, -1
        while done == 0 and time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        if done == 0:
            os.kill(child, 9)
        assert done == child and status == 0, (ending, done, status)
        sum_of_ones(nccl, comm)
    nccl.ncclCommDestroy(comm)


def one_sided(nccl, folder, rank):
    """Puts between processes, of what 2.29 brought."""
    comm = join(nccl, folder, rank)
    memory, window = c_void_p(), c_void_p()
    nccl.ncclMemAlloc(byref(memory), 4096)
    nccl.ncclCommWindowRegister(comm, memory, 4096, byref(window), 1)
    data = (ctypes.c_int * 1024).from_address(memory.value)
    peer = 1 - rank
    once = (WaitSignalDesc * 1)(WaitSignalDesc(1, peer, 0, 0))
    for turn in range(100):
        mine = (ctypes.c_int * 2)(turn, rank)
        nccl.ncclPutSignal(mine, 2, INT, peer, window, 8 * turn, 0, 0, 0, comm, None)
        nccl.ncclWaitSignal(1, once, comm, None)
        assert (data[2 * turn], data[2 * turn + 1]) == (turn, peer)
    nccl.ncclCommWindowDeregister(comm, window)
    sum_of_ones(nccl, comm)
    nccl.ncclMemFree(memory)
    nccl.ncclCommDestroy(comm)


def preloaded(nccl, folder, rank):
    """The command of docs/dropin.md: a program that loads NCCL by its name gets the library that is
    preloaded, which says so."""
    path = nccl.raw._name
    script = ("import ctypes; nccl = ctypes.CDLL('libnccl.so.2'); version = ctypes.c_int(); "
              "nccl.ncclGetVersion(ctypes.byref(version)); print(version.value)")
    environment = dict(os.environ, LD_PRELOAD=path, NCCL_DEBUG="VERSION",
                       RAILCCL_NCCL_VERSION="23102")
    done = subprocess.run([sys.executable, "-c", script], env=environment, text=True,
                          capture_output=True, timeout=LIMIT_S, check=True)
    assert done.stdout == "23102\n", done.stdout
    assert "which answers as NCCL 23102, from " + path in done.stderr, done.stderr


ROWS = {row.__name__: row
        for row in (vllm, sglang, cupy, horovod, never_destroyed, forks, one_sided,
                    preloaded)}
KILLED = {"horovod": [0, -9]}


def run_row(library, name):
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, RAILCCL_MEASURE="off", NCCL_DEBUG="NONE")
        ranks = [subprocess.Popen([sys.executable, __file__, library, name, folder, str(rank)],
                                  env=environment) for rank in range(RANKS)]
        until = time.monotonic() + LIMIT_S
        codes = []
        for process in ranks:
            try:
                codes.append(process.wait(max(0.1, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                codes.append("did not end")
        expected = KILLED.get(name, [0] * RANKS)
        print(f"{name}: {'ok' if codes == expected else f'{codes} instead of {expected}'}")
        return codes == expected


if len(sys.argv) == 5:
    ROWS[sys.argv[2]](Library(sys.argv[1]), sys.argv[3], int(sys.argv[4]))
else:
    wanted = sys.argv[2:] or list(ROWS)
    sys.exit(0 if all([run_row(sys.argv[1], name) for name in wanted]) else 1)
