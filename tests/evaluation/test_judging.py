"""Metrics of answers in validation, on one rank and on two, and the choice of the best checkpoint by them."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import STRATEGIES, fit

from kebyt5_xm.data import DataModule, Manifest
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.answering import Written
from kebyt5_xm.evaluation.evaluate import evaluate
from kebyt5_xm.evaluation.judging import Judging
from kebyt5_xm.metrics import Accuracy, ExactMatch
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.from_recipes import build_run
from kebyt5_xm.training.recipes import overlay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse

ROWS = 7
LAST_VALIDATION = 6  # of seven steps, every third
LABELS = {str(n): word for n, word in enumerate(("영", "일", "이"))}


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    """The tiny text recipe, with captions to write and numbers to name."""
    contents = overlay(tiny_run.recipe(folder, run, **trainer), tiny_media.image_overlay(folder))
    captions = contents["data"]["sources"]["captions"]["init_args"]
    captions |= {"max_validation_examples": ROWS, "metrics": [{"class_path": "kebyt5_xm.metrics.ExactMatch"}]}
    contents["data"]["sources"]["names"] = {
        "class_path": "kebyt5_xm.data.Manifest",
        "init_args": {
            "path": str(folder / "names.jsonl"),
            "validation": str(folder / "names.jsonl"),
            "prompt": "{number} = ",
            "target": "{label}",
            "labels": LABELS,
            "metrics": [{"class_path": "kebyt5_xm.metrics.Accuracy"}],
            "max_validation_examples": ROWS,
        },
    }
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judging")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    rows = [{"number": 7 * n, "label": n % len(LABELS)} for n in range(11)]
    tiny_media.write_manifest(folder / "names.jsonl", rows)
    assert fit(folder, "single", recipe(folder, "single")) == [0], (folder / "single.log").read_text()[-3000:]
    return folder


def judged(run: Run) -> dict[tuple[int, str], float]:
    names = ("val/accuracy/names", "val/exact_match/captions")
    return {(row["step"], row["metric"]): row["value"] for row in run.metrics() if row["metric"] in names}


def predictions(run: Run, step: int | None = LAST_VALIDATION) -> list[dict[str, Any]]:
    path = run.path / "predictions" / f"step={step}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_every_held_out_row_is_answered_once(folder: Path) -> None:
    rows = predictions(Run(folder / "single"))
    assert [(row["source"], row["row"]) for row in rows] == [
        (source, n) for source in ("captions", "names") for n in range(ROWS)
    ]
    names = [row for row in rows if row["source"] == "names"]
    assert {row["prediction"] for row in names} <= set(LABELS.values())
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in names)
    assert [row["references"] for row in names] == [[LABELS[str(n % len(LABELS))]] for n in range(ROWS)]
    right = sum(row["prediction"] in row["references"] for row in names)
    assert judged(Run(folder / "single"))[LAST_VALIDATION, "val/accuracy/names"] == pytest.approx(
        right / ROWS
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_judge_as_one(folder: Path, name: str) -> None:
    contents = recipe(folder, name, strategy=STRATEGIES[name], devices=2)
    assert fit(folder, name, contents, ranks=2) == [0, 0], (folder / f"{name}.log").read_text()[-3000:]
    assert judged(Run(folder / name)) == judged(Run(folder / "single"))
    found, expected = predictions(Run(folder / name)), predictions(Run(folder / "single"))
    for one, other in zip(found, expected, strict=True):
        if one["probabilities"]:
            assert one.pop("probabilities") == pytest.approx(other.pop("probabilities"), rel=1e-3)
    assert found == expected


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_highest_accuracy(folder: Path) -> None:
    contents = recipe(folder, "best") | {"monitor": "val/accuracy/names"}
    contents["model"]["optimizer"]["init_args"]["lr"] = 0.03
    contents["trainer"] |= {"val_check_interval": 1, "max_steps": 13}
    assert fit(folder, "best", contents) == [0], (folder / "best.log").read_text()[-3000:]
    run = Run(folder / "best")
    values = {step: value for (step, name), value in judged(run).items() if name == "val/accuracy/names"}
    assert len(set(values.values())) > 1, "the run must have a best"
    assert values[checkpoint_step(run.best)] == max(values.values())  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_monitor_that_nothing_logs_is_refused(folder: Path) -> None:
    assert fit(folder, "unknown", recipe(folder, "unknown"), "--monitor", "val/acuracy/names") == [2]
    log = (folder / "unknown.log").read_text()
    assert "did you mean 'val/accuracy/names'" in log
    assert not (folder / "unknown" / "config.yaml").exists(), "the folder must be free for the corrected run"
    assert "Traceback" not in log


@pytest.mark.slow
def test_an_evaluation_finds_what_validation_found(folder: Path) -> None:
    run = Run(folder / "single")
    step = checkpoint_step(run.best)
    tables = set(folder.glob("*.lengths-*"))
    evaluation = evaluate(run, build_run(run)[0], num_probed=5, with_robustness=True)
    assert set(folder.glob("*.lengths-*")) == tables, "training has measured these rows"
    found = json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))
    assert found["step"] == step
    for name, metric in (("names", "accuracy"), ("captions", "exact_match")):
        part = found["sources"][name]
        score = part["metrics"][metric]
        assert score["value"] == pytest.approx(judged(run)[step, f"val/{metric}/{name}"])  # pyright: ignore
        assert score["low"] <= score["value"] <= score["high"]
        assert (part["examples"], part["skipped"]) == (ROWS, 0)
        assert 0 <= part["repetition"] <= 1
        assert {c["kind"] for c in part["robustness"]["curves"]} <= {
            "image" if name == "captions" else "text"
        }
    assert found["sources"]["names"]["labels"] == list(LABELS.values())
    assert set(found["sources"]["captions"]["modality_use"]["modalities"]) == {"image"}
    assert "modality_use" not in found["sources"]["names"]
    metrics = {row["metric"]: row["value"] for row in run.metrics() if row["step"] == step}
    for name, bits in found["bits_per_byte"].items():
        assert bits == pytest.approx(metrics[f"val/bits_per_byte/{name}"], rel=1e-4), name
    lines = (run.path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    readable = [
        row["prediction"].encode("utf-8", "surrogateescape").decode("utf-8", "replace") for row in rows
    ]
    assert readable == [row["prediction"] for row in predictions(run, step)]
    image, text = rows[3]["prompt"]
    assert (image["modality"], image["reference"], text) == ("image", "3.png", " 설명: ")
    assert evaluation.medium(image) == (folder / "3.png").read_bytes()
    assert rows[3]["line"] == 4


@pytest.mark.slow
def test_third_party_classes_are_not_imported_without_trust(folder: Path, tmp_path: Path) -> None:
    contents = recipe(folder, "strange")
    contents["data"]["sources"]["captions"]["class_path"] = "stranger.Source"
    (tmp_path / "config.yaml").write_text(json.dumps(contents))
    with pytest.raises(UserError, match=r"data.sources.captions is 'stranger.Source', and 'stranger' is not"):
        build_run(Run(tmp_path))[0]


def test_an_answer_that_repeats_one_phrase_is_told() -> None:
    assert Written("가나 " * 40, "가나 " * 40).repeats
    assert Written("\ufffd" * 200, "\udcec" * 200).repeats
    assert not Written("가나 " * 5, "가나 " * 5).repeats


@pytest.mark.parametrize("labels", [None, ["yes", "no"]])
@pytest.mark.parametrize("count", [True, False])
def test_held_out_rows_that_are_left_out_count_as_wrong(
    tmp_path: Path, count: bool, labels: list[str] | None
) -> None:
    long = ["x" * 41, "y", "z" * 43, "w", "v"]
    rows = [{"q": question, "a": "yes"} for question in long]
    tiny_media.write_manifest(tmp_path / "rows.jsonl", rows)
    path = str(tmp_path / "rows.jsonl")
    metric = ExactMatch() if labels is None else Accuracy()
    source = Manifest(
        path,
        "{q}",
        "{a}",
        labels=labels,
        metrics=[metric],
        validation=path,
        max_source_length=13,
        count_left_out=count,
    )
    data = DataModule({"s": source}, global_batch_size=1)
    data.connect({})
    judging = Judging(data)
    batch = data.validation.first(0, len(rows))
    judging.add(0, batch, [Written("yes", "yes", dict.fromkeys(labels or (), 0.5))] * len(rows))
    part = judging.judge()[0]
    assert part.rows == [1, 3, 4]
    assert part.values() == {metric.name: 3 / 5 if count else 1.0}
    assert [answer.probabilities for answer in part.missed] == [dict.fromkeys(labels or (), 0.5)] * (
        2 * count
    )
    expected = ["s: 2 of 5 held-out examples left out, counted as wrong"] if count else []
    assert data.validation.left_out() == expected
