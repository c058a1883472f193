"""Damage to images and recordings: out of focus, and saved too small; noise, and a narrow line."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.evaluation.perturbations.perturbation import Perturbation

if TYPE_CHECKING:
    from PIL.Image import Image

Recording = tuple[NDArray[np.float32], int]

REFERENCE_SIZE = 224
"""Pixels of the shorter side at which a radius is meant: the usual input of image encoders."""

LARGEST_JPEG = 65_500
"""Pixels of a side that libjpeg writes at most (its JPEG_MAX_DIMENSION)."""


class Blur(Perturbation):
    """A Gaussian blur. Its radius, the standard deviation, grows with the image, so that all sizes lose alike.

    Strengths: four of the five of the Gaussian blur of ImageNet-C (Hendrycks and Dietterich 2019).
    """

    name, kind, unit = "blur", "image", "radius in pixels where the shorter side is 224"
    strengths = (1.0, 2.0, 4.0, 6.0)

    def apply(self, item: "Image", strength: float, generator: np.random.Generator) -> "Image":
        if strength == 0:
            return item
        from PIL import ImageFilter

        return item.filter(ImageFilter.GaussianBlur(strength * min(item.size) / REFERENCE_SIZE))


class Jpeg(Perturbation):
    """Saved as JPEG and opened again, colours at half the resolution as usual.

    Strengths: 75, at which most files are saved, then three of the five of ImageNet-C, its ends among them. An image
    with a side of more than 65,500 pixels cannot be a JPEG and stays as it is.
    """

    name, kind, unit = "jpeg", "image", "quality"
    strengths = (75, 25, 15, 7)

    def apply(self, item: "Image", strength: float, generator: np.random.Generator) -> "Image":
        if max(item.size) > LARGEST_JPEG:
            return item
        from torchvision.transforms.v2 import functional

        image: Any = item  # torchvision takes Pillow's images too, but its types name tensors alone
        damaged: Any = functional.jpeg(image, int(strength))
        return damaged.convert("RGB")


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
