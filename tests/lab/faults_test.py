#!/usr/bin/env python3
"""Rails that fail while collectives run: cables out, switches that swallow everything, a link that
flaps, all rails but one lost one after the other. Every result of every iteration is right, no
iteration waits long, and the log says once what happened. A host that has lost a link for good is
found out, and becomes a leaf of the others' rail.

    faults_test.py FOLDER_OF_PROGRAMS
"""
import json
import re
import statistics
import sys
import threading
import time

import lab

RANKS = [2, 2, 2]
RAILS = 3
# Far above what it takes to notice and to go on: the machine may be busy with other things.
STALL_MAX_US = 3e6
FLOWING = 10 << 20  # bytes: a few iterations


def play(one, script):
    """Breaks and mends links: (seconds after data began to flow, host or None for all, rail, state)."""
    began = time.monotonic()
    before = carried(one)
    while carried(one) - before < FLOWING and time.monotonic() < began + 30:
        time.sleep(0.05)
    began = time.monotonic()
    for at, host, rail, state in script:
        time.sleep(max(0, began + at - time.monotonic()))
        for each in range(one.shape.hosts) if host is None else [host]:
            one.link(each, rail, state)


def carried(one):
    return sum(sent for sent, _ in one.counters()[0].values())


def mend(one):
    for host, rail in one.links():
        one.link(host, rail, "mend")
    for host in range(one.shape.hosts):  # what hosts remember of each other's absence
        lab.run(["ip", "-n", one.host(host), "neighbour", "flush", "all"])


def survives(one, program, what, script, size="2M", iterations="20", ranks=RANKS):
    words = [program, "all_reduce", "-b", size, "-e", size, "-n", iterations, "-w", "1", "--each",
             "--json", "-T", "60"]
    faults = threading.Thread(target=play, args=(one, script))
    faults.start()
    codes, outputs = one.run_ranks(words, ranks, timeout_s=70)
    faults.join()
    mend(one)
    text = "\n".join(outputs)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert set(codes) == {0} and len(rows) == 2, f"{what}: codes {codes}\n{text}"
    for row in rows:
        assert row["wrong"] == 0, f"{what}: {row['wrong']} wrong elements\n{text}"
        assert len(row["times_us"]) == int(iterations), what
    times = [t for row in rows for t in row["times_us"]]
    stall = max(times) - statistics.median(times)
    assert stall < STALL_MAX_US, f"{what}: one iteration took {stall / 1e3:.0f} ms longer\n{text}"
    told = [len(re.findall(r"the path by rail\d", output)) for output in outputs]
    assert sum(told) > 0 or not script, f"{what}: nobody noticed; did the fault come in time?\n{text}"
    print(f"{what}: median {statistics.median(times) / 1e3:.0f} ms, the longest {stall / 1e3:.0f} ms "
          f"more, told {told}")
    return outputs, rows


def main():
    lab.skip_where_missing()
    program = f"{sys.argv[1]}/railccl-bench"
    with lab.Lab.up(lab.Shape(3, RAILS)) as one:
        outputs, _ = survives(one, program, "a silent link",
                              [(0.3, 1, 0, "silent"), (1.2, 1, 0, "mend")])
        assert re.search(r"path by rail0 to rank \d .* silent for \d+ ms", "\n".join(outputs))
        survives(one, program, "a cable out", [(0.2, 0, 1, "down"), (1.2, 0, 1, "mend")])
        flaps = [(0.1 + 0.25 * i, 2, 1, "mend" if i % 2 else "silent") for i in range(8)]
        survives(one, program, "a link that flaps", flaps)
        survives(one, program, "all rails but one lost, one after the other",
                 [(0.2, None, 0, "silent"), (0.8, None, 2, "down")])
        for what, script in (("a link lost for good", [(0.2, 1, 2, "silent")]),
                             ("a link that was dead from the beginning", [])):
            if not script:
                one.link(1, 2, "silent")
            outputs, rows = survives(one, program, what, script, size="16M", iterations="8",
                                     ranks=[RAILS] * 3)
            text = "\n".join(outputs)
            assert rows[-1]["algorithm"] == "rail_leaf", f"{rows[-1]['algorithm']}\n{text}"
            lost = re.findall(r"rail \d.* carries nothing.*", text)
            place = f"(rail2) of host {one.hostname(1)} carries nothing"
            assert len(lost) == 1 and place in lost[0], text


main()
