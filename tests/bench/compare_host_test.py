#!/usr/bin/env python3
"""compare_host itself on real processes: the quick run prints and verifies, says what is left out
and why, and leaves neither processes nor files behind, not even when it is killed."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import processes  # noqa: E402

HOST = sys.argv[1]
PROGRAMS = pathlib.Path(HOST).parent


def run(args, folder, **environment):
    done = subprocess.run([HOST, *args], capture_output=True, text=True, timeout=240,
                          env={**os.environ, "TMPDIR": folder, **environment}, check=False)
    assert not processes.with_argument(folder), f"processes left by {args}"
    left = [p for p in pathlib.Path(folder).iterdir() if p.suffix not in (".json", ".svg")]
    assert not left, f"files left by {args}: {left}"
    return done


def quick(folder):
    out = pathlib.Path(folder) / "q.json"
    picture = pathlib.Path(folder) / "q.svg"
    done = run(["--quick", "--json", str(out), "--svg", str(picture)], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: no element wrong" in done.stdout, done.stdout
    cells = [json.loads(line) for line in out.read_text().splitlines()]
    assert [c["bytes"] for c in cells] == [8, 16384, 1 << 20], cells
    for cell in cells:
        by_label = {c["label"]: c for c in cell["contenders"]}
        for label in ("railccl", "railccl registered"):
            assert by_label[label]["time_us"] > 0 and len(by_label[label]["repeats_us"]) == 3
        assert all(c["wrong"] == 0 for c in cell["contenders"]), cell
        peers = [c for c in cell["contenders"] if c["family"] != "railccl" and "time_us" in c]
        if peers:
            fastest = min(c["time_us"] for c in peers)
            assert abs(cell["ratio"] - fastest / by_label["railccl"]["time_us"]) < 1e-9, cell
    for name, program in (("Open MPI", "openmpi"), ("MPICH", "mpich"), ("Gloo", "gloo")):
        took_part = any(c["family"] == name for c in cells[0]["contenders"])
        explained = f"left out: {name}" in done.stdout
        assert took_part or explained, f"{name} is missing without a word: {done.stdout}"
        if not (PROGRAMS / f"compare_worker_{program}").exists():
            print(f"not compared here: {name} is not installed")
    assert "</svg>" in picture.read_text()
    again = run(["--replay", str(out)], folder)
    assert again.returncode == 0 and "geometric mean" in again.stdout or not peers, again.stdout


def without_launchers(folder):
    done = run(["--sizes", "64", "--repeats", "1", "--peers", "ompi,mpich", "--no-limits"], folder,
               PATH="/nonexistent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: Open MPI" in done.stdout and "left out: MPICH" in done.stdout, done.stdout


def own_settings(folder):
    done = run(["--sizes", "1K", "--repeats", "1", "--peers", "none", "--no-limits", "--details",
                "--op", "all", "--types", "float32,bfloat16,float16", "--ranks", "3",
                "--ours", "ring:NCCL_ALGO=ring", "--ours", "bad:NCCL_MIN_NCHANNELS=many"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: railccl bad" in done.stdout and "many" in done.stdout, done.stdout
    assert done.stdout.count("railccl ring bfloat16") == 10, done.stdout


def bad_options(folder):
    for args in (["--op", "dance"], ["--ranks", "1"], ["--sizes", "4"], ["--peers", "nccl"],
                 ["--ours", "x"], ["--replay", "/nonexistent"], ["--nonsense"]):
        done = run(args, folder)
        assert done.returncode == 2 and done.stderr, (args, done)


def killed(folder):
    with subprocess.Popen([HOST, "--ranks", "3", "--sizes", "1M", "--repeats", "500",
                           "--no-limits", "--defaults"],
                          stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder}) as host:
        deadline = time.time() + 30
        while len(processes.with_argument(folder)) < 3 and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        host.send_signal(signal.SIGKILL)
    deadline = time.time() + 40  # Gloo notices lost peers last
    while processes.with_argument(folder) and time.time() < deadline:
        time.sleep(0.1)
    assert not processes.with_argument(folder), "processes outlive their driver"


def interrupted(folder):
    out = pathlib.Path(folder) / "i.json"
    with subprocess.Popen([HOST, "--sizes", "8,16M", "--repeats", "300", "--turn-ms", "1",
                           "--peers", "none", "--no-limits", "--json", str(out)],
                          stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "TMPDIR": folder}) as host:
        deadline = time.time() + 60
        while not (out.exists() and out.read_text().count("\n")) and time.time() < deadline:
            time.sleep(0.05)
        host.send_signal(signal.SIGINT)
        text = host.communicate(timeout=60)[0]
    assert host.returncode == 1 and "interrupted" in text, text
    assert [json.loads(line)["bytes"] for line in out.read_text().splitlines()] == [8], text
    assert not processes.with_argument(folder), "processes outlive an interrupt"


for check in (quick, without_launchers, own_settings, bad_options, interrupted,
              killed):
    with tempfile.TemporaryDirectory() as name:
        started = time.time()
        check(name)
        print(f"{check.__name__}: ok, {time.time() - started:.1f} s", flush=True)
