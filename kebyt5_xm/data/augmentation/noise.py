"""Noises from files, mixed into recordings."""

from pathlib import Path

import numpy as np
import torch

from kebyt5_xm.data.augmentation.recordings import MAX_DECIBELS, Recording, resample, torchaudio_functional
from kebyt5_xm.data.augmentation.transformation import Transformation, check_range
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.media.recordings.audio import read_audio_header
from kebyt5_xm.data.media.reference import Readable, resolve
from kebyt5_xm.data.tables.json_lines import JsonLines
from kebyt5_xm.errors import UserError, did_you_mean


class Noise(Transformation):
    """A noise from a manifest of recordings: a random stretch of one, repeated if it is shorter than the recording.

    Args:
        manifest: JSON lines with a path in each row; paths are relative to the manifest's folder.
        column: the column of the paths.
        snr_db: least and most power of the recording relative to the noise, in dB. The default covers a quiet street
            and a loud one.
        probability: share of the recordings that are changed.
    """

    kind = "audio"

    def __init__(
        self,
        manifest: str,
        column: str = "audio",
        snr_db: tuple[float, float] = (5.0, 20.0),
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        check_range(self, "snr_db", snr_db, -MAX_DECIBELS, MAX_DECIBELS)
        path = Path(manifest).expanduser()
        if not path.is_file():
            raise UserError(f"found no manifest of noises at {path}, expected JSON lines; correct `manifest`")
        self._rows = JsonLines(path)
        if not len(self._rows):
            raise UserError(f"found no rows in {path}, expected a noise in each")
        if column not in self._rows.columns:
            raise UserError(
                f"found the column '{column}' for Noise, expected one of {path}: "
                f"{', '.join(self._rows.columns)}{did_you_mean(column, self._rows.columns)}"
            )
        self.column, self.snr_db = column, snr_db
        self.fingerprint = self._rows.fingerprint  # a setting, unlike the place of the manifest
        try:
            read_audio_header(self._readable(0))
        except BadSample as error:
            raise UserError(f"the first noise of {path}: {error}; correct the row") from error

    def apply(self, item: Recording, generator: np.random.Generator) -> Recording:
        waveform, sample_rate = item
        row, start, snr_db = (
            generator.integers(len(self._rows)),
            generator.random(),
            generator.uniform(*self.snr_db),
        )
        noise = self._stretch(int(row), float(start), len(waveform) / sample_rate)
        noise = resample(*noise, sample_rate)
        if len(noise) < len(waveform):
            noise = np.roll(noise, int(start * len(noise)))
        noise = np.resize(noise, len(waveform))
        if not noise.any() or not waveform.any():
            return item  # silence has no power to compare with
        mixed = torchaudio_functional("Noise").add_noise(
            torch.from_numpy(np.array(waveform)),
            torch.from_numpy(noise),
            torch.tensor(snr_db, dtype=torch.float32),
        )
        return mixed.numpy(), sample_rate

    def _stretch(self, row: int, start: float, seconds: float) -> Recording:
        """Return `seconds` of a noise, from a share `start` of what is left of it; all of a shorter one."""
        readable = self._readable(row)
        header = read_audio_header(readable)
        seconds = max(seconds, 2 / header.sample_rate)  # a sample at least, wherever the stretch begins
        spare = header.num_samples / header.sample_rate - seconds
        return open_audio(readable if spare <= 0 else Excerpt(readable, round(start * spare, 3), seconds))

    def _readable(self, row: int) -> Readable:
        value = self._rows.row(row).get(self.column)
        if not isinstance(value, str):
            raise self._rows.error(
                row, f"column '{self.column}' is {value!r}, expected the path of a recording"
            )
        return resolve(self._rows.root, value)
