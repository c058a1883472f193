"""Preprocessing of images for timm: its evaluation transform, or a resize that keeps the aspect ratio."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from encoders.media import fit_area, refuse_thin
from kebyt5_xm.encoder import Header, ImageHeader, Preprocessor, Size
from kebyt5_xm.errors import UserError, did_you_mean

PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""Keys of timm's data config that define the preprocessing, except the size, which is `image_size`."""


@dataclass(frozen=True)
class TimmPreprocessor(Preprocessor):
    """timm's evaluation transform, or with `stride` a resize that keeps the aspect ratio.

    `image_size` is (height, width) in pixels. With `stride` every image is scaled down to at most that area
    (never up), its sides are multiples of the stride, and nothing is cropped.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    features: tuple[int] | tuple[int, int] | None  # of every image; None if it depends on the image
    stride: int | None

    def size(self, header: Header) -> Size:
        assert isinstance(header, ImageHeader)
        if self.features is not None:
            refuse_thin(header.width, header.height)
            return self.features
        assert self.stride is not None
        height, width = self._fit(header)
        return height // self.stride, width // self.stride

    def prepare(self, item: Any) -> Tensor:  # -> [3, height, width]
        if self.stride is None:
            refuse_thin(item.width, item.height)
            return _transform(self)(item)
        from timm.data.transforms import str_to_pil_interp

        height, width = self._fit(ImageHeader(item.width, item.height))
        resample = str_to_pil_interp(self.interpolation)
        return _normalize(self)(item.resize((width, height), resample))

    def _fit(self, header: ImageHeader) -> tuple[int, int]:
        """Return (height, width) in pixels of the resized image, for `stride`."""
        assert self.stride is not None
        return fit_area(header.height, header.width, self.image_size[0] * self.image_size[1], self.stride)


@lru_cache(maxsize=16)
def _transform(config: TimmPreprocessor) -> Any:
    from timm.data.transforms_factory import create_transform

    return create_transform(
        input_size=(3, *config.image_size),
        is_training=False,
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
        crop_pct=config.crop_pct,
        crop_mode=config.crop_mode,
    )


@lru_cache(maxsize=16)
def _normalize(config: TimmPreprocessor) -> Any:
    from torchvision import transforms

    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(config.mean, config.std)])


def merge_preprocessing(data_config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the `PREPROCESSING` values of timm's data config with the user's overrides."""
    unknown = [key for key in overrides if key not in PREPROCESSING]
    if unknown:
        raise UserError(
            f"found '{unknown[0]}' in preprocessing, expected one of {', '.join(PREPROCESSING)}"
            f"{did_you_mean(unknown[0], PREPROCESSING)}"
        )
    merged = {key: overrides.get(key, data_config[key]) for key in PREPROCESSING}
    return {**merged, "mean": tuple(map(float, merged["mean"])), "std": tuple(map(float, merged["std"]))}
