"""Damage to recordings: noise, and a narrow line."""

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.evaluation.perturbations.perturbation import Perturbation

Recording = tuple[NDArray[np.float32], int]


class Noise(Perturbation):
    """White Gaussian noise at a ratio to the recording's own mean power. Silence stays silence.

    White, since it needs no files and covers every band alike. Strengths: of the range of Aurora-2 (Hirsch and
    Pearce 2000), from barely heard to as loud as the speech.
    """

    name, kind, unit = "noise", "audio", "signal-to-noise ratio in dB"
    strengths = (20, 10, 5, 0)

    def apply(self, item: Recording, strength: float, generator: np.random.Generator) -> Recording:
        waveform, sample_rate = item
        noise = generator.standard_normal(len(waveform), dtype=np.float32)
        power = float(np.mean(np.square(waveform, dtype=np.float64)))
        noise *= np.sqrt(power / 10 ** (strength / 10))
        return waveform + noise, sample_rate


class BandLimit(Perturbation):
    """All above a frequency taken out (its Fourier coefficients set to zero); length and rate stay.

    Strengths: the upper ends of wideband (7,000 Hz, ITU-T G.722) and ordinary telephony (3,400 Hz, ITU-T G.712), then
    where most second formants of vowels are lost, and where little but the first is left. A recording at 8 kHz has
    nothing above 4,000 Hz to lose.
    """

    name, kind, unit = "band_limit", "audio", "highest frequency in Hz"
    strengths = (7000, 3400, 2000, 1000)

    def apply(self, item: Recording, strength: float, generator: np.random.Generator) -> Recording:
        waveform, sample_rate = item
        if strength >= sample_rate / 2:
            return item
        spectrum = np.fft.rfft(waveform)
        spectrum[np.fft.rfftfreq(len(waveform), 1 / sample_rate) > strength] = 0
        return np.fft.irfft(spectrum, len(waveform)).astype(np.float32), sample_rate
