#!/usr/bin/env python3
"""The lab itself: hosts are apart, links carry their rate and break as they should, and nothing is
left behind, not even by a process that was killed."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import lab
import stream

RATE = 50


def out_of(one, host, script):
    return lab.run(one.inside(host, ["sh", "-c", script])).strip()


def hosts_are_apart(one):
    for host in range(one.shape.hosts):
        assert out_of(one, host, "hostname") == one.hostname(host)
        assert out_of(one, host, "ls /sys/class/net").split() == ["lo", "rail0", "rail1"]
    out_of(one, 0, "echo 1 > /dev/shm/mine")
    assert "mine" not in out_of(one, 1, "ls /dev/shm"), "hosts share memory"
    assert not pathlib.Path("/dev/shm/mine").exists(), "a host shares memory with the machine"
    assert out_of(one, 0, "readlink /proc/self/ns/ipc") != out_of(one, 1, "readlink /proc/self/ns/ipc")


def carrier(one, host, rail):
    return out_of(one, host, f"cat /sys/class/net/rail{rail}/carrier")


def between(one, least, most, flow, what):
    """A flow's rate, as a part of a link's. Other load on the machine bends a measurement both ways,
    but not three times."""
    for _ in range(3):
        rate = stream.rates(one, [flow], 0.5)[0]
        print(f"{what}: {rate:.1f} Mbit/s")
        if least * RATE <= rate <= most * RATE:
            return rate
    raise AssertionError(f"{what}: {rate} Mbit/s of {RATE}")


def rates(one):
    in_rail, across = ((0, 0), (1, 0)), ((0, 0), (1, 1))
    before = one.counters()
    full = between(one, 0.8, 1.02, in_rail, "in a rail")
    links, spine = one.counters()
    sent = links[(0, 0)][0] - before[0][(0, 0)][0]
    assert sent > full * 1e6 / 8 * 0.5, f"{sent} bytes counted on the link"
    assert links[(1, 0)][1] - before[0][(1, 0)][1] > 0.9 * sent, "received less than was sent"
    assert spine - before[1] < 10000, f"{spine - before[1]} bytes of a rail on the spine"
    between(one, 0.35, 0.52, across, "across rails, spine 4:1")  # 2 hosts: half a link's rate
    assert one.counters()[1] - spine > RATE * 1e6 / 8 * 0.1, "the spine did not count"
    one.link(1, 0, "slow", 5)
    between(one, 0.1, 0.22, in_rail, "slow by 5")
    between(one, 0.1, 0.22, tuple(reversed(in_rail)), "slow by 5, the other way")
    one.link(1, 0, "silent")
    assert carrier(one, 1, 0) == "1"
    between(one, 0, 0, in_rail, "silent")
    one.link(1, 0, "mend")
    one.link(1, 0, "down")
    assert carrier(one, 1, 0) == "0"
    between(one, 0, 0, in_rail, "down")
    between(one, 0.8, 1.02, ((0, 1), (1, 1)), "the other rail meanwhile")
    one.link(1, 0, "mend")
    assert carrier(one, 1, 0) == "1"
    between(one, 0.8, 1.02, in_rail, "mended")


def network_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def inhabitants(networks):
    return [p.name for p in pathlib.Path("/proc").iterdir()
            if p.name.isdigit() and network_of(p.name) in networks]


def machine_links():
    return sorted(link["ifname"] for link in json.loads(lab.run(["ip", "-j", "link"])))


def leaves_nothing(links_before):
    one = lab.Lab.up(lab.Shape(2, 1, RATE))
    sleeper = subprocess.Popen(one.inside(1, ["sleep", "1000"]))
    networks = {out_of(one, host, "readlink /proc/self/ns/net") for host in range(2)}
    assert len(networks) == 2 and len(inhabitants(networks)) >= 3
    one.down()
    sleeper.wait(timeout=5)
    assert not inhabitants(networks), "processes outlive the lab"
    assert not lab.namespaces(f"{lab.PREFIX}{one.name}-")
    assert machine_links() == links_before, "the lab leaves links"

    # Killed with a lab up: the next one on this machine removes it.
    killed = subprocess.Popen(
        [sys.executable, "-c", "import lab, time\n"
         "print(lab.Lab.up(lab.Shape(2, 1)).name, flush=True)\ntime.sleep(1000)"],
        stdout=subprocess.PIPE, text=True, cwd=pathlib.Path(__file__).parent)
    left = lab.Lab.find(killed.stdout.readline().strip())
    network = {out_of(left, 0, "readlink /proc/self/ns/net")}
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(lab.namespaces(f"{lab.PREFIX}{left.name}-")) == 4 and inhabitants(network)
    with lab.Lab.up(lab.Shape(1, 1)):
        assert not lab.namespaces(f"{lab.PREFIX}{left.name}-"), "what a killed process left is there"
    assert not inhabitants(network)
    assert machine_links() == links_before


def refuses():
    for shape in (lab.Shape(0), lab.Shape(rails=99), lab.Shape(rate=0)):
        try:
            lab.Lab.up(shape)
        except lab.LabError:
            continue
        raise AssertionError(f"{shape} was not refused")


def main():
    lab.skip_where_missing()
    links_before = machine_links()
    refuses()
    began = time.monotonic()
    with lab.Lab.up(lab.Shape(2, 2, RATE, 4)) as one:
        print(f"made in {time.monotonic() - began:.1f} s")
        hosts_are_apart(one)
        rates(one)
        assert lab.Lab.find(one.name).shape == one.shape
    leaves_nothing(links_before)


main()
