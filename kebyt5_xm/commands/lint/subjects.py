"""What is read: the tables and stores that paths or recipes name, each as a function of a range of its rows."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.opening import Media, open_media
from kebyt5_xm.data.media.reference import Limits, Readable
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.data.text.documents import fault_of
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError

KINDS: tuple[Media, ...] = get_args(Media)


class Problem(NamedTuple):
    """`line` counts from 1; in a store it is the number of the document. `path` is what is at fault."""

    line: int
    path: str
    cause: str


@dataclass
class Found:
    """What a range of rows holds: its problems, and the lengths of what is sound, by what they measure."""

    problems: list[Problem]
    lengths: dict[str, list[int]]


@dataclass(frozen=True)
class Subject:
    """A table or a store. `read(start, stop, progress)` can be sent to another process."""

    name: str
    path: str
    num_rows: int
    read: Callable[[int, int, Progress], Found]


def of_paths(paths: Sequence[str], prompt: str, target: str) -> Iterator[Subject]:
    """Yield the manifests and stores at `paths`. Raises `UserError`."""
    for path in paths:
        if Path(path).is_dir():
            yield _of_store("", Store(path))
            continue
        source = Manifest(path, prompt, target, max_source_length=1 << 40, max_target_length=1 << 40)
        unknown = [name for name in source.prompt.modalities if name not in KINDS]
        if unknown:
            raise UserError(
                f"found the modality '{unknown[0]}' in --prompt, expected one of {', '.join(KINDS)}; a recipe's own "
                "modalities are known with -c"
            )
        source.connect({name: _Decoded(name) for name in KINDS})  # pyright: ignore[reportArgumentType]
        yield from _of_manifest("", source)


def of_recipes(paths: Sequence[str], trusted_modules: Sequence[str] = ()) -> Iterator[Subject]:
    """Yield the tables and stores of the sources in the merged recipes at `paths`, held-out ones too."""
    if not paths:
        return
    from kebyt5_xm.training.from_recipes import build_data

    # What the encoders would make of the files, not what a cache may hold of them already.
    for name, source in build_data(list(paths), trusted_modules).sources.items():
        if isinstance(source, Manifest):
            yield from _of_manifest(name, source)
        elif isinstance(source, Denoising):
            stores = {store.path: store for store in (*source.stores, *source.held_out)}
            for store in stores.values():
                yield _of_store(name, store)
        else:
            raise UserError(f"data.sources.{name} is a {type(source).__name__}, which cannot be linted")


def _of_manifest(name: str, source: Manifest) -> Iterator[Subject]:
    tables = {rows.path: rows for rows in (source.rows, source.held_out) if rows is not None}
    for rows in tables.values():
        yield Subject(name, rows.name, len(rows), partial(_read_rows, source, rows))


def _read_rows(source: Manifest, rows: Rows, start: int, stop: int, progress: Progress) -> Found:
    found = Found([], {})
    for number in range(start, stop):
        try:
            example = source.example(rows, number)
        except BadSample as error:
            skip = source.skipped(rows, number, error).skipped
            assert skip is not None
            found.problems.append(Problem(skip.line, skip.path, skip.cause))
        else:
            lengths: Counter[str] = Counter()
            if source.prompt.text:
                lengths["input positions"] = len(example.input_ids)
            if source.target.text:
                lengths["target ids"] = len(example.target_ids)
            for medium in example.media:
                lengths[f"{medium.modality} slots"] += medium.count
            for what, length in lengths.items():
                if length:
                    found.lengths.setdefault(what, []).append(length)
        progress(1)
    return found


def _of_store(name: str, store: Store) -> Subject:
    return Subject(name, str(store.path), store.num_documents, partial(_read_documents, store))


def _read_documents(store: Store, start: int, stop: int, progress: Progress) -> Found:
    found = Found([], {"document bytes": []})
    for number in range(start, stop):
        document = store.document(number)
        problem = fault_of(document)
        if problem is not None:
            cause = f"{problem.cause}: {problem.detail}"
            found.problems.append(Problem(number + 1, str(store.path), cause))
        else:
            found.lengths["document bytes"].append(len(document))
        progress(1)
    return found


@dataclass(frozen=True)
class _Decoded:
    """Stands for a modality where there is no model: a medium is decoded, and fills no slot."""

    media: Media

    def load(self, readable: Readable, limits: Limits | None = None) -> tuple[None, int]:
        open_media(readable, self.media, limits)
        return None, 0
