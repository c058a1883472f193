"""Damage to images: out of focus, and saved too small."""

import io
from typing import TYPE_CHECKING

import numpy as np

from kebyt5_xm.evaluation.perturbations.perturbation import Perturbation

if TYPE_CHECKING:
    from PIL.Image import Image

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
        from PIL import Image

        stream = io.BytesIO()
        item.save(stream, "JPEG", quality=int(strength), subsampling="4:2:0")
        return Image.open(stream, formats=["JPEG"]).convert("RGB")
