#!/usr/bin/env python3
"""Floors: a room may include only rooms below it. The includes of all sources are compared with the
house's plan, and one wrong include is compiled to show that the build itself refuses it."""
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

root, build, compiler = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
BELOW = {
    "base": set(),
    "gpu": {"base"},
    "plan": {"base"},
    "topology": {"base"},
    "kernels": {"base"},
    "algorithms": {"base", "plan", "topology"},
    "transport": {"base"},
    "runtime": {"base", "gpu", "plan", "topology", "kernels", "algorithms", "transport"},
    "simulator": {"base", "runtime", "plan", "topology", "kernels", "algorithms", "transport"},
    "api": {"base", "gpu", "runtime", "plan", "topology", "kernels", "algorithms", "transport"},
}
FOLDER = {room: root / ("src/" + room if (root / "src" / room).is_dir() else room) for room in BELOW}
PUBLIC_ONLY = {"bench": root / "bench", "trainer": root / "trainer", "launch": root / "tools/launch",
               "torch": root / "integrations/torch/src"}
problems = []


def rooms_included(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+["<](\.\./|(\w+)/)', line)
        if match and match.group(1) == "../":
            problems.append(f"{path}:{number}: relative include")
        elif match and match.group(2) in BELOW:
            yield number, match.group(2)


for room, folder in FOLDER.items():
    for path in sorted(folder.rglob("*.[ch]*")):
        for number, other in rooms_included(path):
            if other != room and other not in BELOW[room]:
                problems.append(f"{path}:{number}: {room} includes {other}")
for name, folder in PUBLIC_ONLY.items():
    for path in sorted(folder.glob("*.[ch]*")):
        if path.name == "kernels_bench.cc":
            continue  # measures a room from inside
        for number, other in rooms_included(path):
            problems.append(f"{path}:{number}: {name} includes {other}, not only public headers")

# The build's own enforcement: with the include roots that algorithms/ gets, transport/ is invisible.
commands = json.loads((build / "compile_commands.json").read_text())
line = next(c["command"] for c in commands if c["file"].endswith("algorithms/registry.cc"))
words = shlex.split(line)
flags = [word for word in words if word.startswith(("-I", "-std"))]
flags += [part for i, word in enumerate(words) if word == "-isystem" for part in words[i:i + 2]]
with tempfile.TemporaryDirectory() as folder:
    for header, allowed in (("plan/plan.h", True), ("transport/link.h", False),
                            ("runtime/communicator.h", False)):
        source = pathlib.Path(folder) / "probe.cc"
        source.write_text(f'#include "{header}"\n')
        done = subprocess.run([compiler, "-fsyntax-only", *flags, str(source)], capture_output=True)
        if (done.returncode == 0) != allowed:
            problems.append(f"algorithms/ {'cannot' if allowed else 'can'} include {header}: {done.stderr.decode()[:300]}")

for problem in problems:
    print(problem)
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
