#!/usr/bin/env python3
"""Hosts whose NICs are all in one subnet, cables in disorder, behind an oversubscribed spine: the
ranks find out by measuring which NICs share a leaf switch, once, and then keep nearly every byte of
an all-reduce off the spine. Cables that were put elsewhere, a file that was spoilt, a NIC that is
silent and a probe that is switched off are tried, too.

    flat_test.py FOLDER_OF_PROGRAMS
"""
import json
import pathlib
import re
import sys
import tempfile
import time

import lab

HOSTS, RAILS, LOCAL = 4, 2, 2
BYTES, CALLS = 4 << 20, 2


class Job:
    """Runs of one program, whose ranks share a cache folder."""

    def __init__(self, one, programs, cache):
        self.one, self.program, self.cache = one, f"{programs}/railccl-bench", pathlib.Path(cache)

    def run(self, probe="auto", size=64 << 10, words=()):
        """(what rank 0 told the log, its rows); an element that is wrong is an error."""
        environment = {"NCCL_DEBUG": "INFO", "XDG_CACHE_HOME": self.cache, "RAILCCL_PROBE": probe}
        command = [self.program, "all_reduce", "-b", str(size), "-e", str(size), "-n", str(CALLS),
                   "-w", "0", "--json", *words]
        codes, outputs = self.one.run_ranks(command, [LOCAL] * HOSTS, environment=environment)
        assert set(codes) == {0}, "\n".join(outputs)
        rows = [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]
        assert len(rows) == 2 and all(row["wrong"] == 0 for row in rows), outputs[0]
        return outputs[0], rows

    def files(self):
        return sorted(self.cache.glob("railccl/rails-*.json"), key=lambda file: file.stat().st_mtime)

    def rails(self):
        """Of the newest file: the sets of NICs, as (host, number of the NIC)."""
        found = json.loads(self.files()[-1].read_text(encoding="utf-8"))
        assert found["by"] == "bandwidth", found
        return found, {frozenset(map(tuple, rail)) for rail in found["rails"]}


def cabled(one, moved=()):
    """What is true; hosts in `moved` have their two cables exchanged."""
    return {frozenset((host, one.slot(host, 1 - rail if host in moved else rail))
                      for host in range(HOSTS)) for rail in range(RAILS)}


def main():
    lab.skip_where_missing()
    with lab.Lab.up(lab.Shape(HOSTS, RAILS, oversubscription=4, flat=True)) as one, \
            tempfile.TemporaryDirectory() as cache:
        job = Job(one, sys.argv[1], cache)
        check_found(one, job)
        check_remembered(one, job)
        check_spoilt(one, job)
        check_moved_cables(one, job)
        check_silent(one, job)
        log, _ = job.run(probe="off")
        assert "rail 0: subnet 10.78.0.0/16 joins" in log and "rail 1:" not in log, log


def check_found(one, job):
    log, _ = job.run()
    found, rails = job.rails()
    assert rails == cabled(one), (rails, cabled(one))
    assert 2.5 < found["oversubscription"] < 6, found
    told = re.search(r"2 rails, told by bandwidth: .* spine 1:.* \(probed in (\d+) ms, up to (.*) MB", log)
    assert told and len(re.findall(r"rail \d: probed rail .* inside, .* joins .* of 4 hosts", log)) == RAILS, log
    print(told.group(0))
    assert int(told.group(1)) < 2500, "not within its time, even on a loaded machine"
    # A link of 200 Mbit/s for at most half a second.
    assert float(told.group(2)) < 20, told.group(0)


def check_remembered(one, job):
    links, spine = one.counters()
    log, rows = job.run(size=BYTES, words=["--prove"])
    links_after, spine_after = one.counters()
    assert "(remembered)" in log and "probed in" not in log, log
    crossed = spine_after - spine
    sent = {link: links_after[link][0] - links[link][0] for link in links}
    least = CALLS * sum(sum(row["proof"]["bytes_of_rails"]) for row in rows)
    print(f"{crossed} bytes on the spine, {sum(sent.values()) / least:.3f} of the {least} bytes that all "
          "links must carry")
    assert crossed < 0.001 * sum(sent.values()), f"{crossed} bytes on the spine, {sent} on the links"
    for (host, rail), bytes_ in sent.items():
        other = sent[(host, 1 - rail)]
        assert bytes_ > 0.5 * other, f"host {host} sent {bytes_} bytes by one NIC, {other} by the other"


def check_spoilt(one, job):
    file = job.files()[-1]
    file.write_text("{", encoding="utf-8")
    log, _ = job.run()
    assert f"not using the rails in {file}" in log and "probed in" in log, log
    assert job.files() == [file] and job.rails()[1] == cabled(one)


def check_moved_cables(one, job):
    # Host 2's cables are exchanged, which nothing but measuring shows.
    lab.batch("ip", one.leaves, ["link set port0-2 master switch1", "link set port1-2 master switch0"])
    for port in ("port0-2", "port1-2"):
        one._forward(port)
    assert "(remembered)" in job.run()[0]
    job.run(probe="force")
    assert job.rails()[1] == cabled(one, moved=[2]), job.rails()
    lab.batch("ip", one.leaves, ["link set port0-2 master switch0", "link set port1-2 master switch1"])
    for port in ("port0-2", "port1-2"):
        one._forward(port)
    # Another address is another fabric: nobody has to ask for a probe.
    nic, old = one.nic(2, 0), one.address(2, 0)
    new = old[:old.rindex(".")] + ".103"
    lab.batch("ip", one.host(2), [f"address del {old}/16 dev {nic}", f"address add {new}/16 dev {nic}"])
    assert "probed in" in job.run()[0]
    assert job.rails()[1] == cabled(one) and len(job.files()) == 2
    lab.batch("ip", one.host(2), [f"address del {new}/16 dev {nic}", f"address add {old}/16 dev {nic}"])


def check_silent(one, job):
    # It is up, but nothing passes: it gets the rail that is left for it. (Not the NIC by which the
    # hosts meet, without which there is no job.)
    rail = next(rail for rail in range(RAILS) if one.slot(1, rail) == 1)
    one.link(1, rail, "silent")
    start = time.monotonic()
    job.run(probe="force")
    print(f"with a silent NIC: {time.monotonic() - start:.1f} s")
    assert job.rails()[1] == cabled(one), job.rails()
    one.link(1, rail, "mend")


main()
