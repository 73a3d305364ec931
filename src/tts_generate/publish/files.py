"""The files of a controller's repo, all made from its card, its code and what was measured."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml

from tts_generate.errors import ControllerError
from tts_generate.hub.card import CARD, entry_of, identity
from tts_generate.hub.front import Benchmark, Result, front_matter, results_yaml
from tts_generate.hub.names import is_repo_id
from tts_generate.hub.source import Source
from tts_generate.publish.measuring import FORMAT, rows_of
from tts_generate.report.controller_page import controller_page
from tts_generate.report.frontier import Point, plot_frontier
from tts_generate.saving import knob_table, recipe_files
from tts_generate.strict_json import Amount, Short, check_format, check_shape, read_json

SUMMARY = "evaluation/summary.json"
CURVES = "evaluation/curves.csv"
_COLUMNS = (
    "environment", "model", "dataset", "method", "controller", "beta", "accuracy", "accuracy_low", "accuracy_high",
    "tokens", "probe_tokens", "wasted_tokens", "sequential_tokens", "branches", "questions",
)  # fmt: skip
_POINT: dict[Any, Any] = {
    "controller": Short, "beta": float | None, "accuracy": float, "accuracy_ci": (float, float),
    "tokens": Amount, "probe_tokens": Amount, "wasted_tokens": Amount,
}  # fmt: skip
_AGAINST = {str: {"points": float, "points_ci": (float, float), "saving": float}}
_ROW = {**_POINT, "label": Short, "sequential_tokens": Amount, "against?": _AGAINST}
_HEX = Annotated[str, "hexadecimal", re.compile("[0-9a-f]{1,64}").fullmatch]
_ORIGIN = Annotated[str, "as 'user/dataset@commit'", re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}").fullmatch]
_MODEL = {"name_or_path": str | None, "revision?": str | None}
LIVE = {**_POINT, "latency?": float, "model": _MODEL, "dataset": Short, "questions": Amount}
"""A row of `measure_live`."""
_SHAPE = {
    "controller": Short, "name": Short, "betas": [float], "shuffles": int, "sandboxed?": bool,
    "stores": [{
        "name": Short, "fingerprint": _HEX, "origin?": _ORIGIN | None, "model": _MODEL, "questions": Amount,
        "branches": Amount, "fewest?": Amount, "interval_tokens": Amount, "rows": [_ROW],
        "by_question": {"accuracy": [[float]], "tokens": [[float]]},
    }],
    "average": [_ROW],
    "live": [LIVE],
}  # fmt: skip
"""What `evaluation/summary.json` holds, as far as it is read."""
_OWN_WORDS = re.compile(r"\n## In its author's words\n(.*)\n## Measured\n", re.DOTALL)
GENERATED = "<!-- written by tts-generate from evaluation/summary.json and controller.json -->"


def repo_files(
    source: Source,
    evaluation: Mapping[str, Any] | None,
    repo_id: str,
    *,
    benchmarks: Mapping[str, Benchmark],
    licence: str,
    own_words: str,
) -> dict[str, bytes]:
    """Every file of the repo, by path.

    Raises:
        TTSError: jinja2 or matplotlib is not installed.
    """
    files = {CARD: source.card_text, **recipe_files(source.card, source.code)}
    if source.code is not None:
        files[entry_of(source.card)[0]] = source.code
    datasets = {benchmark.dataset_id for benchmark in benchmarks.values()}
    origins = [store.get("origin") for store in evaluation["stores"]] if evaluation is not None else []
    datasets |= {origin.partition("@")[0] for origin in origins if origin}
    if evaluation is not None:
        files |= evaluation_files(evaluation)
        for name, benchmark in benchmarks.items():
            files[f".eval_results/{_plain(name)}.yaml"] = results_yaml(_results(evaluation, name, benchmark)).encode()
    front = front_matter(licence=licence, base_models=_base_models(evaluation), datasets=sorted(datasets))
    page = controller_page(
        source.card, evaluation, repo_id=repo_id, knobs="\n".join(knob_table(source.card)), own_words=own_words
    )
    files["README.md"] = f"{front}\n{GENERATED}\n\n{page.strip()}\n".encode()
    return files


def evaluation_files(evaluation: Mapping[str, Any]) -> dict[str, bytes]:
    """The folder `evaluation/`: all numbers as JSON, the curves as CSV, pictures of the frontier.

    Raises:
        TTSError: matplotlib is not installed.
    """
    files = {
        SUMMARY: (json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n").encode(),
        CURVES: curves_csv(evaluation).encode(),
    }
    pictures = {"frontier": (evaluation["average"], f"{evaluation['name']}: accuracy for tokens")}
    if len(evaluation["stores"]) > 1:
        pictures |= {
            f"frontier-{_plain(store['name'])}": (store["rows"], f"{evaluation['name']} on {store['name']}")
            for store in evaluation["stores"]
        }
    live = [Point.of(row, live=True) for row in evaluation["live"]]
    with tempfile.TemporaryDirectory(prefix="tts-plots-") as folder:
        for name, (rows, title) in pictures.items():
            points = [Point.of(row) for row in rows] + (live if name == "frontier" else [])
            for ending in ("png", "svg") if name == "frontier" else ("svg",):
                path = Path(folder) / f"{name}.{ending}"
                plot_frontier(points, path, title=title)
                files[f"evaluation/{path.name}"] = path.read_bytes()
    return files


def curves_csv(evaluation: Mapping[str, Any]) -> str:
    """One row for each model, dataset, method and budget, replayed and live."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for store in evaluation["stores"]:
        about = {"environment": "replay", "model": store["model"]["name_or_path"], "dataset": store["name"]}
        for row in store["rows"]:
            writer.writerow({**row, **about, **_interval(row), "method": row["label"], "questions": store["questions"]})
    for row in evaluation["live"]:
        about = {"environment": "live", "model": row["model"]["name_or_path"]}
        writer.writerow({**row, **about, **_interval(row), "method": _method(row)})
    return text.getvalue()


def read_evaluation(path: Path, where: object, source: Source | None = None) -> dict[str, Any]:
    """What `evaluation/summary.json` holds.

    Raises:
        ControllerError: it is damaged, of another format, or of another controller.
    """
    told = read_json(path, where, error=ControllerError)
    check_format(told, FORMAT, where, error=ControllerError)
    check_shape(told, _SHAPE, where, error=ControllerError)
    if source is not None and told.get("controller") != identity(source.card):
        raise ControllerError(
            f"{where} was measured with other code or other knobs than {source.label} has now; measure it again "
            "(--store), or delete it."
        )
    return dict(told)


def read_page(path: Path, where: object) -> str:
    """The text of a README, without the mark that some editors put before it.

    Raises:
        ControllerError: it is no text.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ControllerError(f"{where} is no UTF-8 text ({error.reason} at byte {error.start}).") from None


def licence_of(readme: str, where: object) -> str | None:
    r"""The licence that the head of a README names; None if it names none.

    Raises:
        ControllerError: the head is no YAML, or names a licence otherwise than by one identifier.

    >>> licence_of("---\nlicense: mit\n---\nText.", "README.md")
    'mit'
    """
    try:
        head = yaml.safe_load(_parts(readme)[0])
    except yaml.YAMLError as error:
        raise ControllerError(f"{where}: its head is no YAML ({str(error).splitlines()[0]}).") from error
    found = head.get("license") if isinstance(head, dict) else None
    if found is None or isinstance(found, str):
        return found
    raise ControllerError(f"{where}: its license is {found!r:.80}, one identifier is expected; say which (--license).")


def _parts(readme: str) -> tuple[str, str]:
    """The head of a README, without its marks, and its text."""
    if not readme.startswith("---\n") or "\n---" not in readme[4:]:
        return "", readme
    end = readme.index("\n---", 4)
    return readme[4:end], readme[end + 4 :]


def own_words_of(readme: str) -> str:
    """What an author wrote into a README, its head left out; of a page that tts-generate wrote, their section of it."""
    body = _parts(readme)[1]
    if GENERATED in body:
        found = _OWN_WORDS.search(body)
        return found[1].strip() if found else ""
    return "" if "Not measured yet: `tts-generate publish" in body else body.strip()


def _results(evaluation: Mapping[str, Any], name: str, benchmark: Benchmark) -> list[Result]:
    (store,) = (store for store in evaluation["stores"] if store["name"] == name)
    model = store["model"]["name_or_path"]
    return [
        Result(
            benchmark,
            row["accuracy"],
            f"tts-generate {row['label']}, {row['tokens']:.0f} tokens a question, replayed on {model}",
        )
        for row in rows_of(evaluation, store)
    ]


def _method(row: Mapping[str, Any]) -> str:
    """What a live row is of, beside its budget."""
    return str(row["controller"]) + (f" latency {row['latency']:g}" if "latency" in row else "")


def _interval(row: Mapping[str, Any]) -> dict[str, float]:
    return {"accuracy_low": row["accuracy_ci"][0], "accuracy_high": row["accuracy_ci"][1]}


def _base_models(evaluation: Mapping[str, Any] | None) -> list[str]:
    """The models that a controller was measured on, those that the Hub would know."""
    stores = evaluation["stores"] if evaluation is not None else []
    names = {str(store["model"]["name_or_path"]) for store in stores}
    return sorted(name for name in names if is_repo_id(name))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
