#!/usr/bin/env python3
"""Runs in the guest: railccl-doctor on one of its hosts, whose RDMA ports are sound at first and then
have faults that are planted one after the other: each is named with its place, and no other error.

    doctor_test.py RAILCCL_DOCTOR
"""
import json
import subprocess
import sys
import time

import hosts

SICK = "h0r1"


def findings(before="true"):
    """`before` is shell text."""
    words = [hosts.MAIN, "on_host", "0", "sh", "-c", f"{before} && exec {sys.argv[1]} --json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode not in (0, 1) or not done.stdout.startswith("["):
        raise AssertionError(done.stdout + done.stderr)
    return json.loads(done.stdout)


def expect(fault, found, cause, place, *consequences):
    named = [one for one in found if one["cause"] == cause and place in one["what"]]
    others = [one for one in found if one["severity"] == "error" and
              one["cause"] not in (cause, *consequences)]
    if not named or others:
        raise AssertionError(f"{fault}:\n{json.dumps(found, indent=1)}")
    print(f"{fault}: {named[0]['what']}", flush=True)


def change(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True)


def soon(fault, cause, place, *consequences):
    """The kernel takes a moment to hear of it."""
    end = time.monotonic() + 20
    while True:
        found = findings()
        if time.monotonic() > end or any(one["cause"] == cause for one in found):
            return expect(fault, found, cause, place, *consequences)
        time.sleep(0.2)


def main():
    sound = findings()
    if any(one["severity"] == "error" or "rdma" in one["cause"] for one in sound):
        raise AssertionError(f"sound:\n{json.dumps(sound, indent=1)}")
    expect("little may be locked", findings("ulimit -l 64"), "memlock", "host h0")
    expect("a GID that is not there", findings("export NCCL_IB_GID_INDEX=50"), "gid-index",
           "h0r0/1: NCCL_IB_GID_INDEX=50 is an empty row")
    address, = subprocess.run(f"ip -4 -o addr show dev {SICK}".split(), capture_output=True,
                              text=True, check=True).stdout.split("inet ")[1:]
    change(f"ip addr flush dev {SICK}")
    soon("no address", "rdma-no-address", f"{SICK}/1")
    change(f"ip addr add {address.split()[0]} dev {SICK}", f"ip link set sw{SICK} down")
    soon("a cable is pulled", "rdma-port", f"{SICK}/1: the port is DOWN", "no-carrier")
    change(f"ip link set sw{SICK} up")


main()
