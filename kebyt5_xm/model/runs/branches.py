"""Continuing a run from an older checkpoint: moves the files of later steps to RUN/abandoned.

The run directory then holds the history of its newest checkpoint alone, so the highest step is the newest in time.
If there are checkpoints of later steps, the moved files are a run directory too, which commands read like any other:

    RUN/abandoned/N/     checkpoints/, the recipe, metrics.csv up to its end, samples/, predictions/, results.json ...
    RUN/abandoned/logs/  rows and tables of later steps that have no checkpoint
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.durable import durable_file, sync
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_io import remove_unfinished
from kebyt5_xm.model.runs.checkpoint_reading import STEP, checkpoint_step
from kebyt5_xm.model.runs.digest import digest_path

FOLDER = "abandoned"
LOGS = "logs"
ROW_FILES = ("metrics.csv", "skipped.jsonl", "incidents.jsonl", "ctc_too_short.jsonl")
"""Files with a step in each row."""
STEP_FILES = ("samples/step=*.md", "predictions/step=*.jsonl")
"""Files of one step."""
FINAL_FILES = ("results.json", "evaluation.json")
"""Files of the last step, with a key `step` or `steps`."""
EVALUATION_FILES = ("predictions.jsonl", "report.html")
"""Files of the last step without such a key."""


class SetAside(pl.Callback):
    """Calls `set_aside` when training starts, with the step that the run continues from."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step > 0:
            set_aside(self.run, trainer.global_step)
        trainer.strategy.barrier()


def refuse_abandoned(checkpoint: Path, run: Path) -> None:
    """Raise `UserError` if `checkpoint` lies in RUN/abandoned, since `run` itself cannot continue from it."""
    path = checkpoint.resolve()
    if (run / FOLDER).resolve() in path.parents:
        raise UserError(
            f"checkpoint '{checkpoint}' was set aside when run '{run}' continued from an older one; continue it in "
            f"its own folder, with --run_dir {path.parents[1]}"
        )


def set_aside(run: Path, step: int) -> None:
    """Move the files of steps after `step` from `run` to its folder `abandoned`.

    Checkpoints first, the newest last: after a kill in between, the run still ends with a checkpoint, and the rest is
    moved when it continues.
    """
    checkpoints = run / "checkpoints"
    remove_unfinished(checkpoints)
    later = sorted(
        (int(match[1]), path)
        for path in checkpoints.glob("step=*.ckpt")
        if (match := STEP.fullmatch(path.name)) and int(match[1]) > step
    )
    best = checkpoints / "best.ckpt"
    moved = [path for _, path in later]
    if best.exists() and (checkpoint_step(best) or 0) > step:
        moved.insert(0, best)
    row_files = [run / name for name in ROW_FILES if _has_later_rows(run / name, step)]
    files = [path for pattern in STEP_FILES for path in run.glob(pattern) if _step_in_name(path) > step]
    final = [run / name for name in FINAL_FILES if _step_in_json(run / name) > step]
    if final:
        files += [*final, *(run / name for name in EVALUATION_FILES if (run / name).exists())]
    if not (moved or row_files or files):
        return
    target = _target_folder(run, bool(moved))
    target.mkdir(parents=True, exist_ok=True)
    if moved:
        for name in ("config.yaml", *ROW_FILES):
            if (run / name).is_file():
                _copy(run / name, target / name)
        if (run / "backbone").is_dir():
            shutil.copytree(run / "backbone", target / "backbone", dirs_exist_ok=True)
        for path in moved:
            _move(path, target / "checkpoints" / path.name)
    for path in files:
        _move(path, target / path.relative_to(run))
    for path in row_files:
        _cut_rows(path, step, None if moved else target / path.name)
    if moved:
        rank_zero_info(
            f"continues from step {step}; later steps are set aside in {target}, a run that can be exported and "
            "continued there"
        )


def _target_folder(run: Path, has_checkpoints: bool) -> Path:
    """Return the folder to move to: a new one, or the last one if a kill came before its first checkpoint."""
    if not has_checkpoints:
        return run / FOLDER / LOGS
    numbers = [int(path.name) for path in (run / FOLDER).glob("*") if path.name.isdecimal()]
    last = run / FOLDER / str(max(numbers, default=1))
    is_used = any((last / "checkpoints").glob("*.ckpt"))
    return run / FOLDER / str(max(numbers) + 1) if is_used else last


def _step_in_name(path: Path) -> int:
    text = path.stem.removeprefix("step=")
    return int(text) if text.isdecimal() else -1


def _step_in_json(path: Path) -> int:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content.get("steps") or content.get("step") or -1)
    except (OSError, ValueError, AttributeError, TypeError):
        return -1


def _row_step(path: Path) -> Callable[[str], int]:
    """Return a function from a line of the file to its step, -1 for a header or a line that a kill cut short."""

    def step_of(line: str) -> int:
        try:
            return int(line.partition(",")[0] if path.suffix == ".csv" else json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            return -1

    return step_of


def _has_later_rows(path: Path, step: int) -> bool:
    if not path.is_file():
        return False
    step_of = _row_step(path)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return any(step_of(line) > step for line in file)


def _cut_rows(path: Path, step: int, target: Path | None) -> None:
    """Remove the rows of later steps from a file; append them to `target`, unless it is None."""
    step_of = _row_step(path)
    earlier, later = [], []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line in file:
            (later if step_of(line) > step else earlier).append(line)
    if target is not None:
        with target.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(later)
            file.flush()
            os.fsync(file.fileno())
    with durable_file(path) as file:
        file.write("".join(earlier).encode("utf-8", "surrogateescape"))


def _copy(path: Path, to: Path) -> None:
    with durable_file(to) as file:
        file.write(path.read_bytes())


def _move(path: Path, to: Path) -> None:
    """Rename a file or a folder; its digest is copied first, so that it always has one."""
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = digest_path(path)
    if digest.is_file():
        _copy(digest, digest_path(to))
    path.rename(to)
    digest.unlink(missing_ok=True)
    sync(to.parent)
    sync(path.parent)
