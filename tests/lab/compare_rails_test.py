#!/usr/bin/env python3
"""compare_rails itself on a small lab: it verifies and compares, says what it leaves out, and leaves
neither a lab nor processes nor files behind, not even when it is told to stop in the middle.

    compare_rails_test.py FOLDER_OF_PROGRAMS
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import lab

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import processes  # noqa: E402

PROGRAMS = pathlib.Path(sys.argv[1])
PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bench/compare_rails"
SMALL = ["--hosts", "2", "--local", "2", "--repeats", "2", "--open-mpi", "tuned"]


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, PROGRAM, *SMALL, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "BUILD": str(PROGRAMS.parent), "TMPDIR": folder})


def nothing_left(process, folder):
    assert not lab.namespaces(f"{lab.PREFIX}p{process.pid}-"), "the lab is still there"
    assert not processes.with_argument(folder), "processes are still there"
    assert not list(pathlib.Path(folder).glob("railccl*")), "files are still there"


def compares(folder):
    lines = pathlib.Path(folder) / "cells.json"
    process = start(folder, "--sizes", "8,64K", "--details", "--json", str(lines))
    output, _ = process.communicate(timeout=60)
    print(output)
    assert process.returncode == 0 and "verified: no element wrong" in output
    cells = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [cell["bytes"] for cell in cells] == [8, 65536]
    for family, program in (("railccl", "railccl"), ("Open MPI", "openmpi"), ("Gloo", "gloo")):
        if (PROGRAMS / f"compare_worker_{program}").exists():
            for cell in cells:
                times = [c.get("time_us", 0) for c in cell["contenders"] if c["family"] == family]
                assert times and max(times) > 0, f"{family} did not run"
        else:
            assert f"left out: {family}" in output
    nothing_left(process, folder)


def stops(folder):
    process = start(folder, "--sizes", "8,16M", "--peers", "none")
    for line in process.stdout:
        if "8 B" in line:  # 16 MiB are under way, for seconds
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143, process.returncode
    nothing_left(process, folder)


def refuses(folder):
    plan = pathlib.Path(folder) / "plan"
    for text in ("", "{}", "[]", '[{"family": "x"}]',
                 '[{"family": "x", "label": "x", "variants": [""], "commands": [[]]}]'):
        plan.write_text(text, encoding="utf-8")
        done = subprocess.run([PROGRAMS / "compare_host", "--launches", plan], capture_output=True,
                              text=True, check=False)
        assert done.returncode == 2 and str(plan) in done.stdout + done.stderr, (text, done)


def main():
    lab.skip_where_missing()
    with tempfile.TemporaryDirectory() as folder:
        refuses(folder)
        compares(folder)
        stops(folder)


main()
