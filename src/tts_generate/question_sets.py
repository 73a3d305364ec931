r"""Questions of a data set, from anything that `datasets` reads: which column is what, and what of it is the answer.

Column names are compared without case, and with `_` for spaces. Unless said otherwise

- the question is in the first of `question`, `problem`, `prompt`, `input`, `query` that there is;
- the answer in the first of `gold_answer`, `answer`, `correct_answer`, `final_answer`, `expected_answer`, `target`,
  `ground_truth`, `solution`, `answerkey`: what stands behind its last `####` (GSM8K), else in its last box (MATH), else
  all of it if that is one line;
- the id is `question_id`; without it the first of `id`, `unique_id`, `record_id` whose values differ, else the row's
  number, from 0;
- the choices are `choices` or `options`, as they stand, and where that is text and no list it is put under the
  question as it is; or (GPQA) the answer and the columns `incorrect_answer_1` and
  so on, in the order of the SHA-256 of question and choice, which is the same every time and tells nothing. They are
  put under the question as (A), (B), …, and the answer is the letter of the right one.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from tts_generate.answer_formats import stated
from tts_generate.arguments import checked, whole
from tts_generate.boxes import normalise
from tts_generate.errors import InputError, warn
from tts_generate.trajectories import Question

_QUESTION = ("question", "problem", "prompt", "input", "query")
_ANSWER = (
    "gold_answer", "answer", "correct_answer", "final_answer", "expected_answer", "target", "ground_truth", "solution",
    "answerkey",
)  # fmt: skip
_IDS = ("id", "unique_id", "record_id")
_CHOICES = ("choices", "options")
_KINDS = {
    ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".arrow": "arrow",
}  # fmt: skip
_SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in a folder."""


@checked
def load_questions(
    source: str | Path,
    *,
    split: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
    prompt_template: str | None = None,
    limit: int | None = None,
) -> list[Question]:
    r"""Read questions with their right answers, ready to be recorded: GSM8K, MATH-500, AIME and GPQA as they are.

    Args:
        source: a file (.jsonl, .json, .parquet, .csv, .tsv, .arrow), a folder of such or of `save_to_disk`, or a data
            set of the Hub, `name` or `name:config`.
        split: which part; `test` if there is one and nothing is said, or the only one.
        question_column: the column of the questions; guessed if left out, see this module's head, as the next two.
        answer_column: that of the right answers, or of solutions that end with them.
        id_column: that of the ids, which must differ.
        prompt_template: text around a question, which stands in it as `{question}`; `{NAME}` is the column NAME, and
            other braces, such as those of `\boxed{}`, stand as they are.
        limit: the first so many questions only.

    Raises:
        InputError: it cannot be read or holds nothing, a column is missing or of no use, an id stands twice.
    """
    rows = _rows(str(source), split)
    if limit is not None:
        rows = rows.select(range(min(whole("limit", limit), len(rows))))
    if not len(rows):
        raise InputError(f"{source} holds no row; give at least one question.")
    names: list[str] = rows.column_names
    asked = _column("question", question_column, _QUESTION, names)
    if asked is None:
        raise InputError(f"{source} has no column for the question; name one with question_column: {_listed(names)}.")
    answered = _column("answer", answer_column, _ANSWER, names)
    ids = _ids(rows, _column("id", id_column, ("question_id",), names))
    found = []
    for number, row in enumerate(rows):
        question, gold = _stated(_text(row[asked], f"row {number}, column {asked!r}"), row, answered)
        found.append(Question(ids[number], _prompt(prompt_template, row, question), gold))
    _tell_missing(found, answered, names)
    return found


def gold_of(value: Any) -> str | None:
    r"""The right answer that a cell of a data set states, as answers are compared; None where it states none.

    >>> gold_of("6 * 7 = 42\n#### 42"), gold_of("so it is\n$\\boxed{\\frac{1}{2}}$."), gold_of(42.0), gold_of([" 7 "])
    ('42', '\\frac{1}{2}', '42', '7')
    >>> gold_of("We add them.\nThat is all."), gold_of(float("nan")), gold_of("")
    (None, None, None)
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"an answer must be a text or a number, got {value!r:.80}; name another column.")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    found = stated(text)
    return None if "\n" in text and found == normalise(text) else found or None


def _rows(source: str, split: str | None) -> Any:
    from datasets import DatasetDict, load_dataset, load_from_disk

    path = Path(source)
    kind = _KINDS.get("".join(path.suffixes[-2:]).removesuffix(".gz")) or _KINDS.get(path.suffix)
    try:
        if path.is_file():
            if kind is None:
                raise InputError(f"the file's name must end in {', '.join(_KINDS)}")
            found = _table(path) if kind == "csv" else load_dataset(kind, data_files=glob.escape(source))
        elif path.is_dir():
            saved = any((path / name).is_file() for name in _SAVED)
            found = load_from_disk(source) if saved else load_dataset(source)
        elif kind is not None or path.is_absolute():
            raise InputError("there is no such file")
        else:
            name, _, config = source.partition(":")
            found = load_dataset(name, config or None)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source} cannot be read as a data set: {said:.300}.") from error
    parts = found if isinstance(found, DatasetDict) else {str(found.split or "train"): found}
    usual = next(iter(parts)) if len(parts) == 1 else "test"
    if (split or usual) not in parts:
        asked = "several splits, and none is named" if split is None else f"no split {split!r}"
        raise InputError(f"{source} has {asked}; pass one of its own as split: {_listed(parts)}.")
    return parts[split or usual]


def _table(path: Path) -> Any:
    """A table of text as it is written: `0.50` and `007` are no numbers, `NA` no gap.

    Only where a column has gaps, and all else in it is whole numbers that end in `.0`, was it a writer that put that.
    """
    import pandas  # type: ignore[import-untyped]
    from datasets import Dataset

    sep = "\t" if ".tsv" in path.suffixes else ","
    frame = pandas.read_csv(path, sep=sep, dtype=str, keep_default_na=False, na_values=[""])
    for name, cells in frame.items():
        if cells.isna().any() and cells.dropna().str.fullmatch(r"-?\d+\.0").all():
            frame[name] = cells.str.removesuffix(".0")
    return Dataset.from_pandas(frame, preserve_index=False)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower())


def _column(what: str, named: str | None, usual: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is named, else the first of the usual ones that there is."""
    if named is not None:
        if named not in names:
            raise InputError(f"there is no column {named!r} for {what}_column; there are {_listed(names)}.")
        return named
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def _ids(rows: Any, column: str | None) -> list[str]:
    if column is not None:
        ids = [_text(value, f"row {number}, column {column!r}") for number, value in enumerate(rows[column])]
        name, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"column {column!r} holds {name!r:.80} {count} times; ids must differ: pass another id_column."
            )
        return ids
    for guess in _IDS:
        if (found := _column("id", None, (guess,), rows.column_names)) is not None:
            ids = [str(value).strip() for value in rows[found] if value is not None]
            if len(set(ids) - {""}) == len(rows):
                return ids
    return [str(number) for number in range(len(rows))]


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InputError(f"{where} must hold text, got {value!r:.80}; name another column, or leave the row out.")
    return str(value)


def _stated(question: str, row: Mapping[str, Any], answered: str | None) -> tuple[str, str | None]:
    """A question, with its choices under it if it has any, and its right answer: a letter of theirs, or the cell's."""
    value = None if answered is None else row[answered]
    choices, names = _choices(question, row, answered)
    if not choices:
        told = next((row[name] for name in row if _plain(name) in _CHOICES), None)
        shown = isinstance(told, str) and told.strip() and told not in question
        return f"{question.rstrip()}\n\n{told}" if shown else question, gold_of(value)
    told = _cell(value)
    places = [each.index(told) for each in (names, choices, [*ascii_uppercase]) if told in each]
    counted = told.isdecimal() and not isinstance(value, (str, bool)) and told not in names
    right = int(told) if counted else next(iter(places), -1)
    if len(choices) > len(ascii_uppercase) or (told and not 0 <= right < len(choices)):
        raise InputError(f"{value!r:.80} is none of the {len(choices)} choices of the question {question!r:.80}.")
    lines = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return "\n".join([question.rstrip(), "", *lines]), ascii_uppercase[right] if told else None


def _cell(value: Any) -> str:
    """A cell as text: "" where there is nothing in it; whole numbers are whole where gaps made floats of them."""
    if value is None or value != value:
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _choices(question: str, row: Mapping[str, Any], answered: str | None) -> tuple[list[str], list[str]]:
    """The choices of a question, in the order in which they are shown, and what the data set calls them."""
    wrong = [row[name] for name in row if re.fullmatch(r"incorrect_answer_\d+", _plain(name))]
    if answered is not None and wrong:
        several = {_cell(each) for each in (row[answered], *wrong)} - {""}
        shown = sorted(several, key=lambda each: hashlib.sha256(f"{question}|{each}".encode()).digest())
        return shown, shown  # by what they say, also where that is a number
    found = next((row[name] for name in row if _plain(name) in _CHOICES), None)
    if isinstance(found, list) and found and all(isinstance(each, Mapping) and "text" in each for each in found):
        found = {"text": [each["text"] for each in found], "label": [each.get("label") for each in found]}
    if isinstance(found, Mapping):
        texts, names = (found["text"], found["label"]) if "text" in found else (found.values(), found)
        pairs = [(_cell(text), _cell(name)) for text, name in zip(texts, names, strict=True) if text is not None]
        return [text for text, _ in pairs], [name for _, name in pairs]
    if isinstance(found, str):
        found = _listed_in(found)
    if not isinstance(found, list):
        return [], []
    while found and found[-1] is None:  # of a table whose other questions have more
        found = found[:-1]
    if None in found:
        raise InputError(f"a choice of the question {question!r:.80} is null; leave the row out.")
    return [_cell(each) for each in found], []


def _listed_in(text: str) -> Any:
    """The list that a text is, as Python or JSON writes it; None if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _prompt(template: str | None, row: Mapping[str, Any], question: str) -> str:
    if template is None:
        return question
    values = {**row, "question": question}
    if not any(f"{{{name}}}" in template for name in values):
        raise InputError(f"prompt_template must hold {{question}}, or a column in braces: {_listed(row)}.")
    return re.sub(r"\{([^{}]+)\}", lambda place: _cell(values.get(place[1], place[0])), template)


def _tell_missing(questions: Sequence[Question], answered: str | None, names: Sequence[str]) -> None:
    """Warn of questions that can be asked, and whose answers nobody can call right."""
    missing = sum(question.gold_answer is None for question in questions)
    if missing:
        where = "there is no column for it" if answered is None else f"column {answered!r} states none"
        warn(
            f"{missing} of {len(questions)} questions have no right answer ({where}): they can be recorded, but "
            f"nothing can be counted right. answer_column takes another of {_listed(names)}.",
            stacklevel=3,
        )
