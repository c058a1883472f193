"""Damage to images (blur, JPEG) and to recordings (noise, a limited band)."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.perturbations import Perturbation

if TYPE_CHECKING:
    from PIL.Image import Image

Recording = tuple[NDArray[np.float32], int]

REFERENCE_SIZE = 224
"""Pixels of the shorter side that radii refer to: the usual input size of image encoders."""

MAX_JPEG_SIDE = 65_500
"""Largest side, in pixels, that libjpeg writes (its JPEG_MAX_DIMENSION)."""


class Blur(Perturbation):
    """A Gaussian blur. Its radius, the standard deviation, scales with the image, so that all sizes lose alike.

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
    """Saved as JPEG and opened again, with colours at half the resolution as usual.

    Strengths: 75, the usual quality of files, then three of the five of ImageNet-C, including its ends. An image with
    a side of more than 65,500 pixels cannot be a JPEG and is not changed.
    """

    name, kind, unit = "jpeg", "image", "quality"
    strengths = (75, 25, 15, 7)

    def apply(self, item: "Image", strength: float, generator: np.random.Generator) -> "Image":
        if max(item.size) > MAX_JPEG_SIDE:
            return item
        from torchvision.transforms.v2 import functional

        image: Any = item  # torchvision accepts Pillow images too, but its type hints name tensors only
        damaged: Any = functional.jpeg(image, int(strength))
        return damaged.convert("RGB")


class Noise(Perturbation):
    """White Gaussian noise, relative to the mean power of the recording. Silence stays silent.

    White noise needs no files and covers every band equally. Strengths: the range of Aurora-2 (Hirsch and Pearce
    2000), from barely audible to as loud as the speech.
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
    """Removes everything above a frequency (sets its Fourier coefficients to zero); length and rate stay.

    Strengths: the upper ends of wideband (7,000 Hz, ITU-T G.722) and ordinary telephony (3,400 Hz, ITU-T G.712); then
    most second formants of vowels are lost, and then little but the first is left. A recording at 8 kHz has nothing
    above 4,000 Hz to lose.
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
