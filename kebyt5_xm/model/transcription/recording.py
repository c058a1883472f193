"""Recordings of any length as blocks of samples, so that a day of sound needs no more memory than a window."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.opening import Excerpt, Limits
from kebyt5_xm.data.media.recordings.audio import read_audio_header, stream_audio
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.kinds import convert_item, describe, media_kind

ANY_LENGTH = Limits(max_seconds=1e7)
"""Limits without one on the length: 115 days."""


@dataclass(frozen=True)
class Recording:
    """A recording that is being read: `blocks` are mono float32 [time], `sample_rate` is in Hz."""

    blocks: Iterator[NDArray[np.float32]]
    sample_rate: int
    num_samples: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.num_samples / self.sample_rate


def open_recording(item: Any) -> Recording:
    """Open a recording: a path, a file's bytes, an excerpt of one, or (waveform, sample rate).

    Raises `MediaError` for one that cannot be read, also later while its blocks are read, and `UserError` for
    anything else.
    """
    if isinstance(item, str | os.PathLike | bytes | Excerpt):
        header = read_audio_header(item, ANY_LENGTH)
        return Recording(stream_audio(item, ANY_LENGTH), header.sample_rate, header.num_samples)
    if media_kind(item) == "audio":
        samples, rate = convert_item(item, "audio")
        return Recording(iter([samples]), rate, len(samples))
    raise UserError(
        f"found {describe(item)}, expected a recording: a path, a file's bytes, or (waveform, sample rate)"
    )
