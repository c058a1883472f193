"""The manifest source: rows of a table as examples, by a prompt and a target."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kebyt5_xm.data.augmentation import Transformation
from kebyt5_xm.data.augmentation.augmentation import Augmentation, Changes
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.names import expand_home
from kebyt5_xm.data.media.reference import Limits
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.sources.checks import check_texts
from kebyt5_xm.data.sources.excerpt_columns import ExcerptColumns
from kebyt5_xm.data.sources.lengths import LengthTable, open_table, refresh_table
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.sources.source import Part, Selection, Source
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.data.sources.weights import Weight
from kebyt5_xm.data.sources.words import Words
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import Metric, check_metrics

ROWS_CHECKED = 1000
"""Rows whose labels are checked before training; `kebyt5-xm lint` checks all rows."""

T = TypeVar("T")


class Manifest(Source):
    """Examples from a manifest: JSON, also compressed, parquet, Arrow, ORC, WebDataset tar shards or a saved dataset.

    Args:
        path: the manifest: JSON lines, parquet, a WebDataset tar shard, or several as `train-{000..127}.tar` or
            `train-*.tar`; media in it are paths relative to its folder, or files in the shard.
        format: how other files are laid out: a class of `kebyt5_xm.data.layouts`.
        prompt: the input, with `{column}` for text, `{column:modality}` for the slots of an image or a recording,
            and `{column:.1f}` for a number with one decimal; `{{` is a brace. Nothing else is special.
        target: the text to generate, with `{column}` as in the prompt.
        offset: the column of the second at which the row begins in its recording. Without it, or where it is null,
            rows begin with their recordings.
        duration: the column of the row's seconds of its recording. Without it, or where it is null, rows end with
            their recordings. Some layouts set both.
        labels: the closed list of targets; or a mapping from the published label to the word to generate. Answers
            are then always one of them.
        references: a column of the right answer, or of a list of right answers; the target by default.
        metrics: judge the generated answers to the held-out rows.
        weight: share of this source's examples in the mixture, relative to the other sources; or [step, weight]
            pairs, with straight lines in between.
        epochs: the source ends after this many passes over its rows, and the other sources fill its share; null
            repeats it without end.
        validation: a held-out manifest with the same columns.
        validation_format: the layout of the held-out manifest; `format` by default.
        max_validation_examples: the most held-out rows used.
        count_left_out: true to count held-out rows that give no example (too long, or a missing file) as wrong
            answers, as published figures do; false to compute metrics without them.
        max_source_length: longest input in bytes, slots not counted; longer examples are skipped with a warning.
        max_target_length: longest target in bytes; longer examples are skipped with a warning.
        augment: modality of the prompt, or column that it uses as text -> random changes of training examples, in
            order: classes of `kebyt5_xm.data.augmentation` or, for images, of `torchvision.transforms.v2`.
        limits: the largest media that are opened.
        allow_remote: media may be URLs of the public internet, also in archives and caches (see docs/data.md).
        allow_outside: media may lie outside the manifest's folder; with allow_remote, any URL that fsspec opens.
    """

    def __init__(
        self,
        path: str,
        prompt: str,
        target: str,
        format: Layout | None = None,
        offset: str | None = None,
        duration: str | None = None,
        labels: list[str] | dict[str, str] | None = None,
        references: str | None = None,
        metrics: list[Metric] | None = None,
        weight: Weight = 1.0,
        epochs: int | None = None,
        validation: str | None = None,
        validation_format: Layout | None = None,
        max_validation_examples: int = 1000,
        count_left_out: bool = False,
        max_source_length: int = 1024,
        max_target_length: int = 1024,
        augment: dict[str, list[Transformation | nn.Module]] | None = None,
        limits: Limits | None = None,
        allow_remote: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.weight = weight
        self.epochs = epochs
        self.metrics = metrics or []
        self.count_left_out = count_left_out
        self.max_validation_examples = max_validation_examples
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        words = Words.of(labels)
        self.labels = words.labels if words else None
        self.training = PromptTable(
            open_rows(expand_home(path), format),
            Template(prompt),
            Template(target),
            words,
            None,
            max_source_length,
            max_target_length,
            limits or Limits(),
            ExcerptColumns.of(offset, duration, format),
            allow_remote,
            allow_outside,
        )
        if self.training.target.modalities:
            raise UserError(f"the target {target!r} has a slot; only a prompt can, so take the colon out")
        prompt_columns = self.training.prompt.text_columns
        self.augmentation = Augmentation(augment, self.modalities, prompt_columns) if augment else None
        self.held_out = (
            replace(
                self.training,
                rows=open_rows(expand_home(validation), validation_format or format),
                excerpts=ExcerptColumns.of(offset, duration, validation_format or format),
                references_column=references,
            )
            if validation
            else None
        )
        for prompts in self._tables():
            prompts.prompt.check(prompts.rows.columns, prompts.prompt.modalities)
            prompts.target.check(prompts.rows.columns, ())
            if prompts.excerpts is not None:
                prompts.excerpts.check(prompts.rows.columns, prompts.prompt)
        self._check_answers()

    def _check_answers(self) -> None:
        """Raise `UserError` if labels, references or metrics do not fit the rows."""
        if self.metrics and self.held_out is None:
            raise UserError("found metrics but no held-out rows to judge; give a manifest as `validation`")
        if self.held_out is not None and self.held_out.references_column is not None:
            column = Template(f"{{{self.held_out.references_column}}}")
            column.check(self.held_out.rows.columns, ())
        if self.training.words is not None:
            published = replace(self.training, words=None)
            self.training.words.check(_first(published.target_text, min(len(published), ROWS_CHECKED)))
        if self.metrics and self.held_out is not None:
            num_rows = min(len(self.held_out), self.max_validation_examples)
            try:
                check_metrics(self.metrics, _first(self.held_out.references, num_rows), self.labels)
            except UserError as error:
                raise UserError(f"{self.held_out.rows.path}: {error}") from error

    def prompts(self, held_out: bool, part: int = 0) -> PromptTable | None:
        return self.held_out if held_out else self.training

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        prompt, target, rows = self.training.prompt, self.training.target, self.training.rows
        prompt.check(rows.columns, interfaces)
        for template in (prompt, target):
            check_texts(template, rows, interfaces, self.modalities)
        if self.augmentation is not None:
            self.augmentation.check(interfaces)
        for prompts in self._tables():
            if prompts.excerpts is not None:
                prompts.excerpts.check_recordings(prompt, lambda name: interfaces[name].media == "audio")
            prompts.interfaces = {name: interfaces[name] for name in self.modalities}
        self._opened.clear()  # the interfaces decide lengths

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.training.prompt.modalities

    def parts(self) -> list[Part]:
        return [Part("", len(self.training), 1.0, self.training.rows.fingerprint, self.epochs)]

    def validation_parts(self) -> list[Part]:
        if self.held_out is None:
            return []
        num_rows = min(len(self.held_out), self.max_validation_examples)
        return [Part("", num_rows, 1.0, self.held_out.rows.fingerprint)]

    def changes(self, seed: int, index: int) -> Changes | None:
        return None if self.augmentation is None else self.augmentation.changes(seed, index)

    def load(self, selection: Selection) -> list[Example]:
        promised = self.lengths(selection).tolist()
        return [self._example(selection, place, tuple(lengths)) for place, lengths in enumerate(promised)]

    def _example(self, selection: Selection, place: int, promised: tuple[int, ...]) -> Example:
        prompts, row = self._prompts(selection.held_out), int(selection.row[place])
        changes = None if selection.held_out else self.changes(selection.seed, int(selection.index[place]))
        try:
            example = prompts.example(row, changes)
            found = len(example.input_ids), len(example.target_ids)
            if found != promised:
                table = self._table(selection.held_out, 1.0 if changes is None else changes.speed)
                raise prompts.rows.error(row, table.describe_change(found, promised))
        except BadSample as error:
            return prompts.skipped(row, error)
        return example

    def _prompts(self, held_out: bool) -> PromptTable:
        prompts = self.prompts(held_out)
        assert prompts is not None
        return prompts

    # -- lengths -----------------------------------------------------------------------------------

    def impossible(self, longest: int | None = None) -> tuple[int, int]:
        tables = [self._table(False, speed) for speed in self._speeds]
        return max(table.num_impossible(longest) for table in tables), len(self.training)

    def prepare(self, workers: int, progress: Progress) -> None:
        for held_out, speed in self._at():
            prompts = self._measured(held_out, speed)
            self._opened[held_out, speed] = refresh_table(prompts, self._settings(prompts), workers, progress)

    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        augmentation = None if selection.held_out else self.augmentation
        if augmentation is None:
            return self._table(selection.held_out).lengths[selection.row].astype(np.int64)
        speeds = augmentation.draw_speeds(selection.seed, selection.index)
        lengths = np.empty((len(selection), 2), dtype=np.int64)
        for number, speed in enumerate(augmentation.speeds):
            lengths[speeds == number] = self._table(False, speed).lengths[selection.row[speeds == number]]
        if augmentation.changes_text:
            for place in np.flatnonzero(lengths.any(axis=1)):
                changes = augmentation.changes(selection.seed, int(selection.index[place]))
                with suppress(BadSample):  # a row that changed since; `load` says so
                    lengths[place, 0] += self.training.growth(int(selection.row[place]), changes)
        return lengths

    @cached_property
    def _opened(self) -> dict[tuple[bool, float], LengthTable]:
        return {}

    @property
    def _speeds(self) -> tuple[float, ...]:
        """The speeds at which recordings to train on are played."""
        return (1.0,) if self.augmentation is None else self.augmentation.speeds

    def _at(self) -> list[tuple[bool, float]]:
        """Return (held out, speed) of every length table."""
        return [(False, speed) for speed in self._speeds] + ([(True, 1.0)] if self.held_out else [])

    def _measured(self, held_out: bool, speed: float) -> PromptTable:
        prompts = self._prompts(held_out)
        if held_out or self.augmentation is None:
            return prompts
        return replace(prompts, interfaces=self.augmentation.interfaces_at(speed, prompts.interfaces))

    def _settings(self, prompts: PromptTable) -> dict[str, object]:
        """Return every setting that decides the lengths of a table."""
        return {
            **self._settings_without_lengths(prompts),
            "limits": repr(prompts.limits),
            "allow": [prompts.allow_remote, prompts.allow_outside],
            **(prompts.excerpts.named() if prompts.excerpts else {}),
        }

    def _table(self, held_out: bool, speed: float = 1.0) -> LengthTable:
        if (held_out, speed) not in self._opened:
            prompts = self._measured(held_out, speed)
            self._opened[held_out, speed] = open_table(prompts, self._settings(prompts))
        return self._opened[held_out, speed]

    def settings(self) -> dict[str, object]:
        augment = {"augment": self.augmentation.settings()} if self.augmentation else {}
        lengths = self._table(False, self._speeds[0]).digest
        return {**self._settings_without_lengths(self.training), **augment, "lengths": lengths}

    def _settings_without_lengths(self, prompts: PromptTable) -> dict[str, object]:
        return {
            "prompt": prompts.prompt.text,
            "target": prompts.target.text,
            **({"labels": prompts.words.given} if prompts.words else {}),
            **(prompts.excerpts.named() if prompts.excerpts else {}),
            "max_source_length": prompts.max_source_length,
            "max_target_length": prompts.max_target_length,
            **{
                f"{name}.preprocessing": interface.fingerprint()
                for name, interface in prompts.interfaces.items()
            },
        }


def _first(make: Callable[[int], T], num_rows: int) -> list[T]:
    """Return `make(row)` for the first rows, without those for which it raises `BadSample`."""
    made = []
    for row in range(num_rows):
        with suppress(BadSample):
            made.append(make(row))
    return made
