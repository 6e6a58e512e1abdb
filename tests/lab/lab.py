#!/usr/bin/env python3
"""A network of hosts with several NICs each, on one machine, out of network namespaces.

    lab.py up demo --hosts 4 --rails 2 --rate 200 --oversubscription 4 [--flat]
    lab.py exec demo 0 COMMAND...            inside host 0
    lab.py link demo 1 0 silent              down, silent, slow (--factor), mend
    lab.py bytes demo
    lab.py down demo

Every host has a NIC `rail0`, `rail1`, ... on each rail; all NICs of a rail meet in one leaf switch,
and a router, the spine, joins the leaves. Host h is 10.78.RAIL.(h+1) there. A link carries its rate
in each direction. docs/testing.md says what this is for; comments here say why it is set up so.

With --flat the spine is a switch, too, and all NICs, `eth0`, `eth1`, ..., are in one subnet: nothing
but measuring tells which leaf a NIC is on, for each host's cables are plugged in another order.

There is no file of state: what a lab is like is written into its own namespaces, and goes with
them. Needs root, iproute2 and util-linux; missing() says what is not there.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PREFIX = "rcl-"
NETWORK = "10.78"
MTU = 9000  # payload is 99.3% of the wire, and one packet in six of what 1500 would need
# The largest packet that TCP hands to a NIC: two frames. Its usual 64 KiB would occupy a link of
# 200 Mbit/s for 2.6 ms at a stroke, and everything that waits behind it.
SEGMENT = 2 * MTU
NIC_QUEUE_MS = 40  # a host's own queue: its sockets wait here rather than lose packets at home
PORT_QUEUE_MS = 10  # a switch's, for each sender
HOSTS_MAX, RAILS_MAX = 64, 16
MASTER_PORT = 29500
SKIPPED = 77  # what a test returns that could not run


class LabError(Exception):
    """The lab cannot be made or does not do what was asked; the text says why."""


@dataclasses.dataclass
class Shape:
    """What a lab is like. Rates are in Mbit/s, for each direction of a link."""
    hosts: int = 4
    rails: int = 2
    rate: float = 200
    oversubscription: float = 1  # 4: the spine carries a quarter of what all hosts can send
    flat: bool = False  # one subnet for all NICs, and cables in disorder

    def check(self):
        if not (1 <= self.hosts <= HOSTS_MAX and 1 <= self.rails <= RAILS_MAX):
            raise LabError(f"1 to {HOSTS_MAX} hosts and 1 to {RAILS_MAX} rails, please")
        if not (1 <= self.rate <= 10000 and 1 <= self.oversubscription <= 1000):
            raise LabError("a rate of 1 to 10000 Mbit/s and an oversubscription of 1 to 1000, please")


def run(words, text=None):
    """The output of a command that must succeed."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def batch(program, namespace, lines):
    """Runs lines of ip or tc in a namespace."""
    run([program, "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")


def in_network(namespace, script):
    run(["nsenter", f"--net=/run/netns/{namespace}", "sh", "-ec", script])


def namespaces(prefix=PREFIX):
    folder = pathlib.Path("/run/netns")
    return sorted(p.name for p in folder.glob(prefix + "*")) if folder.is_dir() else []


def missing():
    """Why no lab can be made here, or None."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "tc", "bridge", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"no program {program}"
    trial = f"{PREFIX}trial-{os.getpid()}"
    try:
        run(["ip", "netns", "add", trial])
        run(["unshare", "--uts", "--ipc", "--mount", "true"])
        batch("ip", trial, ["link add near type veth peer name far", "link add switch type bridge",
                            "rule add from 10.78.0.1 lookup 100"])
        batch("tc", trial, shaping("near", 1, 1))
    except LabError as error:
        return str(error)
    finally:
        subprocess.run(["ip", "netns", "del", trial], capture_output=True, check=False)
    return None


def skip_where_missing():
    """Ends a test as skipped, with the reason, where there can be no lab."""
    reason = missing()
    if reason is not None:
        print(f"skipped: no lab of network namespaces here: {reason}")
        sys.exit(SKIPPED)


def classes(device, rate, senders):
    """tc lines: the rate of a link's one end, shared equally among its senders (0: one queue).

    With one queue for all, TCP decides who gets what: of three senders one had twice another's
    share, and another one in the next run."""
    bits = int(rate * 1e6)
    # Less than a segment of credit and HTB stays below the rate; more than a millisecond's worth
    # leaves in a burst that fills the queue of the next hop.
    burst = max(bits // 8000, 2 * SEGMENT)
    line = f"class replace dev {device} parent"
    yield (f"{line} 1: classid 1:1 htb rate {bits} ceil {bits} burst {burst} cburst {burst} "
           f"quantum {SEGMENT}")
    for sender in range(senders):
        yield (f"{line} 1:1 classid 1:{sender + 2:x} htb rate {bits // senders} ceil {bits} "
               f"burst {SEGMENT} cburst {burst} quantum {SEGMENT}")


def shaping(device, rate, senders=0):
    """tc lines that shape what leaves by a device. Senders are told apart by the last byte of their
    address; what has none (ARP) goes with the first."""
    queue = max(int(rate * 125) * (PORT_QUEUE_MS if senders else NIC_QUEUE_MS), 6 * SEGMENT)
    yield f"qdisc replace dev {device} root handle 1: htb default {2 if senders else 1}"
    yield from classes(device, rate, senders)
    # Queues are bounded in bytes: the usual 1000 packets are seconds long here.
    if not senders:
        yield f"qdisc replace dev {device} parent 1:1 handle 2: bfifo limit {queue}"
    for sender in range(senders):
        minor = f"{sender + 2:x}"
        yield f"qdisc replace dev {device} parent 1:{minor} handle {minor}: bfifo limit {queue}"
        yield (f"filter add dev {device} parent 1: protocol ip prio 1 u32 "
               f"match u8 {sender + 1:#04x} 0xff at 15 flowid 1:{minor}")


HOST_SETTINGS = """
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
cd /proc/sys/net/ipv4
# Known on every machine, and steady in short queues, where BBR stalls and is unfair.
echo reno > tcp_congestion_control
# One run must not inherit what the last one learnt, nor an operation begin slowly after a pause.
echo 1 > tcp_no_metrics_save
echo 0 > tcp_slow_start_after_idle
echo 262144 > tcp_limit_output_bytes
# With several NICs a packet may come in by another one than an answer would take; and each NIC
# answers for its own address only, or the rails would mix.
for nic in conf/*; do echo 0 > $nic/rp_filter; echo 1 > $nic/arp_ignore; echo 2 > $nic/arp_announce; done
"""
FLAT_PREFIX = 16
SPINE_SETTINGS = """
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
cd /proc/sys/net/ipv4
echo 1 > ip_forward
for nic in conf/*; do echo 0 > $nic/rp_filter; echo 0 > $nic/send_redirects; done
"""
# What makes a host of a network namespace: its own name, shared memory and view of its NICs. One
# sleeping process keeps all that alive; its number is the alias of `lo`.
HOST_PROCESS = """
hostname "$0"
mount -t sysfs none /sys
mount -t tmpfs none /dev/shm
cat > /dev/shm/hosts
mount --bind /dev/shm/hosts /etc/hosts
cd /
setsid sleep infinity < /dev/null > /dev/null 2>&1 &
ip link set lo alias $!
"""


class Lab:
    """One lab that is up. Use as a context, or call down()."""

    def __init__(self, name, shape):
        self.name, self.shape = name, shape
        self.leaves, self.spine = self._namespace("leaves"), self._namespace("spine")
        self._keepers = {}

    @classmethod
    def up(cls, shape, name=None):
        """Makes a lab; one of this name that is there already is removed. Without a name it is this
        process's, and those of processes that ended without removing theirs go too."""
        shape.check()
        if name is None:
            sweep()
            name = f"p{os.getpid()}"
        if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", name):
            raise LabError(f"\"{name}\": a lab's name is a letter, then up to 11 letters or digits")
        lab = cls(name, shape)
        lab.down()
        try:
            lab._build()
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def find(cls, name):
        """The lab of this name, made by another process."""
        leaves = f"{PREFIX}{name}-leaves"
        if leaves not in namespaces():
            raise LabError(f"no lab \"{name}\"")
        alias = json.loads(run(["ip", "-n", leaves, "-j", "link", "show", "lo"]))[0].get("ifalias")
        if not alias:
            raise LabError(f"lab \"{name}\" was not finished; take it down")
        return cls(name, Shape(**json.loads(alias)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()

    def _namespace(self, part):
        return f"{PREFIX}{self.name}-{part}"

    def host(self, host):
        return self._namespace(f"h{host}")

    def hostname(self, host):
        return f"{self.name}-h{host}"

    def slot(self, host, rail):
        """The number of the host's NIC that is cabled to the rail's leaf."""
        if not self.shape.flat:
            return rail
        return (rail - host if host % 2 == 0 else host - rail) % self.shape.rails

    def _in_order(self, host):
        """The rails in the order of the host's NICs."""
        return sorted(range(self.shape.rails), key=lambda rail: self.slot(host, rail))

    def nic(self, host, rail):
        return f"eth{self.slot(host, rail)}" if self.shape.flat else f"rail{rail}"

    def address(self, host, rail):
        return f"{NETWORK}.{self.slot(host, rail)}.{host + 1}"

    def links(self):
        return [(h, r) for h in range(self.shape.hosts) for r in range(self.shape.rails)]

    def _spine_rate(self):
        return self.shape.rate * self.shape.hosts / self.shape.oversubscription

    def _build(self):
        hosts, rails = range(self.shape.hosts), range(self.shape.rails)
        parts = [self.leaves, self.spine] + [self.host(h) for h in hosts]
        run(["ip", "-batch", "-"], "".join(f"netns add {p}\n" for p in parts))
        veth = f"mtu {MTU} gso_max_size {SEGMENT} type veth peer name"
        peer = f"netns {self.leaves} mtu {MTU} gso_max_size {SEGMENT}"
        run(["ip", "-batch", "-"], "".join(
            [f"link add {self.nic(h, r)} netns {self.host(h)} {veth} port{r}-{h} {peer}\n"
             for h in hosts for r in self._in_order(h)] +
            [f"link add leaf{r} netns {self.spine} {veth} spine{r} {peer}\n" for r in rails]))
        self._build_leaves(rails)
        lines = ["link set lo up"]
        if self.shape.flat:
            lines += self._switch("spine", [f"leaf{r}" for r in rails])
        else:
            lines += [line for r in rails for line in (
                f"address add {NETWORK}.{r}.254/24 dev leaf{r}", f"link set leaf{r} up")]
        batch("ip", self.spine, lines)
        batch("tc", self.spine, [line for r in rails for line in
                                 shaping(f"leaf{r}", self._spine_rate(), self.shape.hosts)])
        in_network(self.spine, SPINE_SETTINGS)
        for h in hosts:
            self._build_host(h, rails)
        for h in hosts:
            self._await_carriers(h)
        shape = json.dumps(dataclasses.asdict(self.shape), separators=(",", ":"))
        run(["ip", "-n", self.leaves, "link", "set", "lo", "alias", shape])

    @staticmethod
    def _switch(name, ports):
        # A bridge that runs its usual protocols says nothing for half a minute after a port comes
        # up, and one that snoops may forget who wants multicasts.
        return [f"link add {name} mtu {MTU} type bridge stp_state 0 forward_delay 0 "
                "mcast_snooping 0",
                *(f"link set {port} master {name} up" for port in ports), f"link set {name} up"]

    def _build_leaves(self, rails):
        lines = ["link set lo up"]
        for r in rails:
            ports = [f"port{r}-{h}" for h in range(self.shape.hosts)] + [f"spine{r}"]
            lines += self._switch(f"switch{r}", ports)
        batch("ip", self.leaves, lines)
        rates = [(f"port{r}-{h}", self.shape.rate) for h, r in self.links()]
        rates += [(f"spine{r}", self._spine_rate()) for r in rails]
        batch("tc", self.leaves,
              [line for port, rate in rates for line in shaping(port, rate, self.shape.hosts)])
        in_network(self.leaves, "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")

    def _build_host(self, host, rails):
        in_network(self.host(host), HOST_SETTINGS)
        lines = ["link set lo up"]
        for r in self._in_order(host):  # of several routes to a subnet the first one is used
            mine, table, nic = self.address(host, r), 100 + r, self.nic(host, r)
            if self.shape.flat:
                # No rules: which NIC a packet leaves by is the program's affair, as on any host that
                # was given several addresses of one subnet.
                lines += [f"address add {mine}/{FLAT_PREFIX} dev {nic}", f"link set {nic} up"]
                continue
            # What is sent from a NIC's address leaves by that NIC, whatever its destination: to
            # another rail by way of the spine. Without these rules the destination would decide.
            lines += [f"address add {mine}/24 dev {nic}", f"link set {nic} up",
                      f"route add {NETWORK}.{r}.0/24 dev {nic} src {mine} table {table}",
                      f"route add default via {NETWORK}.{r}.254 dev {nic} src {mine} table {table}",
                      f"rule add pref {table} from {mine} lookup {table}"]
        batch("ip", self.host(host), lines)
        batch("tc", self.host(host),
              [line for r in rails for line in shaping(self.nic(host, r), self.shape.rate)])
        names = ["127.0.0.1 localhost"]
        names += [f"{self.address(h, 0)} {self.hostname(h)}" for h in range(self.shape.hosts)]
        run(["nsenter", f"--net=/run/netns/{self.host(host)}", "unshare", "--uts", "--ipc", "--mount",
             "sh", "-ec", HOST_PROCESS, self.hostname(host)], "\n".join(names) + "\n")

    def _nics(self):
        return {self.nic(0, rail) for rail in range(self.shape.rails)}

    def _await_carriers(self, host, nic=None):
        # The kernel tells of a carrier by and by; a program that looks earlier finds no network.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            links = json.loads(run(["ip", "-n", self.host(host), "-j", "link"]))
            awaited = [link for link in links if link["ifname"] in ([nic] if nic else self._nics())]
            if awaited and all(link["operstate"] == "UP" for link in awaited):
                return
            time.sleep(0.01)
        raise LabError(f"{nic or 'some NIC'} of host {host} does not come up")

    def _keeper(self, host):
        if host not in self._keepers:
            facts = json.loads(run(["ip", "-n", self.host(host), "-j", "link", "show", "lo"]))
            self._keepers[host] = facts[0].get("ifalias")
        return self._keepers[host]

    def inside(self, host, words):
        """The command that runs `words` inside a host, in this process's folder."""
        return ["nsenter", "--target", self._keeper(host), "--net", "--uts", "--ipc", "--mount",
                f"--wd={os.getcwd()}", *words]

    def run_ranks(self, words, ranks, timeout_s=60, environment=None):
        """Runs one process per rank, `ranks[h]` of them on host h, each in the environment that
        torchrun would give it. Returns (codes, outputs) in the order of ranks; who is not done in
        time is killed, with a code below 0."""
        processes = []
        outputs = [tempfile.TemporaryFile("w+") for _ in range(sum(ranks))]
        for host, local in ((h, i) for h, count in enumerate(ranks) for i in range(count)):
            own = {"RANK": len(processes), "LOCAL_RANK": local, "WORLD_SIZE": sum(ranks),
                   "MASTER_ADDR": self.address(0, 0), "MASTER_PORT": MASTER_PORT,
                   **(environment or {})}
            processes.append(subprocess.Popen(
                self.inside(host, words), stdin=subprocess.DEVNULL, stdout=outputs[len(processes)],
                stderr=subprocess.STDOUT,
                env={**os.environ, **{name: str(value) for name, value in own.items()}}))
        deadline = time.monotonic() + timeout_s
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        texts = []
        for output in outputs:
            output.seek(0)
            texts.append(output.read())
            output.close()
        return [p.returncode for p in processes], texts

    def link(self, host, rail, state, factor=10):
        """Breaks a link or mends it.

        down: the cable is out, the host sees no carrier. silent: nothing passes, but the carrier
        stays, as behind a broken switch. slow: both directions at 1/factor of the rate. mend: as it
        was made."""
        if (host, rail) not in self.links() or factor < 1:
            raise LabError(f"no link {host} {rail}, or a factor below 1")
        port = f"port{rail}-{host}"
        if state == "down":
            batch("ip", self.leaves, [f"link set {port} down"])
        elif state == "silent":
            run(["bridge", "-n", self.leaves, "link", "set", "dev", port, "state", "0"])
        elif state == "slow":
            self._set_rate(host, rail, self.shape.rate / factor)
        elif state == "mend":
            batch("ip", self.leaves, [f"link set {port} up"])
            self._forward(port)
            self._set_rate(host, rail, self.shape.rate)
            self._await_carriers(host, self.nic(host, rail))
        else:
            raise LabError(f"\"{state}\": a link can be down, silent, slow or mended")

    def _forward(self, port):
        # A port that has just come up is not a part of its bridge yet.
        deadline = time.monotonic() + 5
        while True:
            try:
                run(["bridge", "-n", self.leaves, "link", "set", "dev", port, "state", "3"])
                return
            except LabError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _set_rate(self, host, rail, rate):
        batch("tc", self.host(host), classes(self.nic(host, rail), rate, 0))
        batch("tc", self.leaves, classes(f"port{rail}-{host}", rate, self.shape.hosts))

    def counters(self):
        """Bytes so far: {(host, rail): (sent, received)} by the hosts, and what the spine took in."""
        links = {}
        for host in range(self.shape.hosts):
            counts = self._bytes(self.host(host))
            for rail in range(self.shape.rails):
                received, sent = counts[self.nic(host, rail)]
                links[(host, rail)] = (sent, received)
        of_spine = self._bytes(self.spine)
        return links, sum(of_spine[f"leaf{rail}"][0] for rail in range(self.shape.rails))

    @staticmethod
    def _bytes(namespace):
        """(received, sent) of each device."""
        return {link["ifname"]: (link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"])
                for link in json.loads(run(["ip", "-n", namespace, "-j", "-s", "link"]))}

    def down(self):
        """Ends what runs inside and removes everything; also a lab that was half made."""
        mine = namespaces(f"{PREFIX}{self.name}-")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            inside = [pid for n in mine for pid in run(["ip", "netns", "pids", n]).split()]
            for pid in inside:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not inside:
                break
            time.sleep(0.02)
        if mine:
            run(["ip", "-force", "-batch", "-"], "".join(f"netns del {n}\n" for n in mine))
        self._keepers = {}


def sweep():
    """Removes the labs of processes that are gone."""
    owners = {match for n in namespaces() for match in re.findall(rf"^{PREFIX}p(\d+)-", n)}
    for owner in owners:
        if not pathlib.Path(f"/proc/{owner}").exists():
            Lab(f"p{owner}", Shape()).down()


def show_bytes(lab):
    links, spine = lab.counters()
    for (host, rail), (sent, received) in sorted(links.items()):
        print(f"{lab.hostname(host)} {lab.nic(host, rail)}, rail {rail}: sent {sent} "
              f"received {received}")
    print(f"spine {spine}")


def main():
    parser = argparse.ArgumentParser(description="hosts with several NICs, on this machine")
    actions = parser.add_subparsers(dest="action", required=True)
    up = actions.add_parser("up", help="make a lab")
    shape = Shape()
    up.add_argument("name")
    up.add_argument("--hosts", type=int, default=shape.hosts)
    up.add_argument("--rails", type=int, default=shape.rails)
    up.add_argument("--rate", type=float, default=shape.rate, help="Mbit/s of a link")
    up.add_argument("--oversubscription", type=float, default=1, help="of the spine")
    up.add_argument("--flat", action="store_true", help="one subnet for all NICs, cables in disorder")
    for action, meaning in (("down", "remove a lab"), ("bytes", "what the links carried")):
        actions.add_parser(action, help=meaning).add_argument("name")
    inside = actions.add_parser("exec", help="run a command in a host")
    inside.add_argument("name")
    inside.add_argument("host", type=int)
    inside.add_argument("command", nargs=argparse.REMAINDER)
    shell = actions.add_parser("shell", help="the same as ssh is called: HOSTNAME WORDS...")
    shell.add_argument("hostname")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    link = actions.add_parser("link", help="break or mend a link")
    link.add_argument("name")
    link.add_argument("host", type=int)
    link.add_argument("rail", type=int)
    link.add_argument("state", choices=("down", "silent", "slow", "mend"))
    link.add_argument("--factor", type=float, default=10, help="of slow")
    options = parser.parse_args()
    if options.action == "up":
        Lab.up(Shape(options.hosts, options.rails, options.rate, options.oversubscription,
                     options.flat), options.name)
    elif options.action == "down":
        Lab(options.name, shape).down()
    elif options.action == "bytes":
        show_bytes(Lab.find(options.name))
    elif options.action == "link":
        Lab.find(options.name).link(options.host, options.rail, options.state, options.factor)
    elif options.action == "exec":
        words = Lab.find(options.name).inside(options.host, options.command)
        os.execvp(words[0], words)
    else:
        name, _, host = options.hostname.rpartition("-h")
        words = Lab.find(name).inside(int(host), ["sh", "-c", " ".join(options.command)])
        os.execvp(words[0], words)


if __name__ == "__main__":
    try:
        main()
    except (LabError, OSError) as error:
        sys.exit(f"lab.py: {error}")
