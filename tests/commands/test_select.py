"""`kebyt5-xm select`: confident answers become a manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from kebyt5_xm.commands import cli
from kebyt5_xm.data import Manifest
from kebyt5_xm.errors import UserError


def answered(
    number: int, confidence: float, answer: str, reason: str = "stop", **columns: Any
) -> dict[str, Any]:
    return {
        "row": number,
        "question": f"{number}?",
        **columns,
        "answer": answer,
        "confidence": confidence,
        "log_probability": -1.0,
        "num_tokens": 3,
        "finish_reason": reason,
    }


def write(path: str, rows: list[dict[str, Any]], **settings: Any) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path(f".{path}.settings.json").write_text(json.dumps({"model": "m", "table": path, **settings}))


def read(path: str = "more.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


ANSWERS = [
    answered(0, 0.9, "yes"),
    answered(1, 0.3, "no"),
    answered(2, 0.7, "no"),
    answered(3, 0.95, "ye", "length"),
    answered(4, 0.1, "maybe"),
    answered(5, 0.6, "maybe"),
]
HELD_OUT = [
    answered(0, 0.9, "yes", right="yes"),
    answered(1, 0.8, " no", right="no"),
    answered(2, 0.65, "no", right="no"),
    answered(3, 0.5, "yes", right="no"),
    answered(4, 0.99, "no", "loop", right="yes"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("answers.jsonl", ANSWERS)
    write("held.jsonl", HELD_OUT)
    return tmp_path


PRECISION = ["--precision", "0.95", "--held-out", "held.jsonl", "--target", "{right}"]


def select(*options: str, out: str = "more.jsonl") -> None:
    cli.run("select", ["answers.jsonl", "--out", out, *options])


def test_the_threshold_of_held_out_rows_keeps_answers(capsys: pytest.CaptureFixture[str]) -> None:
    select(*PRECISION)
    assert read() == [ANSWERS[0], ANSWERS[2]], "neither cut answers, however confident, nor those below 0.65"
    said = capsys.readouterr().out
    assert "threshold 0.6500: 2 of 6 answers (33.3 %) in more.jsonl" in said
    assert "or none of the labels: 1" in said
    assert "3 of the 3 kept answers are right (1.000), and 75.0 % of 4 are kept" in said
    assert "95 % interval" in said
    source = Manifest(path="more.jsonl", prompt="{question}", target="{answer}")
    table = source.prompts(held_out=False)
    assert table is not None
    assert [table.target_text(number) for number in range(2)] == ["yes", "no"]


def test_the_least_confident_rows_are_written_on_request() -> None:
    select("--threshold", "0.65", "--hard", "3")
    assert [row["row"] for row in read("more.hard.jsonl")] == [4, 1, 5]


def test_answers_that_are_no_labels_are_dropped() -> None:
    select("--threshold", "0", "--label", "yes", "--label", "no")
    assert [row["row"] for row in read()] == [0, 1, 2]


def test_an_answer_may_be_right_with_some_edits() -> None:
    near = [answered(0, 0.9, "abcdefghij", right="abcdefghiX"), answered(1, 0.5, "xx", right="ab")]
    write("held.jsonl", near)
    with pytest.raises(UserError, match=r"no threshold reaches --precision 0\.95 .* best is 0\.000"):
        select(*PRECISION)
    select(*PRECISION, "--max-error-rate", "0.1")
    assert [row["row"] for row in read()] == [0]


def test_held_out_answers_of_another_model_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("held.jsonl", HELD_OUT, model="other", prompt="{question}!")
    with pytest.raises(UserError, match=r"of another model and prompt in 'held\.jsonl'"):
        select(*PRECISION)
    Path(".held.jsonl.settings.json").unlink()
    select(*PRECISION)
    assert "the settings beside 'held.jsonl' are gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "neither --precision nor --threshold"),
        ([*PRECISION, "--threshold", "0.5"], "--precision with --threshold"),
        (["--precision", "0.9"], "without --held-out"),
        (["--threshold", "0.5", "--held-out", "held.jsonl"], "one of --held-out and --target"),
        (["--precision", "95", *PRECISION[2:]], r"--precision 95\.0, expected a share"),
        (["--threshold", "0.5", "--prefix", "x_"], "no column 'x_answer' in 'answers.jsonl'"),
        (["--threshold", "0.5", "--out", "held.jsonl"], "found 'held.jsonl', expected a new file"),
        (["--threshold", "0.5", "--out", "no/more.jsonl"], "found no folder"),
        ([*PRECISION[:-1], "{wrong}"], "the column 'wrong'"),
        (
            [*PRECISION, "--label", "yes", "--label", "maybe"],
            "line 2 .* the right answer 'no', expected one of",
        ),
        (["--threshold", "0.5", "--hard", "-1"], "--hard -1, expected 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        select(*options)
    assert not Path("more.jsonl").exists()
    assert read("held.jsonl") == HELD_OUT


def test_a_manifest_without_answers_is_refused() -> None:
    Path("empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl"):
        cli.run("select", ["empty.jsonl", "--out", "more.jsonl", "--threshold", "0.5"])


def test_paths_of_media_are_not_lost(folder: Path) -> None:
    write("answers.jsonl", [answered(0, 0.9, "yes", image="a.png")])
    (folder / "a.png").touch()
    (folder / "other").mkdir()
    with pytest.raises(UserError, match=r"column 'image'.*write it to"):
        select("--threshold", "0.5", out="other/more.jsonl")
