"""The searches that found shipped controllers: on the four published AIME24 tables and nothing else.

    python benchmarks/search_aime24.py [thrift | waves] [OUT.json]      # 8 or 6 minutes on two cores, 1 for the choice

Runs the command that is in the result, copies it, and writes its page into docs; a faster machine gets further in the
time: `rounds` in the result says how far this one got, and `--rounds` ends there. `waves` was found before
`composed` had a price, a quorum and hurrying, and with other points to start from, so that today's run comes to a
neighbour of it, not to itself.
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
KNOBS = "n_init,widen,max_branches,widen_threshold,threshold,warm_up,patience,share_power,order_decay,pending"


def imported() -> list[Path]:
    """The stores of the four tables, imported where they are not yet."""
    stores = [ROOT / "build" / "aime24" / model for model in MODELS]
    for model, store in zip(MODELS, stores, strict=True):
        if not store.exists():
            import_autotts(DATA / "replay" / model / "aime24.json", store)
    return stores


SEARCHES = {
    "thrift": ("search_thrift.json", ["--controller", "worth", "--share", "0", "--minutes", "8", "--seed", "1"]),
    "waves": ("search_aime24.json", ["--minutes", "6", "--seed", "1", "--knobs", KNOBS]),
}
"""By what was found: where its result is kept, and how it was searched for."""


def main(name: str, out: Path | None) -> None:
    """Import the tables, search, keep the result."""
    kept, options = SEARCHES[name]
    stores = [str(store.relative_to(ROOT)) for store in imported()]
    program = Path(sys.executable).with_name("tts-generate")
    folder = f"build/search_{name}"
    subprocess.run([program, "search", *stores, "--out", folder, "--threads", "2", *options], check=True, cwd=ROOT)
    shutil.copyfile(ROOT / folder / "result.json", out or ROOT / "benchmarks" / "results" / kept)
    if out is None:
        write_page(name)


def write_page(name: str) -> None:
    """The report of the search that found a shipped controller, from its kept result, into docs."""
    result = json.loads((ROOT / "benchmarks" / "results" / SEARCHES[name][0]).read_text("utf-8"))
    page = search_page(result, None, Path("controllers") / name)
    (ROOT / "docs" / f"search-{name}.html").write_text(page, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "thrift", Path(sys.argv[2]) if len(sys.argv) > 2 else None)
