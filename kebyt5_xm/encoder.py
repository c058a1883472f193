"""The interface of an encoder: what a feature extractor must provide to become a modality.

Letters in shapes: N items of a batch, F features of one item (padded), W = `out_dim`.

To write one, subclass `Encoder` and `Preprocessor` (docs/encoders.md shows both in under 30 lines) and let
`kebyt5_xm.contract.EncoderContract` check it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from kebyt5_xm.errors import UserError

Media = Literal["image", "audio", "array"]
Size = tuple[int] | tuple[int, int]
"""Number of features of one item: `(n,)`, or `(rows, columns)` for a grid in row-major order."""


@dataclass(frozen=True)
class ImageHeader:
    """Size of an image in pixels, after its orientation is applied."""

    width: int
    height: int


@dataclass(frozen=True)
class AudioHeader:
    """Length of a recording in samples of one channel, and its sample rate in Hz."""

    num_samples: int
    sample_rate: int


@dataclass(frozen=True)
class ArrayHeader:
    """Shape of an array."""

    shape: tuple[int, ...]


Header = ImageHeader | AudioHeader | ArrayHeader


def header_of(item: Any) -> Header:
    """Return the header of a decoded `item`: a Pillow RGB image, (mono float32, sample_rate) or an array."""
    if isinstance(item, tuple):
        return AudioHeader(num_samples=len(item[0]), sample_rate=int(item[1]))
    if hasattr(item, "width") and hasattr(item, "height"):
        return ImageHeader(width=item.width, height=item.height)
    return ArrayHeader(shape=tuple(item.shape))


@dataclass(frozen=True)
class Encoded:
    """The features of a batch. `mask` is True for features of the item and False for padding.

    `grid` is (rows, columns) with N = rows * columns if the features form a grid, else None.
    """

    features: Tensor  # [N, F, W]
    mask: Tensor  # [N, F] bool
    grid: tuple[int, int] | None = None

    @classmethod
    def full(cls, features: Tensor, grid: tuple[int, int] | None = None) -> "Encoded":
        """Return the features of a batch without padding: the mask is True everywhere."""
        return cls(features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device), grid)


def _flatten(encoded: Encoded) -> tuple[list[Any], tuple[int, int] | None]:
    return [encoded.features, encoded.mask], encoded.grid


def _unflatten(leaves: Iterable[Any], grid: tuple[int, int] | None) -> Encoded:
    features, mask = leaves
    return Encoded(features, mask, grid)


# Sharding wrappers search a module's output for tensors; they look into pytree nodes, but not into dataclasses.
_pytree.register_pytree_node(Encoded, _flatten, _unflatten)


def length_mask(lengths: Tensor, num_features: int) -> Tensor:
    """Return the mask [B, num_features] whose row b starts with `lengths[b]` True values."""
    return torch.arange(num_features, device=lengths.device) < lengths[:, None]


class Preprocessor(ABC):
    """Decoded item -> tensor, in the data workers. Small, picklable and without weights.

    Make it a dataclass of plain values: `fingerprint` is computed from them.
    """

    pads: bool = False
    """Whether items of unequal sizes may share a batch. True promises that padding changes no feature."""

    @property
    def waveform_rate(self) -> int | None:
        """Sample rate in Hz if `prepare` returns an audible waveform [samples], else None."""
        return None

    @abstractmethod
    def size(self, header: Header) -> Size:
        """Return the exact number of features of an item with this header.

        Raises `UserError` if the item cannot be encoded, for instance a recording that is too short.
        """

    @abstractmethod
    def prepare(self, item: Any) -> Tensor:
        """Resize, resample and normalise one item by itself. The result is always the same for the same item."""

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the batch [B, ...] and the lengths [B] (int64, along the first axis of an item).

        Unequal first axes are padded with zeros if `pads`; other differences in shape raise `UserError`.
        """
        lengths = torch.tensor([len(item) for item in prepared])
        shapes = {tuple(item.shape) for item in prepared}
        if len(shapes) == 1:
            return torch.stack(list(prepared)), lengths
        if not self.pads or len({shape[1:] for shape in shapes}) > 1:
            raise UserError(
                f"found items of shapes {sorted(shapes)} in one batch of {type(self).__name__}, expected equal "
                "shapes: padding would change their features; form batches with `group`"
            )
        return nn.utils.rnn.pad_sequence(list(prepared), batch_first=True), lengths

    def group(self, prepared: Sequence[Tensor]) -> list[list[int]]:
        """Return the indices of the items that may share a batch, in order of first appearance."""
        if self.pads:
            return [list(range(len(prepared)))] if prepared else []
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(prepared):
            groups.setdefault(tuple(item.shape), []).append(index)
        return list(groups.values())

    def fingerprint(self) -> str:
        """Return a hash of the class and its values. Equal fingerprints mean equal tensors and equal sizes."""
        values = sorted((name, repr(value)) for name, value in vars(self).items())
        return hashlib.sha256(
            f"{type(self).__module__}.{type(self).__qualname__}{values}".encode()
        ).hexdigest()


class Encoder(nn.Module, ABC):
    """A feature extractor. Subclasses set `media` and `out_dim`; with `frozen: true`, `__init__` ends with
    `freeze()`.
    """

    media: Media
    out_dim: int
    frozen: bool = False
    """True after `freeze`: the encoder's own weights do not train and it stays in eval mode. LoRA keeps it True."""
    _frozen_weights: frozenset[str] = frozenset()
    """Names of the parameters that `freeze` froze; others, such as LoRA's, may have been added since."""

    @abstractmethod
    def preprocessor(self) -> Preprocessor:
        """Return the preprocessor of this encoder's input."""

    @abstractmethod
    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        """Encode what `preprocessor().collate` returned.

        Row b of the mask must have as many True values as `preprocessor().size` returned features for item b. Prefix
        tokens (class token, registers) are not features unless the user chose to keep them.
        """

    @abstractmethod
    def dummy(self) -> tuple[Tensor, Tensor]:
        """Return the shortest valid input, batch 1, on the CPU. It runs on ranks that have no input in a step."""

    def offline(self, init_args: dict[str, Any]) -> dict[str, Any]:
        """Return `init_args` changed so that they build the same encoder shape without any file or hub.

        An export stores them with the weights. Override it if the constructor loads pretrained weights.
        """
        return dict(init_args)

    def freeze(self, except_for: Collection[str] = ()) -> Self:
        """Freeze all parameters except those named in `except_for`, and stay in eval mode (no dropout).

        An autograd graph is kept only if another parameter trains: one of `except_for`, or one that LoRA adds later.
        """
        self.frozen = True
        frozen = {name: p for name, p in self.named_parameters() if name not in except_for}
        self._frozen_weights = frozenset(frozen)
        for parameter in frozen.values():
            parameter.requires_grad_(False)
        return self.eval()

    @property
    def trains(self) -> bool:
        """True if any parameter requires a gradient, except the weights that `freeze` froze."""
        return any(p.requires_grad and n not in self._frozen_weights for n, p in self.named_parameters())

    @property
    def has_fixed_features(self) -> bool:
        """True if the encoder is frozen and nothing in it trains, so its features may be cached."""
        return self.frozen and not self.trains

    @property
    def keeps_initial_weights(self) -> bool:
        """True if all parameters are frozen ones, whatever requires a gradient now: a copy need not be saved."""
        return self.frozen and all(name in self._frozen_weights for name, _ in self.named_parameters())

    def train(self, mode: bool = True) -> Self:
        """Set training mode. A frozen encoder stays in eval mode, and so does batch norm in any encoder.

        Batch norm keeps the statistics of pretraining, because the features of an item must not depend on the rest of
        the batch, and batches here are grouped by size, padded, or hold a single item or a dummy.
        """
        super().train(mode and not self.frozen)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = False
        return self

    def __call__(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        """Run `forward` in the weights' precision, without a graph if the features are fixed; check the output."""
        if self.frozen:  # a bare model.requires_grad_() may have asked for gradients again
            for name, parameter in self.named_parameters():
                if name in self._frozen_weights:
                    parameter.requires_grad_(False)
        weight = next((p for p in self.parameters() if p.is_floating_point()), None)
        if weight is not None and prepared.is_floating_point():
            prepared = prepared.to(weight.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.has_fixed_features):
            encoded = super().__call__(prepared, lengths)
        self._check(encoded, len(prepared))
        return encoded

    def _check(self, encoded: Encoded, batch: int) -> None:
        name, features, mask = type(self).__name__, encoded.features, encoded.mask
        if features.ndim != 3 or features.shape[0] != batch or features.shape[2] != self.out_dim:
            raise UserError(
                f"found features of shape {list(features.shape)} from {name}, expected "
                f"[{batch}, F, {self.out_dim}]; correct its forward or its out_dim"
            )
        if mask.shape != features.shape[:2] or mask.dtype != torch.bool:
            raise UserError(
                f"found a mask of shape {list(mask.shape)} and {mask.dtype} from {name}, expected "
                f"{list(features.shape[:2])} and torch.bool; correct its forward"
            )
        if encoded.grid is not None and encoded.grid[0] * encoded.grid[1] != features.shape[1]:
            raise UserError(
                f"found {features.shape[1]} features on a grid of {encoded.grid} from {name}, expected their "
                "product to be equal; correct its forward"
            )
