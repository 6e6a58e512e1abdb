#!/usr/bin/env python3
"""A large all-reduce over rails: both rails of every host carry the same, what the plan needs and
little more, and nothing but the tables of addresses crosses the spine.

    spine_test.py FOLDER_OF_PROGRAMS
"""
import sys

import lab

HOSTS, RAILS, LOCAL = 3, 2, 2
BYTES, CALLS = 4 << 20, 2


def main():
    lab.skip_where_missing()
    words = [f"{sys.argv[1]}/railccl-bench", "all_reduce", "-b", str(BYTES), "-e", str(BYTES),
             "-n", str(CALLS), "-w", "0"]
    with lab.Lab.up(lab.Shape(HOSTS, RAILS, oversubscription=8)) as one:
        links, spine = one.counters()
        codes, outputs = one.run_ranks(words, [LOCAL] * HOSTS)
        links_after, spine_after = one.counters()
    assert set(codes) == {0} and "# wrong elements: 0 OK" in outputs[0], "\n".join(outputs)
    sent = {link: links_after[link][0] - links[link][0] for link in links}
    crossed = spine_after - spine
    # Twice as many calls: the program runs them out of place and in place.
    least = 2 * CALLS * 2 * (HOSTS - 1) / HOSTS * BYTES / RAILS
    print(f"{crossed} bytes on the spine; of {least:.0f} bytes that each link must send: " +
          ", ".join(f"{bytes_ / least:.3f}" for bytes_ in sent.values()))
    assert crossed < 0.001 * sum(sent.values()), f"{crossed} bytes on the spine, {sent} on the links"
    for link, bytes_ in sent.items():
        assert least <= bytes_ < 1.05 * least, f"link {link} sent {bytes_} bytes, {least:.0f} needed"


main()
