#!/usr/bin/env python3
"""railccl-bench over real processes, started in every way it knows, with JSON rows.

Shows that --ranks, threads, torchrun-style variables, Slurm's variables and both mpiruns (where
installed) give the same verified rows, that bad options are refused with exit code 2, and that a
killed process ends the others with an error instead of a hang.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

BENCH = sys.argv[1]
ARGS = ["all_reduce", "-b", "8", "-e", "8K", "-f", "8", "-n", "3", "--json"]
FIELDS = ["collective", "bytes", "count", "type", "redop", "ranks", "time_us", "algbw_gbs",
          "busbw_gbs", "wrong", "algorithm", "transport", "predicted_us", "bound_us"]


def free_port():
    """Not one of those that the kernel hands out: any connection may get such a port first."""
    for port in range(25000 + os.getpid() % 5000, 32000):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise OSError("no port is free")


def clean_env():
    prefixes = ("OMPI_", "PMI", "SLURM_", "RANK", "WORLD_SIZE", "MASTER_", "LOCAL_RANK")
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}


def check_rows(text, ranks, what):
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(rows) == 8, f"{what}: expected 4 sizes, in and out of place, got {len(rows)}: {text}"
    for row in rows:
        missing = [f for f in FIELDS if f not in row]
        assert not missing, f"{what}: fields {missing} are missing"
        assert row["wrong"] == 0 and row["ranks"] == ranks and row["time_us"] > 0, (what, row)
    print(f"ok: {what}")


def run(command, ranks, what, env=None):
    done = subprocess.run(command, capture_output=True, text=True, timeout=90,
                          env=env or clean_env())
    assert done.returncode == 0, f"{what}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    check_rows(done.stdout, ranks, what)


def run_by_environment(ranks, what, variables):
    port = free_port()
    children = []
    for rank in range(ranks):
        env = clean_env() | {k: v.format(rank=rank, ranks=ranks, port=port)
                             for k, v in variables.items()}
        children.append(subprocess.Popen([BENCH] + ARGS, stdout=subprocess.PIPE, text=True, env=env))
    texts = [child.communicate(timeout=90)[0] for child in children]
    assert all(child.returncode == 0 for child in children), what
    check_rows("".join(texts), ranks, what)


def refused(args, needle):
    done = subprocess.run([BENCH] + args, capture_output=True, text=True, timeout=20,
                          env=clean_env())
    assert done.returncode == 2, f"{args}: exit {done.returncode}, expected 2"
    assert needle in done.stderr + done.stdout, f"{args}: no '{needle}' in {done.stderr}"
    print(f"ok: refused {' '.join(args)}")


def killed():
    """kill -9 of one process: the others end by themselves, with an error, soon."""
    parent = subprocess.Popen([BENCH, "all_reduce", "-b", "1M", "-n", "100000", "--ranks", "3"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=clean_env())
    time.sleep(2.5)
    children = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True,
                              text=True).stdout.split()
    assert len(children) == 3, children
    started = time.time()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = parent.communicate(timeout=60)
    took = time.time() - started
    assert parent.returncode != 0 and took < 10, f"took {took:.1f} s, exit {parent.returncode}"
    assert "rank" in errors, errors
    print(f"ok: survivors of a killed process ended after {took:.2f} s:\n{errors.strip()}")


run([BENCH] + ARGS + ["--ranks", "3"], 3, "--ranks")
run([BENCH] + ARGS + ["--ranks", "2", "-t", "2"], 4, "2 processes with 2 threads")
run([BENCH] + ARGS + ["-t", "3", "-p", "1"], 3, "3 threads, parallel initialisation")
run([BENCH] + ARGS + ["--ranks", "2", "-z", "0", "-m", "3"], 2, "host stream, groups of 3")
run([BENCH] + ARGS + ["--ranks", "2", "-R", "1"], 2, "memory from ncclMemAlloc")
run([BENCH] + ARGS, 1, "one rank alone")
run_by_environment(3, "torchrun-style variables",
                   {"RANK": "{rank}", "WORLD_SIZE": "{ranks}", "LOCAL_RANK": "{rank}",
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "{port}"})
run_by_environment(2, "Slurm's variables",
                   {"SLURM_PROCID": "{rank}", "SLURM_NTASKS": "{ranks}", "SLURM_LOCALID": "{rank}",
                    "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0",
                    "MASTER_PORT": "{port}"})
if shutil.which("mpirun.openmpi"):
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    run(["mpirun.openmpi", "--oversubscribe", *root, "-np", "3", BENCH] + ARGS, 3, "Open MPI's mpirun")
else:
    print("skipped: Open MPI is not installed")
if shutil.which("mpirun.mpich"):
    run(["mpirun.mpich", "-np", "3", BENCH] + ARGS, 3, "MPICH's mpirun")
else:
    print("skipped: MPICH is not installed")
refused(["all_reduce", "-d", "float99"], "unknown datatype 'float99'")
refused(["all_reduce", "-o", "plus"], "unknown operator 'plus'")
refused(["all_reduce", "-b", "12Q"], "12Q")
refused(["broadcast", "-r", "7", "--ranks", "2"], "only 2 ranks")
refused(["sum_everything"], "subcommand is required")
killed()
