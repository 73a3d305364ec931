"""The search that found `thrift`: on the four published AIME24 tables and nothing else.

    python benchmarks/search_aime24.py [OUT.json]      # 8 minutes on two cores, 1 for the choice

Runs the command that is in the result, copies it, and writes its page into docs; a faster machine gets further in the
time: `rounds` in the result says how far this one got, and `--rounds` ends there.
The tables are looked for in `../shared` or $AUTOTTS_DATA.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tts_generate.report.search_page import search_page
from tts_generate.trajectories import import_autotts

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")


def imported() -> list[Path]:
    """The stores of the four tables, imported where they are not yet."""
    stores = [ROOT / "build" / "aime24" / model for model in MODELS]
    for model, store in zip(MODELS, stores, strict=True):
        if not store.exists():
            import_autotts(DATA / "replay" / model / "aime24.json", store)
    return stores


OPTIONS = ("--threads", "2", "--controller", "worth", "--share", "0", "--minutes", "8", "--seed", "1")
RESULT = ROOT / "benchmarks" / "results" / "search_thrift.json"


def main(out: Path) -> None:
    """Import the tables, search, keep the result."""
    stores = [str(store.relative_to(ROOT)) for store in imported()]
    program = Path(sys.executable).with_name("tts-generate")
    folder = "build/search_thrift"
    subprocess.run([program, "search", *stores, "--out", folder, *OPTIONS], check=True, cwd=ROOT)
    shutil.copyfile(ROOT / folder / "result.json", out)
    if out == RESULT:
        write_page()


def write_page() -> None:
    """The report of the search, from its kept result, into docs."""
    page = search_page(json.loads(RESULT.read_text("utf-8")), None, Path("controllers/thrift"))
    (ROOT / "docs" / "search-thrift.html").write_text(page, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULT)
