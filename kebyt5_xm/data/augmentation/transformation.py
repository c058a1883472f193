"""The interface of a transformation, and the calls of those that draw from global generators, as torchvision's do."""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from kebyt5_xm.errors import UserError

Kind = Literal["text", "image", "audio", "array", "prepared"]
"""What a transformation takes: a column's text, a decoded medium, or the tensor that the encoder is given."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Transformation(ABC):
    """One random change of a text, a medium or a prepared tensor. Subclasses set `kind`.

    Only a `Speed` changes the size of a medium. Public attributes are the settings, which a resumed run compares.
    """

    kind: Kind

    def __init__(self, probability: float = 1.0) -> None:
        if not 0 < probability <= 1:
            raise UserError(
                f"{type(self).__name__} has the probability {probability}, expected more than 0 and at most 1"
            )
        self.probability = probability

    @abstractmethod
    def apply(self, item: Any, generator: np.random.Generator) -> Any:
        """Return a changed copy of `item`, drawn from `generator` alone.

        `item` is a `str`, an RGB Pillow image, (mono float32 [samples], sample rate in Hz), or a prepared tensor.
        """


def check_range(owner: object, name: str, values: tuple[float, float], lowest: float, highest: float) -> None:
    """Raise `UserError` unless `values` is (least, most), from `lowest` to `highest`."""
    least, most = values
    if not lowest <= least <= most <= highest:
        raise UserError(
            f"{type(owner).__name__} has {name} {list(values)}, expected [least, most] from {lowest:g} to "
            f"{highest:g}; correct it"
        )


def apply(step: Transformation | nn.Module, item: Any, generator: np.random.Generator) -> Any:
    """Return `item` changed by a transformation or by a module of torchvision. Raises `UserError` if it fails."""
    if isinstance(step, Transformation):
        return step.apply(item, generator) if generator.random() < step.probability else item
    try:
        with seeded(int(generator.integers(1 << 63))):
            return step(item)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{type(step).__name__} failed on {_describe_item(item)}: {error}") from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU), Python and NumPy in this block; restore their states after it."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed the GPUs too
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def describe(step: Any) -> str:
    """Return the class and all settings of a transformation as text, equal in every process."""
    settings = {name: value for name, value in vars(step).items() if not name.startswith("_")}
    settings.pop("training", None)  # of every nn.Module; it has no effect here
    if isinstance(step, nn.Module):
        settings |= dict(step.named_children())
    values = ", ".join(f"{name}={_describe_value(value)}" for name, value in settings.items())
    return f"{type(step).__module__}.{type(step).__qualname__}({values})"


def _describe_value(value: Any) -> str:
    if isinstance(value, Transformation | nn.Module):
        return describe(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_describe_value, value))}]"
    return _ADDRESS.sub("", repr(value))


def _describe_item(item: Any) -> str:
    size = getattr(item, "size", None)
    return f"an image of {size[0]} x {size[1]} pixels" if isinstance(size, tuple) else type(item).__name__
