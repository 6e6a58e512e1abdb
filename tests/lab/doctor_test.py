#!/usr/bin/env python3
"""railccl-doctor on hosts with planted faults: it names the cause of each and the place, and says
nothing about a sound network.

    doctor_test.py FOLDER_OF_PROGRAMS
"""
import json
import os
import subprocess
import sys

import lab

HOSTS, RAILS = 4, 2
SICK, BAD = 2, 1  # the host and the rail that faults are planted on


class Ward:
    """A lab and the doctor in it."""

    def __init__(self, one, program):
        self.one, self.program, self.diagnosed = one, program, 0

    def together(self, before="", environment=None, ranks=None):
        """Findings of rank 0 of a job with a process on each host; `before` is shell text."""
        words = ["sh", "-c", f"{before}\nexec {self.program} --json"]
        codes, outputs = self.one.run_ranks(words, ranks or [1] * HOSTS, timeout_s=60,
                                            environment=environment)
        lines = [line for line in outputs[0].splitlines() if line.startswith("[")]
        assert lines, f"codes {codes}\n" + "\n".join(outputs)
        return json.loads(lines[0])

    def alone(self, before="", environment=None):
        words = self.one.inside(SICK, ["sh", "-c", f"{before}\nexec {self.program} --json"])
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60,
                              env={**os.environ, **(environment or {})})
        assert done.returncode in (0, 1) and done.stdout.startswith("["), done.stdout + done.stderr
        return json.loads(done.stdout)

    def expect(self, fault, found, cause, *places):
        """One finding has this cause and names these places, and no error has another cause."""
        text = json.dumps(found, indent=1)
        named = [f for f in found if f["cause"] == cause and
                 all(place in f["what"] + f["why"] for place in places)]
        assert named, f"{fault}: {cause} at {places} was not named:\n{text}"
        others = [f for f in found if f["severity"] == "error" and f["cause"] != cause]
        assert not others, f"{fault}: more was named than was planted:\n{text}"
        assert all(f["why"] and f["advice"] for f in found), text
        self.diagnosed += 1
        for host in range(HOSTS):  # what hosts remember of each other's absence
            lab.run(["ip", "-n", self.one.host(host), "neighbour", "flush", "all"])
        print(f"{fault}: {named[0]['what']}", flush=True)


def broken_links(ward):
    one, place = ward.one, (f"{ward.one.hostname(SICK)}", f"rail{BAD}")
    for state, cause in (("down", "no-carrier"), ("silent", "no-answer"), ("slow", "slow")):
        one.link(SICK, BAD, state)
        found = ward.together()
        one.link(SICK, BAD, "mend")
        ward.expect(f"link {state}", found, cause, *place)


def swallow(one, match):
    """The switch loses packets to the sick NIC that match: they go to a queue too short for any.
    (A kernel without netem and packet actions can do it that way, too.)"""
    port = f"port{BAD}-{SICK}"
    lab.batch("tc", one.leaves, [
        f"class replace dev {port} parent 1: classid 1:ff htb rate 1mbit",
        f"qdisc replace dev {port} parent 1:ff handle ff: bfifo limit 1",
        f"filter add dev {port} parent 1: protocol ip prio 1 handle 800::1 u32 {match} flowid 1:ff"])


def spit_out(one):
    lab.batch("tc", one.leaves,
              [f"filter del dev port{BAD}-{SICK} parent 1: protocol ip prio 1 handle 800::1 u32"])


def bad_networks(ward):
    one, place = ward.one, (f"{ward.one.hostname(SICK)}", f"rail{BAD}")
    port = f"port{BAD}-{SICK}"
    swallow(one, "match u16 0x11 0x1f at 4")  # by the last bits of the packet's number
    found = ward.together()
    spit_out(one)
    ward.expect("one packet in 32 lost", found, "loss", *place)
    swallow(one, "match ip protocol 6 0xff")
    found = ward.together()
    spit_out(one)
    ward.expect("a firewall that drops connections", found, "no-answer", *place)

    lab.batch("ip", one.leaves, [f"link set {port} mtu 1500"])
    found = ward.together()
    lab.batch("ip", one.leaves, [f"link set {port} mtu {lab.MTU}"])
    ward.expect("a switch port with a small MTU", found, "mtu", *place)


def bad_set_up(ward):
    one, host, nic = ward.one, ward.one.host(SICK), f"rail{BAD}"
    mine, taken = one.address(SICK, BAD), one.address(SICK - 1, BAD)
    lab.batch("ip", host, [f"link set {nic} mtu 1500"])
    ward.expect("a NIC with a small MTU", ward.together(), "mtu-differs", one.hostname(SICK), "1500")
    lab.batch("ip", host, [f"link set {nic} mtu {lab.MTU}"])

    lab.batch("ip", host, [f"address add {taken}/24 dev {nic}"])
    found = [f for f in ward.together() if f["cause"] == "address-taken"]
    ward.expect("an address that another host has", found, "address-taken", taken,
                one.hostname(SICK), one.hostname(SICK - 1))
    lab.batch("ip", host, [f"address del {taken}/24 dev {nic}"])

    lab.batch("ip", host, [f"address del {mine}/24 dev {nic}"])
    ward.expect("a NIC without address", ward.together(), "rail-missing", one.hostname(SICK))
    lab.batch("ip", host, [f"address add {mine}/24 dev {nic}",
                           f"route replace {lab.NETWORK}.{BAD}.0/24 dev {nic} src {mine} table {100 + BAD}"])

    lab.batch("ip", host, [f"address add {one.address(99, 0)}/24 dev {nic}"])
    found = [f for f in ward.alone() if f["severity"] != "error"]
    ward.expect("two NICs in one subnet", found, "shared-subnet", "rail0", "rail1")
    lab.batch("ip", host, [f"address del {one.address(99, 0)}/24 dev {nic}"])


def bad_processes(ward):
    one = ward.one
    ward.expect("few files", ward.alone("ulimit -n 64"), "open-files", one.hostname(SICK))
    ward.expect("no interface", ward.alone(environment={"NCCL_SOCKET_IFNAME": "=nosuch0"}),
                "interface-choice", "nosuch0")
    ward.expect("a malformed setting", ward.alone(environment={"NCCL_MAX_NCHANNELS": "many"}),
                "setting", "NCCL_MAX_NCHANNELS")
    ward.expect("settings that differ",
                ward.together(f"[ $RANK = {SICK} ] && export NCCL_ALGO=ring"), "settings-differ",
                "NCCL_ALGO", one.hostname(SICK))
    ward.expect("a name that nobody knows",
                ward.together(environment={"MASTER_ADDR": "no-such-host.invalid",
                                           "RAILCCL_INIT_TIMEOUT_MS": "3000"}), "meeting")
    ward.expect("ranks bound to one core", ward.together("taskset -cp 0 $$ > /dev/null", ranks=[2] * HOSTS),
                "few-cores", one.hostname(SICK))


def main():
    lab.skip_where_missing()
    with lab.Lab.up(lab.Shape(HOSTS, RAILS)) as one:
        ward = Ward(one, f"{sys.argv[1]}/railccl-doctor")
        for when in ("before", "after"):
            found = ward.together()
            assert not found, f"{when} all faults:\n{json.dumps(found, indent=1)}"
            if when == "before":
                for plant in (broken_links, bad_networks, bad_set_up, bad_processes):
                    plant(ward)
        print(f"{ward.diagnosed} planted faults were named")


main()
