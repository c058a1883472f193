"""The benchmark of text loss at toy sizes: the same chunks, tasks, bytes and held-out examples for both sides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import GLOBAL_BATCH, STEPS, recipe, write_recipe, write_stores

from benchmarks import text_loss, text_loss_peer
from benchmarks.text_loss_peer import Rule
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.training import from_recipes

# Lightning 2.6.6 calls a deprecated method of jsonargparse 4.53 and a deprecated class of torch 2.11, and recommends
# more data workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]

CHUNK = 69
"""Bytes of an example with 61 input ids: 10 of them become one sentinel."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text_loss")
    write_stores(folder, num_bytes=4_001)
    return Path(write_recipe(folder, "recipe", recipe(folder, "unused")))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the benchmark writes, instead of benchmarks/results/text_loss.json."""
    reports: dict[str, Any] = {}
    monkeypatch.setattr(text_loss, "write_report", reports.__setitem__)
    return reports


def test_both_sides_are_trained_and_scored(
    toy: Path, written: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    folder = toy.parent / "runs"
    arguments = ["--recipe", str(toy), "--folder", str(folder), "--seeds", "2", "--only"]
    text_loss.main([*arguments, "recipe", "adamw_3e-3"])
    figures = written["text_loss"]
    for name in ("recipe", "adamw_3e-3"):
        assert figures["short"][name]["steps"] == STEPS // 3
        assert figures[name]["steps"] == STEPS
        assert figures[name]["seeds"] == 2
        assert figures[name]["all_deviation"] > 0  # seeds differ
        low, high = sorted(figures[name][language] for language in ("ko", "en"))
        assert low < figures[name]["all"] < high
    assert figures["lead"]["all"] == figures["adamw_3e-3"]["all"] - figures["recipe"]["all"]
    assert figures["not_measured"] == ["doctor", *(n for n in text_loss_peer.RULES if n != "adamw_3e-3")]
    logged = json.loads((folder / "recipe-0" / "run" / "results.json").read_text(encoding="utf-8"))
    first = json.loads((folder / "recipe-0" / "figures.json").read_text(encoding="utf-8"))
    assert first["all"] == pytest.approx(logged["bits_per_byte"], abs=1e-4)

    monkeypatch.setattr(text_loss, "train_ours", None)  # finished runs are not repeated
    monkeypatch.setattr(text_loss, "train_peer", None)
    text_loss.main([*arguments, "recipe", "adamw_3e-3"])
    assert written["text_loss"] == figures


def test_a_peer_on_whose_figure_the_evaluations_differ_is_refused(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(text_loss, "evaluate_plain", lambda model, recipe: {"all": 1.0, "ko": 1.0, "en": 1.0})
    with pytest.raises(AssertionError, match="transformers' own code"):
        text_loss.train_peer("adamw_default", 0, toy, tmp_path)


def test_the_doctors_settings_see_the_recipes_bytes():
    given = {"trainer": {"max_steps": 1200}, "data": {"global_batch_size": 8}}
    settings = {
        "trainer": {"max_steps": 500},
        "data": {"global_batch_size": 32},
        "model": {"schedule": {"init_args": {"warmup_steps": 50}}},
    }
    overlay = text_loss.at_equal_bytes(given, settings)
    assert overlay["trainer"]["max_steps"] == 300
    assert overlay["model"]["schedule"]["init_args"]["warmup_steps"] == 30


def test_the_peer_trains_on_the_recipes_chunks_and_task(toy: Path, monkeypatch: pytest.MonkeyPatch):
    task, data = from_recipes.build_task([str(toy)], random_weights=True)
    source = data.sources["text"]
    assert isinstance(source, Denoising)
    chunks = text_loss_peer.training_chunks(source)
    assert chunks.shape == (sum(part.num_rows for part in source.parts()), CHUNK)
    seen: list[bytes] = []
    collate = text_loss_peer.collate

    def watch(rows: np.ndarray, objective: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        inputs, labels = collate(rows, objective, rng)
        seen.extend(objective.restore(i, t) for i, t in zip(inputs, labels, strict=True))
        return inputs, labels

    monkeypatch.setattr(text_loss_peer, "collate", watch)
    rule = Rule(
        {"learning_rate": 1e-2, "lr_scheduler_type": "constant"}, scale_parameter=True, fan_in_head=True
    )
    trained = text_loss_peer.train(
        task.backbone.config(), chunks, source.objective, GLOBAL_BATCH, STEPS, rule, 0
    )
    assert len(seen) - STEPS * GLOBAL_BATCH in (0, GLOBAL_BATCH)  # accelerate reads one batch ahead
    assert set(seen) <= {chunk.tobytes() for chunk in chunks}
    assert seen[:GLOBAL_BATCH] != [chunk.tobytes() for chunk in chunks[:GLOBAL_BATCH]]  # shuffled
    assert 0.1 < trained.lm_head.weight.std() < 0.3  # 32^-0.5 is 0.18; transformers' own is 1


def test_the_best_of_the_trainers_is_what_ours_are_compared_with():
    bits = {"recipe": 3.0, "doctor": 3.1, "adamw_default": 5.0, "adamw_1e-3": 3.4, "adamw_3e-3": 3.3}
    measured = {name: [{"all": value, "ko": value, "steps": 7}] for name, value in bits.items()}
    figures = text_loss.summarize(measured)
    assert (figures["best_of_ours"], figures["best_of_trainer"]) == ("recipe", "adamw_3e-3")
    assert figures["lead"] == pytest.approx({"all": 0.3, "ko": 0.3})
    assert figures["lead_at_first_seed"] == pytest.approx({"recipe": 0.3, "doctor": 0.2})


def test_chunks_are_those_of_every_language(toy: Path):
    source = from_recipes.build_task([str(toy)], random_weights=True)[1].sources["text"]
    assert isinstance(source, Denoising)
    chunks = text_loss_peer.training_chunks(source)
    english = source.chunks(np.array([1]), np.array([0]), held_out=False)[0]
    assert (chunks == english).all(axis=1).any()
    assert torch.from_numpy(chunks).dtype == torch.uint8
