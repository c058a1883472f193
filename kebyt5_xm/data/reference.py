"""From a reference in a manifest to an open file: what may be opened, and what becomes of every failure."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from kebyt5_xm.data.bad_sample import MediaError
from kebyt5_xm.errors import UserError


@dataclass(frozen=True)
class Remote:
    """A URL that may be opened through fsspec. A plain string never is: `resolve` makes one of these."""

    url: str


Readable = str | os.PathLike[str] | Remote | bytes | BinaryIO
"""A local path, an allowed URL, a file's bytes, or an open binary file (read from its start, not closed)."""


@dataclass(frozen=True)
class Limits:
    """What is refused from the header alone, before anything is decoded. The defaults are our own choice.

    `max_pixels`: of an image; the default is 192 MB as RGB. Above 178,956,970 Pillow's own guard refuses.
    `max_seconds`: of a recording; the default is 115 MB at 48 kHz. Raise it for an encoder that takes more.
    `max_values`: of an array; the default is 256 MB as float32.
    """

    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    max_values: int = 64_000_000


class Refused(ValueError):
    """A file breaks a rule of ours; `reading` puts the name to it."""


def resolve(
    root: str | os.PathLike[str], reference: str, allow_remote: bool = False, allow_outside: bool = False
) -> str | Remote:
    """Return what a row's `reference` stands for: a real local path, or a `Remote`.

    A local reference is relative to `root`, the folder of the manifest. Raises `MediaError` for a URL unless
    `allow_remote`, and for a path that leaves `root`, be it by "..", as an absolute path or through a
    symbolic link, unless `allow_outside`.
    """
    if not reference or "\0" in reference:
        raise MediaError(repr(reference), "found an empty path or one with a NUL byte, expected a path")
    if "://" in reference:
        if not allow_remote:
            raise MediaError(reference, "found a URL, expected a local path; set allow_remote to permit it")
        return Remote(reference)
    real_root = os.path.realpath(root)
    path = os.path.realpath(os.path.join(real_root, reference))
    if not allow_outside and not path.startswith(real_root.rstrip(os.sep) + os.sep):
        raise MediaError(
            reference, f"it leaves the manifest's folder ({real_root}); set allow_outside to permit it"
        )
    return path


@contextmanager
def reading(source: Readable) -> Iterator[BinaryIO]:
    """Open `source`; whatever goes wrong inside the block leaves it as a `MediaError` with the file's name.

    Only a `UserError` passes unchanged (a missing library is not the file's fault).
    """
    with failures_of(_name(source)):
        if isinstance(source, io.IOBase) or hasattr(source, "read"):
            stream = cast(BinaryIO, source)
            stream.seek(0)
            yield stream
        else:
            with _opened(cast("str | os.PathLike[str] | Remote | bytes", source)) as stream:
                yield stream


def contents(source: Readable) -> bytes:
    """Return the bytes of `source`; raise `MediaError` if they cannot be had."""
    with reading(source) as stream:
        return stream.read()


@contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Turn every exception of the block into `MediaError(name, cause)`, except a `UserError`.

    Decoders given a damaged file raise SyntaxError, MemoryError, struct.error and many others.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MediaError(name, "there is no such file") from error
    except Refused as error:
        raise MediaError(name, str(error)) from error
    except Exception as error:
        raise MediaError(name, _one_line(f"{type(error).__name__}: {error}")) from error


def _opened(source: str | os.PathLike[str] | Remote | bytes) -> BinaryIO:
    if isinstance(source, Remote):
        import fsspec

        filesystem, path = fsspec.url_to_fs(source.url)
        return cast(BinaryIO, filesystem.open(path, "rb"))
    if isinstance(source, bytes):
        return io.BytesIO(source)
    # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("found a folder, pipe or device, expected a file")
    return os.fdopen(descriptor, "rb")


def _name(source: Readable) -> str:
    if isinstance(source, Remote):
        return source.url
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<open file>"))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."
