"""How well the first steps of a run are filled, by lengths alone, and the budget that fills them best."""

import math
from dataclasses import dataclass

import numpy as np

from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, Lengths, MicroBatch, Steps

MAX_STEPS, MAX_EXAMPLES = 64, 1 << 14
"""Steps and examples that are looked at."""
SAMPLE = 1 << 16
"""Draws whose lengths decide a budget."""
ROW_MULTIPLE = 8
"""Packed rows are a multiple of this many positions, as matrix kernels like it."""
FILLED = 0.9
"""Share of packed rows that holds something: texts of 30 to 1,500 bytes in benchmarks/results/loader.json."""


@dataclass(frozen=True)
class Filling:
    """The first `steps` steps of a run. Positions include padding, ids do not.

    Attributes:
        examples: usable ones.
        inputs, targets: ids.
        input_positions, target_positions: of the encoder and of the decoder.
        left_out: examples without a place: impossible, or longer than a row of the budget.
        micro_positions: encoder positions of the largest micro-batch.
    """

    steps: int
    examples: int
    inputs: int
    targets: int
    input_positions: int
    target_positions: int
    left_out: int
    micro_positions: int

    @property
    def input_padding(self) -> float:
        """The share of encoder positions that hold nothing."""
        return 1 - self.inputs / max(1, self.input_positions)

    @property
    def target_padding(self) -> float:
        """The share of decoder positions that hold nothing."""
        return 1 - self.targets / max(1, self.target_positions)

    @property
    def padding(self) -> float:
        """The share of positions that hold nothing, in encoder and decoder together."""
        return 1 - (self.inputs + self.targets) / max(1, self.input_positions + self.target_positions)


def measure_filling(steps: Steps, lengths: Lengths) -> Filling:
    """Return the filling of the first steps; nothing is decoded. Raises `UserError` as `Steps.batch` does."""
    sums, micro_positions, examples, left_out, done, start = np.zeros(4, dtype=np.int64), 0, 0, 0, 0, 0
    for _ in range(steps.count(MAX_STEPS)):
        batch = steps.batch(start)
        for micro_batch in batch.micro_batches:
            found = lengths(micro_batch.draws)
            used = int((found.max(axis=1) > 0).sum())
            left_out += len(found) - used + len(micro_batch.left_out or ())
            examples += used
            if len(found):
                rows = _row_lengths(found, micro_batch)
                positions = len(rows) * rows.max(axis=0)
                sums += np.concatenate([found.sum(axis=0), positions])
                micro_positions = max(micro_positions, int(positions[0]))
        done, start = done + 1, batch.stop
        if start >= MAX_EXAMPLES:
            break
    inputs, targets, input_positions, target_positions = sums.tolist()
    return Filling(
        done, examples, inputs, targets, input_positions, target_positions, left_out, micro_positions
    )


def _row_lengths(lengths: np.ndarray, micro_batch: MicroBatch) -> np.ndarray:
    """Return [row, 2], the positions and target ids that each row holds."""
    if micro_batch.packed_row is None:
        return lengths
    rows = np.zeros((int(micro_batch.packed_row.max()) + 1, 2), dtype=np.int64)
    np.add.at(rows, micro_batch.packed_row, lengths)
    return rows


def fitting_budget(
    plan: Plan, lengths: Lengths, examples: int, micro_positions: int, num_ranks: int = 1, pack: bool = True
) -> Budget:
    """Return the budget that gives a step about `examples` examples with little padding.

    Args:
        micro_positions: encoder positions that fit into a micro-batch.
        num_ranks: divides the number of micro-batches.
        pack: pack rows; otherwise micro-batches hold examples of similar length.
    """
    found = lengths(plan.rows(0, SAMPLE)).max(axis=1)
    found = found[found > 0]
    longest, mean = (int(found.max()), float(found.mean())) if len(found) else (1, 1.0)
    row = ROW_MULTIPLE * math.ceil(longest / ROW_MULTIPLE)
    rows = max(1, round(examples * mean / (FILLED * row)))
    micro_rows = max(1, min(-(-rows // num_ranks), micro_positions // row))
    num_micro_batches = num_ranks * max(1, round(rows / (micro_rows * num_ranks)))
    micro_length = micro_rows * row
    return Budget(num_micro_batches * micro_length, micro_length, row if pack else None)
