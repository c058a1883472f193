"""The contract test of encoders and adapters, for ours and third-party ones. Needs pytest.

In a test file:

    from kebyt5_xm.contract import EncoderContract

    class TestMine(EncoderContract):
        def make(self):
            return MyEncoder(...)

`make` is called several times and must build the same shape each time; small random weights are best. Override
`items` if its media do not fit the encoder.
"""

import itertools
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kebyt5_xm.adapters.contract import AdapterContract
from kebyt5_xm.encoder import Encoded, Encoder, Media, Preprocessor, header_of
from kebyt5_xm.errors import UserError

__all__ = ["AdapterContract", "EncoderContract"]

MAX_PICKLED_BYTES = 1 << 20
"""A preprocessor is sent to every data worker. Settings are smaller than this, weights are larger."""


class EncoderContract(ABC):
    """What every encoder must do: one test per promise."""

    tolerance = 1e-4
    """Allowed difference of an item's features between batches (eval mode, fp32), relative to their RMS.

    The order of summation in kernels depends on the shape; measured differences are 1e-7 to 3e-6.
    """

    @abstractmethod
    def make(self) -> Encoder:
        """Return a new encoder that is not frozen."""

    def items(self, media: Media) -> list[Any]:
        """Return at least three decoded items of different content and sizes."""
        numbers = np.random.default_rng(17)
        if media == "image":
            from PIL import Image

            sizes = ((37, 53), (101, 29), (64, 64))
            return [Image.fromarray(numbers.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        if media == "audio":
            # Rates above, below and at 16 kHz; lengths that are odd and even after every halving, so that some
            # window reaches over an end.
            clips = ((7919, 16000), (11027, 22050), (5003, 8000), (6901, 16000), (6001, 16000))
            return [(numbers.standard_normal(n).astype(np.float32) * 0.1, rate) for n, rate in clips]
        raise NotImplementedError("an encoder of arrays: override `items`")

    @pytest.fixture
    def encoder(self) -> Encoder:
        torch.manual_seed(13)
        return self.make().eval()

    def test_declares_its_media_and_width(self, encoder: Encoder) -> None:
        assert isinstance(encoder, Encoder)
        assert encoder.media in ("image", "audio", "array"), f"media is {encoder.media!r}"
        assert isinstance(encoder.out_dim, int), "out_dim must be an int"
        assert encoder.out_dim > 0, "out_dim must be positive"
        assert not encoder.frozen, "make() must return an encoder that is not frozen"

    def test_preprocessor_travels_to_workers(self, encoder: Encoder) -> None:
        preprocessor = encoder.preprocessor()
        assert isinstance(preprocessor, Preprocessor)
        assert not isinstance(preprocessor, nn.Module), "a preprocessor holds no weights"
        sent = pickle.dumps(preprocessor)
        assert len(sent) < MAX_PICKLED_BYTES, (
            f"the preprocessor takes {len(sent)} bytes: does it hold weights?"
        )
        fingerprint = preprocessor.fingerprint()
        assert pickle.loads(sent).fingerprint() == fingerprint, "the fingerprint must survive pickling"
        assert self.make().preprocessor().fingerprint() == fingerprint, (
            "the same encoder, another fingerprint"
        )

    def test_prepares_an_item_the_same_way_every_time(self, encoder: Encoder) -> None:
        preprocessor = encoder.preprocessor()
        arrived = pickle.loads(pickle.dumps(preprocessor))
        for item in self.items(encoder.media):
            first = preprocessor.prepare(item)
            torch.rand(3)  # the result must not depend on the global random state
            np.random.random(3)
            assert first.equal(preprocessor.prepare(item)), "prepare must not be random"
            assert first.equal(arrived.prepare(item)), "prepare must not change by pickling"

    def test_size_is_exact(self, encoder: Encoder) -> None:
        """`size` predicts the number of features and their grid from the header alone."""
        for item in self.items(encoder.media):
            size = encoder.preprocessor().size(header_of(item))
            assert len(size) in (1, 2), f"size is {size}, expected (n,) or (rows, columns)"
            encoded = _encode(encoder, [item])
            found = int(encoded.mask.sum())
            assert found == math.prod(size), f"size promised {size}, the mask holds {found} features"
            grid = size if len(size) == 2 else None
            assert encoded.grid == grid, f"size promised {size}, the features came with grid {encoded.grid}"
            assert encoded.features.isfinite().all(), "features must be finite"

    def test_size_of_the_smallest_items(self, encoder: Encoder) -> None:
        """`size` raises `UserError` for an item that is too small, or the item is encoded like any other."""
        for item in _smallest(encoder):
            try:
                size = encoder.preprocessor().size(header_of(item))
            except UserError:
                continue
            found = int(_encode(encoder, [item]).mask.sum())
            assert found == math.prod(size) > 0, f"size promised {size} for a tiny item, found {found}"

    def test_a_batch_equals_its_items_alone(self, encoder: Encoder) -> None:
        """Items of one size and other content: features do not depend on the rest of the batch."""
        for item in self.items(encoder.media):
            batch = [item, _shuffled(item, 1), _shuffled(item, 2)]
            together = _encode(encoder, batch)
            for row, single in enumerate(batch):
                self._same(
                    together, row, _encode(encoder, [single]), "a batch of three differs from its items"
                )
            difference = (_valid(together, 0) - _valid(together, 1)).abs().max()
            assert difference > 0, "two items of different content have the same features"

    def test_padding_changes_nothing(self, encoder: Encoder) -> None:
        """If a preprocessor pads, items of unequal sizes have the same features in one batch as alone."""
        preprocessor, items = encoder.preprocessor(), self.items(encoder.media)
        prepared = [preprocessor.prepare(item) for item in items]
        groups = preprocessor.group(prepared)
        assert sorted(itertools.chain(*groups)) == list(range(len(items))), f"group lost an item: {groups}"
        if not preprocessor.pads:
            for group in groups:
                preprocessor.collate([prepared[index] for index in group])
            if len(groups) > 1:
                with pytest.raises(UserError):
                    preprocessor.collate(prepared)
            return
        together = _encode(encoder, items)
        assert not together.mask.all(), "items of different sizes, but no padding: override `items`"
        for row, item in enumerate(items):
            self._same(together, row, _encode(encoder, [item]), "padding changed the features")

    def test_every_trainable_parameter_gets_a_gradient(self, encoder: Encoder) -> None:
        encoder.train()
        trainable = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
        if not trainable:
            return
        features = _encode(encoder, self.items(encoder.media)[:1]).features
        (features * torch.randn_like(features)).sum().backward()
        without = [name for name, p in trainable.items() if p.grad is None]
        assert not without, f"no gradient reaches {without}: drop them or switch off their requires_grad"
        broken = [name for name, p in trainable.items() if p.grad is not None and not p.grad.isfinite().all()]
        assert not broken, f"the gradient of {broken} is not finite"
        assert any(p.grad.any() for p in trainable.values() if p.grad is not None), "all gradients are zero"

    def test_training_mode_moves_no_statistics(self, encoder: Encoder) -> None:
        encoder.train()
        before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
        _encode(encoder, self.items(encoder.media)[:1])
        moved = [name for name, buffer in encoder.named_buffers() if not buffer.equal(before[name])]
        assert not moved, f"a forward in training mode changed {moved}"

    def test_frozen_is_really_frozen(self, encoder: Encoder) -> None:
        encoder.freeze()
        assert encoder.frozen
        assert not [n for n, p in encoder.named_parameters() if p.requires_grad], (
            "a frozen parameter requires a gradient"
        )
        parent = nn.ModuleList([encoder]).train()
        training = [name for name, module in encoder.named_modules() if module.training]
        assert not training, f"train() put {training} of a frozen encoder back into training mode"
        first = _encode(encoder, self.items(encoder.media)[:1])
        assert not first.features.requires_grad, "a frozen encoder kept a graph"
        for parameter in parent.parameters():
            parameter.requires_grad_(True)  # what a bare model.requires_grad_() does
        again = _encode(encoder, self.items(encoder.media)[:1])
        assert not again.features.requires_grad, "a frozen encoder kept a graph"
        # To tolerance: PyTorch chooses other kernels if parameters require a gradient, even without a graph.
        self._same(first, 0, again, "a frozen encoder gave two results for one item: is dropout still on?")

    def test_dummy_is_a_valid_input(self, encoder: Encoder) -> None:
        prepared, lengths = encoder.dummy()
        assert len(prepared) == len(lengths) == 1, "the dummy is a batch of one"
        encoded = encoder.train()(prepared, lengths)
        assert encoded.mask.any(), "the dummy has no feature"
        assert encoded.features.isfinite().all(), "the dummy's features are not finite"
        trainable = [p for p in encoder.parameters() if p.requires_grad]
        if trainable:
            grads = torch.autograd.grad((encoded.features * 0).sum(), trainable, allow_unused=True)
            assert all(grad is not None for grad in grads), (
                "the dummy does not reach every trainable parameter"
            )

    def test_runs_in_bfloat16(self, encoder: Encoder) -> None:
        """Inputs are fp32 in half-precision training too; features have the precision of the weights."""
        encoded = _encode(encoder.to(torch.bfloat16), self.items(encoder.media)[:1])
        expected = next((p.dtype for p in encoder.parameters()), encoded.features.dtype)
        assert encoded.features.dtype == expected, (
            f"features are {encoded.features.dtype}, weights are {expected}"
        )
        assert encoded.features.isfinite().all(), "features are not finite in bfloat16"

    def test_weights_load_into_a_new_one(self, encoder: Encoder) -> None:
        """Two encoders of one configuration have the same tensors, and the same features with the same weights."""
        other = self.make().eval()
        other.load_state_dict(encoder.state_dict())
        item = self.items(encoder.media)[0]
        self._same(_encode(encoder, [item]), 0, _encode(other, [item]), "equal weights, unequal features")

    def _same(self, batch: Encoded, row: int, alone: Encoded, promise: str) -> None:
        found, expected = _valid(batch, row), _valid(alone, 0)
        assert found.shape == expected.shape, f"{promise}: {len(found)} features against {len(expected)}"
        scale = expected.square().mean().sqrt().clamp(min=1e-6)
        difference = ((found - expected).abs().max() / scale).item()
        assert difference <= self.tolerance, f"{promise}: by {difference:.2g}, tolerance {self.tolerance}"


def _encode(encoder: Encoder, items: Sequence[Any]) -> Encoded:
    preprocessor = encoder.preprocessor()
    return encoder(*preprocessor.collate([preprocessor.prepare(item) for item in items]))


def _valid(encoded: Encoded, row: int) -> Tensor:
    return encoded.features[row][encoded.mask[row]].detach()


def _shuffled(item: Any, seed: int) -> Any:
    """Return an item with the same header and other content."""
    numbers = np.random.default_rng(seed)
    if isinstance(item, tuple):
        return numbers.permutation(item[0]), item[1]
    if isinstance(item, np.ndarray):
        return numbers.permutation(item.reshape(-1)).reshape(item.shape)
    from PIL import Image

    return Image.fromarray(
        numbers.permutation(np.asarray(item).reshape(-1)).reshape(item.height, item.width, 3)
    )


def _smallest(encoder: Encoder) -> list[Any]:
    if encoder.media == "image":
        from PIL import Image

        return [Image.new("RGB", size) for size in ((1, 1), (997, 1), (1, 997))]
    if encoder.media == "audio":
        clips = ((1, 16000), (1, 44100), (399, 16000), (400, 16000), (560, 16000))
        return [(np.zeros(n, dtype=np.float32), rate) for n, rate in clips]
    return []
