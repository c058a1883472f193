"""Resolves references in manifests, opens their files, and turns every failure into a `MediaError`."""

import errno
import http
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from kebyt5_xm.data.media.address import RemoteUrl, check_url, decode_data_url, is_data_url, open_remote
from kebyt5_xm.data.media.bad_sample import MediaError, MediaRefusal
from kebyt5_xm.data.media.byte_ranges import open_range
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.names import describe_missing, find_stored_path
from kebyt5_xm.errors import UserError


class LocalPath(str):
    """The real path of a local file. `name` is the path in the row; behind a link the suffix may differ."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, path: str, name: str) -> "LocalPath":
        local = super().__new__(cls, path)
        local.name = name
        return local

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalPath, (str(self), self.name)


@dataclass(frozen=True)
class FileSpan:
    """A file inside another file, such as a tar shard: `size` bytes from `start`. `name` is for messages."""

    path: str
    start: int
    size: int
    name: str


Readable = str | os.PathLike[str] | RemoteUrl | FileSpan | bytes | BinaryIO | Excerpt
"""A local path, a checked URL, a file inside another file, a file's bytes, an open binary file, or an excerpt of one.

An open file is read from its start and not closed.
"""


@dataclass(frozen=True)
class Limits:
    """Size limits, checked from the header before anything is decoded. The defaults are our own choice.

    `max_pixels`: pixels of an image; the default is 192 MB as RGB. Pillow itself refuses more than 178,956,970.
    `max_seconds`: length of a recording, or of the excerpt that a row takes of it; the default is 115 MB at 48 kHz.
    Raise it for encoders that take more.
    `max_values`: values of an array; the default is 256 MB as float32.
    """

    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    max_values: int = 64_000_000


def resolve(
    root: str | os.PathLike[str], reference: str, allow_remote: bool = False, allow_outside: bool = False
) -> LocalPath | RemoteUrl | bytes:
    """Return the target of a row's `reference`: a real local path, a `RemoteUrl`, or the bytes of a `data:` URL.

    A local reference is relative to `root`, the folder of the manifest. Other Unicode forms of it are tried too.
    Raises `MediaError` for a URL unless `allow_remote`. Unless `allow_outside`, it also raises for a path that leaves
    `root` (by "..", as an absolute path or through a symbolic link) and for a URL that may reach local files or a
    private network.
    """
    if is_data_url(reference):
        return decode_data_url(reference)
    if not reference or "\0" in reference:
        raise MediaError(repr(reference), "found an empty path or one with a NUL byte, expected a path")
    if "://" in reference:
        return check_url(reference, allow_remote, allow_outside)
    try:
        os.fsencode(reference)
    except UnicodeEncodeError:
        raise MediaError(reference, "found half a character (a lone surrogate), expected a path") from None
    real_root = os.path.realpath(root)
    path = os.path.realpath(find_stored_path(real_root, reference))
    if not allow_outside and not path.startswith(real_root.rstrip(os.sep) + os.sep):
        raise MediaError(
            reference, f"it leaves the manifest's folder ({real_root}); set allow_outside to permit it"
        )
    return LocalPath(path, reference)


@contextmanager
def open_readable(source: Readable) -> Iterator[BinaryIO]:
    """Open `source`, of an excerpt the whole file. Errors in the block become a `MediaError` with the file's name.

    Only a `UserError` passes unchanged (a missing library is not the file's fault).
    """
    if isinstance(source, Excerpt):
        source = source.source
    with wrap_errors(display_name(source)):
        if isinstance(source, io.IOBase) or hasattr(source, "read"):
            stream = cast(BinaryIO, source)
            stream.seek(0)
            yield stream
        elif isinstance(source, RemoteUrl):
            with open_remote(source) as stream:
                yield stream
        elif isinstance(source, FileSpan):
            # Unbuffered: `open_range` does the buffering.
            with os.fdopen(_open_regular(source.path), "rb", buffering=0) as file:
                yield open_range(cast(BinaryIO, file), source.start, source.start + source.size)
        elif isinstance(source, bytes):
            yield io.BytesIO(source)
        else:
            with os.fdopen(_open_regular(cast("str | os.PathLike[str]", source)), "rb") as file:
                yield file


def read_contents(source: Readable) -> bytes:
    """Return the bytes of `source`, of an excerpt the whole file's; raise `MediaError` if it cannot be read."""
    with open_readable(source) as stream:
        return stream.read()


@contextmanager
def wrap_errors(name: str) -> Iterator[None]:
    """Turn every exception in the block into `MediaError(name, cause)`, except a `UserError`.

    For a damaged file, decoders raise SyntaxError, MemoryError, struct.error and many others.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise MediaError(name, _describe_cause(error)) from error


def _describe_cause(error: Exception) -> str:
    """Return the cause in one line: our own message if a `MediaRefusal` is in the chain, else the library's."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MediaRefusal):
            return str(link)
        link = link.__cause__ or link.__context__
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # fsspec hides an unreachable web server behind a FileNotFoundError
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == http.HTTPStatus.NOT_FOUND:
        return "there is no such file"
    return f"{type(error).__name__}: {error}"


def _open_regular(path: str | os.PathLike[str]) -> int:
    """Return the descriptor of a regular file."""
    # Without O_NONBLOCK, opening a named pipe would wait forever for a writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise MediaRefusal(describe_missing(os.fspath(path), error)) from error
        raise MediaRefusal(f"the file cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaRefusal("found a folder, pipe or device, expected a file")
    return descriptor


def display_name(source: Readable) -> str:
    """Return the name of `source` for messages; never its bytes."""
    if isinstance(source, Excerpt):
        source = source.source
    if isinstance(source, RemoteUrl):
        return source.url
    if isinstance(source, FileSpan):
        return f"{source.path}: {source.name}"
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", "<open file>"))
