"""Checkpoints survive kills at any moment of a save and full disks; damaged ones are detected and skipped."""

import errno
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from killing import die_before
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy
from processes import CONTEXT, train
from tiny_run import train_losses

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_io import DurableCheckpointIO, check_readable, remove_unfinished
from kebyt5_xm.model.runs.checkpoint_reading import Kind, read_checkpoint
from kebyt5_xm.model.runs.digest import digest_path, is_damaged
from kebyt5_xm.model.runs.run import Run

CALLS = 8
"""Calls of `os.fsync` and `os.replace` in one save, and one more, so that the last process is not killed."""
BEFORE_RENAME = 4
"""Calls until the new checkpoint has its name."""
KILLS = 60 if os.environ.get("KEBYT5_XM_SOAK") else 10


def content(value: int) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((1009,), float(value))}, "global_step": value}


def save_and_die(path: str, value: int, call: int) -> None:
    """Save; the process is killed right before the `call`-th of the calls that make a save durable."""
    die_before(call, "fsync", "replace")
    DurableCheckpointIO().save_checkpoint(content(value), path)


def test_a_strategy_refuses_checkpoints_that_it_cannot_read(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"{kind.name}.ckpt" for kind in Kind}
    paths[Kind.FILE].touch()
    for kind, file in ((Kind.SHARDED, ".metadata"), (Kind.DEEPSPEED, "latest")):
        paths[kind].mkdir()
        (paths[kind] / file).write_bytes(pickle.dumps({}) if kind is Kind.SHARDED else b"step")
    read = {
        DDPStrategy: {Kind.FILE},
        ModelParallelStrategy: {Kind.FILE, Kind.SHARDED},
        DeepSpeedStrategy: {Kind.DEEPSPEED},
    }
    for strategy, kinds in read.items():
        for kind, path in paths.items():
            if kind in kinds:
                check_readable(path, strategy())
            else:
                words = rf"is {kind}, and {strategy.__name__} reads .*--model.backbone.weights"
                with pytest.raises(UserError, match=words):
                    check_readable(path, strategy())


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_save_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    DurableCheckpointIO().save_checkpoint(content(100), path)
    there = 100
    for number in range(KILLS):
        call = 1 + number % (CALLS - 1)
        process = CONTEXT.Process(target=save_and_die, args=(str(path), number, call))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not is_damaged(path)
        there = number if call > BEFORE_RENAME else there
        assert read_checkpoint(path)["global_step"] == there, f"killed before call {call}"
    process = CONTEXT.Process(target=save_and_die, args=(str(path), 997, CALLS))
    process.start()
    process.join(60)
    assert (process.exitcode, read_checkpoint(path)["global_step"]) == (0, 997)
    assert list(tmp_path.glob(".best.ckpt-*"))
    remove_unfinished(tmp_path)
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".best.ckpt.digest")} == {
        "best.ckpt",
        "best.ckpt.digest",
    }


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step=2.ckpt"
    DurableCheckpointIO().save_checkpoint(content(2), path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for target in (path, tmp_path / "step=4.ckpt"):
        with pytest.raises(UserError, match=r"cannot write the checkpoint .*No space left on device"):
            DurableCheckpointIO().save_checkpoint(content(4), target)
    monkeypatch.undo()
    assert {p.name for p in tmp_path.iterdir()} == {"step=2.ckpt", "step=2.ckpt.digest"}
    assert read_checkpoint(path)["global_step"] == 2


def test_a_flipped_bit_is_detected_and_a_missing_digest_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "step=3.ckpt"
    DurableCheckpointIO().save_checkpoint(content(3), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert torch.load(path, weights_only=True)["global_step"] == 3, "torch itself does not notice"
    with pytest.raises(UserError, match="is damaged: its bytes are not those that were written"):
        read_checkpoint(path)
    digest_path(path).unlink()
    assert read_checkpoint(path)["global_step"] == 3


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_run.write_stores(tmp_path)
    contents = tiny_run.recipe(tmp_path, "run")
    recipe = tiny_run.write_recipe(tmp_path, "recipe", contents)
    log = tmp_path / "log"
    assert train(["fit", "-c", recipe], log) == [0], log.read_text()
    expected = train_losses(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    newest, before = folder / "step=7.ckpt", folder / "step=6.ckpt"
    newest.write_bytes(newest.read_bytes()[:-997])
    assert Run(tmp_path / "run").last == before
    assert "skips damaged checkpoints: step=7.ckpt" in caplog.text
    assert train(["fit", "-c", recipe, "--ckpt_path", str(newest)], log) == [2]
    assert "is damaged: its bytes" in log.read_text()
    assert train(["fit", "-c", recipe, "--ckpt_path", "last"], log) == [0], log.read_text()
    assert "skips damaged checkpoints: step=7.ckpt" in log.read_text()
    assert train_losses(tmp_path / "run") == expected
    assert not is_damaged(newest), "written again"
    for path in (newest, before):
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"every checkpoint of run .* is damaged \(step=7.ckpt, step=6.ckpt\)"
    ):
        _ = Run(tmp_path / "run").last
