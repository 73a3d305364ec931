"""Keeps the numbers in Markdown files equal to the committed JSON they come from.

    python tools/numbers_check.py --check     # exit code 1, and a line for each number that differs
    python tools/numbers_check.py --write     # fill them in

A number in a text is written `<!--=NAME.path.to.key|FORMAT-->TEXT<!--=-->`: NAME is benchmarks/results/NAME.json, the
path goes through objects by key and lists by index, FORMAT is a Python format specification. A table with numbers
stands between `<!--table NAME-->` and `<!--/table-->`, and is made whole from benchmarks/tables/NAME.md, where a number
is written `{path|FORMAT}`.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"<!--=([\w.]+)\|([^>]*?)-->(.*?)<!--=-->", re.DOTALL)
TABLE = re.compile(r"<!--table (\w+)-->\n((?:(?!<!--).)*?)\n?<!--/table-->", re.DOTALL)
CELL = re.compile(r"\{([\w.]+)\|([^}]*)\}")


@cache
def results(folder: Path, name: str) -> Any:
    """The committed results of one benchmark."""
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def expected(folder: Path, path: str, form: str) -> str:
    """What should stand between the marks."""
    name, *keys = path.split(".")
    value = results(folder, name)
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return format(value, form) if form else str(value)


def table(folder: Path, name: str) -> str:
    """What should stand between the marks of a table, blank lines around it."""
    template = (folder.parent / "tables" / f"{name}.md").read_text("utf-8").strip()
    return "\n" + CELL.sub(lambda m: expected(folder, m[1], m[2]), template) + "\n"


def documents(root: Path) -> list[Path]:
    """Every Markdown file of the project."""
    hidden = {".venv", "build", ".git"}
    return sorted(p for p in root.rglob("*.md") if not hidden & set(p.relative_to(root).parts) and not p.is_symlink())


def differences(root: Path, folder: Path, write: bool) -> list[str]:
    """One line for each number or table that differs from its source; with `write`, they are mended too."""
    different = []
    for document in documents(root):
        text = document.read_text("utf-8")
        for path, form, stands in MARK.findall(text):
            wanted = expected(folder, path, form)
            if stands != wanted:
                different.append(f"{document.relative_to(root)}: {path} is {wanted}, the text says {stands}")
        for name, stands in TABLE.findall(text):
            if stands != table(folder, name):
                different.append(f"{document.relative_to(root)}: the table {name} is not what its source makes")
        if write:
            mended = MARK.sub(lambda m: f"<!--={m[1]}|{m[2]}-->{expected(folder, m[1], m[2])}<!--=-->", text)
            mended = TABLE.sub(lambda m: f"<!--table {m[1]}-->\n{table(folder, m[1])}\n<!--/table-->", mended)
            if mended != text:
                document.write_text(mended, "utf-8")
    return different


def main(argument: str) -> int:
    """Check, or write."""
    different = differences(ROOT, ROOT / "benchmarks" / "results", write=argument == "--write")
    print("\n".join(different) or "every number stands as measured")
    return int(bool(different) and argument != "--write")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "--check"))
