"""Runs ranks on the hosts of the guest; for the tests that run there."""
import os
import pathlib
import subprocess
import tempfile
import time

MAIN = str(pathlib.Path(__file__).resolve().parent / "guest_main")
HOSTS, RAILS = int(os.environ["GUEST_HOSTS"]), int(os.environ["GUEST_RAILS"])
EMULATED = os.environ["GUEST_EMULATED"] == "1"


def carried():
    """Bytes that have left by all NICs of all hosts."""
    return sum(int(pathlib.Path(f"/sys/class/net/h{host}r{rail}/statistics/tx_bytes").read_text())
               for host in range(HOSTS) for rail in range(RAILS))


class Ranks:
    """One process per rank, `per_host` on each host, in the environment that torchrun would give.
    `before`: by host, words of a program that runs the rest."""

    def __init__(self, words, per_host, environment=None, port=29500, before=None):
        self.processes, self.outputs = [], []
        for rank in range(HOSTS * per_host):
            own = {"RANK": rank, "LOCAL_RANK": rank % per_host, "WORLD_SIZE": HOSTS * per_host,
                   "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": port, **(environment or {})}
            self.outputs.append(tempfile.TemporaryFile("w+"))
            self.processes.append(subprocess.Popen(
                [MAIN, "on_host", str(rank // per_host),
                 *(before or {}).get(rank // per_host, []), *words], stdin=subprocess.DEVNULL,
                stdout=self.outputs[-1], stderr=subprocess.STDOUT,
                env={**os.environ, **{name: str(value) for name, value in own.items()}}))

    def running(self):
        return any(process.poll() is None for process in self.processes)

    def finish(self, timeout_s):
        """(codes, outputs) in the order of ranks; who is not done in time is killed."""
        deadline = time.monotonic() + timeout_s
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        texts = []
        for output in self.outputs:
            output.seek(0)
            texts.append(output.read())
            output.close()
        return [process.returncode for process in self.processes], texts


def verified(codes, outputs, what, network="verbs"):
    """Every rank ended well, and the first one's table has rows and no wrong element."""
    rows = [line for line in outputs[0].splitlines() if line[:12].strip().isdigit()]
    if set(codes) != {0} or not rows or "# wrong elements: 0 OK" not in outputs[0]:
        raise AssertionError(f"{what}: codes {codes}\n" + "\n".join(outputs))
    if not any(network in line for line in outputs[0].splitlines()):
        raise AssertionError(f"{what}: not over {network}\n{outputs[0]}")
    print(f"{what} over {network}: {len(rows)} rows, 0 wrong", flush=True)
