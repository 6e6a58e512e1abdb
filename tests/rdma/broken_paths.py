"""Paths over verbs that break or never come about, while an all-reduce goes round that is right all the
same; for the tests that run in the guest. One process on each host.
"""
import json
import re
import time

import hosts
import queue_pairs

FLOWING = 512 << 10  # bytes: all ranks are at it
SICK = 1  # of hosts


def _rows(what, ranks):
    codes, outputs = ranks.finish(120)
    text = "\n".join(outputs)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert set(codes) == {0} and rows, f"{what}: codes {codes}\n{text}"
    for row in rows:
        assert row["wrong"] == 0, f"{what}: {row['wrong']} wrong elements\n{text}"
        assert "verbs" in row["transport"], f"{what}: not over verbs"
    return text


def _words(program, size, iterations):
    return [program, "all_reduce", "-b", size, "-e", size, "-n", str(iterations), "-w", "1", "--json",
            "-T", "100"]


def killed(program):
    """A host's queue pairs of one rail go into the error state in the middle of it."""
    device = f"h{SICK}r0"
    ranks = hosts.Ranks(_words(program, "128K", 80), 1, {"NCCL_DEBUG": "INFO"})
    before = hosts.carried()
    while hosts.carried() - before < FLOWING and ranks.running():
        time.sleep(0.02)
    running = ranks.running()
    count = queue_pairs.kill(ranks.processes[SICK].pid, device) if running else 0
    text = _rows("queue pairs are killed", ranks)
    assert count > 0 and running, f"{count} queue pairs were killed\n{text}"
    told = re.search(rf"verbs: rank {SICK}: the path by {device} to rank .* is broken \(.*", text)
    assert told, f"queue pairs are killed: nobody said so\n{text}"
    print(f"{count} queue pairs killed: {told[0]}", flush=True)


def limited(program):
    """A host may register memory for one path only: the others' bytes go by TCP."""
    limit = ["setpriv", "--bounding-set", "-ipc_lock", "sh", "-c", 'ulimit -l 1500 && exec "$@"', "sh"]
    ranks = hosts.Ranks(_words(program, "64K", 2), 1, {"NCCL_DEBUG": "WARN"}, before={SICK: limit})
    text = _rows("little may be locked", ranks)
    ours = re.findall(rf"verbs: rank {SICK}: no path to rank \d: .* cannot be registered: .*"
                      r"ulimit -l.*; its bytes go by TCP instead", text)
    assert ours, f"little may be locked: nobody said so\n{text}"
    print(f"little may be locked: {ours[0]}", flush=True)
