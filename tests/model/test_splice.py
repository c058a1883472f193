"""Vectors are written into their slots and nowhere else, and a wrong number of them never trains."""

import pytest
import torch

from kebyt5_xm.data.inputs import MediaGroup
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.splice import Unchecked, slot_positions, splice

B, S, D = 2, 11, 3
ROW, START, COUNT = [0, 1, 0], [1, 0, 7], [3, 5, 2]
"""Three items: two in row 0, one in row 1."""


def make_group() -> MediaGroup:
    row, start, count = map(torch.tensor, (ROW, START, COUNT))
    return MediaGroup("image", torch.zeros(3, 1), torch.ones(3), row=row, start=start, count=count)


def make_vectors(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors [3, M, D] and their mask; padding holds NaN, so that it cannot be written unseen."""
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(*mask.shape, D, generator=generator).masked_fill(~mask[..., None], torch.nan)
    return vectors.requires_grad_(), mask


@pytest.mark.parametrize("unchecked", [None, Unchecked()])
def test_vectors_are_in_their_slots(unchecked: Unchecked | None) -> None:
    embedded = torch.randn(B, S, D, requires_grad=True)
    vectors, mask = make_vectors(COUNT)
    spliced = splice(embedded, vectors, mask, make_group(), unchecked)
    expected = embedded.detach().clone()
    slots = torch.zeros(B, S, dtype=torch.bool)
    for item, (row, start, count) in enumerate(zip(ROW, START, COUNT, strict=True)):
        expected[row, start : start + count] = vectors[item, :count].detach()
        slots[row, start : start + count] = True
    assert torch.equal(spliced, expected)
    assert torch.equal(slot_positions(torch.Size([B, S]), [make_group()], slots.device), slots)
    spliced.sum().backward()
    assert embedded.grad is not None
    assert vectors.grad is not None
    assert torch.equal(embedded.grad, (~slots)[..., None].float().expand(B, S, D))
    assert torch.equal(vectors.grad, mask[..., None].float().expand_as(vectors))


@pytest.mark.parametrize("counts", [[3, 4, 2], [3, 6, 2]])
def test_a_wrong_number_is_refused_at_once_or_leaves_nothing_to_train_on(counts: list[int]) -> None:
    words = f"item 1 of row 1 fills 5 slots, but its adapter made {counts[1]} vectors"
    vectors, mask = make_vectors(counts)
    with pytest.raises(UserError, match=words):
        splice(torch.zeros(B, S, D), vectors, mask, make_group())
    unchecked = Unchecked()
    assert splice(torch.zeros(B, S, D), vectors, mask, make_group(), unchecked).isnan().all()
    with pytest.raises(UserError, match=words):
        unchecked.check()


def test_right_numbers_pass_the_later_check() -> None:
    unchecked = Unchecked()
    splice(torch.zeros(B, S, D), *make_vectors(COUNT), make_group(), unchecked)
    unchecked.check()
