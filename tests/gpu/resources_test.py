#!/usr/bin/env python3
"""What the GPU's kernels take of a multiprocessor, by the assembler's own report: shows that none
spills registers to memory, and that the table in the documentation is the one of this build.
Without a page it prints the table.

    resources_test.py BUILD/gpu_kernels.txt [PAGE]
"""
import re
import sys


def table(report):
    kernels = re.findall(
        r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", report, re.S)
    if not kernels:
        sys.exit("the report has no kernels")
    spilling = [f"{name} on {gpu}" for name, gpu, _, stores, loads, _ in kernels
                if int(stores) or int(loads)]
    if spilling:
        sys.exit("spills registers: " + ", ".join(spilling))
    targets = sorted({gpu for _, gpu, *_ in kernels}, key=lambda gpu: int(gpu[3:]))
    rows = {}
    for name, gpu, *_, registers in kernels:
        kind = re.sub(r"^railccl_|^reduce_|_(sum|prod|max|min)$", "",
                      name.replace("railccl_reduce_", "railccl_"))
        rows.setdefault(kind, {}).setdefault(gpu, []).append(int(registers))
    lines = ["| registers of | " + " | ".join(targets) + " |", "|---" * (len(targets) + 1) + "|"]
    for kind, by_gpu in rows.items():
        cells = [f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
                 for n in (by_gpu[gpu] for gpu in targets)]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


with open(sys.argv[1], encoding="utf-8") as file:
    made = table(file.read())
if len(sys.argv) < 3:
    print(made)
    sys.exit()
with open(sys.argv[2], encoding="utf-8") as file:
    page = file.read()
if made not in page:
    sys.exit(f"{sys.argv[2]} should have this table:\n{made}")
