"""SIGTERM or SIGINT to one rank or to all: the run is saved within the step, and continues as if never stopped."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from tiny_run import fit_and_read_log as fit
from tiny_run import train_losses

from kebyt5_xm.model.runs.run import Run

CODES = {"SIGTERM": 143, "SIGINT": 130}


def recipe(
    folder: Path, run: str, ranks: int, to: list[int] | None = None, name: str = "SIGTERM"
) -> dict[str, Any]:
    callbacks = []
    if to is not None:  # inside the fourth step's accumulation
        init_args = {"micro_batch": 3 * 4 // ranks + 1, "ranks": to, "name": name}
        callbacks = [{"class_path": "killing.TerminateAfter", "init_args": init_args}]
    contents = tiny_run.recipe(folder, run, callbacks=callbacks)
    contents["checkpoint_every"] = 100
    contents["data"]["num_workers"] = 1
    if ranks > 1:
        contents["trainer"] |= {"strategy": "ddp", "devices": ranks}
    return contents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "to", "name"),
    [
        (1, [0], "SIGTERM"),
        (2, [1], "SIGTERM"),
        (2, [0, 1], "SIGTERM"),
        (1, [0], "SIGINT"),
        (2, [0, 1], "SIGINT"),
    ],
)
def test_saved_and_continued(tmp_path: Path, ranks: int, to: list[int], name: str) -> None:
    tiny_run.write_stores(tmp_path)
    assert fit(tmp_path, recipe(tmp_path, "whole", ranks), ranks=ranks)[0] == [0] * ranks
    codes, log = fit(tmp_path, recipe(tmp_path, "stopped", ranks, to, name), ranks=ranks)
    assert codes == [CODES[name]] * ranks, log
    word = {"SIGTERM": "terminated", "SIGINT": "interrupted"}[name]
    assert f"{word}: saved at step 4; continue with --ckpt_path last" in log
    assert (f"{word}: saving at the end of this step" in log) == (0 in to)
    assert "Traceback" not in log
    assert Run(tmp_path / "stopped").last.name == "step=4.ckpt"
    codes, log = fit(tmp_path, recipe(tmp_path, "stopped", ranks), "--ckpt_path", "last", ranks=ranks)
    assert codes == [0] * ranks, log
    assert train_losses(tmp_path / "stopped") == train_losses(tmp_path / "whole")
