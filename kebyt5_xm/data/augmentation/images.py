"""Changes of images that keep their size, so that the slots promised by their headers stay right.

Most changes of images are classes of `torchvision.transforms.v2`, which recipes name directly.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from kebyt5_xm.data.augmentation.transformation import Transformation, check_range, seeded
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


MIN_SCALE, MAX_RATIO = 1e-6, 1000.0
"""Less of an image, or a part that is longer, is less than a pixel of any ordinary image."""


class Crop(Transformation):
    """A random part of the image, scaled up to the size of the whole: torchvision's RandomResizedCrop.

    Args:
        scale: least and most share of the image's area that is kept.
        ratio: least and most width of the part relative to its height, before it is scaled.
        probability: share of the images that are changed.

    The defaults of `scale` and `ratio` keep most of an image. Those of torchvision, [0.08, 1] and [0.75, 1.33], are
    those of training on ImageNet, where one word names an image; a caption names more of it.
    """

    kind = "image"

    def __init__(
        self,
        scale: tuple[float, float] = (0.6, 1.0),
        ratio: tuple[float, float] = (0.8, 1.25),
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        check_range(self, "scale", scale, MIN_SCALE, 1)
        check_range(self, "ratio", ratio, 1 / MAX_RATIO, MAX_RATIO)
        self.scale, self.ratio = scale, ratio

    def apply(self, item: "Image", generator: np.random.Generator) -> "Image":
        try:
            from torchvision.transforms.v2 import RandomResizedCrop
        except ImportError as error:
            raise UserError(
                f"Crop needs torchvision, which cannot be imported ({error}); run: pip install 'kebyt5-xm[image]'"
            ) from error
        crop = RandomResizedCrop((item.height, item.width), self.scale, self.ratio)
        with seeded(int(generator.integers(1 << 63))):
            return crop(item)


def as_unchanged_size(changed: Any, item: "Image") -> "Image":
    """Return a changed image as RGB; raise `UserError` unless it is a Pillow image of the size of `item`."""
    if not hasattr(changed, "convert"):
        raise UserError(
            f"the transformations turn an image into {type(changed).__name__}, expected a Pillow image; take those "
            "out that make tensors (the encoder does that), or put torchvision.transforms.v2.ToPILImage at the end"
        )
    if changed.size != item.size:
        raise UserError(
            f"the transformations turn an image of {item.width} x {item.height} pixels into one of "
            f"{changed.width} x {changed.height}, expected the same size, which decides the slots; use "
            "kebyt5_xm.data.augmentation.Crop for a random crop, and leave resizing to the encoder"
        )
    return changed.convert("RGB")
