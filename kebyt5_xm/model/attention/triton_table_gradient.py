"""The gradient of the bias table from the shares that programs of `triton_query_gradient` write.

Each number of a share is written by one program, and shares are added in a fixed order, so the gradient is the same
in every run.

Letters in shapes: B rows, H heads, M the table's largest distance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FREE_BITS = 61
"""Of 64 in a sum of integers."""


@dataclass(frozen=True)
class Shares:
    """Sums of gradients of scores by distance, one share a program."""

    max_distance: int
    ends: Tensor
    """[B, H, tiles, 2] fp32: of tiles wholly beyond the table, before and after the queries."""
    lines: Tensor
    """[B, H, tiles, turns, n] fp32, distance 0 at `origin`; with positions [B, H, tiles, 2M + 1] int64."""
    origin: int
    unit: Tensor | None
    """[1] fp32: integers are in units of 1 / `unit`."""

    def add_up(self) -> Tensor:
        """Return the gradient [H, 2M + 1] in fp32."""
        ends = self.ends.sum((0, 2))  # [H, 2]
        if self.unit is not None:
            table = (self.lines.double().sum((0, 2)) / self.unit).float()
        else:
            line = self.lines.sum((0, 2, 3))  # [H, n]
            first, last = self.origin - self.max_distance, self.origin + self.max_distance
            table = line[:, first : last + 1].clone()
            ends[:, 0] += line[:, :first].sum(1)
            ends[:, 1] += line[:, last + 1 :].sum(1)
        table[:, 0] += ends[:, 0]
        table[:, -1] += ends[:, 1]
        return table


def make_shares(
    grid: tuple[int, int, int],
    num_queries: int,
    num_keys: int,
    max_distance: int,
    grad_output: Tensor,
    value: Tensor | None,
) -> Shares:
    """Return what the programs of `grid` (tiles, H, B) fill in, for tiles of `num_queries` and `num_keys`.

    `value` is given for integers by position. Its largest number and the gradient's bound every gradient of a score.
    """
    programs = grid[::-1]
    ends = grad_output.new_empty(*programs, 2, dtype=torch.float32)
    if value is not None:
        lines = ends.new_zeros(*programs, 2 * max_distance + 1, dtype=torch.int64)
        return Shares(max_distance, ends, lines, 0, _unit(grad_output, value, num_queries))
    turns = 1 + (num_queries + num_keys - 2) // num_keys
    length = 2 * max_distance + 2 * num_queries + 3 * num_keys
    lines = ends.new_zeros(*programs, turns, length)
    return Shares(max_distance, ends, lines, max_distance + num_queries + 2 * num_keys, None)


def _unit(grad_output: Tensor, value: Tensor, num_queries: int) -> Tensor:
    """Return the power of two [1] by which gradients of scores can be multiplied so that their sums fit.

    The gradient of a weight is at most d x max |gradient| x max |value|; the weights of a query add up to 1.
    """
    largest = grad_output.abs().amax().float() * value.abs().amax().float()
    bound = (2 * num_queries * value.shape[3] * largest).clamp(min=2.0**-40)
    return torch.exp2((FREE_BITS - bound.log2()).floor())[None]
