#!/usr/bin/env python3
"""Runs in the guest: rails that fail while an all-reduce over verbs goes round. A switch that swallows
everything without an error, a cable that comes out (an event of the port), queue pairs that fail, one
packet in a hundred lost: every result of every iteration is right, no iteration waits long, and the log
says what it was.

    faults_test.py FOLDER_OF_PROGRAMS
"""
import json
import re
import statistics
import subprocess
import sys
import threading
import time

import hosts
import queue_pairs

# Far above what it takes to notice and to go on (emulated, all cores wait for each other), and less
# than it takes until what failed is mended.
STALL_MAX_US = 4e6 if hosts.EMULATED else 2e6
MENDED_S = 6
SIZE, ITERATIONS = ("512K", 12) if hosts.EMULATED else ("2M", 40)
PER_HOST = 2
FLOWING = 4 << 20  # bytes: a few iterations


def ends(host, rail):
    """Both ends of a cable: what is done to what leaves by them is done to both directions."""
    return (f"h{host}r{rail}", f"swh{host}r{rail}")


def link(host, rail, state):
    if state == "down":
        subprocess.run(["ip", "link", "set", ends(host, rail)[1], "down"], check=True)
        return
    for end in ends(host, rail):
        if state == "mend":
            subprocess.run(["tc", "qdisc", "del", "dev", end, "root"], check=False,
                           stderr=subprocess.DEVNULL)
        else:
            subprocess.run(["tc", "qdisc", "replace", "dev", end, "root", "netem", "limit", "20000",
                            "loss", state], check=True)
    subprocess.run(["ip", "link", "set", ends(host, rail)[1], "up"], check=True)


def play(script, ranks):
    """(seconds after data began to flow, host, rail, state)."""
    before = hosts.carried()
    while hosts.carried() - before < FLOWING and ranks.running():
        time.sleep(0.05)
    began = time.monotonic()
    for at, host, rail, state in script:
        while time.monotonic() < began + at and ranks.running():
            time.sleep(0.02)
        if state == "kill":
            for rank in range(host * PER_HOST, (host + 1) * PER_HOST):
                if ranks.running():
                    queue_pairs.kill(ranks.processes[rank].pid, f"h{host}r{rail}")
        else:
            link(host, rail, state)


def survives(program, what, script, told):
    ranks = hosts.Ranks([program, "all_reduce", "-b", SIZE, "-e", SIZE, "-n", str(ITERATIONS), "-w",
                         "1", "--each", "--json", "-T", "120"], PER_HOST, {"NCCL_DEBUG": "INFO"})
    faults = threading.Thread(target=play, args=(script, ranks))
    faults.start()
    codes, outputs = ranks.finish(120)
    faults.join()
    for host in range(hosts.HOSTS):
        for rail in range(hosts.RAILS):
            link(host, rail, "mend")
    text = "\n".join(outputs)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert set(codes) == {0} and len(rows) == 2, f"{what}: codes {codes}\n{text}"
    for row in rows:
        assert row["wrong"] == 0, f"{what}: {row['wrong']} wrong elements\n{text}"
        assert "verbs" in row["transport"], f"{what}: not over verbs"
    times = [t for row in rows for t in row["times_us"]]
    longest = max(times) - statistics.median(times)
    assert longest < STALL_MAX_US, f"{what}: one iteration took {longest / 1e3:.0f} ms longer\n{text}"
    assert told is None or re.search(told, text), f"{what}: nobody said so\n{text}"
    print(f"{what}: median {statistics.median(times) / 1e3:.0f} ms, the longest {longest / 1e3:.0f} "
          "ms more", flush=True)


def main():
    program = f"{sys.argv[1]}/railccl-bench"
    every = [(host, rail) for host in range(hosts.HOSTS) for rail in range(hosts.RAILS)]
    survives(program, "a silent rail", [(0.1, 1, 0, "100%"), (MENDED_S, 1, 0, "mend")],
             r"verbs: rank \d: the path by h\dr0 to rank \d .* (silent|broken)")
    survives(program, "a cable out", [(0.1, 0, 1, "down"), (MENDED_S, 0, 1, "mend")],
             r"the path by h0r1 to rank \d .* is broken \(h0r1 is not active")
    if not hosts.EMULATED:  # there rdma.collectives does it, with fewer bytes
        survives(program, "queue pairs killed", [(0.1, 1, 0, "kill"), (0.4, 2, 1, "kill")],
                 r"the path by h1r0 to rank \d .* is broken \(.*the queue pair had failed before")
    survives(program, "one packet in a hundred lost",
             [(0, host, rail, "1%") for host, rail in every], None)


main()
