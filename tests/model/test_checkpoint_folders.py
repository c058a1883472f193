"""Checkpoint folders, which several ranks write: complete or absent, and damage is detected."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from killing import die_before
from processes import CONTEXT, train
from tiny_run import STRATEGIES, losses

from kebyt5_xm.durable import path_or_aside, replace_folder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_io import remove_unfinished
from kebyt5_xm.model.runs.digest import FOLDER_DIGESTS, is_damaged, write_folder_digests
from kebyt5_xm.model.runs.run import Run, backbone_tensors

FOLDERS = {
    "fsdp2": {
        "class_path": "kebyt5_xm.training.sharding.FSDP2",
        "init_args": {"save_distributed_checkpoint": True},
    },
    "zero2": STRATEGIES["zero2"],
}
CALLS = 40
"""More calls than one save of a folder makes."""


def write(folder: Path, value: int) -> None:
    (folder / "part").mkdir(parents=True)
    for number in range(3):
        (folder / "part" / f"rank{number}").write_text(f"{value} of {number}")
    write_folder_digests(folder)


def value_of(folder: Path) -> set[str]:
    return {file.read_text().split()[0] for file in (folder / "part").iterdir()}


def replace_and_die(path: Path, call: int) -> None:
    """Write a folder and rename it to `path`; the process is killed right before the `call`-th of these calls."""
    die_before(call, "fsync", "replace", "rename", "unlink", "rmdir")
    place = path.with_name(f".{path.name}-7")
    write(place, 2)
    replace_folder(place, path)


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_complete_folder(tmp_path: Path) -> None:
    seen = []
    for call in range(1, CALLS):
        folder = tmp_path / str(call)
        path = folder / "best.ckpt"
        write(path, 1)
        process = CONTEXT.Process(target=replace_and_die, args=(path, call))
        process.start()
        process.join(60)
        found = path_or_aside(path)
        assert not is_damaged(found)
        assert (found / FOLDER_DIGESTS).is_file()
        (value,) = value_of(found)
        seen.append((value, found == path))
        remove_unfinished(folder)
        assert [p.name for p in folder.iterdir()] == ["best.ckpt"]
        assert value_of(path) == {value}
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert process.exitcode == 0, f"more than {CALLS} calls"
    # The old folder, for a moment the old folder under its backup name, the new folder.
    assert list(dict.fromkeys(seen)) == [("1", True), ("1", False), ("2", True)]


def test_a_damaged_folder_is_detected(tmp_path: Path) -> None:
    def damaged(harm: Any) -> bool:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.ckpt"
        write(path, 3)
        assert not is_damaged(path)
        harm(path)
        return is_damaged(path)

    assert damaged(lambda path: (path / "part" / "rank1").write_text("3 of 7"))
    assert damaged(lambda path: (path / "part" / "rank1").unlink())
    assert damaged(lambda path: (path / FOLDER_DIGESTS).write_text("{"))
    assert not damaged(lambda path: (path / "part" / "more").write_text("of somebody else"))
    assert not damaged(lambda path: (path / FOLDER_DIGESTS).unlink())


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_damaged_newest_folder_is_skipped(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_run.write_stores(tmp_path)
    contents = tiny_run.recipe(tmp_path, "run", strategy=FOLDERS[name], devices=2)
    recipe, log = tiny_run.write_recipe(tmp_path, "recipe", contents), tmp_path / "log"
    assert train(["fit", "-c", recipe], log, ranks=2) == [0, 0], log.read_text()[-3000:]
    run = Run(tmp_path / "run")
    expected, tensors = losses(run), backbone_tensors(run.last)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "step=6.ckpt", "step=7.ckpt"]
    assert all((path / FOLDER_DIGESTS).is_file() for path in folder.iterdir())
    largest = max(
        (p for p in (folder / "step=7.ckpt").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 2] ^= 1
    largest.write_bytes(raw)
    assert run.last == folder / "step=6.ckpt"
    assert "skips damaged checkpoints: step=7.ckpt" in caplog.text
    with pytest.raises(UserError, match=r"step=7.ckpt' is damaged"):
        backbone_tensors(folder / "step=7.ckpt")
    assert train(["fit", "-c", recipe, "--ckpt_path", "last"], log, ranks=2) == [0, 0], log.read_text()[
        -3000:
    ]
    assert "skips damaged checkpoints: step=7.ckpt" in log.read_text()
    assert losses(run) == pytest.approx(expected, rel=1e-5)
    for key, tensor in backbone_tensors(run.last).items():
        assert tensor.numpy() == pytest.approx(tensors[key].numpy(), rel=1e-3, abs=1e-4), key


@pytest.mark.slow
def test_a_full_disk_stops_all_ranks_and_leaves_the_old_folder(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    full = {"class_path": "killing.FullDisk", "init_args": {"step": 3}}
    contents = tiny_run.recipe(tmp_path, "run", strategy=FOLDERS["fsdp2"], devices=2, callbacks=[full])
    log = tmp_path / "log"
    recipe = tiny_run.write_recipe(tmp_path, "recipe", contents)
    assert train(["fit", "-c", recipe], log, ranks=2) == [2, 2], log.read_text()[-3000:]
    folder = tmp_path / "run" / "checkpoints"
    for output in (log, log.with_suffix(".1")):
        (line,) = [line for line in output.read_text().splitlines() if line.startswith("error: ")]
        assert "cannot write the checkpoint" in line
        assert "No space left on device; earlier ones are untouched" in line
    assert [p.name for p in folder.iterdir()] == ["step=2.ckpt"]
    assert not is_damaged(folder / "step=2.ckpt")
