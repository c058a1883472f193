"""The folder of an unfinished store: checks and steps to begin, continue, replace or discard it."""

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import O_RDONLY, close
from os import open as open_descriptor
from pathlib import Path
from typing import Any

from kebyt5_xm.data.text.corpus import File
from kebyt5_xm.data.text.store import INDEX_NAME, UNFINISHED_NAME
from kebyt5_xm.data.text.store_writer import write_json
from kebyt5_xm.durable import final_name
from kebyt5_xm.errors import UserError

REPORT_FILE = re.compile(r"\d{5,}\.json")
PARTIAL_FILE = re.compile(r"(\d{5,}|store|unfinished|errors)\..*")
"""Files of which a killed process may leave a partial one: see `is_partial_file`."""
STORE_FILE = re.compile(r"\d{5,}\.(bytes|offsets|errors\.jsonl)|store\.json|errors\.jsonl")


def is_partial_file(name: str) -> bool:
    """Return whether a killed process left this partial file of a store; earlier versions wrote NAME.part."""
    whole = final_name(name) or (name.removesuffix(".part") if name.endswith(".part") else "")
    return PARTIAL_FILE.fullmatch(whole) is not None


def check_output(out: Path, overwrite: bool) -> None:
    """Raise `UserError` if a store may not be begun in `out`: it holds other files, or a finished store."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder or nothing: name another --out")
    if (out / INDEX_NAME).exists():
        if not overwrite:
            raise UserError(
                f"{out} holds a finished store: name another --out, or replace it with --overwrite"
            )
    elif not (out / UNFINISHED_NAME).exists() and any(
        not is_partial_file(path.name) for path in out.iterdir()
    ):
        raise UserError(f"{out} is neither empty nor a store: name another --out")


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Lock the folder; raise `UserError` if another process holds the lock. A killed process releases it."""
    descriptor = open_descriptor(out, O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process is preparing {out}: wait for it, or name another --out"
                ) from error
        yield
    finally:
        close(descriptor)


def begin_store(out: Path, options: dict[str, object], files: Sequence[File], overwrite: bool) -> None:
    """Prepare `out` for shards; keep the finished shards of an interrupted run with the same options and files.

    Raises:
        UserError: an interrupted run had other options or files, and `overwrite` is not set.
    """
    expected = {"options": options, "files": [[file.url, file.size, file.version] for file in files]}
    path = out / UNFINISHED_NAME
    if path.exists() and not (out / INDEX_NAME).exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found == expected:
            _remove(out, is_partial_file)
            return
        if not overwrite:
            raise UserError(
                f"{out} is unfinished and was begun with other settings: {_describe_difference(found, expected)}; "
                "repeat the earlier command, name another --out, or start over with --overwrite"
            )
    # In this order, a kill between two lines leaves the old store or an unfinished one with the new options.
    _remove(out, REPORT_FILE.fullmatch)
    write_json(path, expected)
    (out / INDEX_NAME).unlink(missing_ok=True)
    _remove(out, STORE_FILE.fullmatch)
    _remove(out, is_partial_file)


def discard_store(out: Path) -> None:
    """Remove an unfinished store, and its folder if nothing else is in it."""
    for is_match in (REPORT_FILE.fullmatch, STORE_FILE.fullmatch, is_partial_file):
        _remove(out, is_match)
    (out / UNFINISHED_NAME).unlink()
    with suppress(OSError):
        out.rmdir()


def join_store(out: Path, options: dict[str, object]) -> None:
    """Begin a store, or join other processes that write it with the same options, possibly on other machines.

    Raises:
        UserError: the store is finished, or was begun with other options.
    """
    check_output(out, overwrite=False)
    path = out / UNFINISHED_NAME
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"options": options, "files": []})
    found = read_options(out)
    if found != options:
        raise UserError(
            f"{out} is unfinished and was begun with {found}, expected {options}: name another folder or remove it"
        )


def read_options(out: Path) -> dict[str, Any]:
    """Return the options with which an unfinished store was begun."""
    return json.loads((out / UNFINISHED_NAME).read_text(encoding="utf-8"))["options"]


def remove_leftovers(out: Path) -> None:
    """Remove temporary files of a finished store."""
    _remove(out, is_partial_file)
    (out / UNFINISHED_NAME).unlink(missing_ok=True)


def _remove(out: Path, is_match: Callable[[str], object]) -> None:
    for path in out.iterdir():
        if is_match(path.name):
            path.unlink(missing_ok=True)


def _describe_difference(found: dict, expected: dict) -> str:
    """Return the first difference in words."""
    for name, value in expected["options"].items():
        if found["options"].get(name) != value:
            return f"{name} was {found['options'].get(name)!r}, is now {value!r}"
    before = {url: rest for url, *rest in found["files"]}
    now = {url: rest for url, *rest in expected["files"]}
    for url in before | now:
        if url not in now:
            return f"the input {url} is gone"
        if url not in before:
            return f"the input {url} is new"
        if before[url] != now[url]:
            return f"the input {url} has changed since"
    return "the inputs were in another order"
