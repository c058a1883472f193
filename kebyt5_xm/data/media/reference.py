"""From a reference in a manifest to an open file: what may be opened, and what becomes of every failure."""

import errno
import http
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from kebyt5_xm.data.media.address import Remote, inline, is_inline, opened, remote
from kebyt5_xm.data.media.bad_sample import MediaError, Refused
from kebyt5_xm.data.media.names import as_stored, why_absent
from kebyt5_xm.data.media.stretch import stretch
from kebyt5_xm.errors import UserError


class Local(str):
    """The real path of a local file. `name` is what the row calls it: behind a link the suffix may be another."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, path: str, name: str) -> "Local":
        made = super().__new__(cls, path)
        made.name = name
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Local, (str(self), self.name)


@dataclass(frozen=True)
class Span:
    """A file inside another one, such as a tar shard: `size` bytes from `start` on. `name` is for messages."""

    path: str
    start: int
    size: int
    name: str


Readable = str | os.PathLike[str] | Remote | Span | bytes | BinaryIO
"""A local path, an allowed URL, a file inside another, a file's bytes, or an open binary file.

The last is read from its start and not closed.
"""


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


def resolve(
    root: str | os.PathLike[str], reference: str, allow_remote: bool = False, allow_outside: bool = False
) -> Local | Remote | bytes:
    """Return what a row's `reference` stands for: a real local path, a `Remote`, or the bytes of a `data:` URL.

    A local reference is relative to `root`, the folder of the manifest, and found in another Unicode form too.
    Raises `MediaError` for a URL unless `allow_remote`, and unless `allow_outside` for a path that leaves `root`,
    be it by "..", as an absolute path or through a symbolic link, and for a URL that may reach this machine's
    files or a private network.
    """
    if is_inline(reference):
        return inline(reference)
    if not reference or "\0" in reference:
        raise MediaError(repr(reference), "found an empty path or one with a NUL byte, expected a path")
    if "://" in reference:
        return remote(reference, allow_remote, allow_outside)
    try:
        os.fsencode(reference)
    except UnicodeEncodeError:
        raise MediaError(reference, "found half a character (a lone surrogate), expected a path") from None
    real_root = os.path.realpath(root)
    path = os.path.realpath(as_stored(real_root, reference))
    if not allow_outside and not path.startswith(real_root.rstrip(os.sep) + os.sep):
        raise MediaError(
            reference, f"it leaves the manifest's folder ({real_root}); set allow_outside to permit it"
        )
    return Local(path, reference)


@contextmanager
def reading(source: Readable) -> Iterator[BinaryIO]:
    """Open `source`; whatever goes wrong inside the block leaves it as a `MediaError` with the file's name.

    Only a `UserError` passes unchanged (a missing library is not the file's fault).
    """
    with failures_of(name_of(source)):
        if isinstance(source, io.IOBase) or hasattr(source, "read"):
            stream = cast(BinaryIO, source)
            stream.seek(0)
            yield stream
        elif isinstance(source, Remote):
            with opened(source) as stream:
                yield stream
        elif isinstance(source, Span):
            # Unbuffered: what is read of it is buffered once, by `stretch`.
            with os.fdopen(_regular(source.path), "rb", buffering=0) as file:
                yield stretch(cast(BinaryIO, file), source.start, source.start + source.size)
        elif isinstance(source, bytes):
            yield io.BytesIO(source)
        else:
            with os.fdopen(_regular(cast("str | os.PathLike[str]", source)), "rb") as file:
                yield file


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
    except Exception as error:
        raise MediaError(name, _cause(error)) from error


def _cause(error: Exception) -> str:
    """Return one line: our own words, if we refused something further down, else those of the library."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, Refused):
            return str(below)
        below = below.__cause__ or below.__context__
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # a web server that cannot be reached, of which fsspec says so
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == http.HTTPStatus.NOT_FOUND:
        return "there is no such file"
    return f"{type(error).__name__}: {error}"


def _regular(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a regular file."""
    # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise Refused(why_absent(os.fspath(path), error)) from error
        raise Refused(f"it cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("found a folder, pipe or device, expected a file")
    return descriptor


def name_of(source: Readable) -> str:
    """Return what messages call `source`; never its bytes."""
    if isinstance(source, Remote):
        return source.url
    if isinstance(source, Span):
        return f"{source.path}: {source.name}"
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<open file>"))
