"""A run that goes on from an older checkpoint: what came after that one is set aside, so that one life is left.

What a run directory then holds is the history of its newest checkpoint and nothing else, so the highest step is the
newest in time. With checkpoints, what is set aside is a run directory of its own, which commands read as any other:

    RUN/abandoned/N/     checkpoints/, the recipe, metrics.csv up to its end, samples/, predictions/, results.json ...
    RUN/abandoned/logs/  rows and tables of steps that were trained, but of which no checkpoint is left
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
OF_ROWS = ("metrics.csv", "skipped.jsonl", "incidents.jsonl")
OF_STEPS = ("samples/step=*.md", "predictions/step=*.jsonl")
OF_AN_END = ("results.json", "evaluation.json")
"""Files with a key `step` or `steps`."""
OF_AN_EVALUATION = ("predictions.jsonl", "report.html")


class SetAside(pl.Callback):
    """Sets aside what the run holds of steps after the one that it goes on from, when it trains."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.global_step > 0:
            set_aside(self.run, trainer.global_step)
        trainer.strategy.barrier()


def refuse_abandoned(checkpoint: Path, run: Path) -> None:
    """Raise `UserError` if a checkpoint of an abandoned life of `run` would be continued among the present one."""
    inside = checkpoint.resolve()
    abandoned = (run / FOLDER).resolve()
    if abandoned in inside.parents:
        own = inside.parents[1]
        raise UserError(
            f"checkpoint '{checkpoint}' was set aside when run '{run}' went on from an older one; continue it in its "
            f"own folder, with --run_dir {own}"
        )


def set_aside(run: Path, step: int) -> None:
    """Move what `run` holds of steps after `step` into its folder `abandoned`.

    Checkpoints first, the newest last: a kill in between leaves a run that ends with one of its checkpoints, and what
    is still behind that is set aside when it goes on.
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
    rows = [run / name for name in OF_ROWS if _has_later_rows(run / name, step)]
    files = [path for pattern in OF_STEPS for path in run.glob(pattern) if _step(path) > step]
    ends = [run / name for name in OF_AN_END if _ended_at(run / name) > step]
    if ends:
        files += [*ends, *(run / name for name in OF_AN_EVALUATION if (run / name).exists())]
    if not (moved or rows or files):
        return
    place = _place(run, bool(moved))
    place.mkdir(parents=True, exist_ok=True)
    if moved:
        for name in ("config.yaml", *OF_ROWS):
            if (run / name).is_file():
                _copy(run / name, place / name)
        if (run / "backbone").is_dir():
            shutil.copytree(run / "backbone", place / "backbone", dirs_exist_ok=True)
        for path in moved:
            _move(path, place / "checkpoints" / path.name)
    for path in files:
        _move(path, place / path.relative_to(run))
    for path in rows:
        _cut(path, step, None if moved else place / path.name)
    if moved:
        rank_zero_info(
            f"step {step} is continued, and what came after it is set aside in {place}, a run that can be "
            "exported and continued there"
        )


def _place(run: Path, with_checkpoints: bool) -> Path:
    """Return where to move to: a new folder, or the last one where a kill came before its first checkpoint."""
    if not with_checkpoints:
        return run / FOLDER / LOGS
    numbers = [int(path.name) for path in (run / FOLDER).glob("*") if path.name.isdecimal()]
    newest = run / FOLDER / str(max(numbers, default=1))
    taken = any((newest / "checkpoints").glob("*.ckpt"))
    return run / FOLDER / str(max(numbers) + 1) if taken else newest


def _step(path: Path) -> int:
    text = path.stem.removeprefix("step=")
    return int(text) if text.isdecimal() else -1


def _ended_at(path: Path) -> int:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return int(content.get("steps") or content.get("step") or -1)
    except (OSError, ValueError, AttributeError, TypeError):
        return -1


def _row_step(path: Path) -> Callable[[str], int]:
    """Return what tells the step of a line of the file; -1 for a header, and for a line that a kill cut short."""

    def of(line: str) -> int:
        try:
            return int(line.partition(",")[0] if path.suffix == ".csv" else json.loads(line)["step"])
        except (ValueError, TypeError, KeyError):
            return -1

    return of


def _has_later_rows(path: Path, step: int) -> bool:
    if not path.is_file():
        return False
    step_of = _row_step(path)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return any(step_of(line) > step for line in file)


def _cut(path: Path, step: int, aside: Path | None) -> None:
    """Leave out of a file the rows of later steps, and append them to `aside`, if they are not elsewhere already."""
    step_of = _row_step(path)
    kept, cut = [], []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line in file:
            (cut if step_of(line) > step else kept).append(line)
    if aside is not None:
        with aside.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(cut)
            file.flush()
            os.fsync(file.fileno())
    with durable_file(path) as file:
        file.write("".join(kept).encode("utf-8", "surrogateescape"))


def _copy(path: Path, to: Path) -> None:
    with durable_file(to) as file:
        file.write(path.read_bytes())


def _move(path: Path, to: Path) -> None:
    """Rename a file or a folder, its digest first, so that it is never without."""
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = digest_path(path)
    if digest.is_file():
        _copy(digest, digest_path(to))
    path.rename(to)
    digest.unlink(missing_ok=True)
    sync(to.parent)
    sync(path.parent)
