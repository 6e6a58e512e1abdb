#!/usr/bin/env python3
"""Documentation: every relative link and named file exists, docs/environment.md is current, the
C example of the README is the compiled one, every program in the README exists, and no page
or source names a place outside the project."""
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
railccl_env = sys.argv[2]
problems = []

pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
for page in pages:
    text = page.read_text()
    # Code has brackets of its own.
    prose = re.sub(r"```.*?```|^ {4}.*?$|`[^`]*`", "", text, flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target and not (page.parent / target).exists():
            problems.append(f"{page.relative_to(root)}: link to {target} leads nowhere")
    for path in re.findall(r"`((?:src|algorithms|transport|topology|kernels|simulator|tests|bench|trainer|tools|docs|include|cmake)/[\w./*-]+)`", text):
        if "*" in path or "<" in path:
            continue
        if not (root / path).exists():
            problems.append(f"{page.relative_to(root)}: names {path}, which does not exist")

generated = subprocess.run([railccl_env, "--markdown"], capture_output=True, text=True, check=True).stdout
if generated != (root / "docs/environment.md").read_text():
    problems.append("docs/environment.md is stale: railccl-env --markdown > docs/environment.md")

readme = (root / "README.md").read_text()
example = (root / "tests/api/example.c").read_text()
blocks = re.findall(r"```c\n(.*?)```", readme, re.S)
if not any(block.strip() in example for block in blocks):
    problems.append("README.md: the C example is not the one in tests/api/example.c")

files = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True)
for name in files.stdout.split():
    path = root / name
    if path.suffix not in {".cc", ".h", ".c", ".md", ".py", ".txt", ".sh", ""} or not path.is_file():
        continue
    if name.startswith("tests/docs/"):
        continue
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        continue
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            problems.append(f"{name}:{number}: left-over word: {line.strip()}")
    if path.stat().st_size > 1 << 20:
        problems.append(f"{name}: larger than 1 MiB")

for problem in problems:
    print(problem)
print(f"{len(pages)} pages, {len(problems)} problems")
sys.exit(1 if problems else 0)
