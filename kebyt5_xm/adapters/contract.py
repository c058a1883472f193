"""The contract test of adapters; import it from `kebyt5_xm.contract`, which shows how to use it."""

import itertools
import math
from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch

from kebyt5_xm.adapters import Adapter


class AdapterContract(ABC):
    """What every adapter must do, for sequences and grids of features."""

    tolerance = 1e-5
    grid_only = False
    """True for an adapter that raises `UserError` without a grid."""

    @abstractmethod
    def make(self, in_dim: int, d_model: int) -> Adapter:
        """Return a new adapter."""

    @pytest.fixture
    def adapter(self) -> Adapter:
        torch.manual_seed(13)
        return self.make(5, 12).eval()

    def sizes(self) -> list[tuple[int, ...]]:
        rows = [(1, 1), (1, 7), (5, 3), (6, 4)]
        return rows if self.grid_only else [(1,), (2,), (11,), (17,), *rows]

    def test_slots_are_counted_exactly(self, adapter: Adapter) -> None:
        for size in self.sizes():
            features, mask = (
                torch.randn(2, math.prod(size), 5),
                torch.ones(2, math.prod(size), dtype=torch.bool),
            )
            slots, valid = adapter(features, mask, size if len(size) == 2 else None)
            assert slots.shape == (*valid.shape, 12), f"slots {list(slots.shape)}, mask {list(valid.shape)}"
            assert valid.dtype == torch.bool
            promised = adapter.num_slots(size)
            assert valid.sum(1).tolist() == [promised] * 2, (
                f"num_slots{size} is {promised}, the mask says otherwise"
            )

    def test_slots_stand_where_they_say(self, adapter: Adapter) -> None:
        """A feature changes the slot whose extent covers it."""
        for size in self.sizes():
            grid, extent = adapter.slot_grid(size), adapter.slot_extent(size)
            if grid is None or extent is None:
                continue
            outside = 0 if adapter.begin is None else 2
            assert grid.num_slots + outside == adapter.num_slots(size), f"{grid} for {size}"
            features = torch.randn(1, math.prod(size), 5)
            mask, shape = torch.ones(1, math.prod(size), dtype=torch.bool), size if len(size) == 2 else None
            before = adapter(features, mask, shape)[0][0]
            for place in itertools.product(*map(range, size)):
                changed = features.clone()
                changed[0, np.ravel_multi_index(place, size)] += 3.0
                slots = [at // width for at, width in zip(place, extent, strict=True)]
                slot = grid.first + int(np.ravel_multi_index(slots, grid.shape))
                after = adapter(changed, mask, shape)[0][0]
                assert not after[slot].equal(before[slot]), (
                    f"slot {slot} does not see feature {place} of {size}"
                )

    def test_padding_and_company_change_nothing(self, adapter: Adapter) -> None:
        if self.grid_only:
            return  # grids are never padded
        lengths = (17, 2, 11)
        items = [torch.randn(1, n, 5) for n in lengths]
        batch = torch.full((3, 19, 5), torch.nan)  # an encoder may leave anything in its padding
        mask = torch.zeros(3, 19, dtype=torch.bool)
        for row, (item, n) in enumerate(zip(items, lengths, strict=True)):
            batch[row, :n], mask[row, :n] = item, True
        slots, valid = adapter(batch, mask, None)
        for row, item in enumerate(items):
            alone, alone_valid = adapter(item, torch.ones(1, item.shape[1], dtype=torch.bool), None)
            found, expected = slots[row][valid[row]], alone[0][alone_valid[0]]
            assert found.shape == expected.shape, "padding changed the number of slots"
            difference = (found - expected).abs().max().item()
            assert difference <= self.tolerance, f"padding changed the slots by {difference:.2g}"

    def test_every_parameter_gets_a_gradient(self, adapter: Adapter) -> None:
        size = self.sizes()[-1]
        mask = torch.ones(2, math.prod(size), dtype=torch.bool)
        slots, _ = adapter.train()(torch.randn(2, math.prod(size), 5), mask, size if len(size) == 2 else None)
        (slots * torch.randn_like(slots)).sum().backward()
        without = [name for name, p in adapter.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, f"no gradient reaches {without}"

    def test_slots_start_at_the_scale_they_are_calibrated_to(self, adapter: Adapter) -> None:
        adapter.calibrate(0.37)
        size = self.sizes()[-1]
        mask = torch.ones(3, math.prod(size), dtype=torch.bool)
        slots, valid = adapter(
            torch.randn(3, math.prod(size), 5) * 23, mask, size if len(size) == 2 else None
        )
        rms = slots[valid].square().mean().sqrt().item()
        assert abs(rms / 0.37 - 1) < 0.01, f"slots have an RMS of {rms:.3f}, calibrated to 0.37"
