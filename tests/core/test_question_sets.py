"""Questions of data sets: real files in the shapes of GSM8K, MATH-500, AIME, GPQA and others, each by name alone."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from tts_generate import load_questions
from tts_generate.cli import app
from tts_generate.errors import InputError
from tts_generate.trajectories import TrajectoryStore

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of these tests stays in the cache of whoever runs them; no bars."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GSM8K: Rows = [
    {
        "question": "Ann has 3 bags of 414 nuts. How many?",
        "answer": "She has 3*414=<<3*414=1242>>1242 nuts.\n#### 1,242",
    },
    {"question": "Bo owes 5. What has he?", "answer": "He has\n#### -5"},
]
MATH: Rows = [
    {"problem": "Halve $1$.", "solution": "So $\\boxed{\\frac{1}{2}}$.", "answer": "\\frac{1}{2}", "subject": "Algebra",
     "level": 1, "unique_id": "test/algebra/1.json"},
    {"problem": "Where?", "solution": "$\\boxed{( 3, \\pi )}$", "answer": "( 3,  \\pi )", "subject": "Geometry",
     "level": 5, "unique_id": "test/geometry/2.json"},
]  # fmt: skip
HENDRYCKS: Rows = [{"problem": "Halve $1$.", "level": "Level 1", "type": "Algebra", "solution": MATH[0]["solution"]}]
AIME: Rows = [
    {"ID": "2024-II-4", "Problem": "Find $n$.", "Solution": "Long.\nThen it is \\boxed{33}.", "Answer": 33},
    {"ID": "2024-I-1", "Problem": "Find $m$.", "Solution": "Longer.", "Answer": 204},
]
AIME_2025: Rows = [{"problem_idx": 1, "problem": "Find $n$.", "answer": 70, "problem_type": ["Algebra"]}]
GPQA: Rows = [
    {"Pre-Revision Question": f"old {n}", "Question": f"Which of these is {n}?", "Correct Answer": f"{n}, said plainly",
     "Incorrect Answer 1": f"{n} + 1\n", "Incorrect Answer 2": f"{n} + 2", "Incorrect Answer 3": f"{n} + 3",
     "Explanation": "#### 99", "Record ID": f"rec{n}"}
    for n in range(60)
]  # fmt: skip
MMLU: Rows = [{"question": "Which?", "subject": "logic", "choices": ["0", "4", "2", "6"], "answer": 1}]
ARC: Rows = [
    {"id": "M_1", "question": "Why?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}
]
MMLU_PRO: Rows = [
    {"question_id": 70, "question": "Which?", "options": [*"abcdefghij"], "answer": "I", "answer_index": 8}
]


def read(folder: Path, rows: Rows, name: str = "a.jsonl", **options: Any) -> list[tuple[str, str, str | None]]:
    found = load_questions(write(folder / name, rows), **options)
    return [(each.question_id, each.question, each.gold_answer) for each in found]


KINDS = ("a.jsonl", "a.json", "a.parquet", "a.csv")


@pytest.mark.parametrize("name", KINDS)
def test_gsm8k(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, GSM8K, name) == [("0", GSM8K[0]["question"], "1242"), ("1", GSM8K[1]["question"], "-5")]


@pytest.mark.parametrize("name", KINDS)
def test_math(tmp_path: Path, name: str) -> None:
    expected = [
        ("test/algebra/1.json", "Halve $1$.", "\\frac{1}{2}"),
        ("test/geometry/2.json", "Where?", "( 3, \\pi )"),
    ]
    assert read(tmp_path, MATH, name) == expected
    assert read(tmp_path / "2", HENDRYCKS, name) == [("0", "Halve $1$.", "\\frac{1}{2}")]
    named = read(tmp_path, MATH, name, answer_column="solution", id_column="problem")
    assert named == [("Halve $1$.", "Halve $1$.", "\\frac{1}{2}"), ("Where?", "Where?", "( 3, \\pi )")]


@pytest.mark.parametrize("name", KINDS)
def test_aime(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, AIME, name) == [("2024-II-4", "Find $n$.", "33"), ("2024-I-1", "Find $m$.", "204")]
    if not name.endswith("csv"):
        assert read(tmp_path / "2", AIME_2025, name) == [("0", "Find $n$.", "70")]


@pytest.mark.parametrize("name", KINDS)
def test_gpqa(tmp_path: Path, name: str) -> None:
    """Four choices under the question, the right one in every place about as often, the same ones every time."""
    found = read(tmp_path, GPQA, name)
    for n, (question_id, text, gold) in enumerate(found):
        question, empty, *lines = text.split("\n")
        assert (question_id, question, empty) == (f"rec{n}", f"Which of these is {n}?", "")
        assert [line[:4] for line in lines] == ["(A) ", "(B) ", "(C) ", "(D) "]
        assert {line[4:] for line in lines} == {f"{n}, said plainly", *(f"{n} + {k}" for k in (1, 2, 3))}
        assert f"({gold}) {n}, said plainly" in lines
    counts = Counter(gold for _, _, gold in found)
    assert set(counts) == set("ABCD")
    assert min(counts.values()) >= 5
    assert read(tmp_path / "fewer", GPQA[7:9], name) == found[7:9], "whatever stands beside them"
    assert [gold for _, _, gold in found[:8]] == list("DCCBCCCB")


def test_other_choices(tmp_path: Path) -> None:
    assert read(tmp_path, MMLU) == [("0", "Which?\n\n(A) 0\n(B) 4\n(C) 2\n(D) 6", "B")]
    assert read(tmp_path, ARC, "b.jsonl") == [("M_1", "Why?\n\n(A) a\n(B) b\n(C) c", "C")]
    ((name, text, gold),) = read(tmp_path, MMLU_PRO, "c.parquet")
    assert (name, gold, text.endswith("(I) i\n(J) j")) == ("70", "I", True)
    by_letter = [{"question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "y", "id": "q"}]
    assert read(tmp_path, by_letter, "d.jsonl") == [("q", "Which?\n\n(A) x\n(B) y", "B")]
    with pytest.raises(InputError, match="'z' is none of the 2 choices"):
        read(tmp_path, [{**by_letter[0], "answer": "z"}], "e.jsonl")


CELLS: list[tuple[dict[str, Any], list[str], str | None]] = [
    ({"correct_answer": 2, "incorrect_answer_1": 3, "incorrect_answer_2": 4, "incorrect_answer_3": 5}, [*"2543"], "A"),
    ({"correct_answer": 3.0, "incorrect_answer_1": 2.0, "incorrect_answer_2": None}, ["2", "3"], "B"),
    ({"choices": {"text": ["a", "b"], "label": [1, 2]}, "answer": 1}, ["a", "b"], "A"),
    ({"choices": [{"label": "1", "text": "a"}, {"label": "2", "text": "b"}], "answer": "2"}, ["a", "b"], "B"),
    ({"choices": ["True", "False"], "answer": True}, ["True", "False"], "A"),
    ({"choices": ["a", "b", None], "answer": 1.0}, ["a", "b"], "B"),
    ({"options": {"A": "a", "B": "b", "C": None}, "answer": "B"}, ["a", "b"], "B"),
]


@pytest.mark.filterwarnings("ignore:1 of 1 questions")
@pytest.mark.parametrize(("cells", "shown", "letter"), CELLS)
def test_choices_that_are_numbers_or_null(
    tmp_path: Path, cells: dict[str, Any], shown: list[str], letter: str | None
) -> None:
    """A number that is an answer was taken for the place of one, and null for the word None, shown as a choice."""
    ((_, text, gold),) = read(tmp_path, [{"question": "q", **cells}])
    assert [line[4:] for line in text.split("\n")[2:]] == shown
    assert gold == letter
    if "choices" in cells:
        ((_, _, none),) = read(tmp_path, [{"question": "q", **cells, "answer": ""}], "b.jsonl")
        assert none is None, "as commonsense_qa hides those of its test split"


def test_null_in_the_middle_of_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a choice of the question 'q' is null"):
        read(tmp_path, [{"question": "q", "choices": ["a", None, "b"], "answer": 2}])


def test_a_name_with_brackets_and_an_empty_cell_of_a_template(tmp_path: Path) -> None:
    rows: Rows = [{"question": "q", "input": None, "answer": "7"}]
    assert read(tmp_path, rows, "set[1].jsonl", prompt_template="<{input}>{question}") == [("0", "<>q", "7")]


def test_folders_and_splits(tmp_path: Path) -> None:
    """As repositories of the Hub keep them, and as `save_to_disk` does."""
    repo = tmp_path / "gsm8k"
    write(repo / "main" / "test-00000-of-00001.parquet", GSM8K[:1])
    write(repo / "main" / "train-00000-of-00001.parquet", GSM8K)
    assert len(load_questions(repo / "main")) == 1
    assert len(load_questions(str(repo / "main"), split="train")) == 2
    with pytest.raises(InputError, match=r"no split 'dev'; pass one of its own as split: 'train', 'test'"):
        load_questions(repo / "main", split="dev")
    datasets.Dataset.from_list(GSM8K).save_to_disk(tmp_path / "one")
    assert len(load_questions(tmp_path / "one")) == 2
    both = {"a": datasets.Dataset.from_list(GSM8K), "b": datasets.Dataset.from_list(MATH)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"several splits, and none is named; .*: 'a', 'b'"):
        load_questions(tmp_path / "two")
    assert [each.gold_answer for each in load_questions(tmp_path / "two", split="b", limit=1)] == ["\\frac{1}{2}"]


def test_ids(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": 1, "id": 7}, {"question": "b", "answer": 2, "id": 7}]
    assert [name for name, _, _ in read(tmp_path, rows)] == ["0", "1"], "a guess that does not hold is none"
    with pytest.raises(InputError, match="column 'id' holds '7' 2 times"):
        read(tmp_path, rows, id_column="id")
    with pytest.raises(InputError, match="column 'question_id' holds 'x' 2 times"):
        read(tmp_path, [{**row, "question_id": "x"} for row in rows], "b.jsonl")
    gaps = [{**rows[0], "id": "x"}, {**rows[1], "id": None}]
    assert [name for name, _, _ in read(tmp_path, gaps, "c.jsonl")] == ["0", "1"]
    with pytest.raises(InputError, match="row 1, column 'id' must hold text, got None"):
        read(tmp_path, gaps, "c.jsonl", id_column="id")


def test_templates(tmp_path: Path) -> None:
    """Braces that are no column stand as they are, so that nothing in LaTeX must be written twice."""
    text = r"{subject}: {question} Answer in \boxed{}, as \frac{1}{2} or {x}."
    first = read(tmp_path, MATH, prompt_template=text)[0][1]
    assert first == r"Algebra: Halve $1$. Answer in \boxed{}, as \frac{1}{2} or {x}."
    tricky = [{"question": "{answer} {question}", "answer": "7"}]
    assert read(tmp_path, tricky, "b.jsonl", prompt_template="<{question}>")[0][1] == "<{answer} {question}>"
    choices = read(tmp_path, MMLU, "c.jsonl", prompt_template="Choose.\n{question}\n")[0][1]
    assert choices == "Choose.\nWhich?\n\n(A) 0\n(B) 4\n(C) 2\n(D) 6\n"
    with pytest.raises(InputError, match=r"must hold \{question\}, or a column in braces: 'problem', 'solution'"):
        read(tmp_path, MATH, prompt_template=r"\boxed{}")


def test_answers_that_are_not_there(tmp_path: Path) -> None:
    """Said once, by column; what is known is kept."""
    with pytest.warns(RuntimeWarning, match=r"1 of 2 questions have no right answer \(column 'solution' states none\)"):
        found = read(tmp_path, [{"input": "a", "solution": "We see.\nDone."}, {"input": "b", "solution": "\\boxed{2}"}])
    assert found == [("0", "a", None), ("1", "b", "2")]
    with pytest.warns(RuntimeWarning, match=r"1 of 1 questions .* \(there is no column for it\).* another of 'prompt'"):
        assert read(tmp_path, [{"prompt": "a"}], "b.jsonl") == [("0", "a", None)]
    with pytest.warns(RuntimeWarning, match="1 of 2 questions"):  # numbers with gaps, which are floats then
        assert [gold for *_, gold in read(tmp_path, [*AIME_2025, {**AIME_2025[0], "answer": None}], "c.jsonl")] == [
            "70",
            None,
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, GSM8K, "d.jsonl")


WRONG: list[tuple[str, Rows, dict[str, Any], str]] = [
    (
        "a.jsonl",
        GSM8K,
        {"question_column": "query"},
        "there is no column 'query' for question_column; there are 'quest",
    ),
    ("a.jsonl", GSM8K, {"answer_column": "gold"}, "there is no column 'gold' for answer_column"),
    ("a.jsonl", [{"text": "a", "label": 1}], {}, "no column for the question; .*: 'text', 'label'"),
    ("a.jsonl", [{"question": " "}], {}, "row 0, column 'question' must hold text, got ' '"),
    ("a.jsonl", [{"prompt": [{"role": "user", "content": "a"}]}], {}, "row 0, column 'prompt' must hold text"),
    ("a.jsonl", [{"question": "a", "answer": ["1", "2"]}], {}, "an answer must be a text or a number"),
    ("a.jsonl", GSM8K, {"limit": 0}, "limit must be a whole number of at least 1"),
    ("a.jsonl", [], {}, "a.jsonl (cannot be read|holds no row)"),
    ("a.json", [], {}, "a.json (cannot be read|holds no row)"),
    ("a.txt", GSM8K, {}, "must end in .jsonl, .json, .parquet"),
]


@pytest.mark.parametrize(("name", "rows", "options", "text"), WRONG)
def test_what_cannot_be_asked(tmp_path: Path, name: str, rows: Rows, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        read(tmp_path, rows, name, **options)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "damaged.jsonl").write_bytes(b'{"question": "a", \xff')
    for name in ("none.jsonl", "empty", "damaged.parquet", "damaged.jsonl"):
        with pytest.raises(InputError, match=f"{name} cannot be read as a data set: "):
            load_questions(tmp_path / name)
    for name in ("user/no-such-set", "user/no-such-set:main", "a b", ""):
        with pytest.raises(InputError):
            load_questions(name)


def test_on_the_command_line(tmp_path: Path) -> None:
    """A store of what a data set asks; the same command goes on, and another set is another recording."""
    rows = [{"problem": f"Q: a = {n} ; a ?", "answer": f"so it is\n#### {n}"} for n in range(4)]
    path = write(tmp_path / "sums.parquet", rows)
    command = ["record", "tiny", "--branches", "2", "--max-new-tokens", "32", "--dataset", str(path)]
    command += ["--out", str(tmp_path / "s"), "--limit", "3", "--prompt-template", "{problem} <think>"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    asked = TrajectoryStore.open(tmp_path / "s").questions
    assert [(each.question, each.gold_answer) for each in asked] == [
        (f"Q: a = {n} ; a ? <think>", str(n)) for n in range(3)
    ]
    for options, text in (
        (["--split", "dev"], "no split 'dev'"),
        (["--questions", str(path)], "leave one out"),
        (["--limit", "2"], "questions_sha256"),
    ):
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code == 1, result.output
        assert "error: " in result.output
        assert text in result.output
    result = CliRunner().invoke(app, ["record", "tiny", "--split", "test", "--out", str(tmp_path / "t")])
    assert "--split is for --dataset only" in result.output


def test_a_table_of_text_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """What looks like a number keeps its noughts, NA is an answer, and what a gap made of whole numbers is undone."""
    file = tmp_path / "table.csv"
    file.write_text("id,question,answer,level\n001,Half?,0.50,1.0\n010,Which gas?,NA,\n011,None?,None,3.0\n", "utf-8")
    found = load_questions(file, prompt_template="{question} (level {level})")
    assert [(each.question_id, each.gold_answer) for each in found] == [("001", "0.50"), ("010", "NA"), ("011", "None")]
    assert [each.question for each in found] == ["Half? (level 1)", "Which gas? (level )", "None? (level 3)"]


def test_choices_may_be_text(tmp_path: Path) -> None:
    """As in MMMU, whose lists are written out, and in MathQA, whose choices are one line of text."""
    rows: Rows = [{"question": "Which?", "options": "['a cat', \"a dog's\"]", "answer": "B"}]
    (found,) = load_questions(write(tmp_path / "mmmu.jsonl", rows))
    assert (found.question, found.gold_answer) == ("Which?\n\n(A) a cat\n(B) a dog's", "B")
    rows = [{"Problem": "Which?", "options": "a ) 38 , b ) 27", "correct": "a"}]
    (found,) = load_questions(write(tmp_path / "mathqa.jsonl", rows), answer_column="correct")
    assert (found.question, found.gold_answer) == ("Which?\n\na ) 38 , b ) 27", "a")
