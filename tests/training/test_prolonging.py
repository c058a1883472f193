"""A run with a stable phase, prolonged before its decay, equals one that had the steps from the start."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from tiny_run import fit_to_log, resumable_recipe, train_losses

from kebyt5_xm.model.runs.run import Run


def recipe(folder: Path, run: str, max_steps: int) -> dict[str, Any]:
    contents = resumable_recipe(folder, run, max_steps=max_steps)
    contents["model"]["schedule"] = {
        "class_path": "kebyt5_xm.schedules.WarmupStableDecay",
        "init_args": {"warmup_steps": 1, "decay_fraction": 0.4},
    }
    return contents


@pytest.mark.slow
def test_prolonged_before_the_decay_is_bit_identical(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    for name, max_steps in (("short", 5), ("long", 8)):
        assert fit_to_log(tmp_path, recipe(tmp_path, name, max_steps)) == [0], (tmp_path / "log").read_text()
    rates = {
        row["step"]: row["value"]
        for row in Run(tmp_path / "short").metrics()
        if row["metric"] == "lr/default"
    }
    assert [rates[step] / rates[1] for step in (2, 3)] == [1.0, 1.0], (
        "logged is the rate of the step that follows"
    )
    assert rates[4] < rates[3]
    before_decay = str(tmp_path / "short" / "checkpoints" / "step=4.ckpt")
    assert fit_to_log(tmp_path, recipe(tmp_path, "short", 8), "--ckpt_path", before_decay) == [0]
    assert "trainer.max_steps: 5 -> 8" in (tmp_path / "log").read_text()
    assert train_losses(tmp_path / "short") == train_losses(tmp_path / "long")
    prolonged, whole = (tiny_run.tensors(Run(tmp_path / name).last) for name in ("short", "long"))
    assert all(prolonged[key].equal(value) for key, value in whole.items())
