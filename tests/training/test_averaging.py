"""The moving average of weights: training takes the raw weights, everything else the averages."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
from processes import train
from tiny_run import fit_to_log, resumable_recipe, train_losses

from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.runs.run import Run, model_tensors
from kebyt5_xm.training.averages import KEY
from kebyt5_xm.training.callbacks.averaging import Averaging, Ema
from kebyt5_xm.training.recipes import overlay

EMA = {"decay": 0.5, "start_step": 1}
METRIC = "val/exact_match/pairs"


def recipe(folder: Path, run: str, ema: dict | None = EMA, **trainer: Any) -> dict[str, Any]:
    """Return a recipe with dropout, accumulation, and a source whose answers are judged."""
    pairs = {
        "path": str(folder / "pairs.jsonl"),
        "validation": str(folder / "pairs.jsonl"),
        "prompt": "{n} = ",
        "target": "{word}",
        "metrics": [{"class_path": "kebyt5_xm.metrics.ExactMatch"}],
    }
    added = {
        "ema": ema,
        "data": {"sources": {"pairs": {"class_path": "kebyt5_xm.data.Manifest", "init_args": pairs}}},
    }
    return overlay(resumable_recipe(folder, run, **trainer), added)


def fit(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> str:
    codes = fit_to_log(folder, contents, *args, ranks=ranks)
    log = (folder / "log").read_text()
    assert codes == [0] * ranks, log[-4000:]
    return log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaging")
    tiny_run.write_stores(folder)
    tiny_media.write_manifest(folder / "pairs.jsonl", [{"n": n, "word": f"답 {n % 3}"} for n in range(7)])
    log = fit(folder, recipe(folder, "averaged"))
    assert "ema: averages " in log
    return folder


def checkpoint(run: Path, name: str | None = None) -> dict[str, Any]:
    path = Run(run).last if name is None else run / "checkpoints" / name
    return torch.load(path, weights_only=True)


def are_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(found[key].equal(value) for key, value in expected.items())


def validations(run: Path) -> dict[tuple[int, str], float]:
    rows = Run(run).metrics()
    return {(row["step"], row["metric"]): row["value"] for row in rows if row["metric"].startswith("val/")}


# -- the averages ------------------------------------------------------------------------------------------


def test_the_decay_is_warmed_up() -> None:
    found = [Ema(decay=0.6).decay_at(update) for update in (1, 2, 8, 17, 999)]
    assert found == pytest.approx([2 / 11, 3 / 12, 9 / 18, 0.6, 0.6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, r"ema\.decay is 1; expected more than 0 and less than 1"),
        ({"every_n_steps": 0}, r"ema\.every_n_steps is 0"),
        ({"start_step": -1}, r"ema\.start_step is -1"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Averaging(Ema(**settings))


@pytest.mark.parametrize(("every", "start", "first"), [(1, 7, 8), (9, 0, 9), (3, 6, 9)])
def test_a_run_without_an_update_is_refused(every: int, start: int, first: int) -> None:
    ema = Ema(every_n_steps=every, start_step=start)
    with pytest.raises(
        UserError, match=rf"change first at step {first}, .* trainer\.max_steps, {first - 1};"
    ):
        ema.check_steps(first - 1)
    ema.check_steps(first)
    ema.check_steps(-1)


@pytest.mark.slow
def test_training_goes_on_with_the_raw_weights(folder: Path) -> None:
    fit(folder, recipe(folder, "plain", ema=None))
    assert train_losses(folder / "averaged") == train_losses(folder / "plain")
    plain, found = checkpoint(folder / "plain"), checkpoint(folder / "averaged")
    assert are_equal(found[KEY]["raw"], plain["state_dict"]), "all weights train"
    assert found["state_dict"].keys() == plain["state_dict"].keys()
    assert KEY not in plain


@pytest.mark.slow
def test_a_checkpoint_has_the_averages_as_its_weights(folder: Path) -> None:
    before, after = checkpoint(folder / "averaged", "step=6.ckpt"), checkpoint(folder / "averaged")
    assert (before[KEY]["updates"], after[KEY]["updates"]) == (5, 6), "the averages began with step 1"
    decay = (1 + 6) / (10 + 6)
    for name, raw in after[KEY]["raw"].items():
        expected = decay * before["state_dict"][name] + (1 - decay) * raw
        torch.testing.assert_close(after["state_dict"][name], expected)


@pytest.mark.slow
def test_killed_and_continued_is_bit_identical(folder: Path) -> None:
    kill = {"class_path": "killing.KillInValidation", "init_args": {"step": 6}}
    assert fit_to_log(folder, recipe(folder, "killed", callbacks=[kill])) == [-signal.SIGKILL]
    log = fit(folder, recipe(folder, "killed"), "--ckpt_path", "last")
    assert "arning" not in log
    whole, found = checkpoint(folder / "averaged"), checkpoint(folder / "killed")
    assert are_equal(found["state_dict"], whole["state_dict"])
    assert are_equal(found[KEY]["raw"], whole[KEY]["raw"])
    assert train_losses(folder / "killed") == train_losses(folder / "averaged")
    assert validations(folder / "killed") == validations(folder / "averaged")


@pytest.mark.slow
def test_a_run_continues_without_and_again_with_averages(folder: Path) -> None:
    fit(folder, recipe(folder, "changing", max_steps=4))
    log = fit(folder, recipe(folder, "changing", ema=None, max_steps=6), "--ckpt_path", "last")
    assert "ema.decay: 0.5 -> null" in log
    assert "arning" not in log
    assert KEY not in checkpoint(folder / "changing")
    fit(folder, recipe(folder, "changing"), "--ckpt_path", "last")
    found, whole = checkpoint(folder / "changing"), checkpoint(folder / "averaged")
    assert found[KEY]["updates"] == 1
    assert not are_equal(found["state_dict"], whole["state_dict"])


# -- everything that takes them ----------------------------------------------------------------------------


@pytest.mark.slow
def test_validations_and_answers_are_of_the_averages(folder: Path) -> None:
    run = folder / "averaged"
    path = tiny_run.write_recipe(folder, "validate", recipe(folder, "averaged"))
    last = str(Run(run).last)
    assert train(["validate", "-c", path, "--ckpt_path", last], folder / "log") == [0]
    printed = dict(line.split() for line in (folder / "log").read_text().splitlines() if line[:4] == "val/")
    logged = {name: value for (step, name), value in validations(run).items() if step == tiny_run.STEPS}
    assert METRIC in printed
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(logged, abs=6e-5)
    assert Run(run).results()["bits_per_byte"] == pytest.approx(logged["val/bits_per_byte"], abs=1e-5)


@pytest.mark.slow
def test_a_run_starts_from_the_averages_and_exports_have_them(folder: Path, tmp_path: Path) -> None:
    """The validation before its first step then repeats the last one of the first run, with samples and answers."""
    source, best = folder / "averaged", f"step={tiny_run.STEPS}"
    averages = {
        name.removeprefix("model."): w for name, w in checkpoint(source, "best.ckpt")["state_dict"].items()
    }
    assert are_equal(averages, model_tensors(Run(source).last)), "the last is the best"
    assert are_equal(averages, model_tensors(Run(source).checkpoint()))
    contents = recipe(folder, "started", max_steps=2, ema={"decay": 0.9})
    contents["model"]["backbone"] = {"weights": str(source), "dropout": 0.1}
    fit(folder, contents)
    for name in (f"samples/{best}.md", f"predictions/{best}.jsonl"):
        found = folder / "started" / name.replace(best, "step=0")
        assert found.read_text() == (source / name).read_text()
    before, start = validations(source), validations(folder / "started")
    assert {key[1]: value for key, value in start.items() if key[0] == 0} == {
        key[1]: value for key, value in before.items() if key[0] == tiny_run.STEPS
    }
    export_run(Run(source), tmp_path / "export")
    exported = CrossModalT5.from_pretrained(tmp_path / "export").state_dict()
    assert all(exported[name].equal(weight) for name, weight in averages.items())


@pytest.mark.slow
def test_weights_that_do_not_train_have_no_averages(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    tiny_media.write_media(tmp_path)
    frozen = tiny_media.image_overlay(tmp_path, "tiny_media.PatchesWithStatistics", frozen=True)
    contents = overlay(recipe(folder, "lora", max_steps=2), frozen)
    contents["model"]["lora"] = {"all": {"pattern": "backbone.*Attention.q", "rank": 2}}
    contents["model"]["draft_heads"] = {"count": 2}
    fit(folder, contents)
    found = checkpoint(folder / "lora")
    names = [*found[KEY]["raw"]]
    assert names
    kinds = {name for name in names if "lora_" not in name}
    assert all(name.startswith(("model.modalities.image.adapter.", "model.draft_heads.")) for name in kinds)
    assert len(kinds) < len(names)
    assert all(not raw.equal(found["state_dict"][name]) for name, raw in found[KEY]["raw"].items())
    others = checkpoint(folder / "averaged")["state_dict"].keys()
    assert others <= found["state_dict"].keys(), "the rest is there as always"


# -- strategies --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_ranks_have_the_averages_of_one(folder: Path) -> None:
    runs = {}
    for name, ranks in (("one", 1), ("two", 2)):
        options: dict[str, Any] = {"max_steps": 3} | ({"strategy": "ddp", "devices": 2} if ranks == 2 else {})
        contents = recipe(folder, name, **options)
        contents["model"]["backbone"]["dropout"] = 0.0
        fit(folder, contents, ranks=ranks)
        runs[name] = checkpoint(folder / name)["state_dict"]
    for name, weight in runs["one"].items():
        torch.testing.assert_close(runs["two"][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2", "zero2"])
def test_strategies_that_shard_are_refused(folder: Path, name: str) -> None:
    if name == "zero2":
        pytest.importorskip("deepspeed")
    contents = recipe(folder, name, strategy=tiny_run.STRATEGIES[name], devices=2)
    assert fit_to_log(folder, contents, ranks=2) == [2, 2]
    log = (folder / "log").read_text()
    assert "ema averages whole weights, but" in log
    assert "use one device or DDP, or take ema out" in log
    assert not (folder / name).exists()


@pytest.mark.slow
def test_low_precision_keeps_averages_in_fp32(folder: Path) -> None:
    contents = recipe(folder, "bf16", max_steps=2, precision="bf16-true")
    fit(folder, contents)
    found = checkpoint(folder / "bf16")
    assert {raw.dtype for raw in found[KEY]["raw"].values()} == {torch.bfloat16}
    for name, average in found[KEY]["precise"].items():
        assert average.dtype == torch.float32
        assert found["state_dict"][name].equal(average.bfloat16())
