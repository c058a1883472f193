"""The data side of a modality: preparing media and counting slots."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.adapters.slot_grid import SlotGrid
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.feature_cache import CacheMiss, FeatureCache, media_key
from kebyt5_xm.data.media.opening import open_audio, open_media
from kebyt5_xm.data.media.reference import Limits, Readable, display_name, read_contents
from kebyt5_xm.encoder import Header, Media, Preprocessor, header_of


@dataclass
class MediaInterface:
    """The data side of a modality: it prepares media and counts their slots.

    It has no weights and can be sent to data workers: its adapter is a copy on the meta device.
    """

    media: Media
    preprocessor: Preprocessor
    adapter: Adapter
    cache: FeatureCache | None = None

    def load(self, readable: Readable, limits: Limits | None = None) -> tuple[torch.Tensor, int]:
        """Return the prepared file, or its cached features [n, F] or [rows, columns, F], and its number of slots.

        Raises `MediaError` if the file cannot be used, and its subclass `CacheMiss` if the cache lacks its features.
        """
        if self.cache is None:
            return self.prepare(open_media(readable, self.media, limits))
        features = self.cache.get(cache_key(readable, limits))
        if features is None:
            self.prepare(open_media(readable, self.media, limits))  # so that a bad file raises its own error
            raise CacheMiss(
                display_name(readable),
                f"found no features of it in the cache '{self.cache.folder.parent}': the file is new or has changed; "
                "run `kebyt5-xm cache` with the same -c options",
            )
        return features, self.adapter.num_slots(tuple(features.shape[:-1]))

    def collate(self, items: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one batch of items from the same group, and their lengths [B]."""
        if self.cache is None:
            return self.preprocessor.collate(items)
        return nn.utils.rnn.pad_sequence(list(items), batch_first=True), torch.tensor([len(i) for i in items])

    def group(self, items: Sequence[torch.Tensor]) -> list[list[int]]:
        """Return the indices of the items that may share an encoder call."""
        if self.cache is None:
            return self.preprocessor.group(items)
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(items):  # sequences are padded; grids must have equal size
            groups.setdefault(tuple(item.shape) if item.ndim == 3 else (), []).append(index)
        return list(groups.values())

    def num_slots(self, header: Header) -> int:
        """Return the exact number of slots of a medium with this header; raise `UserError` for an impossible one."""
        return self.adapter.num_slots(self.preprocessor.size(header))

    def slot_grid(self, header: Header) -> SlotGrid | None:
        """Return which part of a medium with this header each slot stands for; None if slots have no such parts.

        The features of the encoder are taken to cover the medium evenly, in time or in rows and columns.
        """
        return self.adapter.slot_grid(self.preprocessor.size(header))

    def fingerprint(self) -> str:
        """Return a hash of every setting that affects the prepared tensor or the number of slots."""
        plain = (bool, int, float, str, tuple, list, type(None))
        settings = {**vars(self.adapter), "training": True}  # the mode has no effect
        values = sorted((k, repr(v)) for k, v in settings.items() if isinstance(v, plain))
        text = f"{self.preprocessor.fingerprint()}{type(self.adapter).__qualname__}{values}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def prepare(self, item: Any) -> tuple[torch.Tensor, int]:
        """Return the prepared tensor of a decoded medium and its number of slots.

        Raises `UserError` if the encoder cannot process the medium.
        """
        slots = self.num_slots(header_of(item))
        return self.preprocessor.prepare(item), slots


def cache_key(readable: Readable, limits: Limits | None = None) -> bytes:
    """Return the key of a medium in a feature cache: a hash of its file, of an excerpt a hash of its samples.

    So a long file is not read whole for each of its excerpts. Raises `MediaError` if it cannot be read.
    """
    if isinstance(readable, Excerpt):
        waveform, sample_rate = open_audio(readable, limits)
        return media_key(f"{sample_rate} Hz ".encode() + waveform.astype("<f4").tobytes())
    return media_key(read_contents(readable))
