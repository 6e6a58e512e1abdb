#!/usr/bin/env python3
"""One rank of idle_test.py: idle_rank.py LIBRARY FOLDER

Rank 0 broadcasts a few bytes, waits until the file FOLDER/go is there, broadcasts again and stays
away from the library for a while; then it writes down what the library says of its paths. Everyone
prints when the second broadcast was over.
"""
import ctypes
import os
import pathlib
import sys
import time

AWAY_S = 4.0
BYTES = 64
UINT8 = 1


class UniqueId(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 128)]


def main():
    library, folder = ctypes.CDLL(sys.argv[1]), pathlib.Path(sys.argv[2])
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    def call(name, *arguments):
        code = getattr(library, name)(*arguments)
        if code != 0:
            sys.exit(f"{name}: {code}")

    one, comm, data = UniqueId(), ctypes.c_void_p(), ctypes.create_string_buffer(BYTES)
    call("railcclGetUniqueIdAt", os.environ["MASTER_ADDR"].encode(),
         int(os.environ["MASTER_PORT"]), b"idle", ctypes.byref(one))
    call("ncclCommInitRank", ctypes.byref(comm), ranks, one, rank)

    def broadcast(value):
        if rank == 0:
            data.raw = bytes([value]) * BYTES
        call("ncclBroadcast", data, data, ctypes.c_size_t(BYTES), UINT8, 0, comm, None)
        if data.raw != bytes([value]) * BYTES:
            sys.exit("wrong bytes")

    for value in range(1, 50):
        broadcast(value)
    if rank == 0:
        (folder / "ready").touch()
        while not (folder / "go").exists():
            time.sleep(0.005)
    broadcast(77)
    print(time.monotonic(), flush=True)
    if rank == 0:
        time.sleep(AWAY_S)
        text, length = ctypes.create_string_buffer(1 << 16), ctypes.c_size_t()
        call("railcclCommPaths", comm, text, ctypes.c_size_t(len(text)), ctypes.byref(length))
        (folder / "paths.json").write_bytes(text.value)
    call("ncclCommFinalize", comm)
    call("ncclCommDestroy", comm)


main()
