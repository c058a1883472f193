"""Writes checkpoint folders of DeepSpeed and sharded FSDP2: complete or not at all, with digests of their files.

All ranks write into a folder with a temporary name. When all are done, the first rank hashes its files, writes their
digests into it, syncs it and renames it. So all ranks must see the same run directory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.checkpoint.api import CheckpointException

from kebyt5_xm.durable import remove, replace_folder, temporary_path
from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.finite import describe_names, non_finite_weights
from kebyt5_xm.model.runs.checkpoint_reading import FOLDER_STEP
from kebyt5_xm.model.runs.digest import write_folder_digests


class DurableTrainer(pl.Trainer):
    """Lightning's trainer, except that a checkpoint's folder appears complete or not at all."""

    def save_checkpoint(self, filepath: Any, *args: Any, **options: Any) -> None:
        """Save as Lightning does, on all ranks.

        Raises `UserError` if a weight is not finite, or if a folder cannot be written; an old folder stays.
        """
        _refuse_non_finite(self, Path(filepath))
        if not writes_folders(self.strategy):  # but one file: see `DurableCheckpointIO`
            super().save_checkpoint(filepath, *args, **options)
            return
        path = Path(filepath)
        with _temporary_folder(path, self.strategy) as folder:
            super().save_checkpoint(folder, *args, **options)
            failure = None
            if self.is_global_zero:
                try:
                    (folder / FOLDER_STEP).write_text(str(self.global_step), encoding="ascii")
                    write_folder_digests(folder)
                    replace_folder(folder, path)
                except OSError as error:
                    failure = error
            failure = self.strategy.broadcast(failure)  # the other ranks wait here
            if failure is not None:
                raise failure


def _refuse_non_finite(trainer: pl.Trainer, path: Path) -> None:
    bad = non_finite_weights(trainer.lightning_module)
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, bad)
        bad = list(dict.fromkeys(name for names in gathered for name in names))
    if bad:
        raise UserError(
            f"step {trainer.global_step}: {describe_names(bad)} are not finite, so '{path}' is not written; "
            "earlier ones are untouched: lower the learning rate, and continue with --ckpt_path last or start again"
        )


def writes_folders(strategy: Strategy) -> bool:
    """Return whether a checkpoint of this strategy is a folder that every rank writes files into."""
    if isinstance(strategy, ModelParallelStrategy):
        return strategy._save_distributed_checkpoint
    if isinstance(strategy, FSDPStrategy):
        return strategy._state_dict_type == "sharded"
    return isinstance(strategy, DeepSpeedStrategy)


@contextmanager
def _temporary_folder(path: Path, strategy: Strategy) -> Iterator[Path]:
    """Yield the folder that all ranks write to instead of `path`; remove it if the block raises."""
    folder = path.with_name(strategy.broadcast(temporary_path(path).name))
    try:
        yield folder
    except (OSError, RuntimeError, CheckpointException) as error:  # torch's zip writer raises a RuntimeError
        if strategy.is_global_zero:
            remove(folder)
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        raise UserError(
            f"cannot write the checkpoint '{path}': {first_line(cause)}; earlier ones are "
            "untouched: make room, and continue with --ckpt_path last"
        ) from error
