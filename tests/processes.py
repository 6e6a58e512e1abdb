"""Which processes run, for tests that must leave none behind."""

import os
import pathlib


def with_argument(text):
    """Process numbers of all others whose command line has `text` in it."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            pass
    return [pid for pid in found if pid != os.getpid()]
