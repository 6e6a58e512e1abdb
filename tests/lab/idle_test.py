#!/usr/bin/env python3
"""A path that swallows what a rank sent last before it went computing: the message is sent again by
another path while that rank is away from the library, and the library says what happened to whoever asks.

    idle_test.py FOLDER_OF_PROGRAMS
"""
import json
import pathlib
import sys
import tempfile
import threading
import time

import lab

LATE_MAX_S = 2.0  # the sender stays away for twice as long


def main():
    lab.skip_where_missing()
    here = pathlib.Path(__file__).resolve().parent
    library = pathlib.Path(sys.argv[1]).resolve().parent / "lib/libnccl.so.2"
    with lab.Lab.up(lab.Shape(2, 2)) as one, tempfile.TemporaryDirectory() as folder:
        def fail_then_go():
            deadline = time.monotonic() + 20
            while not pathlib.Path(folder, "ready").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            one.link(0, 0, "silent")
            pathlib.Path(folder, "go").touch()

        fault = threading.Thread(target=fail_then_go)
        fault.start()
        codes, outputs = one.run_ranks(
            [sys.executable, str(here / "idle_rank.py"), str(library), folder], [2, 2], timeout_s=40,
            environment={"NCCL_ALGO": "direct"})  # from rank 0 to rank 2 by rail0
        fault.join()
        assert codes == [0] * 4, f"codes {codes}\n" + "\n".join(outputs)
        text = "\n".join(outputs)
        assert "the path by rail0 to rank 2" in outputs[0], f"nothing was lost:\n{text}"
        times = [float(line) for output in outputs for line in output.splitlines()
                 if line.replace(".", "").isdigit()]
        sent, arrived = times[0], max(times)
        assert arrived - sent < LATE_MAX_S, f"it came {arrived - sent:.2f} s late"
        told = json.loads(pathlib.Path(folder, "paths.json").read_text(encoding="utf-8"))
        assert told["host"] == one.hostname(0) and len(told["rails"]) == 2, told
        states = {(path["nic"], path["home"]): path["state"] for path in told["paths"]
                  if path["peer"] == 2}
        assert states[("rail0", True)] != "works", told
        assert states[("rail1", False)] == "works", told
        assert any("the path by rail0" in event["text"] for event in told["events"]), told
        print(f"it came {1e3 * (arrived - sent):.0f} ms after the sender had left")


main()
