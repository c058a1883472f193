"""Inputs of attention with every rule of a pattern, and a comparison with the reference in float64."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kebyt5_xm.model.attention import reference
from kebyt5_xm.model.attention.pattern import Pattern

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None, Pattern], Tensor]


@dataclass(frozen=True)
class Case:
    """Sizes and rules: B rows, H heads, T queries, S keys (T if 0), d width, M largest distance (0: no table)."""

    rows: int = 2
    heads: int = 1
    queries: int = 37
    keys: int = 0
    width: int = 8
    max_distance: int = 5
    causal: bool = False
    segments: tuple[str, ...] = ()
    """A row's segments of queries and, after a slash if they differ, of keys; "1x2 2x3" is 1 1 2 2 2."""
    positions: str = ""
    """"consecutive", "ordered" with gaps and repetitions, or "any"."""
    slots: bool = False
    scores: bool = False

    @property
    def num_keys(self) -> int:
        return self.keys or self.queries


PACKED = ("1x13 2x7 3x11 0x6", "1x2 2x33 3x2")
PADDED = ("0x37/1x29 0x8", "1x37/1x37")
CASES = {
    "plain": Case(heads=3),
    "one_row_of_odd_length": Case(rows=1, queries=53, max_distance=11),
    "whole_tiles": Case(rows=1, queries=64, max_distance=20),
    "longer_than_any_distance": Case(rows=1, queries=131, max_distance=3),
    "nearest_far_tile": Case(rows=1, queries=96, max_distance=34),  # M is 2 modulo every size of tiles
    "shorter_than_the_table": Case(queries=19, max_distance=128),
    "causal": Case(causal=True, width=16),
    "packed": Case(heads=2, segments=PACKED),
    "packed_and_causal": Case(segments=PACKED, causal=True),
    "segments_in_any_order": Case(segments=("2x5 1x9 2x11 0x3 1x9", "3x37")),
    "queries_that_see_nothing": Case(segments=("1x20 2x17/1x30 0x7", "1x37/0x37")),
    "padding": Case(segments=("1x37/1x29 0x8", "1x37/1x3 0x34"), width=24),
    "nearest_far_tile_by_position": Case(rows=1, queries=96, max_distance=34, positions="consecutive"),
    "positions": Case(heads=2, positions="ordered", max_distance=7),
    "positions_in_any_order": Case(positions="any", causal=True, segments=PACKED),
    "scores": Case(heads=2, scores=True),
    "scores_positions_and_padding": Case(scores=True, positions="ordered", segments=PADDED, max_distance=7),
    "slots": Case(heads=2, slots=True, queries=41),
    "slots_in_packed_rows": Case(slots=True, segments=PACKED, scores=True),
    "slots_with_positions": Case(slots=True, positions="any"),
    "cross": Case(heads=2, queries=23, keys=41, max_distance=0),
    "cross_with_everything": Case(
        queries=23,
        keys=41,
        max_distance=0,
        scores=True,
        segments=("1x9 2x10 3x4/1x20 2x19 0x2", "0x3 1x20/1x41"),
    ),
    "cross_with_a_table": Case(queries=19, keys=45, max_distance=6),
}


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case; their gradients are asked for in `results`."""

    query: Tensor
    key: Tensor
    value: Tensor
    table: Tensor | None
    pattern: Pattern
    grad_output: Tensor

    def results(self, attention: Attention) -> dict[str, Tensor]:
        """Return the output and all gradients."""
        output = attention(self.query, self.key, self.value, self.table, self.pattern)
        wanted = {"query": self.query, "key": self.key, "value": self.value}
        if self.table is not None:
            wanted["table"] = self.table
        if self.pattern.key_scores is not None:
            wanted["key_scores"] = self.pattern.key_scores
        gradients = torch.autograd.grad(output, list(wanted.values()), self.grad_output.to(output.dtype))
        return {
            "output": output.detach(),
            **{f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True)},
        }

    def to(self, dtype: torch.dtype, device: str = "cpu", rest: torch.dtype | None = None) -> "Inputs":
        """Return copies; table and scores in `rest` if given."""

        def copy(tensor: Tensor, dtype: torch.dtype) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.to(device)
            return tensor.detach().to(device, dtype).requires_grad_()

        rest = rest or dtype
        pattern = {f.name: getattr(self.pattern, f.name) for f in fields(self.pattern)}
        copied = {name: copy(value, rest) for name, value in pattern.items() if isinstance(value, Tensor)}
        return Inputs(
            copy(self.query, dtype),
            copy(self.key, dtype),
            copy(self.value, dtype),
            None if self.table is None else copy(self.table, rest),
            replace(self.pattern, **copied),
            self.grad_output.to(device, dtype),
        )


def make_inputs(case: Case) -> Inputs:
    """Draw a case's tensors in fp32 on the CPU; queries, keys and values are transposed as in a model."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def rows(length: int) -> Tensor:
        return normal(case.rows, length, case.heads, case.width).transpose(1, 2).requires_grad_()

    pattern = Pattern(causal=case.causal)
    if case.segments:
        pattern = replace(pattern, query_segments=_segments(case, 0), key_segments=_segments(case, -1))
    if case.positions:
        steps = torch.randint(0, 4, (case.rows, case.queries), generator=generator)
        positions = steps.cumsum(1)
        if case.positions == "consecutive":
            positions = torch.arange(3, 3 + case.queries).expand(case.rows, -1)
        if case.positions == "any":
            positions = positions[:, torch.randperm(case.queries, generator=generator)]
        pattern = replace(pattern, query_positions=positions, key_positions=positions)
    if case.slots:
        slots = torch.rand(case.rows, case.queries, generator=generator) < 0.3
        pattern = replace(pattern, query_slots=slots, key_slots=slots)
    if case.scores:
        pattern = replace(pattern, key_scores=normal(case.rows, case.num_keys).requires_grad_())
    table = normal(case.heads, 2 * case.max_distance + 1).requires_grad_() if case.max_distance else None
    return Inputs(
        rows(case.queries),
        rows(case.num_keys),
        rows(case.num_keys),
        table,
        pattern,
        rows(case.queries).detach(),
    )


def _segments(case: Case, side: int) -> Tensor:
    lines = []
    for text in case.segments:
        runs = [tuple(map(int, run.split("x"))) for run in text.split("/")[side].split()]
        lines.append([segment for segment, length in runs for _ in range(length)])
    return torch.tensor(lines)


def difference(attention: Attention, inputs: Inputs, tolerance: float) -> str:
    """Return the first tensor that differs from the reference in float64, or "".

    `tolerance` is a share of the tensor's largest value. Outputs and gradients of queries that see
    nothing must be exactly zero.
    """
    found = inputs.results(attention)
    expected = inputs.to(torch.float64).results(reference.attention)
    for name, right in expected.items():
        left = found[name].double().cpu()
        right = right.cpu()
        error = float((left - right).abs().max() / right.abs().max().clamp(min=1e-9))
        if not error <= tolerance:
            return f"{name}: {error:.3g} of the largest"
    seen = inputs.pattern.visible(inputs.query.shape[2], inputs.key.shape[2], inputs.query.device)
    if seen is not None:
        empty = ~seen.any(-1)[..., None]
        for name in ("output", "gradient of query"):
            if (found[name].masked_select(empty) != 0).any():
                return f"{name}: not zero where nothing is seen"
    return ""
