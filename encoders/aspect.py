"""Image sizes: one that keeps the aspect ratio within an area, and ratios that are refused."""

from math import sqrt

from kebyt5_xm.errors import UserError

MAX_ASPECT_RATIO = 200
"""Longer images are refused where a library first scales the short side up: 100,000 x 1 pixels would become
millions wide. The same limit is Qwen2-VL's own (its `smart_resize` in transformers)."""


def fit_area(height: int, width: int, area: int, multiple: int) -> tuple[int, int]:
    """Return (height, width) scaled down to at most `area` pixels, never up, in multiples of `multiple`.

    The aspect ratio is kept as far as the rounding down allows; no side falls below one multiple.
    """
    scale = min(1.0, sqrt(area / (height * width)))
    # A very long and thin image would outgrow the area where its short side is rounded up to one multiple.
    longest = max(multiple, area // multiple // multiple * multiple)
    sides = (max(multiple, int(side * scale) // multiple * multiple) for side in (height, width))
    new_height, new_width = (min(side, longest) for side in sides)
    return new_height, new_width


def refuse_thin(width: int, height: int) -> None:
    """Raise `UserError` for an image (in pixels) more than `MAX_ASPECT_RATIO` times longer than wide."""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UserError(
            f"found an image of {width} x {height} pixels, expected sides within a factor of {MAX_ASPECT_RATIO}; "
            "leave it out or cut it into pieces"
        )
