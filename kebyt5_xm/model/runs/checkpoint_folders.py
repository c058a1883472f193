"""Checkpoint folders, as DeepSpeed and sharded FSDP2 write them: whole or absent, with digests of their files.

All ranks write into a folder under another name. When all are done, the first rank hashes its files, lists the
digests in it, syncs it and lets it take its name. So a run's folder must be one that all ranks see.
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
from kebyt5_xm.model.finite import told, unsound_weights
from kebyt5_xm.model.runs.checkpoint_reading import FOLDER_STEP
from kebyt5_xm.model.runs.digest import write_folder_digests


class DurableTrainer(pl.Trainer):
    """Lightning's trainer, but that the folder of a checkpoint appears whole or not at all."""

    def save_checkpoint(self, filepath: Any, *args: Any, **options: Any) -> None:
        """Save as Lightning does, on all ranks.

        Raises `UserError` if a weight is not finite, or if the disk does not take a folder; what was there stays.
        """
        _refuse_not_finite(self, Path(filepath))
        if not writes_folders(self.strategy):  # but one file, which is `DurableCheckpointIO`'s
            super().save_checkpoint(filepath, *args, **options)
            return
        path = Path(filepath)
        with _unfinished(path, self.strategy) as place:
            super().save_checkpoint(place, *args, **options)
            failure = None
            if self.is_global_zero:
                try:
                    (place / FOLDER_STEP).write_text(str(self.global_step), encoding="ascii")
                    write_folder_digests(place)
                    replace_folder(place, path)
                except OSError as error:
                    failure = error
            failure = self.strategy.broadcast(failure)  # for which the other ranks wait
            if failure is not None:
                raise failure


def _refuse_not_finite(trainer: pl.Trainer, path: Path) -> None:
    bad = unsound_weights(trainer.lightning_module)
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, bad)
        bad = list(dict.fromkeys(name for names in gathered for name in names))
    if bad:
        raise UserError(
            f"step {trainer.global_step}: {told(bad)} are not finite, so that no checkpoint '{path}' is written; "
            "earlier ones are untouched: continue with --ckpt_path last and a lower rate, or start again with one"
        )


def writes_folders(strategy: Strategy) -> bool:
    """Say whether a checkpoint of this strategy is a folder to which every rank adds files."""
    if isinstance(strategy, ModelParallelStrategy):
        return strategy._save_distributed_checkpoint
    if isinstance(strategy, FSDPStrategy):
        return strategy._state_dict_type == "sharded"
    return isinstance(strategy, DeepSpeedStrategy)


@contextmanager
def _unfinished(path: Path, strategy: Strategy) -> Iterator[Path]:
    """Yield the folder that all ranks write to instead of `path`, and remove it where the block raises."""
    place = path.with_name(strategy.broadcast(temporary_path(path).name))
    try:
        yield place
    except (OSError, RuntimeError, CheckpointException) as error:  # torch's zip writer raises a RuntimeError
        if strategy.is_global_zero:
            remove(place)
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        raise UserError(
            f"cannot write the checkpoint '{path}': {first_line(cause)}; earlier ones are "
            "untouched: make room, and continue with --ckpt_path last"
        ) from error
