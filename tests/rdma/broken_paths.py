"""Paths over verbs that break or never come about, while an all-reduce goes round that is right all the
same; for the tests that run in the guest. One process on each host.
"""
import json
import re
import time

import hosts
import queue_pairs

FLOWING = 512 << 10  # bytes: all ranks are at it
SICK, POOR = 1, 2  # of hosts
# Memory for one path; root may lock any amount unless it is told not to.
LIMIT = ["setpriv", "--bounding-set", "-ipc_lock", "sh", "-c", 'ulimit -l 1500 && exec "$@"', "sh"]


def survived(program):
    """One host may register too little memory; another one's queue pairs of a rail fail meanwhile."""
    device = f"h{SICK}r0"
    ranks = hosts.Ranks([program, "all_reduce", "-b", "128K", "-e", "128K", "-n", "80", "-w", "1",
                         "--json", "-T", "100"], 1, {"NCCL_DEBUG": "INFO"}, before={POOR: LIMIT})
    before = hosts.carried()
    while hosts.carried() - before < FLOWING and ranks.running():
        time.sleep(0.02)
    running = ranks.running()
    killed = queue_pairs.kill(ranks.processes[SICK].pid, device) if running else 0
    codes, outputs = ranks.finish(120)
    text = "\n".join(outputs)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert set(codes) == {0} and rows, f"codes {codes}\n{text}"
    for row in rows:
        assert row["wrong"] == 0, f"{row['wrong']} wrong elements\n{text}"
        assert "verbs" in row["transport"], "not over verbs"
    assert killed > 0, f"no queue pair was killed\n{text}"
    for told in (rf"verbs: rank {SICK}: the path by {device} to rank .* is broken \(.*",
                 rf"verbs: rank {POOR}: .* cannot be registered: .*ulimit -l.*",
                 r"verbs: rank \d: no path to rank \d: .*; its bytes go by TCP instead"):
        found = re.search(told, text)
        assert found, f"nobody said {told}\n{text}"
        print(found[0], flush=True)
