"""Removes one safeguard at a time in a copy of the tree, and runs the test that must fail then.

    python tools/mutants.py [OUT.json] [--only NAME ...]

A mutant is killed when its test fails; one that survives is a safeguard that no test holds. Each test first passes on
the copy as it is, so that a failure means the mutant. The file says what became of each; with `--only` the others stay
in it as they were. It ends with exit code 1 if a mutant survives.
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
from typing import Any

from everything import SELECTION

ROOT = Path(__file__).resolve().parent.parent
STORE, CRASHES = "tests/trajectories/test_store.py", "tests/trajectories/test_crashes.py"
LIES = "tests/trajectories/test_lies.py"
CHECK, SANDBOX = "tests/trajectories/test_check.py", "tests/search/test_sandbox.py"
HOSTILE, PUBLISH = "tests/hub/hostile/test_hostile_repos.py", "tests/hub/test_publish.py"
REMOTE, AGENT = "tests/hub/test_stores_on_the_hub.py", "tests/search/test_agent.py"
FAULTS, JUDGE = "tests/server/test_faults.py", "tests/search/test_judge.py"
PROXY, REPLIES = "tests/serve/test_refusals.py", "tests/server/test_replies.py"
COPIED = ("src", "tests", "controllers", "benchmarks", "tools", "pyproject.toml", "README.md", "LICENSE")


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
    Mutant("writer lock", "trajectories/writers.py", "if not lock_descriptor(self._file, blocking=False):", "if False:",
           f"{STORE}::test_one_writer_at_a_time"),
    Mutant("failed append undone", "trajectories/journal.py",
           "raise full(self.path, error) from error\n        self.end += len(record)", "self.end += len(record)",
           f"{STORE}::test_a_full_disk_loses_nothing"),
    Mutant("settings compared", "trajectories/store.py", "    if difference:", "    if False:",
           f"{STORE}::test_other_settings_are_refused_by_name"),
    Mutant("sealed keys not sealed again", "trajectories/store.py", "if _key(row) not in sealed]", "]",
           f"{STORE}::test_killed_between_shard_and_journal_nothing_is_sealed_twice"),
    Mutant("fit checked before acknowledging", "trajectories/store.py", "            self._store.ordered(rows)\n", "",
           f"{LIES}::test_what_could_not_be_read_back_is_not_acknowledged"),
    Mutant("questions held against their hash", "trajectories/schema.py",
           "and questions_sha256(questions) != manifest.questions_sha256", "and False",
           f"{LIES}::test_questions_that_were_changed"),
    Mutant("memory counted before a shard is read", "trajectories/parts.py",
           "        check_memory(part, taken + needed)\n        table = pq", "        table = pq",
           f"{LIES}::test_what_its_metadata_says_is_too_much_is_not_read"),
    Mutant("memory counted before texts are written out", "trajectories/parts.py",
           "        check_memory(part, taken + needed)\n        table = table", "        table = table",
           f"{LIES}::test_a_shard_that_unpacks_to_more_than_fits"),
    Mutant("nothing written through a link", "trajectories/files.py", " | (0 if linked else _NO_LINK)", "",
           f"{LIES}::test_what_is_no_file"),
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
    Mutant("size before it is fetched", "hub/fetch.py", "if listed and listed[name].size > limit:", "if False:",
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
           "tests/search/test_agent.py::TestBudget::test_raising_it_goes_on"),
    Mutant("generated tokens counted", "rules.py", "    state.generated_tokens += generated_tokens\n", "",
           "tests/core/test_runner.py"),
    Mutant("probe tokens counted", "rules.py", "    state.probe_tokens += probe_tokens\n", "",
           "tests/core/test_runner.py::test_every_probe_is_paid_for"),
    Mutant("wasted tokens are those of pruned branches", "runner.py", "[state.pruned[: state.opened]].sum()", ".sum()",
           "tests/core/test_runner.py"),
    Mutant("system calls filtered", "sandbox/locks.py",
           '                install(allow_list(arch, bool(wanted["exec_pages"])))\n', "",
           f"{SANDBOX}::test_one_line_says_which_locks"),
    Mutant("no lock, no candidate", "sandbox/box.py", 'status.get("Seccomp") != "2"):', "False):",
           f"{SANDBOX}::test_what_the_keeper_saw_is_what_counts"),
    Mutant("memory is not machine code", "sandbox/seccomp.py",
           "but(arch.pages, _THIRD_ARGUMENT, _ANY_BIT, _PROT_EXEC)", "each(arch.pages, ALLOW)",
           f"{SANDBOX}::test_check_command"),
    Mutant("no clock of another process", "sandbox/seccomp.py",
           "*but(arch.clocks, _FIRST_ARGUMENT, _ANY_BIT, _OF_A_PROCESS)", "*each(arch.clocks, ALLOW)",
           f"{SANDBOX}::test_check_command"),
    Mutant("calls by another table", "sandbox/seccomp.py", "0x40000000), (_RETURN, 0, 0, KILL)]",
           "0x40000000), (_RETURN, 0, 0, ALLOW)]", f"{SANDBOX}::test_calls_by_another_table_kill"),
    Mutant("files by Landlock", "sandbox/locks.py", "libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0", "False",
           f"{SANDBOX}::test_check_command"),
    Mutant("limit of memory", "sandbox/locks.py", "        (resource.RLIMIT_AS, held + memory),\n", "",
           f"{SANDBOX}::test_check_command"),
    Mutant("limit of CPU time", "sandbox/locks.py", "        (resource.RLIMIT_CPU, cpu_seconds),\n", "",
           f"{SANDBOX}::test_cpu_time_runs_out"),
    Mutant("limit of wall time", "sandbox/channel.py", "            if left <= 0:",
           "            if left <= -40:",
           f"{SANDBOX}::test_check_command"),
    Mutant("limit of a reply", "sandbox/channel.py", "if length > self.limits.reply_bytes:", "if False:",
           f"{SANDBOX}::test_check_command"),
    Mutant("replies are to what was asked", "sandbox/channel.py", 'or reply["t"] != self._asked:', "and False:",
           f"{SANDBOX}::test_a_reply_is_to_what_was_asked"),
    Mutant("nothing unasked is read", "sandbox/channel.py", "        if self._read_some(wait=False):",
           "        if False:", f"{SANDBOX}::test_a_reply_is_to_what_was_asked"),
    Mutant("output that is kept", "sandbox/channel.py", "part[: max(0, _KEPT - len(self._output))]", "part",
           f"{SANDBOX}::test_output_is_kept_cut_and_clean"),
    Mutant("candidates end with the host", "sandbox/keeper.py", "        while os.getppid() == self.parent:",
           "        while True:", f"{SANDBOX}::test_it_ends_with_the_host_though_somebody_holds_its_stream"),
    Mutant("an empty environment", "sandbox/process.py", " if prefix else {}, cwd", " if prefix else None, cwd",
           f"{SANDBOX}::test_the_process_that_forks_candidates_was_given_no_environment"),
    Mutant("order of questions says nothing", "sandbox/arrays.py", "rng.permutation(len(", "np.arange(len(",
           f"{SANDBOX}::test_relabelling_hides_order_and_comes_back"),
    Mutant("answer ids say nothing", "sandbox/arrays.py", "rng.permutation(int(", "np.arange(int(",
           f"{SANDBOX}::test_relabelling_hides_order_and_comes_back"),
    Mutant("confirmed in strict mode", "sandbox/confirmation.py", "            if bulk != strict:",
           "            if False:", f"{SANDBOX}::test_confirm_disqualifies"),
    Mutant("the host counts what chooses", "search/choice.py", "strict=True, ", "",
           f"{JUDGE}::test_every_look_that_chooses_is_counted_here"),
    Mutant("import rules", "hub/card.py", "        check_source(code)\n", "        pass\n",
           f"{HOSTILE}::test_from_a_folder"),
    Mutant("size of a card", "strict_json.py", "    if len(text) > largest:", "    if False:",
           f"{HOSTILE}::test_from_a_folder"),
    Mutant("a field once", "strict_json.py", "        if name in fields:", "        if False:",
           f"{HOSTILE}::test_from_a_folder"),
    Mutant("on the head that was looked at", "hub/commit.py", "commit_message=message, parent_commit=parent",
           "commit_message=message", f"{PUBLISH}::TestFaults::test_somebody_commits_meanwhile"),
    Mutant("did it land", "hub/commit.py", "        landed = _landed(repo_id, files, parent)\n",
           "        landed = None\n", f"{PUBLISH}::TestFaults::test_a_commit_whose_reply_is_lost_is_not_made_twice"),
    Mutant("limit of tries", "hub/commit.py", "        if tries == _TRIES or", "        if tries == 4 * _TRIES or",
           f"{PUBLISH}::TestFaults::test_a_commit_that_keeps_failing"),
    Mutant("what was committed is read back", "hub/commit.py", "    if wrong:\n", "    if False:\n",
           f"{PUBLISH}::TestFaults::test_what_was_sent_is_looked_at_again"),
    Mutant("links out of what is published", "publish/push.py", "if path.is_symlink() and folder",
           "if False and folder",
           f"{PUBLISH}::TestRefused::test_a_link_out_of_the_folder"),
    Mutant("weights are not published", "publish/leaks.py", ".suffix.lower() in _REFUSED:", ".suffix in ():",
           f"{PUBLISH}::TestRefused::test_what_must_not_go_up"),
    Mutant("no worse one is published", "publish/push.py",
           "check_standing(repo_id, parent, there, source.card, evaluation, replace)", "None",
           f"{PUBLISH}::TestRefused::test_no_worse_one_takes_the_place"),
    Mutant("branches that are there stay", "publish/stores.py", "    if lost:\n", "    if False:\n",
           f"{REMOTE}::test_what_is_there_is_not_overwritten"),
    Mutant("requests in flight", "server/pool.py", "        if self.free == 0:", "        if False:",
           f"{FAULTS}::test_slots_leave_nothing_behind"),
    Mutant("limit of retries", "server/pool.py", "if failures > self.policy.max_retries:",
           "if failures > 9 * self.policy.max_retries:",
           f"{FAULTS}::test_a_request_that_always_fails_is_given_up_though_its_server_is_well"),
    Mutant("servers that are given up", "server/pool.py", "if self.failures > policy.max_retries and", "if False and",
           f"{FAULTS}::test_a_dead_server_is_not_asked_for_ever"),
    Mutant("rests that were asked for", "server/pool.py",
           "max(self.awake_at, now + min(error.retry_after, policy.longest_wait))", "self.awake_at",
           f"{FAULTS}::test_transformers_serve_behind_a_proxy_that_does_harm[429]"),
    Mutant("replies cut off", "server/reply.py", "        if self.finish_reason is None:",
           '        if self.finish_reason is None:\n            self.finish_reason = "length"\n        if False:',
           f"{FAULTS}::test_an_answer_without_its_end_is_none"),
    Mutant("stop strings that straddle two requests", "server/stops.py", "max(0, start - len(string) + 1)", "start",
           "tests/server/test_stops.py::test_a_text_in_pieces_is_cut_where_it_is_in_one"),
    Mutant("fields that a server may not look at", "server/connect.py",
           'if dialect != "openai" and (dialect == "transformers") != strict:', "if False:",
           "tests/server/test_dialects.py::"
           "test_a_value_that_a_server_refuses_is_not_hidden_in_a_field_that_it_ignores"),
    Mutant("tokens that a server may add", "server/reply.py", "    if sent > max_tokens:", "    if False:",
           "tests/server/test_wire.py"),
    Mutant("asked before it is sent", "search/agent/ledger.py", '        self._keep("asked", sent=new, most=most)\n',
           "",
           f"{AGENT}::TestFinished"),
    Mutant("a reply is kept before it is read", "search/agent/ledger.py",
           '        self._keep("reply", **told, reply=reply)\n',
           '        self._journal.rows += [{"reply": reply, **told}]\n',
           f"{AGENT}::TestBudget::test_it_stops_before_it_is_passed"),
    Mutant("no outcome costs the most", "search/agent/ledger.py", "0.0 if unsent else most", "0.0",
           f"{AGENT}::TestBudget::test_a_connection_that_breaks_counts_as_its_most"),
    Mutant("requests of a round", "search/agent/proposer.py", "max_iterations=self._agent.calls", "max_iterations=99",
           f"{AGENT}::test_a_round_has_as_many_requests_as_it_may"),
    Mutant("nothing is read ahead", "sandbox/revealed.py", "            if _is_whole(last) and not 0 <= last < shown:",
           "            if False:", "tests/search/test_revealed.py"),
    Mutant("held out stores are others", "search/run.py",
           "            if fingerprint(recording) in known:", "            if False:",
           "tests/search/test_search.py::test_what_was_searched_on_cannot_be_held_out"),
    Mutant("another search is not gone on with", "search/history.py", "        if differs:", "        if False:",
           "tests/search/test_search.py::TestRefused::test_a_folder_of_another_search"),
    Mutant("secrets in messages", "secret.py", "text = text.replace(known, SAID)", "pass",
           "tests/secrets/test_secrets.py::test_the_key_of_a_server"),
    Mutant("secrets in the journal of what is paid", "search/agent/ledger.py",
           'without_known(response.http_response.read().decode("utf-8", "replace"))',
           'response.http_response.read().decode("utf-8", "replace")',
           "tests/secrets/test_secrets.py::test_the_key_of_the_messages_api"),
    Mutant("limit of branches in the engine", "live/episode.py", "settings.max_branches if task.order is None",
           "1 << 10 if task.order is None", "tests/engine/test_generate.py::TestRefused"),
    Mutant("limit of rows", "engine/admission.py", "= batch, settings.max_rows, ", "= batch, 4 * settings.max_rows, ",
           "tests/engine/test_scheduling.py::test_rows_and_memory_stay_flat_while_questions_grow"),
    Mutant("limit of the cache", "engine/admission.py", "Room(prefix, self.max_cache_bytes)", "Room(prefix, None)",
           "tests/engine/test_scheduling.py::test_a_budget_below_one_branch_is_refused_with_numbers"),
    Mutant("episodes alone must be the same", "sandbox/strictly.py", " if one is not None)).require()",
           " if one is not None))", f"{JUDGE}::test_what_an_episode_must_not_depend_on"),
    Mutant("each order in a process of its own", "sandbox/strictly.py", "with candidate.fresh() as process:",
           'with __import__("contextlib").nullcontext(candidate) as process:',
           f"{JUDGE}::test_a_memory_of_other_orders_is_worth_nothing"),
    Mutant("the same candidate in each process", "sandbox/candidate.py",
           "if (other.name, other.described) != (self.name, self.described):", "if False:",
           f"{JUDGE}::test_another_candidate_in_each_process"),
    Mutant("the same knobs in each process", "sandbox/strict.py", "    if here != there:", "    if False:",
           f"{JUDGE}::test_another_candidate_in_each_process"),
    Mutant("looks of the sieve confirmed", "search/written/workbench.py", "flat, **orders).require()",
           "flat, **orders)", f"{AGENT}::test_a_cheat_is_disqualified_and_the_history_says_so"),
    Mutant("examined in strict mode too", "search/written/conformance.py",
           "itertools.chain(*differences))).require()", "itertools.chain(*differences)))",
           f"{JUDGE}::test_a_memory_is_found_before_anything_is_measured"),
    Mutant("no redirect with a key", "server/model.py", "auth=self._authorized, timeout",
           "auth=self._authorized, follow_redirects=True, timeout",
           f"{REPLIES}::test_no_key_goes_where_a_redirect_points"),
    Mutant("a key for each address", "server/model.py", 'self._keys.get(str(request.url).rpartition("/")[0])',
           "next(iter(self._keys.values()))", f"{REPLIES}::test_each_server_gets_its_own_key"),
    Mutant("no redirect with the key of the API", "search/agent/client.py", "follow_redirects=False",
           "follow_redirects=True",
           "tests/secrets/test_canaries.py::test_no_key_of_the_api_goes_where_a_redirect_points"),
    Mutant("a client's key", "serve/app.py", 'if kind.lower() != "bearer" or not same:', "if False:",
           f"{PROXY}::test_keys_are_asked_for_and_said_nowhere"),
    Mutant("the whole of a client's key", "serve/app.py", "self.bounds.key.encode())",
           "self.bounds.key[:len(sent.strip())].encode())", f"{PROXY}::test_keys_are_asked_for_and_said_nowhere"),
    Mutant("who is behind the proxy", "serve/refusal.py", "        message = message.replace(url",
           "        str(message).replace(url", "src/tts_generate/serve/refusal.py"),
    Mutant("what a page can have a browser send", "serve/app.py", 'if "json" not in (kind', "if None is (kind",
           f"{PROXY}::test_what_is_too_much_or_not_here"),
    Mutant("limit of a body", "serve/app.py", "if len(body) > most or (length",
           "if (length", f"{PROXY}::test_bodies_without_an_end"),
    Mutant("limit of a body before it is read", "serve/app.py",
           " or (length.isdecimal() and int(length) > most)", "", f"{PROXY}::test_what_is_too_much_or_not_here"),
    Mutant("seconds of a body", "serve/app.py", "asyncio.timeout(seconds)", "asyncio.timeout(None)",
           f"{PROXY}::test_bodies_without_an_end"),
    Mutant("prompts of a request", "serve/request.py", "    if len(many) > _PROMPTS:", "    if False:",
           f"{PROXY}::test_what_is_too_much_or_not_here"),
    Mutant("requests at once", "serve/app.py", "if self.responder.in_flight > self.bounds.max_requests:", "if False:",
           f"{PROXY}::test_what_is_too_much_or_not_here"),
    Mutant("branches that a client may ask for", "serve/responder.py", "        if branches > most:",
           "        if False:", f"{PROXY}::test_wrong_values"),
    Mutant("streams of pruned branches are called off", "server/requests.py",
           "            await self._call_off_flows(question, unwanted=True)\n", "",
           "tests/server/test_flows.py::test_what_runs_on_for_a_branch_that_is_pruned_is_called_off"),
    Mutant("tokens that came and nobody took", "server/requests.py", "discarded_tokens += untaken",
           "discarded_tokens += 0", "tests/server/test_flows.py::test_tokens_that_came_and_nobody_took_are_counted"),
    Mutant("tokens behind a stop string", "server/requests.py",
           "discarded_tokens += max(0, len(completion.token_ids or ()) - len(piece.ids))", "discarded_tokens += 0",
           "tests/server/test_stops.py::test_more_stop_strings_than_a_server_takes_are_all_looked_for"),
    Mutant("an upstream that changed", "serve/responder.py", "        return reply.loop.session != before.session",
           "        return False", "tests/serve/test_upstreams.py"),
    Mutant("a request at fault is asked once", "serve/responder.py",
           "        return reply.loop.session != before.session", "        return True",
           "tests/serve/test_upstreams.py::test_a_request_that_is_at_fault_itself_is_asked_once"),
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
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *SELECTION, *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests} do not run:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    if done.returncode:
        told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        print(*told, sep="\n", flush=True)
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
    found = _earlier(chosen.out)
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
            found[mutant.name] = {"file": mutant.file, "test": mutant.test, "killed": dead}
            _write(chosen.out, found)
    return int(not all(found[mutant.name]["killed"] for mutant in mutants))


def _earlier(path: Path) -> dict[str, Any]:
    """What became of the mutants that are still in the list, by name, when they were run before."""
    rows: dict[str, Any] = json.loads(path.read_text("utf-8"))["each"] if path.exists() else {}
    known = {mutant.name: (mutant.file, mutant.test) for mutant in MUTANTS}
    return {name: row for name, row in rows.items() if known.get(name) == (row["file"], row["test"])}


def _write(path: Path, found: dict[str, Any]) -> None:
    survivors = [name for name, row in found.items() if not row["killed"]]
    result = {
        "format": "tts-benchmark/1",
        "listed": len(MUTANTS),
        "mutants": len(found),
        "killed": len(found) - len(survivors),
        "survivors": survivors,
        "each": {mutant.name: found[mutant.name] for mutant in MUTANTS if mutant.name in found},
    }
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
