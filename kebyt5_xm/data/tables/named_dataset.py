"""Hugging Face datasets by name: `hf:NAME?config=C&split=S&revision=R`.

Each part but NAME is needed only where there is a choice. NAME is OWNER/NAME on the Hub, or a local folder of files
as they are published (parquet, JSON lines, images in folders), written from `./`, `../` or `/` on. The library makes
Arrow files of them in its own cache, once; no code of a dataset is run.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kebyt5_xm.data.tables.dataset_rows import DatasetRows, library, of_library, rows_of
from kebyt5_xm.data.tables.derived import cache_folder
from kebyt5_xm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from datasets import DatasetBuilder

SCHEME = "hf:"
PARTS = ("config", "split", "revision")
_SPLIT = re.compile(r"\w+(\.\w+)*")
"""A split by its name alone; any other, such as `train[:10%]` or `train+test`, is a choice among rows."""


class Name(NamedTuple):
    """A dataset by name: the parts of `hf:NAME?config=C&split=S&revision=R`."""

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        return self.name.startswith(("./", "../", "/"))


def open_named(text: str) -> DatasetRows:
    """Open `hf:NAME?config=C&split=S&revision=R`, fetching what is not in the library's cache.

    Raises `UserError` for a mistake in the text, an unknown name, configuration or split (those there are are
    listed), and without a network.
    """
    name = parsed(text)
    if not name.is_local and Path(name.name).exists():
        raise UserError(f"found a folder '{name.name}' here; write {SCHEME}./{name.name} if it is meant")
    if name.is_local and not Path(name.name).is_dir():
        raise UserError(
            f"found no folder {name.name}, expected one with the files of a dataset; correct {text}"
        )
    builder = _builder(name)
    if not builder.info.splits and builder.config.data_files:
        _check_split(name, list(builder.config.data_files))  # before anything is fetched
    of_library(name.name, builder.download_and_prepare)
    splits = list(builder.info.splits or ())
    _check_split(name, splits)
    split = name.split or splits[0]
    dataset = of_library(name.name, lambda: builder.as_dataset(split=split, in_memory=False))
    assert not isinstance(dataset, dict)  # which is what all splits together would be
    slug = re.sub(r"\W+", "-", name.name).strip("-")
    place = os.path.abspath(name.name) if name.is_local else name.name
    key = hashlib.blake2b(repr((place, *name[1:])).encode(), digest_size=8).hexdigest()
    path = cache_folder() / "datasets" / f"{slug}-{key}"
    return rows_of(path, text, dataset, "" if _SPLIT.fullmatch(split) else split)


def parsed(text: str) -> Name:
    """Return the parts of `hf:NAME?config=C&split=S&revision=R`; raise `UserError` for a mistake in it."""
    name, _, query = text.removeprefix(SCHEME).partition("?")
    wanted = f"expected {SCHEME}NAME?config=C&split=S&revision=R, the parts behind ? only as needed"
    if not name or "://" in text or name.startswith("//"):
        raise UserError(f"found '{text}', {wanted}, NAME being OWNER/NAME or a folder from ./ or / on")
    parts: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        if key not in PARTS or not value or key in parts:
            raise UserError(f"found '{part}' in '{text}', {wanted}{did_you_mean(key, PARTS)}")
        parts[key] = value
    found = Name(name, **parts)
    if found.is_local and found.revision:
        raise UserError(f"found a revision in '{text}', but a folder has none; take it out")
    return found


def _builder(name: Name) -> "DatasetBuilder":
    datasets = library()

    def make() -> "DatasetBuilder":
        return datasets.load_dataset_builder(name.name, name.config, revision=name.revision)

    try:
        return make()
    except ValueError:  # no such configuration, or none was named where there are several
        known = of_library(
            name.name, lambda: datasets.get_dataset_config_names(name.name, revision=name.revision)
        )
        if name.config in known:
            return of_library(name.name, make)
        found = f"the configuration '{name.config}'" if name.config else "no configuration"
        raise UserError(
            f"found {found} for the dataset '{name.name}', expected one of: {', '.join(known)}"
            f"{did_you_mean(name.config or '', known)}; write ?config=NAME"
        ) from None
    except Exception:
        return of_library(name.name, make)


def _check_split(name: Name, splits: Sequence[str]) -> None:
    used = re.findall(r"(?:^|\+)\s*(\w+(?:\.\w+)*)", name.split or "")
    wrong = next((split for split in used if split not in splits), None)
    if wrong or (len(splits) > 1 and not used):
        found = f"the split '{wrong}'" if wrong else "no split"
        raise UserError(
            f"found {found} for the dataset '{name.name}', expected one of: {', '.join(splits)}"
            f"{did_you_mean(wrong or '', splits)}; write ?split=NAME"
        )
