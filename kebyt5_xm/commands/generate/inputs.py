"""The inputs of `kebyt5-xm generate --file`: rows of a table, or files, each with its prompt."""

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.prompt import fill_prompt, parse_prompt, unescape
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.reference import RemoteUrl, read_contents, resolve
from kebyt5_xm.data.sources.excerpt_columns import ExcerptColumns, IsRecording, check_whole
from kebyt5_xm.data.sources.manifest import COLUMNAR, open_rows
from kebyt5_xm.data.sources.template import MediaSegment, Reference, Template
from kebyt5_xm.data.tables.joined_rows import expand_pattern
from kebyt5_xm.data.text.corpus import COMPRESSIONS, FORMATS
from kebyt5_xm.errors import UserError

ToModality = Callable[[str], str]
TEXTS = (".csv", ".tsv", ".txt", ".xlsx")


class BatchInputs(ABC):
    """Inputs with a key each, which stands in the output and says which ones are done."""

    key: str
    """Name of the key in a line of output."""
    keys: Sequence[int | str]
    """The key of every input, in order."""
    settings: dict[str, Any]
    """What the answers depend on, besides the model and the search."""

    @abstractmethod
    def check(self, to_modality: ToModality, is_recording: IsRecording) -> None:
        """Raise `UserError` if the prompt does not fit the model; called before `segments`."""

    @abstractmethod
    def segments(self, number: int, to_modality: ToModality) -> list[Any]:
        """Return the segments of an input; raise `UserError` if it has none."""


class TableInputs(BatchInputs):
    """The rows of a table; the prompt names their columns, as in a recipe, and so do `excerpts`.

    `escaped` says that the prompt is of a command line, with \\n for a new line.
    """

    key = "row"

    def __init__(
        self,
        path: str,
        prompt: str,
        allow_outside: bool,
        excerpts: ExcerptColumns | None = None,
        escaped: bool = True,
    ) -> None:
        self._rows = open_rows(path)
        self._prompt = Template(unescape(prompt) if escaped else prompt)
        self._prompt.check(self._rows.columns, self._prompt.modalities)
        self._allow_outside = allow_outside
        self._excerpts = excerpts
        if excerpts is not None:
            excerpts.check(self._rows.columns, self._prompt)
        self.keys = range(len(self._rows))
        times = excerpts.named() if excerpts else {}
        self.settings = {"table": self._rows.fingerprint, "prompt": prompt, **times}

    def check(self, to_modality: ToModality, is_recording: IsRecording) -> None:
        for name in self._prompt.modalities:
            to_modality(name)
        if self._excerpts is not None:
            self._excerpts.check_recordings(self._prompt, is_recording)
        self._is_recording = is_recording

    def segments(self, number: int, to_modality: ToModality) -> list[Any]:
        found: list[Any] = []
        row = self._rows.row(number)
        segments = self._prompt.render(row)
        check_whole(self._prompt, row, self._excerpts)
        if self._excerpts is not None:
            segments = self._excerpts.cut(self._prompt, segments, row, self._is_recording)
        for segment in segments:
            if isinstance(segment, MediaSegment):
                found.append((to_modality(segment.modality), self._item(segment.reference)))
            else:
                found.append(segment)
        return found

    def _item(self, reference: Reference) -> Any:
        if isinstance(reference, Excerpt):
            source = self._item(reference.source)  # pyright: ignore[reportArgumentType]
            return replace(reference, source=source)
        if isinstance(reference, str):
            found = resolve(self._rows.root, reference, allow_outside=self._allow_outside)
            assert not isinstance(found, RemoteUrl)
            return found
        return reference if isinstance(reference, bytes) else read_contents(reference)


class FileInputs(BatchInputs):
    """One input for each file; the prompt may say with a placeholder where it stands."""

    key = "file"

    def __init__(self, paths: Sequence[str], prompt: str) -> None:
        self._pieces = parse_prompt(prompt)
        places = [piece for piece in self._pieces if not isinstance(piece, str)]
        if len(places) > 1:
            raise UserError(
                f"the prompt has {len(places)} placeholders, expected at most one: each file gets an answer of its "
                "own; for several media in one prompt, give a table of them"
            )
        self._name = places[0][0] if places else None
        self.keys = list(dict.fromkeys(paths))
        self.settings = {"prompt": prompt}

    def check(self, to_modality: ToModality, is_recording: IsRecording) -> None:
        if self._name is not None:
            to_modality(self._name)

    def segments(self, number: int, to_modality: ToModality) -> list[Any]:
        path = str(self.keys[number])
        if self._name is None:
            return [Path(path), *self._pieces]
        return fill_prompt(self._pieces, [(self._name, path)], to_modality)


def open_inputs(
    files: Sequence[str], prompt: str, allow_outside: bool, excerpts: ExcerptColumns | None = None
) -> BatchInputs:
    """Return the inputs of --file; `excerpts` are the columns of --offset and --duration.

    Raises `UserError` if there are none, or if the prompt does not fit them.
    """
    if len(files) == 1 and (_is_table(files[0]) or files[0].startswith("hf:")):
        if not prompt:
            raise UserError(
                "found a table without --prompt, expected a prompt that names its columns: '{question}'"
            )
        return TableInputs(files[0], prompt, allow_outside, excerpts)
    if allow_outside:
        raise UserError(
            "found --allow-outside without a table, expected --file ROWS.jsonl: files are read anywhere"
        )
    if excerpts is not None:
        raise UserError(
            "found --offset or --duration without a table, expected --file ROWS.jsonl: they name its columns"
        )
    paths = [path for given in files for path in expand_files(given)]
    for path in paths:
        if _is_table(path) and len(paths) > 1:
            raise UserError(
                f"found the table '{path}' among several files, expected one table or a pattern of them"
            )
        if os.path.splitext(path)[1].lower() in TEXTS:
            raise UserError(
                f"found '{path}', expected images, recordings or arrays, or a table in JSON lines or parquet; write "
                """texts as lines such as {"text": "..."} and give --prompt '{text}'"""
            )
    return FileInputs(paths, prompt)


def _is_table(path: str) -> bool:
    name = Path(path)
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return FORMATS.get(name.suffix.lower()) == "jsonl" or name.suffix.lower() in (*COLUMNAR, ".tar")


def expand_files(given: str) -> list[str]:
    """Return the files of a path or pattern, in order."""
    if os.path.isfile(given):
        return [given]
    if os.path.isdir(given):
        raise UserError(f"found a folder '{given}', expected files; for all in it, write '{given}/*'")
    found = [str(path) for path in (expand_pattern(Path(given)) or [])] if "{" in given else []
    found = found or sorted(path for path in glob.glob(given, recursive=True) if os.path.isfile(path))
    if not found:
        raise UserError(f"found no file '{given}', expected a file or a pattern of some; correct the path")
    return found
