"""What a batch becomes on a device: ids wide, media as the preprocessor made them."""

import numpy as np
import pytest
import torch

from kebyt5_xm.data.batch import Batch, collate
from kebyt5_xm.data.inputs import Example, MediaGroup


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
