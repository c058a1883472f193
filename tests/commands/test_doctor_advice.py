"""What the doctor recommends, the overlay that it writes, and the time of a step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
import yaml

from benchmarks.peers import plain_t5
from kebyt5_xm.commands import cli
from kebyt5_xm.commands.doctor import step_time
from kebyt5_xm.commands.doctor.costs import Pass
from kebyt5_xm.commands.doctor.step_time import time_steps
from kebyt5_xm.commands.written_overlay import MARK
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.training.from_recipes import build_with_config
from kebyt5_xm.training.recipes import overlay
from kebyt5_xm.training.recommendation import NEW_PARTS_SHARE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's calls of jsonargparse
]
PACKED = {"global_length": 4 * 67, "micro_length": 2 * 67, "packed_length": 67}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("advice")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    tiny_run.write_recipe(folder, "text", tiny_run.recipe(folder, "unused"))
    images = tiny_media.image_overlay(folder)
    images["data"]["sources"]["captions"]["init_args"]["weight"] = 3.0
    tiny_run.write_recipe(folder, "image", overlay(images, {"data": {"micro_batch_size": 8}}))
    return folder


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = 0
    try:
        cli.main(["doctor", *words])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, " ".join((captured.err if code == 2 else captured.out).split())


def test_the_written_overlay_lies_over_the_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Short captions among long texts are packed, and what is written trains as it is."""
    text, image, advice = (str(folder / f"{name}.yaml") for name in ("text", "image", "advice"))
    code, out = doctor(capsys, "-c", text, "-c", image, "--write", advice)
    assert code == 0, out
    assert "advice: padding WARNING with its batches by number" in out
    written = yaml.safe_load(Path(advice).read_text(encoding="utf-8"))
    budget = written["data"]["budget"]
    assert budget["packed_length"] == 64  # the longest text has 61 positions
    assert f"-c {text} -c {image} -c {advice}" in Path(advice).read_text(encoding="utf-8")
    task, data, recipe = build_with_config([text, image, advice], False)
    assert vars(data.budget) == budget
    assert recipe["trainer"]["max_steps"] == written["trainer"]["max_steps"]
    group = task.optimization.optimizer([torch.nn.Parameter(torch.ones(2, 3))]).param_groups[0]
    assert group["lr"] == written["model"]["optimizer"]["init_args"]["lr"]
    code, out = doctor(capsys, "-c", text, "-c", image, "-c", advice)
    assert code == 0, out
    assert "FAILED" not in out
    assert "WARNING" not in out


def test_a_modality_without_weights_gets_a_rate_of_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The backbone has weights, the image's encoder and adapter do not."""
    shape = tiny_run.recipe(folder, "unused")["model"]["backbone"]["shape"]
    plain_t5(Backbone(shape=shape).config()).save_pretrained(tmp_path / "t5")
    backbone = {"model": {"backbone": {"shape": None, "weights": str(tmp_path / "t5")}}}
    weights = tmp_path / "weights.yaml"
    weights.write_text(yaml.safe_dump(backbone), encoding="utf-8")
    words = ["-c", str(folder / "text.yaml"), "-c", str(folder / "image.yaml"), "-c", str(weights)]
    code, out = doctor(capsys, *words, "--write", str(tmp_path / "advice.yaml"))
    assert code == 0, out
    model = yaml.safe_load((tmp_path / "advice.yaml").read_text(encoding="utf-8"))["model"]
    lower = NEW_PARTS_SHARE * model["optimizer"]["init_args"]["lr"]
    assert model["groups"] == {"image": {"pattern": "modalities.image.*", "lr": pytest.approx(lower)}}
    assert f"({lower:g} for image, new to it)" in out
    code, out = doctor(capsys, *words, "-c", str(tmp_path / "advice.yaml"))
    assert code == 0, out
    assert "groups: image" in out


def test_no_recipe_is_written_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = str(folder / "text.yaml")
    before = Path(text).read_bytes()
    code, err = doctor(capsys, "-c", text, "--write", text)
    assert code == 2
    assert "is no overlay that kebyt5-xm has written" in err
    assert Path(text).read_bytes() == before
    assert not before.startswith(MARK.encode())


@pytest.mark.parametrize("budget", [None, PACKED])
def test_a_step_is_timed_with_its_own_micro_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, int] | None
) -> None:
    """By a clock that moves by one second for every position that the model is given."""
    given = {} if budget is None else {"data": {"global_batch_size": None, "budget": budget}}
    paths = [str(folder / "text.yaml"), tiny_run.write_recipe(folder, "budget", given)]
    task, data, _ = build_with_config(paths, False)
    data.connect(task.interfaces())
    model = task.builder.build()
    now, find_loss = 0.0, step_time.find_loss

    def counted(model: Any, batch: Any, ctc: Any) -> Any:
        nonlocal now
        now += batch.inputs.input_ids.numel()
        return find_loss(model, batch, ctc)

    monkeypatch.setattr(step_time, "find_loss", counted)
    monkeypatch.setattr(step_time, "time", SimpleNamespace(perf_counter=lambda: now))
    optimizer = task.optimization.build(model, 7)[0]
    found = time_steps(model, data, optimizer, 7, Pass(1, 61, 13, 1e-3, 0, [], []))
    first = data.steps.batch(0)
    assert found.steps == 1  # it takes more than the seconds of all
    assert len(found.lengths) == sum(len(micro_batch.draws) for micro_batch in first.micro_batches)
    assert found.training == pytest.approx(sum(inputs for inputs, _ in found.lengths), rel=0.15)


def test_a_step_that_would_take_too_long_is_scaled(folder: Path) -> None:
    task, data, _ = build_with_config([str(folder / "text.yaml")], False)
    data.connect(task.interfaces())
    model = task.builder.build()
    found = time_steps(
        model, data, torch.optim.SGD(model.parameters()), 7, Pass(2, 61, 13, 1000.0, 100, [], [])
    )
    assert found.steps == 0
    assert found.training == pytest.approx(8 / 2 * 1000, rel=0.15)  # 8 examples, as long as those of the pass
    assert found.kept_bytes == pytest.approx(100, rel=0.15)  # a micro-batch has 2
