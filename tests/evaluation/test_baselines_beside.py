"""Baselines beside a model: when they are measured, how long they are kept, and what the page says of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import picture, tiny_model

from kebyt5_xm.data import DataModule, Manifest
from kebyt5_xm.evaluation.baseline_scores import Baseline, SimpleBaselines
from kebyt5_xm.evaluation.baselines import beside as module
from kebyt5_xm.evaluation.baselines.beside import BaselineChoice, Beside
from kebyt5_xm.evaluation.evaluate import Evaluation
from kebyt5_xm.evaluation.judging import JudgedPart
from kebyt5_xm.metrics import Answer, CharacterErrorRate, ExactMatch
from kebyt5_xm.metrics.bootstrap import Score

ROWS, HELD_OUT = 13, 5


def write_rows(folder: Path) -> None:
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    rows = [{"image": f"{n % 3}.png", "number": str(n), "word": f"말{n % 3}"} for n in range(ROWS + HELD_OUT)]
    for name, some in (("train", rows[:ROWS]), ("held-out", rows[ROWS:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def connected(folder: Path, **options: Any) -> tuple[Evaluation, JudgedPart]:
    """Return a model with the data, and answers as the model might have given them."""
    arguments: dict[str, Any] = {
        "path": str(folder / "train.jsonl"),
        "validation": str(folder / "held-out.jsonl"),
        "prompt": "{image:image} {number}",
        "target": "{word}",
        "metrics": [ExactMatch()],
        **options,
    }
    source = Manifest(**arguments)
    data = DataModule({"asked": source}, num_workers=0, idle_modalities=["speech"])
    evaluation = Evaluation.connected(tiny_model(), data, torch.device("cpu"))
    references = [data.validation.references(0, row) for row in range(HELD_OUT)]
    answers = [Answer("말1", right) for right in references]
    return evaluation, JudgedPart("asked", [*range(HELD_OUT)], answers, [], list(source.metrics))


def measure(
    folder: Path, told: list[str], when: Any = "auto", part: JudgedPart | None = None, **options: Any
) -> SimpleBaselines | None:
    evaluation, judged = connected(folder, **options)
    beside = Beside(evaluation.model, evaluation.data, BaselineChoice(when), folder, told.append)
    return beside.measure(0, part or judged)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path)
    return tmp_path


def test_they_are_kept_until_the_data_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = measure(folder, told)
    assert first is not None
    assert [baseline.method for baseline in first.measured] == ["constant", "linear", "nearest"]
    assert first.measured[1].scores["exact_match"].value == 1.0
    measured: list[int] = []
    real = module.simple_baselines

    def counted(*arguments: Any, **options: Any) -> SimpleBaselines:
        measured.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "simple_baselines", counted)
    assert measure(folder, told) == first
    assert not measured
    measure(folder, told, prompt="{image:image} Q {number}")
    measure(folder, told, prompt="{image:image} Q {number}", metrics=[CharacterErrorRate()])
    fewer = connected(folder)[1]
    measure(folder, told, part=replace(fewer, rows=fewer.rows[:3], answers=fewer.answers[:3]))
    assert len(measured) == 3
    (folder / "baselines.json").write_text("{")  # as a kill or a disk may leave it
    assert replace(measure(folder, told) or first, seconds=first.seconds) == first
    assert not told


def test_when_they_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    assert measure(folder, told, "off") is None
    assert not told
    monkeypatch.setattr(module, "AUTO_ROWS", ROWS - 1)
    assert measure(folder, told) is None
    assert told == [
        f"asked: no baselines: {ROWS} training rows, limit {ROWS - 1}; --baselines on measures them anyway"
    ]
    assert measure(folder, told, "on") is not None
    assert len(told) == 1


def test_the_held_out_rows_themselves_are_not_learnt(folder: Path) -> None:
    told: list[str] = []
    assert measure(folder, told, "on", path=str(folder / "held-out.jsonl")) is None
    assert told == ["asked: no baselines: the training rows are the held-out rows"]


def test_without_scikit_learn_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setitem(module.__dict__, "require_scikit_learn", _missing)
    evaluation, part = connected(folder)
    beside = Beside(evaluation.model, evaluation.data, BaselineChoice("on"), folder, told.append)
    assert beside.measure(0, part) is None
    assert beside.measure(0, part) is None
    assert told == ["no baselines: scikit-learn is missing"]


def _missing() -> None:
    from kebyt5_xm.errors import UserError

    raise UserError("scikit-learn is missing")


def _baselines(**values: float) -> SimpleBaselines:
    nan = float("nan")
    return SimpleBaselines(
        tuple(
            Baseline(method, (), 1, {"m": Score(value, nan, nan)})  # pyright: ignore[reportArgumentType]
            for method, value in values.items()
        ),
        7,
        7,
    )


@pytest.mark.parametrize(
    ("model", "higher", "best", "missed"),
    [
        (0.9, True, "linear", False),
        (0.8, True, "linear", True),
        (0.7, True, "linear", True),
        (0.1, False, "constant", False),
        (0.5, False, "constant", True),
    ],
)
def test_the_best_baseline_and_whether_the_model_misses_it(
    model: float, higher: bool, best: str, missed: bool
) -> None:
    found = _baselines(constant=0.2, linear=0.8, nearest=0.8).best("m", Score(model, 0, 1), higher)
    assert found is not None
    assert (found.baseline.method, found.is_missed) == (best, missed)


def test_no_best_without_values() -> None:
    nan = float("nan")
    assert _baselines(constant=nan).best("m", Score(0.5, 0, 1), True) is None
    assert _baselines(constant=0.5).best("m", Score(nan, nan, nan), True) is None
    assert _baselines(constant=0.5).best("other", Score(0.5, 0, 1), True) is None


def test_the_file_keeps_them() -> None:
    found = _baselines(constant=0.25, nearest=float("nan"))
    again = SimpleBaselines.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again.as_dict() == found.as_dict()
