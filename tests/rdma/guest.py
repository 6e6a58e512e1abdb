#!/usr/bin/env python3
"""Runs a command on a virtual machine that has RDMA devices: a real verbs stack without hardware.

    guest.py --hosts 4 --rails 2 --cache FOLDER -- COMMAND...

QEMU boots Debian's stock kernel; Soft-RoCE (rdma_rxe, RoCE v2 over UDP) makes an RDMA device of
each virtual NIC. The guest's files are those of this machine, read only, with whatever it writes
kept in its memory and forgotten with it. The command runs there as root in the current folder;
its output and exit status are this program's.

NIC `hHrR` belongs to host H and rail R, and bears the RDMA device of the same name and the address
10.(77+R).0.(H+1). The stock driver knows one network namespace only, so all NICs are in one, and
hosts are told apart by settings (`guest_main on_host H COMMAND`). NICs of a rail meet in a bridge,
`railR`; `swhHrR` is the bridge's end of a NIC's cable: what happens there (tc netem, link down)
happens to RDMA packets. TCP between hosts goes by the loopback interface and is not touched.

The kernel package is fetched with apt-get and kept in the cache folder, unpacked, with an initial
RAM disk made of busybox and the few modules that are needed; nothing is installed. Under KVM a
guest is up in seconds; without /dev/kvm QEMU translates, some twenty times slower.
"""
import argparse
import fcntl
import lzma
import os
import pathlib
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77  # what a test returns that could not run
BROKEN = 125  # the guest did not come up, or died
KERNEL = "linux-image-amd64"
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "ip": "iproute2",
            "rdma": "iproute2", "ibv_devinfo": "ibverbs-utils", "depmod": "kmod",
            "setpriv": "util-linux", "dpkg-deb": "dpkg", "apt-get": "apt"}
# What the guest needs of the kernel, in the order in which it is wanted.
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay", "veth", "bridge", "sch_netem",
           "crc32_generic", "ib_uverbs", "rdma_rxe")  # the driver asks for a CRC by name
BOOT_S = {"kvm": 20, "tcg": 300}
CACHE_VERSION = "2"


class GuestError(Exception):
    """There can be no guest, or it failed; the text says why."""


class NoKvm(Exception):
    """A guest would have to be emulated, which it must not be."""


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def run(words, **options):
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise GuestError(f"{' '.join(map(str, words))}: {done.stderr.strip()[-400:] or done.returncode}")
    return done.stdout


def missing():
    """Why there can be no guest here, or None."""
    if platform.machine() != "x86_64":
        return f"the runner knows x86_64 only, this is {platform.machine()}"
    for name, package in PROGRAMS.items():
        if program(name) is None:
            return f"no program {name} (Debian package {package})"
    return None


def accelerator():
    """kvm where it can be opened, else tcg, QEMU's translator."""
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def boot_id():
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Kernel:
    """A kernel and its initial RAM disk, in a cache folder."""

    def __init__(self, cache):
        self.cache = cache
        self.image, self.ramdisk = cache / "vmlinuz", cache / "ramdisk.gz"

    def prepare(self):
        """Fetches and unpacks what is not there; one process at a time."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with open(self.cache / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            modules = self.cache / "modules"
            stamp = self.cache / "complete"
            if not (stamp.exists() and stamp.read_text() == CACHE_VERSION):
                shutil.rmtree(modules, ignore_errors=True)
                self._unpack(modules)
                stamp.write_text(CACHE_VERSION)
            sources = [HERE / "guest_init", pathlib.Path(__file__)]
            newest = max(source.stat().st_mtime for source in sources)
            if not self.ramdisk.exists() or self.ramdisk.stat().st_mtime < newest:
                self._make_ramdisk(modules)

    def _unpack(self, modules):
        names = run(["apt-cache", "depends", "--no-recommends", "--no-suggests", KERNEL])
        found = re.search(r"Depends: (linux-image-[0-9]\S*)", names)
        if found is None:
            raise GuestError(f"the package lists know no {KERNEL} (apt-get update?)")
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", found.group(1)],
                cwd=folder)
            package, = pathlib.Path(folder).glob("*.deb")
            run(["dpkg-deb", "-x", package, folder])
            root = pathlib.Path(folder)
            image, = (root / "boot").glob("vmlinuz-*")
            tree, = [found for found in (root / "lib/modules", root / "usr/lib/modules")
                     if found.is_dir()]
            release = image.name.removeprefix("vmlinuz-")
            run([program("depmod"), "-b", tree.parent.parent, release])
            self._keep_modules(tree / release, modules)
            shutil.move(image, self.image)

    @staticmethod
    def _keep_modules(tree, modules):
        """Copies those needed, numbered in the order in which they have to be loaded."""
        needs, files = {}, {}
        for line in (tree / "modules.dep").read_text().splitlines():
            file, _, below = line.partition(":")
            name = pathlib.Path(file).name.split(".ko")[0].replace("-", "_")
            # The last one is to be loaded first.
            needs[name] = [*reversed(below.split()), file]
            files[name] = file
        builtin = (tree / "modules.builtin").read_text()
        order = []
        for name in MODULES:
            if name not in needs:
                if not re.search(rf"/{name.replace('_', '[_-]')}\.ko", builtin):
                    raise GuestError(f"{KERNEL} has no module {name}")
                continue
            order += [file for file in needs[name] if file not in order]
        modules.mkdir()
        for number, file in enumerate(order):
            data = (tree / file).read_bytes()
            if file.endswith(".xz"):
                data = lzma.decompress(data)
            elif not file.endswith(".ko"):
                raise GuestError(f"{file} is packed in a way that the runner does not know")
            (modules / f"{number:02d}-{pathlib.Path(file).name.removesuffix('.xz')}").write_bytes(data)

    def _make_ramdisk(self, modules):
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            root = pathlib.Path(folder)
            (root / "bin").mkdir()
            shutil.copy(program("busybox"), root / "bin/busybox")
            shutil.copytree(modules, root / "modules")
            shutil.copy(HERE / "guest_init", root / "init")
            (root / "init").chmod(0o755)
            made = self.ramdisk.with_suffix(".new")
            run(["sh", "-ec", f"find . | busybox cpio -o -H newc | gzip -1 > {shlex.quote(str(made))}"],
                cwd=root)
            made.replace(self.ramdisk)


class Guest:
    """One guest, from its start to its end."""

    def __init__(self, kernel, options):
        self.kernel, self.options = kernel, options
        self.folder = tempfile.TemporaryDirectory(prefix="railccl-guest.")
        self.share = pathlib.Path(self.folder.name)
        self.process = None

    def start(self, command, accel):
        lines = [f"HOSTS={self.options.hosts}", f"RAILS={self.options.rails}",
                 f"FOLDER={shlex.quote(os.getcwd())}",
                 f"EMULATED={int(accel == 'tcg')}", f"MAIN={shlex.quote(str(HERE / 'guest_main'))}"]
        for name in ("PATH", "HOME", "LD_LIBRARY_PATH", *self.options.env):
            name, given, value = name.partition("=")
            value = value if given else os.environ.get(name)
            if value is not None:
                lines.append(f"export {name}={shlex.quote(value)}")
        (self.share / "settings").write_text("\n".join(lines) + "\n")
        (self.share / "command").write_text(shlex.join(command) + "\n")
        words = [program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot",
                 "-display", "none", "-m", str(self.options.memory), "-smp", str(self.options.cpus),
                 "-serial", f"file:{self.share}/console", "-kernel", str(self.kernel.image),
                 "-initrd", str(self.kernel.ramdisk), "-device", "virtio-rng-pci",
                 # The guest's kernel trusts whoever can reach it: nobody can.
                 "-append", "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 nokaslr "
                            "tsc=reliable clocksource=tsc"]
        words += ["-machine", f"pc,accel={accel}"] + (["-cpu", "host"] if accel == "kvm" else
                                                     ["-cpu", "max,-pclmulqdq,-erms,-fsrm"])
        for tag, path, more in (("root", "/", ",readonly=on"), ("share", str(self.share), "")):
            words += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}",
                      "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        with open(self.share / "qemu", "w", encoding="utf-8") as log:
            # Whatever happens to us, the guest does not stay.
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def wait_up(self, limit_s):
        """Has the guest's kernel come up?"""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and self.process.poll() is None:
            if (self.share / "up").exists():
                return True
            time.sleep(0.05)
        return False

    def follow(self, limit_s):
        """Copies the command's output until it ends; its exit status."""
        end = time.monotonic() + limit_s
        shown = 0
        output = self.share / "output"

        def show():
            nonlocal shown
            if output.exists():
                with open(output, "rb") as file:
                    file.seek(shown)
                    data = file.read()
                shown += len(data)
                sys.stdout.buffer.write(data)
                sys.stdout.flush()

        while True:
            done = (self.share / "status").exists()
            dead = self.process.poll() is not None
            show()
            if done:
                return int((self.share / "status").read_text())
            if dead:
                raise GuestError("the guest died:\n" + self.last_words())
            if time.monotonic() > end:
                print(f"not done after {limit_s} s", file=sys.stderr)
                return 124
            time.sleep(0.05)

    def last_words(self):
        text = ""
        for name in ("qemu", "console"):
            if (self.share / name).exists():
                text += (self.share / name).read_text(errors="replace")[-3000:]
        return text

    def complaints(self):
        """What the guest's kernel complained about."""
        log = self.share / "kernel"
        text = log.read_text(errors="replace") if log.exists() else ""
        return [line for line in text.splitlines()
                if re.search(r"WARNING: |BUG: |Oops|general protection|blocked for more", line)]


def guest_run(options, command):
    kernel = Kernel(pathlib.Path(options.cache).absolute())
    kernel.prepare()
    # KVM may be there and of no use: a nested machine without support of its host.
    useless = kernel.cache / f"no-kvm-{boot_id()}"
    accel = accelerator() if options.accel == "auto" else options.accel
    if options.accel == "auto" and useless.exists():
        accel = "tcg"
    if options.kvm_only and accel != "kvm":
        raise NoKvm("no KVM of use here; emulated this would take too long")
    guest = Guest(kernel, options)
    try:
        guest.start(command, accel)
        if not guest.wait_up(BOOT_S[accel]):
            if accel == "tcg" or options.accel != "auto":
                raise GuestError(f"no guest came up under {accel}:\n" + guest.last_words())
            useless.touch()
            if options.kvm_only:
                raise NoKvm("no guest came up under KVM; emulated this would take too long")
            guest.stop()
            guest = Guest(kernel, options)
            guest.start(command, "tcg")
            if not guest.wait_up(BOOT_S["tcg"]):
                raise GuestError("no guest came up:\n" + guest.last_words())
        status = guest.follow(options.timeout)
        for line in guest.complaints():
            print(f"the guest's kernel: {line}", file=sys.stderr)
            status = status or BROKEN
        if options.kernel_log:
            shutil.copy(guest.share / "kernel", options.kernel_log)
        return status
    finally:
        guest.stop()


def skip(reason):
    print(f"skipped: no guest with RDMA devices here: {reason}")
    return SKIPPED


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=2, help="1 to 16")
    parser.add_argument("--rails", type=int, default=1, help="NICs of each host, 1 to 8")
    parser.add_argument("--cache", required=True, help="folder for the kernel")
    parser.add_argument("--cpus", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--memory", type=int, default=3072, help="MiB")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the command")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE, or NAME to pass on")
    parser.add_argument("--kernel-log", help="file for the guest's kernel log")
    parser.add_argument("--kvm-only", action="store_true", help="skipped where KVM is missing or of no use")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if not (1 <= options.hosts <= 16 and 1 <= options.rails <= 8):
        parser.error("1 to 16 hosts and 1 to 8 rails, please")
    reason = missing()
    if reason is None:
        try:
            Kernel(pathlib.Path(options.cache).absolute()).prepare()
        except GuestError as error:
            reason = str(error)
    if reason is not None:
        return skip(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(BROKEN))
    try:
        return guest_run(options, options.command)
    except NoKvm as error:
        return skip(error)
    except GuestError as error:
        print(error, file=sys.stderr)
        return BROKEN


if __name__ == "__main__":
    sys.exit(main())
