#!/usr/bin/env python3
"""The backend of torch.distributed, by ranks that are processes of their own.

    torch_test.py FOLDER_OF_RAILCCL_TORCH calls|faults|training

Each word is one world of ranks, which makes the checks in calls.py, faults.py or training.py one after
the other: importing torch takes longer than all of them. A rank that fails ends the test."""
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

LIMIT_S = 100
RANKS = {"calls": 4, "faults": 4, "training": 2}


def rank_main(word, rank, ranks, meeting):
    import torch
    import torch.distributed as dist
    import railccl_torch  # noqa: F401: registers the backend
    torch.set_num_threads(1)
    module = importlib.import_module(word)
    module.begin(rank, ranks, meeting)
    for name, check in list(vars(module).items()):
        if name.startswith("check_"):
            started = time.monotonic()
            check()
            if rank == 0:
                print(f"ok: {name[6:]} ({time.monotonic() - started:.2f} s)", flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


def main():
    folder, word = sys.argv[1], sys.argv[2]
    here = pathlib.Path(__file__).resolve().parent
    ranks = RANKS[word]
    with tempfile.TemporaryDirectory() as work:
        environment = dict(os.environ, PYTHONPATH=f"{folder}:{here}", OMP_NUM_THREADS="1",
                           PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore", CUDA_VISIBLE_DEVICES="")
        started = [subprocess.Popen([sys.executable, __file__, word, str(rank), str(ranks),
                                     f"{work}/meeting"], env=environment,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                   for rank in range(ranks)]
        # Small outputs: they fit into the pipes until somebody reads.
        deadline = time.monotonic() + LIMIT_S
        failed = []
        while any(process.poll() is None for process in started):
            failed = [rank for rank, process in enumerate(started)
                      if process.poll() not in (None, 0)]
            if failed or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        late = [rank for rank, process in enumerate(started) if process.poll() is None]
        if late:
            time.sleep(1)  # others fail of the same, and have more to say
        for process in started:
            process.kill()
        failed = failed or [rank for rank, process in enumerate(started) if process.poll()]
        for rank, process in enumerate(started):
            print(f"-- rank {rank}\n{process.stdout.read()}", end="")
    if failed or late:
        print(f"failed: {failed}; not ended: {late}")
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        rank_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main()
