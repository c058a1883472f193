"""What a batch becomes on a device: ids wide, media as the preprocessor made them."""

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision

from kebyt5_xm.data.batch import Batch, Progress, collate
from kebyt5_xm.data.inputs import Example, MediaGroup
from kebyt5_xm.data.media.bad_sample import Skip


@pytest.fixture
def batch() -> Batch:
    ids = np.arange(3, 14, dtype=np.int16)
    made = collate(
        [Example(ids, ids[:5]), Example(ids[:7], ids[:3])],
        np.zeros(2, dtype=np.int64),
        interfaces={},
    )
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    place = torch.tensor([0, 1])
    made.inputs.media = [
        MediaGroup("image", pixels, torch.tensor([5, 5]), row=place, start=place, count=place)
    ]
    return made


def test_ids_are_widened_and_media_are_not(batch: Batch) -> None:
    moved = batch.to("cpu")
    assert moved.inputs.input_ids.dtype == moved.labels.dtype == moved.inputs.lengths.dtype == torch.int64
    assert moved.part.dtype == torch.int64
    assert moved.inputs.media[0].prepared.dtype == torch.uint8
    assert torch.equal(moved.inputs.media[0].prepared, batch.inputs.media[0].prepared)
    assert torch.equal(moved.inputs.input_ids, batch.inputs.input_ids.long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int16])
def test_whatever_type_media_have(batch: Batch, dtype: torch.dtype) -> None:
    batch.inputs.media[0].prepared = torch.ones(2, 3, dtype=dtype)
    assert batch.to("cpu").inputs.media[0].prepared.dtype == dtype


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_is_converted_where_an_example_was_skipped(precision: Any) -> None:
    """Lightning walks through dataclasses and refuses frozen ones."""
    ids = np.arange(3, 14, dtype=np.int16)
    skip = Skip(7, "a.png", "cannot be read")
    progress = Progress(num_targets=5, step=2, next_step=3)
    made = collate(
        [Example(ids, ids[:5]), Example.empty(skip)], np.zeros(2, np.int64), interfaces={}, progress=progress
    )
    pixels = torch.rand(1, 3, 5, 7)
    place = torch.tensor([0])
    made.inputs.media = [MediaGroup("image", pixels, place, row=place, start=place, count=place)]
    plugin = HalfPrecision(precision) if precision == "bf16-true" else DoublePrecision()
    found = plugin.convert_input(made)
    assert (found.skipped, found.progress) == ([(0, skip)], progress)
    assert torch.equal(found.inputs.input_ids, made.inputs.input_ids)
    assert found.inputs.media[0].prepared.dtype in (torch.bfloat16, torch.float64)
