"""SIGTERM to any rank or to all: saved within the step, the code says so, and the run goes on as if never stopped."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from processes import train
from test_resume import train_losses

from kebyt5_xm.run import Run

SIGTERM_CODE = 143


def recipe(folder: Path, run: str, ranks: int, to: list[int] | None = None) -> dict[str, Any]:
    callbacks = []
    if to is not None:  # inside the fourth step's accumulation
        init_args = {"micro_batch": 3 * 4 // ranks + 1, "ranks": to}
        callbacks = [{"class_path": "killing.TerminateAfter", "init_args": init_args}]
    contents = tiny_run.recipe(folder, run, callbacks=callbacks)
    contents["checkpoint_every"] = 100
    if ranks > 1:
        contents["trainer"] |= {"strategy": "ddp", "devices": ranks}
    return contents


def fit(folder: Path, contents: dict[str, Any], ranks: int, *args: str) -> tuple[list[int], str]:
    path = tiny_run.write_recipe(folder, "recipe", contents)
    return train(["fit", "-c", path, *args], folder / "log", ranks), (folder / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "to"), [(1, [0]), (2, [1]), (2, [0, 1])])
def test_saved_and_continued(tmp_path: Path, ranks: int, to: list[int]) -> None:
    tiny_run.write_stores(tmp_path)
    assert fit(tmp_path, recipe(tmp_path, "whole", ranks), ranks)[0] == [0] * ranks
    codes, log = fit(tmp_path, recipe(tmp_path, "stopped", ranks, to), ranks)
    assert codes == [SIGTERM_CODE] * ranks, log
    assert "terminated: saved at step 4; continue with --ckpt_path last" in log
    assert "Traceback" not in log
    assert Run(tmp_path / "stopped").last.name == "step=4.ckpt"
    codes, log = fit(tmp_path, recipe(tmp_path, "stopped", ranks), ranks, "--ckpt_path", "last")
    assert codes == [0] * ranks, log
    assert train_losses(tmp_path / "stopped") == train_losses(tmp_path / "whole")
