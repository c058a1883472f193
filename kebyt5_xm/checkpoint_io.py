"""Checkpoint files that survive kills and full disks, and tell when they are damaged.

A file is written under another name in its own folder, synced and renamed, so what has a checkpoint's name is whole.
(Lightning 2.6 writes elsewhere and copies, which a kill can cut short.) Its digest lies beside it, because neither
the file system nor `torch.load` notices a flipped bit.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from kebyt5_xm.digest import digest_path, digests_of, file_digest
from kebyt5_xm.errors import UserError


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin for strategies that write one file (all but DeepSpeed)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file, all or nothing. Raises `UserError` if the disk does not take it; what was there stays."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_temporary(path)}{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            digest = file_digest(temporary)
            # The old digest too: a kill before the rename leaves the old file in its place.
            _write_small(digest_path(path), "\n".join([digest, *digests_of(path)]))
            os.replace(temporary, path)
            _sync_folder(path.parent)
            _write_small(digest_path(path), digest)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            raise UserError(
                f"cannot write the checkpoint '{path}': {str(error).splitlines()[0]}; earlier ones are untouched: "
                "make room, and continue with --ckpt_path last"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # renamed, or never made
                temporary.unlink()

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        digest_path(Path(path)).unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what kills have left half-written in a folder of checkpoints."""
    for path in folder.glob(f"{_temporary(Path('*.ckpt'))}*"):
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> str:
    return f".{path.name}-"


def _write_small(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
