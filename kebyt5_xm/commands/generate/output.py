"""A file of answers that survives kills: whole lines alone, each input once, and the settings that it belongs to.

.NAME.settings.json beside the file NAME holds the settings, so that answers of two models are never mixed.
"""

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from torch import nn

from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.durable import durable_file, sync
from kebyt5_xm.errors import UserError

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class AnswerFile:
    """The file, open and locked in a `with` block.

    Args:
        path: the file; made if it does not exist.
        key: the name in every line of what says which input it answers.
        settings: what the answers depend on, as JSON values.

    Entering raises `UserError` if the file was not written by this class, belongs to other settings, or is being
    written by another process.
    """

    def __init__(self, path: Path, key: str, settings: dict[str, Any]) -> None:
        self._path, self._key = path, key
        self._settings = json.loads(json.dumps(settings))
        self.done: set[int | str] = set()
        """The keys of the inputs that have an answer; those with an error are tried again."""

    def __enter__(self) -> Self:
        self.check_place()
        self._settings_file = self._open_locked()
        try:
            self._check_settings()
            self._file = self._repaired()
        except BaseException:
            self._settings_file.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._settings_file.close()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append lines and wait until they are on the disk."""
        try:
            self._file.write(b"".join(map(to_json_line, rows)))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write '{self._path}' ({error.strerror}); make room and give the same command again"
            ) from error

    @property
    def _settings_path(self) -> Path:
        return settings_path(self._path)

    def check_place(self) -> None:
        """Raise `UserError` unless the file may be written, as far as can be said without the settings."""
        if self._path.is_dir() or not self._path.parent.is_dir():
            found = "a folder" if self._path.is_dir() else f"no folder {self._path.parent}"
            raise UserError(f"found {found} for --out {self._path}, expected a file in an existing folder")
        if not self._is_empty() and not self._settings_path.exists():
            raise UserError(
                f"found '{self._path}', which this command did not write, expected a new file or one of its own; "
                "choose another --out"
            )

    def _is_empty(self) -> bool:
        return not self._path.exists() or not self._path.stat().st_size

    def _open_locked(self) -> BinaryIO:
        """Open the settings, locked until they are closed; the file of answers itself may be replaced."""
        try:
            file = self._settings_path.open("a+b")
        except OSError as error:
            raise UserError(
                f"cannot write beside '{self._path}' ({error.strerror}), expected a folder to write to; choose "
                "another --out"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UserError(
                f"found another process that writes '{self._path}', expected none; wait, or choose another --out"
            ) from None
        return file

    def _check_settings(self) -> None:
        self._settings_file.seek(0)
        try:
            before = json.loads(self._settings_file.read())
        except ValueError:  # new, or cut by a kill before any answer was written
            before = {}
        if before == self._settings:
            return
        if not self._is_empty():
            names = sorted(self._settings.keys() | before.keys())
            changed = [name for name in names if before.get(name) != self._settings.get(name)]
            raise UserError(
                f"found answers in '{self._path}' of another {' and '.join(changed)}, expected the same command; "
                "choose another --out, or delete the file"
            )
        self._settings_file.truncate(0)
        self._settings_file.write(json.dumps(self._settings, indent=1).encode())
        self._settings_file.flush()
        os.fsync(self._settings_file.fileno())
        sync(self._path.parent)

    def _repaired(self) -> BinaryIO:
        """Open the file at its end, with whole lines of answers alone."""
        raw = self._path.read_bytes() if self._path.exists() else b""
        kept = []
        for line in raw.splitlines(keepends=True):
            key = self._answered(line)
            if key is not None and key not in self.done:
                self.done.add(key)
                kept.append(line)
        if (whole := b"".join(kept)) != raw:
            with durable_file(self._path) as file:
                file.write(whole)
            sync(self._path.parent)
        return self._path.open("ab")

    def _answered(self, line: bytes) -> int | str | None:
        """Return the key of a line with an answer; None for one that was cut, or has an error."""
        if not line.endswith(b"\n"):
            return None
        try:
            row = json.loads(line)
            return None if "error" in row else row[self._key]
        except (ValueError, KeyError, TypeError):
            return None


def settings_path(path: Path) -> Path:
    """Return the path of the settings of a file of answers."""
    return path.with_name(f".{path.name}.settings.json")


def model_digest(model: nn.Module) -> str:
    """Return a short hash of every tensor's name, shape and the sum of its bits; it tells checkpoints apart."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        bits = tensor.detach().flatten().view(_WORDS[tensor.element_size()])
        total = int(bits.sum(dtype=torch.int64))  # of integers, so in any order on any device
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {total}\n".encode())
    return digest.hexdigest()
