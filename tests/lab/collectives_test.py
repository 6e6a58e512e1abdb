#!/usr/bin/env python3
"""Every collective between hosts of several NICs, each rank a process of its own: no element is wrong
where hosts are alike, where they have unequal numbers of ranks, and where one link is slow. And no
exchange of middling size waits for an acknowledgement that the far kernel keeps back.

    collectives_test.py FOLDER_OF_PROGRAMS
"""
import json
import re
import sys

import lab

COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "all_to_all",
               "gather", "scatter", "sendrecv")


def verified(one, ranks, words, what):
    codes, outputs = one.run_ranks(words, ranks, timeout_s=40)
    rows = [line.split() for line in outputs[0].splitlines() if re.match(r"\s*\d", line)]
    good = set(codes) == {0} and rows and "# wrong elements: 0 OK" in outputs[0]
    assert good, f"{what}: codes {codes}\n" + "\n".join(outputs)
    print(f"{what}: {len(rows)} rows, 0 wrong")


def exchanged_at_once(one, program):
    """A sender keeps large messages in place until the far kernel has acknowledged them, which it
    would do after 40 ms, in the hope of bytes to send it with."""
    words = [program, "all_reduce", "-b", "16K", "-e", "64K", "-f", "2", "-n", "20", "--json"]
    codes, outputs = one.run_ranks(["env", "NCCL_ALGO=doubling", *words], [1, 1, 1, 1], timeout_s=40)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert set(codes) == {0} and rows, f"codes {codes}\n" + "\n".join(outputs)
    worst = max(row["time_us"] for row in rows)
    assert worst < 10000, f"an exchange of at most 64 KiB took {worst / 1000:.1f} ms"
    print(f"exchanges of 16 to 64 KiB take {worst / 1000:.1f} ms at most")


def main():
    lab.skip_where_missing()
    program = f"{sys.argv[1]}/railccl-bench"
    sizes = ["-b", "0", "-e", "300K", "-f", "24", "-n", "1", "-w", "0", "-d", "float,bfloat16"]
    large = ["-b", "1M", "-e", "1M", "-n", "2", "-w", "0"]
    with lab.Lab.up(lab.Shape(3, 2)) as one:
        for collective in COLLECTIVES:
            verified(one, [2, 2, 2], [program, collective, *sizes, "-r", "3"], collective)
        for collective in ("all_reduce", "all_gather", "broadcast"):
            verified(one, [1, 3, 2], [program, collective, *sizes], f"{collective}, ranks 1, 3, 2")
        one.link(1, 0, "slow", 4)
        for collective in ("all_reduce", "all_to_all"):
            verified(one, [2, 2, 2], [program, collective, *large],
                     f"{collective} with a link at a quarter")
    with lab.Lab.up(lab.Shape(4, 2)) as one:
        exchanged_at_once(one, program)


main()
