#!/usr/bin/env python3
"""3 hosts of 2 NICs and 2 ranks each: their facts, taken on each of them as a job would, merge into 3
hosts and 2 rails, ranks of one number on one rail, with a reason for each.

    topology_test.py FOLDER_OF_PROGRAMS
"""
import json
import pathlib
import sys
import tempfile

import lab

HOSTS, RAILS, LOCAL = 3, 2, 2


def main():
    lab.skip_where_missing()
    program = f"{sys.argv[1]}/railccl-topo"
    with lab.Lab.up(lab.Shape(HOSTS, RAILS)) as one, tempfile.TemporaryDirectory() as folder:
        codes, facts = one.run_ranks([program, "--facts"], [LOCAL] * HOSTS)
        assert codes == [0] * HOSTS * LOCAL, facts
        files = []
        for rank, text in enumerate(facts):
            files.append(pathlib.Path(folder) / f"{rank:02}.facts")
            files[-1].write_text(text, encoding="utf-8")
        merged = json.loads(lab.run([program, "--json", "--merge", *map(str, files)]))
        why = lab.run([program, "--why", "--merge", *map(str, files)])
        names = [one.hostname(host) for host in range(HOSTS)]
    assert [host["name"] for host in merged["hosts"]] == names, merged["hosts"]
    assert len(merged["rails"]) == RAILS, merged["rails"]
    for host in merged["hosts"]:
        nics = {nic["name"]: nic["rail"] for nic in host["nics"]}
        assert nics == {f"rail{rail}": rail for rail in range(RAILS)}, nics
    lines = why.splitlines()
    for rail in range(RAILS):
        reason = f"rail {rail}: subnet {lab.NETWORK}.{rail}.0/24 joins rail{rail} of {HOSTS} hosts"
        assert reason in lines, why
    for rank in range(HOSTS * LOCAL):
        host, local = rank // LOCAL, rank % LOCAL
        start = f"rank {rank} on {names[host]}: rail{local} "
        assert any(line.startswith(start) and f"local rank {local}" in line for line in lines), why
    print(why)


main()
