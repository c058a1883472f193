"""The contract test of sources, for ours and for third-party ones. Needs pytest.

In a test file:

    from kebyt5_xm.data.contract import SourceContract

    class TestMine(SourceContract):
        def make(self):
            return MySource(...)

`make` is called several times and must return the same source each time. Override `interfaces` if the source feeds
modalities.
"""

import json
import pickle
from abc import ABC, abstractmethod

import numpy as np
import pytest

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.sources.source import Part, Selection, Source
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, VOCAB_SIZE

MAX_ROWS = 11
"""Rows of each part that are looked at."""

SEED = 17

MAX_PICKLED_BYTES = 1 << 22
"""A source is sent to every data worker. Settings and paths are smaller than this; loaded data are not."""


class SourceContract(ABC):
    """What every source must do. One test for each promise; the assertion says which promise is broken."""

    @abstractmethod
    def make(self) -> Source:
        """Return a new source that is not connected."""

    def interfaces(self) -> dict[str, MediaInterface]:
        """Return the interfaces of the modalities that the source feeds (see `kebyt5_xm.model.modality`)."""
        return {}

    @pytest.fixture
    def source(self) -> Source:
        return self._connected()

    # -- parts -------------------------------------------------------------------------------------

    def test_training_parts_have_rows_and_shares_that_sum_to_one(self, source: Source) -> None:
        parts = source.parts()
        assert parts, "parts() is empty; raise UserError if there is nothing to train on"
        assert all(part.num_rows > 0 for part in parts), "a part has no rows"
        assert sum(part.share for part in parts) == pytest.approx(1.0), "the shares must sum to 1"
        assert isinstance(source.weight, list) or source.weight > 0, "weight must be positive"

    def test_names_of_parts_are_unique(self, source: Source) -> None:
        for parts in (source.parts(), source.validation_parts()):
            names = [part.name for part in parts]
            assert len(set(names)) == len(names), f"two parts have one name: {names}"

    def test_a_second_source_has_the_same_parts_and_settings(self, source: Source) -> None:
        other = self._connected()
        assert [p.fingerprint for p in other.parts()] == [p.fingerprint for p in source.parts()]
        assert other.settings() == source.settings(), "settings() must follow from the arguments alone"

    def test_settings_are_plain_values(self, source: Source) -> None:
        settings = source.settings()
        assert json.loads(json.dumps(settings)) == settings, "settings() must survive JSON"

    # -- examples ----------------------------------------------------------------------------------

    def test_examples_are_byte_ids_that_end(self, source: Source) -> None:
        for _, example in self._all(source):
            for ids in (example.input_ids, example.target_ids):
                assert ids.dtype == np.int16, f"ids are {ids.dtype}, expected int16"
                assert ids[-1] == EOS_ID, "ids must end with the end of sequence"
                assert 0 <= ids.min() <= ids.max() < VOCAB_SIZE, "an id is not in the vocabulary"
            assert PAD_ID not in example.target_ids, "a target holds padding"

    def test_slots_do_not_overlap_and_belong_to_the_modalities_named(self, source: Source) -> None:
        for _, example in self._all(source):
            in_slots = np.zeros(len(example.input_ids), dtype=bool)
            for medium in example.media:
                assert medium.modality in source.modalities, f"modalities lacks '{medium.modality}'"
                slots = slice(medium.start, medium.start + medium.count)
                assert not in_slots[slots].any(), "two media share a slot"
                in_slots[slots] = True
            assert np.array_equal(in_slots, example.input_ids == PAD_ID), (
                "padding stands at slots, and only there"
            )

    def test_lengths_are_those_of_the_examples(self, source: Source) -> None:
        for selection in self._selections(source):
            lengths = source.lengths(selection)
            assert lengths.shape == (len(selection), 2), "lengths() must return [n, 2]"
            for found, example in zip(lengths.tolist(), source.load(selection), strict=True):
                if example.skipped is None:
                    assert found == [len(example.input_ids), len(example.target_ids)], "a length is wrong"
                else:
                    assert found == [0, 0], "an impossible example must have no length"

    def test_an_example_depends_on_its_row_alone(self, source: Source) -> None:
        for selection in self._selections(source):
            together = source.load(selection)
            backwards = source.load(_chosen(selection, np.arange(len(selection))[::-1]))[::-1]
            alone = [source.load(_chosen(selection, np.asarray([n])))[0] for n in range(len(selection))]
            for first, *others in zip(together, backwards, alone, strict=True):
                assert all(_same(first, other) for other in others), "an example depends on order or company"

    def test_a_pickled_source_gives_the_same_examples(self, source: Source) -> None:
        pickled = pickle.dumps(source)
        assert len(pickled) <= MAX_PICKLED_BYTES, "a source must hold paths and settings, not data"
        copy = pickle.loads(pickled)
        for selection in self._selections(source):
            for first, second in zip(source.load(selection), copy.load(selection), strict=True):
                assert _same(first, second), "a data worker would make another example"

    def test_a_skipped_example_says_why(self, source: Source) -> None:
        for _, example in self._all(source, with_skipped=True):
            if example.skipped is not None:
                assert example.skipped.cause, "a skipped example has no cause"
                assert example.skipped.line >= 1, "lines count from 1"
                assert not example.counted, "a skipped example must not count"

    # -- what commands ask -------------------------------------------------------------------------

    def test_every_row_has_a_place(self, source: Source) -> None:
        for held_out, number, part in self._parts(source):
            for row in (0, part.num_rows - 1):
                path, line = source.place(number, row, held_out)
                assert isinstance(path, str), "the place of a row is (file, line)"
                assert line >= 1, "lines count from 1"

    def test_first_examples_need_no_length_table(self) -> None:
        source = self.make()
        source.connect(self.interfaces())
        examples = source.first(MAX_ROWS, SEED)
        assert len(examples) == min(MAX_ROWS, source.parts()[0].num_rows)

    def test_answers_can_be_judged(self, source: Source) -> None:
        if not source.metrics:
            return
        assert source.validation_parts(), "metrics need held-out rows"
        for number, part in enumerate(source.validation_parts()):
            references = [
                self._references(source, number, row) for row in range(min(part.num_rows, MAX_ROWS))
            ]
            assert any(references), "no held-out row has references"
            for text in (text for texts in references for text in texts):
                assert source.labels is None or text in source.labels, f"the reference {text!r} is no label"

    def test_prompts_give_the_same_examples_as_load(self, source: Source) -> None:
        for held_out, number, part in self._parts(source):
            prompts = source.prompts(held_out, number)
            if prompts is None:
                continue
            assert len(prompts) >= part.num_rows, "prompts() has fewer rows than its part"
            selection = Selection.rows(number, 0, min(part.num_rows, MAX_ROWS), held_out, SEED)
            for row, example in enumerate(source.load(selection)):
                if example.skipped is None:
                    changes = None if held_out else source.changes(SEED, row)
                    assert _same(example, prompts.example(row, changes)), "prompts() makes another example"

    def test_lint_reads_every_row(self, source: Source) -> None:
        for inspection in source.inspections():
            counted: list[int] = []
            inspection.read(0, min(inspection.num_rows, MAX_ROWS), counted.append)
            assert sum(counted) == min(inspection.num_rows, MAX_ROWS), "progress must count every row"

    def test_media_can_be_named(self, source: Source) -> None:
        for modality in source.modalities:
            for medium, _ in zip(source.media(modality), range(MAX_ROWS), strict=False):
                assert isinstance(medium.identity, bytes), "the identity of a medium is bytes"

    def test_raw_bytes_are_held_out_rows(self, source: Source) -> None:
        for number, part in enumerate(source.validation_parts()):
            row = np.arange(min(part.num_rows, MAX_ROWS))
            raw = source.raw_bytes(np.full_like(row, number), row)
            assert raw.dtype == np.uint8, "raw bytes are uint8"
            assert raw.ndim == 2, "raw bytes are [row, bytes]"
            assert len(raw) in (0, len(row)), "raw bytes have a row for each row asked for, or are empty"
            assert source.is_text or not raw.size, "only a source of text has raw bytes"

    def test_it_is_part_of_a_mixture(self, source: Source) -> None:
        mixture = Mixture.training({"mine": source}, SEED, self.interfaces())
        assert [part.num_rows for part in mixture.parts] == [part.num_rows for part in source.parts()]

    # -- private -----------------------------------------------------------------------------------

    def _connected(self) -> Source:
        source = self.make()
        source.connect(self.interfaces())
        source.prepare(1, lambda _: None)
        return source

    def _parts(self, source: Source) -> list[tuple[bool, int, Part]]:
        return [
            (held_out, number, part)
            for held_out, parts in ((False, source.parts()), (True, source.validation_parts()))
            for number, part in enumerate(parts)
        ]

    def _selections(self, source: Source) -> list[Selection]:
        return [
            Selection.rows(number, 0, min(part.num_rows, MAX_ROWS), held_out, SEED)
            for held_out, number, part in self._parts(source)
        ]

    def _all(self, source: Source, with_skipped: bool = False) -> list[tuple[Selection, Example]]:
        found = [
            (selection, example)
            for selection in self._selections(source)
            for example in source.load(selection)
            if with_skipped or example.skipped is None
        ]
        assert found, "none of the first rows gives an example"
        return found

    def _references(self, source: Source, part: int, row: int) -> tuple[str, ...]:
        try:
            return source.references(part, row)
        except BadSample:
            return ()


def _chosen(selection: Selection, places: np.ndarray) -> Selection:
    return Selection(
        selection.part[places],
        selection.row[places],
        selection.index[places],
        selection.seed,
        selection.held_out,
    )


def _same(first: Example, second: Example) -> bool:
    return (
        np.array_equal(first.input_ids, second.input_ids)
        and np.array_equal(first.target_ids, second.target_ids)
        and first.skipped == second.skipped
        and len(first.media) == len(second.media)
        and all(
            (a.modality, a.start, a.count) == (b.modality, b.start, b.count) and a.prepared.equal(b.prepared)
            for a, b in zip(first.media, second.media, strict=True)
        )
    )
