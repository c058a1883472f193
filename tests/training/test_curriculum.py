"""Weights over the steps of a run: exact on resume, and no change without notice."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import fit_to_log, resumable_recipe, train_losses

from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.recipes import overlay

WEIGHT = [[0, 0.0], [3, 0.0], [3, 4.0]]


def recipe(folder: Path, run: str, weight: Any = WEIGHT, **trainer: Any) -> dict[str, Any]:
    pairs = {"path": str(folder / "pairs.jsonl"), "prompt": "{n} = ", "target": "{word}", "weight": weight}
    added = {"data": {"sources": {"pairs": {"class_path": "kebyt5_xm.data.Manifest", "init_args": pairs}}}}
    return overlay(resumable_recipe(folder, run, **trainer), added)


@pytest.mark.slow
def test_a_source_that_starts_later_is_resumed_bit_identically(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    rows = [{"n": n, "word": f"답 {n % 3}"} for n in range(17)]
    tiny_media.write_manifest(tmp_path / "pairs.jsonl", rows)
    assert fit_to_log(tmp_path, recipe(tmp_path, "whole")) == [0], (tmp_path / "log").read_text()[-3000:]
    losses = train_losses(tmp_path / "whole")
    assert {step for step, name in losses if name == "train/loss/pairs"} == {4, 5, 6, 7}, "steps count from 1"
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 19}}
    assert fit_to_log(tmp_path, recipe(tmp_path, "killed", callbacks=[kill])) == [-signal.SIGKILL]
    assert fit_to_log(tmp_path, recipe(tmp_path, "killed", [[0, 0.0], [3, 4.0]]), "--ckpt_path", "last") == [
        2
    ]
    assert (
        "weights.pairs: 0 at step 0, 0 at step 3, 4 at step 3 -> 0 at step 0, 4 at step 3"
        in (tmp_path / "log").read_text()
    )
    contents = recipe(tmp_path, "killed")
    contents["data"]["num_workers"] = 0
    assert fit_to_log(tmp_path, contents, "--ckpt_path", "last") == [0], (tmp_path / "log").read_text()[
        -3000:
    ]
    assert train_losses(tmp_path / "killed") == losses
    whole, killed = (tiny_run.tensors(Run(tmp_path / name).last) for name in ("whole", "killed"))
    assert all(killed[key].equal(value) for key, value in whole.items())
