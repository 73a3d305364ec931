"""Removes one safeguard at a time in a copy of the tree, and runs the test that must fail then.

    python benchmarks/mutants.py [OUT.json] [--only NAME ...]

A mutant is killed when its test fails; one that survives is a safeguard that no test holds. Each test first passes on
the copy as it is, so that a failure means the mutant. It ends with exit code 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORE, CRASHES = "tests/trajectories/test_store.py", "tests/trajectories/test_crashes.py"
CHECK = "tests/trajectories/test_check.py"
COPIED = ("src", "tests", "controllers", "benchmarks", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Mutant:
    """One safeguard, how it is taken away, and the test that holds it."""

    name: str
    file: str
    """Below src/tts_generate."""
    before: str
    after: str
    test: str


_CLEARED = (
    "            os.fsync(self._file)\n        except OSError as error:\n            raise full(self.path, error)"
)
_SHARD = "            rows = write_part(map(Trajectory.from_row, self._journal.rows), aside)\n"
_EARLY = "            os.ftruncate(self._journal._file, 0)\n"
MUTANTS = [
    Mutant("journal checksum", "trajectories/journal.py", " and zlib.crc32(payload) == crc", "",
           f"{STORE}::test_a_flipped_bit_in_the_journal_costs_one_record"),
    Mutant("fsync of a record", "trajectories/journal.py", "+ written)\n            os.fsync(self._file)", "+ written)",
           f"{CRASHES}::test_the_power_goes_at_any_moment"),
    Mutant("fsync of the journal's name", "trajectories/journal.py",
           "        sync(path.parent)  # a file whose name is not on the disk is not on the disk\n", "",
           f"{CRASHES}::test_the_power_goes_at_any_moment"),
    Mutant("fsync of a shard", "trajectories/store.py", "            sync(aside)\n", "",
           f"{CRASHES}::test_the_power_goes_at_any_moment"),
    Mutant("fsync of a shard's name", "trajectories/store.py", "            sync(self.path)\n", "",
           f"{CRASHES}::test_the_power_goes_at_any_moment"),
    Mutant("writer lock", "trajectories/writers.py", "fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass",
           f"{STORE}::test_one_writer_at_a_time"),
    Mutant("failed append undone", "trajectories/journal.py",
           "raise full(self.path, error) from error\n        self.end += len(record)", "self.end += len(record)",
           f"{STORE}::test_a_full_disk_loses_nothing"),
    Mutant("settings compared", "trajectories/store.py", "    if difference:", "    if False:",
           f"{STORE}::test_other_settings_are_refused_by_name"),
    Mutant("sealed keys not sealed again", "trajectories/store.py", "if _key(row) not in sealed]", "]",
           f"{STORE}::test_killed_between_shard_and_journal_nothing_is_sealed_twice"),
    Mutant("fit checked before acknowledging", "trajectories/store.py", "            _check_storable(rows)\n", "",
           f"{STORE}::test_what_cannot_be_sealed_is_not_acknowledged"),
    Mutant("conflicting branches refused", "trajectories/store.py", "found.setdefault(row.key, row) != row", "False",
           f"{STORE}::test_a_branch_recorded_twice"),
    Mutant("damaged journal kept aside", "trajectories/journal.py", "    os.link(path, kept)\n", "",
           f"{STORE}::test_a_flipped_bit_in_the_journal_costs_one_record"),
    Mutant("journal cleared under a try", "trajectories/journal.py", _CLEARED, _CLEARED.replace("OSError", "EOFError"),
           f"{CRASHES}::test_every_call_that_changes_the_disk_fails_once"),
    Mutant("journal kept until the shard is named", "trajectories/store.py", _SHARD, _SHARD + _EARLY,
           f"{CRASHES}::test_killed_before_every_call_that_changes_the_disk"),
    Mutant("rows kept before a shard is moved", "trajectories/health.py", " if rows:\n", " if False:\n",
           f"{CHECK}::test_a_shard_that_contradicts_another_is_moved_aside"),
    Mutant("trust gate", "hub/trust.py", "        if trust:\n            return\n", "        return\n",
           "tests/hub/hostile/test_hostile_repos.py::TestHub::test_without_trust"),
    Mutant("list of trusted repos", "hub/trust.py", "    if repo_id not in allowed:", "    if False:",
           "tests/hub/hostile/test_hostile_repos.py::TestHub::test_trust_in_others"),
    Mutant("hash of the code", "hub/card.py", '    if found != card["sha256"]:', "    if False:",
           "tests/hub/hostile/test_hostile_repos.py::test_from_a_folder"),
    Mutant("links out of a folder", "hub/source.py", "if path.resolve().parent != folder:", "if False:",
           "tests/hub/hostile/test_hostile_repos.py::TestFolders::test_code_by_a_link_out_of_the_folder"),
    Mutant("branches that look like commits", "hub/client.py", "if snapshot != commit:", "if False:",
           "tests/hub/hostile/test_hostile_repos.py::TestHub::test_a_branch_that_looks_like_a_commit"),
    Mutant("size before it is fetched", "hub/fetch.py", "if listed.get(name, 0) > limit:", "if False:",
           "tests/hub/hostile/test_hostile_repos.py::TestHub::test_a_large_file_is_not_fetched"),
    Mutant("pins where they are required", "hub/pin.py", 'return value in ("1", "true", "yes")', "return False",
           "tests/hub/test_trust.py::TestPins::test_where_pins_are_required"),
    Mutant("hashes of the lock file", "hub/fetch.py", "        if found != expected:", "        if False:",
           "tests/hub/test_trust.py"),
    Mutant("hashes of a fetched store", "trajectories/remote.py",
           "if sha256_of(folder / name) != sha256:\n            client", "if False:\n            client",
           "tests/hub/test_stores_on_the_hub.py::test_a_cached_file_that_was_damaged_is_fetched_again"),
    Mutant("secrets in what is published", "publish/leaks.py", "if pattern.search(line):", "if False:",
           "src/tts_generate/publish/leaks.py"),
    Mutant("writers of an earlier job", "trajectories/writers.py", "        if _alive(seat):", "        if False:",
           "tests/trajectories/test_writers.py"),
    Mutant("checksums of shards", "trajectories/parts.py", "page_checksum_verification=True", "memory_map=False",
           f"{CRASHES}::test_flipped_bits_are_named_or_harmless"),
    Mutant("a shard's own name", "trajectories/store.py", "        number = 1 + max(", "        number = 0 * max(",
           f"{CHECK}::test_the_first_of_two_shards_is_lost_and_recorded_again"),
    Mutant("limit of branches", "processors.py", "min(do.open, self.max_branches - state.opened)", "do.open",
           "tests/core/test_runner.py::test_max_branches_holds"),
    Mutant("limit of tokens", "processors.py", "do.steps[i] = min(do.steps[i], spare)", "pass",
           "tests/core/test_runner.py::test_a_token_budget_holds"),
    Mutant("limit of money", "search/agent/ledger.py", "        if most > self.left:", "        if False:",
           "tests/search/test_agent.py::TestBudget::test_it_stops_before_it_is_passed"),
    Mutant("generated tokens counted", "rules.py", "    state.generated_tokens += generated_tokens\n", "",
           "tests/core/test_runner.py"),
    Mutant("probe tokens counted", "rules.py", "    state.probe_tokens += probe_tokens\n", "",
           "tests/core/test_runner.py"),
    Mutant("wasted tokens are those of pruned branches", "runner.py", "[state.pruned[: state.opened]].sum()", ".sum()",
           "tests/core/test_runner.py"),
]  # fmt: skip


def fails(tree: Path, *tests: str) -> bool:
    """Whether any of some tests fails on a tree."""
    quiet = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment = {**os.environ, **quiet, "PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests} do not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.returncode == 1


def killed(tree: Path, mutant: Mutant) -> bool:
    """Apply a mutant, run its test, and take it back.

    Raises:
        ValueError: the safeguard is not, or not once, where the mutant looks for it.
    """
    file = tree / "src" / "tts_generate" / mutant.file
    text = file.read_text("utf-8")
    if text.count(mutant.before) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} holds {mutant.before!r} {text.count(mutant.before)} times, not once."
        )
    file.write_text(text.replace(mutant.before, mutant.after), "utf-8")
    try:
        return fails(tree, mutant.test)
    finally:
        file.write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Try every mutant, print, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "mutants.json")
    parser.add_argument("--only", nargs="*", default=[])
    chosen = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if not chosen.only or mutant.name in chosen.only]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        if fails(tree, *sorted({mutant.test for mutant in mutants})):
            raise RuntimeError("a test fails without any mutant; run them in the tree as it is.")
        for mutant in mutants:
            dead = killed(tree, mutant)
            print(f"{'killed  ' if dead else 'SURVIVES'} {mutant.name} ({mutant.test})", flush=True)
            survivors += [] if dead else [mutant.name]
    result = {
        "format": "tts-benchmark/1",
        "mutants": len(mutants),
        "killed": len(mutants) - len(survivors),
        "survivors": survivors,
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
