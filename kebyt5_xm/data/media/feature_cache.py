"""A feature cache on disk: any process can read it or add a segment."""

import contextlib
import hashlib
import json
import os
import secrets
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

DIGEST_BYTES = 16

ENTRY = np.dtype([("key", f"S{DIGEST_BYTES}"), ("offset", "<u8"), ("rows", "<u4"), ("columns", "<u4")])
"""One medium: a sequence of `rows` features (`columns` is 0), or a grid of `rows` x `columns`.

numpy drops zero bytes at the end of a key. That is safe: all keys have the same length."""


class CacheMiss(MediaError):
    """A readable medium is not in the cache. Its row is skipped and counted; training never fills a cache."""


class FeatureCache:
    """The cached features of one encoder, read-only. It can be pickled; the copy opens its own files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def description(self) -> dict[str, Any]:
        """`encoder`, `out_dim` and `dtype`. Raises `UserError` if there is no cache."""
        try:
            return json.loads((self.folder / "cache.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"found no features of this encoder and preprocessing in the cache '{self.folder.parent}'; fill it "
                "with `kebyt5-xm cache` and the same -c options, or take `cache` out of the modality"
            ) from error
        except ValueError as error:
            raise UserError(
                f"'{self.folder / 'cache.json'}' is damaged; delete the folder and fill it again"
            ) from error

    def check(self) -> None:
        """Raise `UserError` if the cache is missing or damaged."""
        _ = self.description, self._index

    @cached_property
    def _index(self) -> tuple[NDArray[Any], NDArray[np.int64], list[int]]:
        """All entries sorted by key, the segment of each, and the segments' open files."""
        entries, segments, files = [], [], []
        for path in sorted(self.folder.glob("*.index.npy")):
            features = path.with_name(path.name.replace(".index.npy", ".features"))
            try:
                found = np.load(path, allow_pickle=False)
                size = features.stat().st_size
            except (OSError, ValueError) as error:
                raise UserError(
                    f"'{path}' or its features are damaged; delete both and fill the cache again"
                ) from error
            if found.dtype != ENTRY or (len(found) and self._end_offset(found[-1]) != size):
                raise UserError(
                    f"'{features}' has {size} bytes, unlike its index; delete both and fill the cache again"
                )
            descriptor = os.open(features, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            segments.append(np.full(len(found), len(files)))
            files.append(descriptor)
            entries.append(found)
        merged = np.concatenate([np.empty(0, ENTRY), *entries])
        order = np.argsort(merged["key"], kind="stable")
        return merged[order], np.concatenate([np.empty(0, np.int64), *segments])[order], files

    def __len__(self) -> int:
        return len(self._index[0])

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    @property
    def num_bytes(self) -> int:
        """Bytes of features on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.features"))

    def get(self, key: bytes) -> Tensor | None:
        """Return the features [n, out_dim], or [rows, columns, out_dim] of a grid; None if the key is missing."""
        position = self._find(key)
        if position is None:
            return None
        entries, segments, files = self._index
        entry = entries[position]
        start = int(entry["offset"])
        raw = os.pread(files[segments[position]], self._end_offset(entry) - start, start)
        features = torch.frombuffer(bytearray(raw), dtype=self._dtype)
        shape = (entry["rows"], entry["columns"]) if entry["columns"] else (entry["rows"],)
        return features.view(*map(int, shape), self.description["out_dim"])

    def _find(self, key: bytes) -> int | None:
        keys = self._index[0]["key"]
        wanted = np.asarray(key, dtype=keys.dtype)
        position = int(np.searchsorted(keys, wanted))
        return position if position < len(keys) and keys[position] == wanted else None

    @cached_property
    def _dtype(self) -> torch.dtype:
        return getattr(torch, self.description["dtype"])

    def _end_offset(self, entry: Any) -> int:
        num_features = int(entry["rows"]) * max(1, int(entry["columns"]))
        return int(entry["offset"]) + num_features * self.description["out_dim"] * self._dtype.itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)


class Segment:
    """Adds new features to a cache. They appear all at once, when `finish` returns.

    Several processes may add segments at the same time.
    """

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "cache.json"
        if not path.exists():
            with durable_file(path) as file:
                file.write((json.dumps(description) + "\n").encode())
        self.path = folder / f"{secrets.token_hex(8)}.features"
        self._file = self.path.open("xb")
        self._entries: list[tuple[bytes, int, int, int]] = []

    def add(self, key: bytes, features: Tensor, grid: tuple[int, int] | None) -> None:
        """Append the features [n, out_dim] of one medium."""
        rows, columns = grid or (len(features), 0)
        self._entries.append((key, self._file.tell(), rows, columns))
        self._file.write(tensor_bytes(features))

    @property
    def num_bytes(self) -> int:
        """Bytes of features added."""
        return self._file.tell()

    def finish(self) -> None:
        """Sync the features to disk, then write their index. An empty segment leaves no file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if not self._entries:
            self.path.unlink()
            return
        index = self.path.with_name(self.path.name.replace(".features", ".index.npy"))
        with durable_file(index) as file:
            np.save(file, np.asarray(self._entries, dtype=ENTRY))

    def discard(self) -> None:
        """Delete the segment."""
        with contextlib.suppress(OSError):  # closing flushes the buffer, which fails on a full disk
            self._file.close()
        self.path.unlink(missing_ok=True)


def media_key(content: bytes) -> bytes:
    """Return the cache key (16 bytes) of a medium with this content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the raw bytes of a tensor of any dtype, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
