"""Draft heads in training: the model trains as without them; runs are resumed, started from and exported."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from tiny_run import STRATEGIES, fit_to_log, resumable_recipe, train_losses

from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.draft_heads import FILE
from kebyt5_xm.model.runs.run import Run, model_tensors
from kebyt5_xm.training.step_watch import StepWatch

HEADS = {"count": 3}


def recipe(folder: Path, run: str, heads: bool = True, **trainer: Any) -> dict[str, Any]:
    """Return a recipe with dropout, accumulation and a clipping norm that every step exceeds."""
    contents = resumable_recipe(folder, run, gradient_clip_val=0.05, **trainer)
    if heads:
        contents["model"]["draft_heads"] = HEADS
    return contents


def fit(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> None:
    assert fit_to_log(folder, contents, *args, ranks=ranks) == [0] * ranks, (folder / "log").read_text()[
        -4000:
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("draft_heads")
    tiny_run.write_stores(folder)
    fit(folder, recipe(folder, "with"))
    return folder


def draft_losses(run: Path) -> list[float]:
    return [loss for (_, name), loss in train_losses(run).items() if name == "train/loss/draft"]


def test_the_norm_of_parameters_apart_changes_no_other_gradient() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}])
    watch = StepWatch()
    watch.begin()
    watch.add_loss(torch.ones(1, 1), 1.0)
    weights[0].grad, weights[1].grad = torch.full((3,), 4.0), torch.full((3,), 100.0)
    watch.judge(optimizer, weights[1:])
    assert watch.is_finite
    assert watch.gradient_norm == pytest.approx(4 * 3**0.5)
    watch.clip(2.0)
    for weight in weights:
        assert weight.grad is not None
        assert float(weight.grad.norm()) == pytest.approx(2, rel=1e-4)
    weights[1].grad = torch.tensor([1.0, torch.inf, 1.0])
    watch.judge(optimizer, weights[1:])
    assert not watch.is_finite
    assert weights[0].grad is None


@pytest.mark.slow
def test_the_model_trains_as_without_heads(folder: Path) -> None:
    fit(folder, recipe(folder, "without", heads=False))
    found, expected = (model_tensors(Run(folder / run).last) for run in ("with", "without"))
    assert all(found[key].equal(tensor) for key, tensor in expected.items())
    assert set(found) - set(expected) == {"draft_heads.weight", "draft_heads.table"}
    losses, plain = train_losses(folder / "with"), train_losses(folder / "without")
    assert {key: loss for key, loss in losses.items() if key[1] != "train/loss/draft"} == plain
    drafts = draft_losses(folder / "with")
    assert len(drafts) == tiny_run.STEPS
    assert drafts[-1] < drafts[0] - 0.1
    assert "lr/draft_heads" in {row["metric"] for row in Run(folder / "with").metrics()}


@pytest.mark.slow
def test_killed_and_continued_is_bit_identical(folder: Path) -> None:
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 17}}
    contents = recipe(folder, "killed", callbacks=[kill])
    assert fit_to_log(folder, contents) == [-signal.SIGKILL]
    fit(folder, recipe(folder, "killed"), "--ckpt_path", "last")
    assert train_losses(folder / "killed") == train_losses(folder / "with")
    found, whole = (model_tensors(Run(folder / run).last) for run in ("killed", "with"))
    assert found.keys() == whole.keys()
    assert all(found[key].equal(tensor) for key, tensor in whole.items())


@pytest.mark.slow
def test_heads_of_a_frozen_run_train_alone(folder: Path) -> None:
    contents = recipe(folder, "alone", heads=False)
    contents["model"]["backbone"] = {"weights": str(folder / "with"), "frozen": True, "dropout": 0.0}
    contents["model"]["draft_heads"] = {"count": 2}
    fit(folder, contents)
    before = model_tensors(Run(folder / "with").checkpoint())
    after = model_tensors(Run(folder / "alone").last)
    assert all(after[key].equal(before[key]) for key in before if key.startswith("backbone."))
    drafts = draft_losses(folder / "alone")
    assert drafts[-1] < drafts[0]
    model = CrossModalT5.from_pretrained(folder / "alone")
    assert model.draft_heads is not None
    assert model.draft_heads.count == 2


@pytest.mark.slow
def test_the_run_and_its_export_give_the_same_heads_and_answers(folder: Path) -> None:
    run = Run(folder / "with")
    export_run(run, folder / "export")
    assert (folder / "export" / FILE).is_file()
    stored = model_tensors(run.checkpoint())
    models = [CrossModalT5.from_pretrained(folder / name) for name in ("with", "export")]
    for model in models:
        assert model.draft_heads is not None
        assert model.draft_heads.weight.equal(stored["draft_heads.weight"])
        assert model.draft_heads.table.equal(stored["draft_heads.table"])
    text = ["나라 말이 the quick"]
    answers = [model.answer(text, max_new_tokens=40) for model in models]
    for model in models:
        model.draft_heads = None
    assert {*answers, *(model.answer(text, max_new_tokens=40) for model in models)} == {answers[0]}
    half = folder / "half"
    export_run(run, half, dtype="bfloat16")
    loaded = CrossModalT5.from_pretrained(half).draft_heads
    assert loaded is not None
    assert loaded.table.dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_two_ranks_train_the_heads_of_one(folder: Path, name: str) -> None:
    def contents(run: str, **trainer: Any) -> dict[str, Any]:
        result = tiny_run.recipe(folder, run, **trainer)
        result["model"]["draft_heads"] = HEADS
        return result

    if not (folder / "single").exists():
        fit(folder, contents("single"))
    fit(folder, contents(name, strategy=STRATEGIES[name], devices=2), ranks=2)
    assert train_losses(folder / name) == pytest.approx(train_losses(folder / "single"), rel=1e-5)
    found, expected = (model_tensors(Run(folder / run).last) for run in (name, "single"))
    for key, tensor in expected.items():
        assert found[key].numpy() == pytest.approx(tensor.numpy(), rel=1e-3, abs=1e-4), key


@pytest.mark.slow
def test_deepspeed_is_refused(folder: Path) -> None:
    contents = recipe(folder, "refused", strategy=STRATEGIES["zero2"], devices=1)
    assert fit_to_log(folder, contents) == [2]
    assert "model.draft_heads is set, but under DeepSpeed's flat partitions" in (folder / "log").read_text()
