#!/usr/bin/env python3
"""What railccl-status sees of a job on two hosts whose rank 3, on the second one, is stopped: on each host
its own ranks in full; on rank 0's host also which of the others wait; and on no host more than it knows.

    status_test.py FOLDER_OF_PROGRAMS
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import lab

SEEN_WITHIN_S = 20


def main():
    lab.skip_where_missing()
    programs = pathlib.Path(sys.argv[1]).resolve()
    rank = pathlib.Path(__file__).resolve().parent / "stopped_rank.py"
    with lab.Lab.up(lab.Shape(2, 1)) as one, tempfile.TemporaryDirectory() as folder:
        job = threading.Thread(target=lambda: results.extend(one.run_ranks(
            [sys.executable, str(rank), str(programs.parent / "lib/libnccl.so.2"), folder], [2, 2],
            timeout_s=60, environment={"RAILCCL_STALL_MS": 100})))
        results = []
        job.start()

        def status(host, *options):
            done = subprocess.run(
                one.inside(host, [str(programs / "railccl-status"), "--limit-ms", "500", *options]),
                capture_output=True, text=True, timeout=30, check=False)
            return done.returncode, done.stdout + done.stderr

        try:
            deadline = time.monotonic() + SEEN_WITHIN_S
            wanted = ["rank 0 (pid ", "rank 1 (pid ",
                      f"rank 2 ({one.hostname(1)}, pid ", "waits in all_reduce(count=1000",
                      "rank 3 elsewhere: nothing to be seen from here",
                      "nobody has heard that rank 3 waits in operation 1, in which others do"]
            text = ""
            while time.monotonic() < deadline and not all(part in text for part in wanted):
                time.sleep(0.05)
                code, text = status(0)
            missing = [part for part in wanted if part not in text]
            assert not missing, f"{missing} not in\n{text}"
            assert code == 0, f"on host 0 all answer, but {code}\n{text}"
            code, text = status(1)
            for part in ("rank 2 (pid ", "in all_reduce(count=1000", "ranks 0, 1 elsewhere",
                         "its process does not answer (stopped)", f"rank 3 ({one.hostname(1)}, pid "):
                assert part in text, f"{part} not in\n{text}"
            assert code == 1, f"a stopped rank, but {code}\n{text}"
            told = json.loads(status(0, "--json")[1])
            assert told["communicators"][0]["here"] == [0, 1], told
            members = told["processes"][0]["communicators"][0]["members"]
            assert [m["host"] for m in members] == [one.hostname(h) for h in (0, 0, 1, 1)], members
        finally:
            pathlib.Path(folder, "go").touch()
            job.join()
        codes, outputs = results
        assert codes == [0] * 4, f"codes {codes}\n" + "\n".join(outputs)


main()
