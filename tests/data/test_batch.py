"""What a batch becomes on a device: ids wide, media as the preprocessor made them."""

import numpy as np
import pytest
import torch

from kebyt5_xm.data.batch import Batch, collate
from kebyt5_xm.data.sources.source import Example
from kebyt5_xm.model.splice import MediaGroup


@pytest.fixture
def batch() -> Batch:
    ids = np.arange(3, 14, dtype=np.int16)
    made = collate(
        [Example(ids, ids[:5]), Example(ids[:7], ids[:3])],
        np.zeros(2, dtype=np.int64),
        interfaces={},
        num_targets=8,
        step=0,
        next_step=1,
    )
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    place = torch.tensor([0, 1])
    made.media = [MediaGroup("image", pixels, torch.tensor([5, 5]), row=place, start=place, count=place)]
    return made


def test_ids_are_widened_and_media_are_not(batch: Batch) -> None:
    moved = batch.to("cpu")
    assert moved.input_ids.dtype == moved.labels.dtype == moved.lengths.dtype == torch.int64
    assert moved.part.dtype == torch.int64
    assert moved.media[0].prepared.dtype == torch.uint8
    assert torch.equal(moved.media[0].prepared, batch.media[0].prepared)
    assert torch.equal(moved.input_ids, batch.input_ids.long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int16])
def test_whatever_type_media_have(batch: Batch, dtype: torch.dtype) -> None:
    batch.media[0].prepared = torch.ones(2, 3, dtype=dtype)
    assert batch.to("cpu").media[0].prepared.dtype == dtype
