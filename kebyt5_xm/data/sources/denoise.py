"""The denoising source: byte stores in several languages, mixed by temperature."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.inspection import Inspection, inspect_store
from kebyt5_xm.data.sources.source import Part, Selection, Source
from kebyt5_xm.data.sources.weights import Weight
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.data.text.spans import Boundaries
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import Sentinels


class Denoising(Source):
    """Span denoising over the chunks of one byte store per language.

    Args:
        stores: language -> folder of a store made by `kebyt5-xm prepare text`.
        weight: share of this source's examples in the mixture, relative to the other sources; or [step, weight]
            pairs, with straight lines in between.
        epochs: a language ends after this many passes over its chunks, and the others fill its share; null repeats it
            without end.
        temperature: languages are drawn with p ~ bytes^(1 / temperature). The default is ByT5's and mT5's
            1 / 0.3 (mT5, section 3.2); 1 draws by size, a large value draws all languages equally.
        validation: the share of every store to hold out (its last chunks), or language -> store.
        max_validation_examples: the most held-out chunks used per language.
        inputs_length: byte ids of one input, sentinels and end of sequence included.
        noise_density, mean_noise_span_length, sentinels, boundaries: see
            `kebyt5_xm.data.text.denoising.SpanDenoising`.
    """

    is_text = True

    def __init__(
        self,
        stores: dict[str, str],
        weight: Weight = 1.0,
        epochs: int | None = None,
        temperature: float = 1 / 0.3,
        validation: float | dict[str, str] = 0.01,
        max_validation_examples: int = 1000,
        inputs_length: int = SpanDenoising.inputs_length,
        noise_density: float = SpanDenoising.noise_density,
        mean_noise_span_length: float = SpanDenoising.mean_noise_span_length,
        sentinels: Sentinels = SpanDenoising.sentinels,
        boundaries: Boundaries = SpanDenoising.boundaries,
    ) -> None:
        if not stores:
            raise UserError("Denoising has no stores; expected language: folder pairs under `stores`")
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; expected more than 0")
        if isinstance(validation, float) and not 0 <= validation < 1:
            raise UserError(f"validation is {validation}; expected a share from 0 to below 1, or stores")
        self.weight = weight
        self.epochs = epochs
        self.temperature = temperature
        self.validation = validation
        self.max_validation_examples = max_validation_examples
        self.objective = SpanDenoising(
            inputs_length=inputs_length,
            noise_density=noise_density,
            mean_noise_span_length=mean_noise_span_length,
            sentinels=sentinels,
            boundaries=boundaries,
        )
        self.languages = list(stores)
        self.stores = [Store(path) for path in stores.values()]
        self.held_out_languages = list(validation) if isinstance(validation, dict) else self.languages
        self.held_out = (
            [Store(path) for path in validation.values()] if isinstance(validation, dict) else self.stores
        )

    @classmethod
    def denoising(cls, init_args: Mapping[str, Any]) -> SpanDenoising:
        settings = asdict(SpanDenoising())
        return SpanDenoising(**{name: init_args.get(name, default) for name, default in settings.items()})

    def inspections(self) -> list[Inspection]:
        stores = {store.path: store for store in (*self.stores, *self.held_out)}
        return [inspect_store(store) for store in stores.values()]

    def place(self, part: int, row: int, held_out: bool = False) -> tuple[str, int]:
        """Return the store and the number of the chunk, from 1."""
        store = (self.held_out if held_out else self.stores)[part]
        return str(store.path), row + 1 + (self._held_out_offset(store) if held_out else 0)

    def parts(self) -> list[Part]:
        sizes = np.asarray([store.num_bytes for store in self.stores], dtype=np.float64)
        shares = sizes ** (1 / self.temperature)
        shares /= shares.sum()
        return [
            Part(language, self._first_held_out(store), float(share), store.fingerprint, self.epochs)
            for language, store, share in zip(self.languages, self.stores, shares, strict=True)
        ]

    def validation_parts(self) -> list[Part]:
        parts = []
        for language, store in zip(self.held_out_languages, self.held_out, strict=True):
            num_rows = store.num_chunks(self.objective.chunk_length) - self._held_out_offset(store)
            num_rows = min(num_rows, self.max_validation_examples)
            if num_rows > 0:
                parts.append(Part(language, num_rows, 1.0, store.fingerprint))
        return parts

    def load(self, selection: Selection) -> list[Example]:
        chunks = self.chunks(selection.part, selection.row, selection.held_out)
        inputs, targets = self.objective.corrupt(chunks, selection.seed, selection.index)
        if self.objective.boundaries == "byte":
            return [Example(i, t) for i, t in zip(inputs, targets, strict=True)]
        return [Example(_unpadded(i), _unpadded(t)) for i, t in zip(inputs, targets, strict=True)]

    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        if self.objective.boundaries == "byte":
            inputs, targets = self.objective.inputs_length, self.objective.targets_length
            return np.tile(np.asarray([inputs, targets], dtype=np.int64), (len(selection), 1))
        chunks = self.chunks(selection.part, selection.row, selection.held_out)
        targets = self.objective.target_lengths(chunks, selection.seed, selection.index)
        # Every byte is on one side; all sentinels and an end of sequence are on both.
        both = self.objective.chunk_length + 2 * (self.objective.num_spans + 1)
        return np.stack([both - targets, targets], axis=1)

    def chunks(self, part: NDArray[np.int64], row: NDArray[np.int64], held_out: bool) -> NDArray[np.uint8]:
        """Return the raw bytes [n, chunk_length] of the rows."""
        length = self.objective.chunk_length
        chunks = np.empty((len(row), length), dtype=np.uint8)
        for p in np.unique(part):
            store = (self.held_out if held_out else self.stores)[p]
            offset = self._held_out_offset(store) if held_out else 0
            chunks[part == p] = store.chunks(row[part == p] + offset, length)
        return chunks

    def raw_bytes(self, part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.chunks(part, row, held_out=True)

    def settings(self) -> dict[str, object]:
        return asdict(self.objective)

    @property
    def sentinels(self) -> Sentinels:
        return self.objective.sentinels

    def _first_held_out(self, store: Store) -> int:
        """Return the first held-out chunk of a store; those before it train."""
        num_chunks = store.num_chunks(self.objective.chunk_length)
        share = self.validation if isinstance(self.validation, float) else 0.0
        return num_chunks - int(num_chunks * share)

    def _held_out_offset(self, store: Store) -> int:
        return 0 if isinstance(self.validation, dict) else self._first_held_out(store)


def _unpadded(ids: NDArray[np.int16]) -> NDArray[np.int16]:
    return ids[: np.flatnonzero(ids)[-1] + 1]
