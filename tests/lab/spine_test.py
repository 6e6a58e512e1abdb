#!/usr/bin/env python3
"""A large all-reduce over rails: its plan is proven to put no byte on the spine, and the counters of
links and spine agree: both rails of every host carry the same, what the plan needs and little more,
and nothing but the tables of addresses crosses the spine.

    spine_test.py FOLDER_OF_PROGRAMS
"""
import json
import sys

import lab

HOSTS, RAILS, LOCAL = 3, 2, 2
BYTES, CALLS = 4 << 20, 2


def main():
    lab.skip_where_missing()
    words = [f"{sys.argv[1]}/railccl-bench", "all_reduce", "-b", str(BYTES), "-e", str(BYTES),
             "-n", str(CALLS), "-w", "0", "--prove", "--json"]
    with lab.Lab.up(lab.Shape(HOSTS, RAILS, oversubscription=8)) as one:
        links, spine = one.counters()
        codes, outputs = one.run_ranks(words, [LOCAL] * HOSTS)
        links_after, spine_after = one.counters()
    assert set(codes) == {0}, "\n".join(outputs)
    rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
    assert len(rows) == 2 and all(row["wrong"] == 0 for row in rows), outputs[0]
    sent = {link: links_after[link][0] - links[link][0] for link in links}
    crossed = spine_after - spine
    # Once out of place and once in place.
    least = {rail: CALLS * sum(row["proof"]["bytes_of_rails"][rail] for row in rows) / HOSTS
             for rail in range(RAILS)}
    for row in rows:
        proof = row["proof"]
        assert proof["algorithm"] == row["algorithm"] and proof["bytes_across_rails"] == 0, proof
        assert proof["bytes_between_hosts"] == 2 * (HOSTS - 1) * BYTES, proof
        assert len(set(proof["bytes_of_rails"])) == 1, proof
    print(f"{crossed} bytes on the spine; of {least[0]:.0f} bytes that each link must send: " +
          ", ".join(f"{bytes_ / least[rail]:.3f}" for (_, rail), bytes_ in sent.items()))
    assert crossed < 0.001 * sum(sent.values()), f"{crossed} bytes on the spine, {sent} on the links"
    for (host, rail), bytes_ in sent.items():
        assert least[rail] <= bytes_ < 1.05 * least[rail], (
            f"host {host} sent {bytes_} bytes on rail {rail}, {least[rail]:.0f} needed")


main()
