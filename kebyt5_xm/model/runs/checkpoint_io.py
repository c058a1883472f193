"""Writes checkpoint files that survive kills and full disks, with a digest that reveals damage.

A file is written under a temporary name in its folder, synced and renamed, so a file with a checkpoint's name is
complete. (Lightning 2.6 writes to another folder and copies, and a kill can interrupt the copy.) The digest, a second
file NAME.digest, is needed because neither the file system nor `torch.load` notices a flipped bit.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy

from kebyt5_xm.durable import ASIDE_SUFFIX, durable_file, file_digest, remove, sync
from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.runs.checkpoint_reading import Kind, kind_of
from kebyt5_xm.model.runs.digest import digest_path, digests_of


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for strategies that write one file; for the others see `checkpoint_folders`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file, complete or not at all. Raises `UserError` if that fails; an old file stays."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with durable_file(path) as file:
                torch.save(checkpoint, file)
                file.flush()
                digest = file_digest(Path(file.name))
                # The old digest too: after a kill before the rename, the old file is still there.
                _write_digests(path, [digest, *digests_of(path)])
            sync(path.parent)
            _write_digests(path, [digest])
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            raise UserError(
                f"cannot write the checkpoint '{path}': {first_line(error)}; earlier ones are untouched: "
                "make room, and continue with --ckpt_path last"
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        digest_path(Path(path)).unlink(missing_ok=True)


def check_readable(path: Path, strategy: Strategy) -> None:
    """Raise `UserError` if `strategy` cannot continue from the checkpoint at `path`."""
    if isinstance(strategy, DeepSpeedStrategy):
        readable = {Kind.DEEPSPEED}
    elif isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        readable = {Kind.FILE, Kind.SHARDED}
    else:
        readable = {Kind.FILE}
    found = kind_of(path)
    if found not in readable:
        raise UserError(
            f"checkpoint '{path}' is {found}, and {type(strategy).__name__} reads {' or '.join(sorted(readable))}; "
            "continue it with the trainer.strategy that wrote it, or start another run from its weights with "
            f"--model.backbone.weights {path}"
        )


def remove_unfinished(folder: Path) -> None:
    """Delete incomplete files and folders that kills left among checkpoints, and rename backups back."""
    for backup in folder.glob(f".*.ckpt-*{ASIDE_SUFFIX}"):
        path = backup.with_name(backup.name[1:].rpartition("-")[0])
        if not path.exists():
            backup.rename(path)
    for path in folder.glob(".*.ckpt-*"):
        remove(path)


def _write_digests(path: Path, digests: list[str]) -> None:
    with durable_file(digest_path(path)) as file:
        file.write("\n".join(digests).encode("ascii"))
