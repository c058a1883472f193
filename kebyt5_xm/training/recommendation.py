"""Settings that are right without a search: optimizer, rate, batch and steps, from what trains and on how much.

The tables at the top are all that is known; replace a number there, with its source, when a better one is measured.
Every table is (size, value) pairs: values between two sizes lie on a straight line of the logarithms of both, and the
first and last value hold beyond.
"""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["from scratch", "from weights", "lora", "adapters"]
"""What trains: the backbone, from scratch or from weights (with whatever else trains), LoRA in it, or parts beside a
frozen backbone."""
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Rate:
    """An optimizer and its rate by the number of parameters that train."""

    optimizer: str
    points: Points
    source: str


RMS_SCALED_ADAMW = "kebyt5_xm.optimizers.RMSScaledAdamW"
ADAMW = "torch.optim.AdamW"

RATES: dict[Kind, Rate] = {
    "from scratch": Rate(
        RMS_SCALED_ADAMW,
        ((5e5, 0.05), (2.5e8, 0.02)),
        "0.05 in the demo (0.5 M parameters), 0.02 in nanoT5 (250 M)",
    ),
    "from weights": Rate(
        RMS_SCALED_ADAMW,
        ((1e6, 0.01), (3e8, 1e-3)),
        "0.01 in the demo (1 M); 1e-3, relative to the weights, in ByT5's fine-tuning (Xue et al. 2022)",
    ),
    "lora": Rate(
        ADAMW,
        ((1e5, 1e-3), (1e6, 3e-4)),
        "2e-4 to 5e-4 in LoRA (Hu et al. 2021, appendix D)",
    ),
    "adapters": Rate(ADAMW, ((1e6, 1e-3),), "1e-3 in the first stage of LLaVA-1.5 (Liu et al. 2023)"),
}
BATCHES: dict[Kind, Points] = {
    "from scratch": ((1e4, 8), (1e6, 128), (1e8, 1024)),  # the demo; nanoT5; ByT5: 2^20 positions
    "from weights": ((100, 8), (2500, 32), (1e5, 128)),  # 16 to 32 for GLUE in BERT; 128 in T5's fine-tuning
    "lora": ((100, 8), (2500, 32), (1e5, 128)),
    "adapters": ((100, 8), (2500, 32), (1e5, 128)),
}
"""Examples of one optimizer step, by the number of different training examples."""
PASSES: dict[Kind, Points] = {
    "from scratch": ((1e4, 4),),  # up to 4 passes are almost as good as new data: Muennighoff et al. 2023
    "from weights": (
        (2500, 10),
        (4e5, 3),
    ),  # 3 for MNLI in BERT (Devlin et al. 2019); 20 for 2,500 examples in
    "lora": ((2500, 10), (4e5, 3)),  # Mosbach et al. 2021, of which we take half
    "adapters": ((2500, 10), (4e5, 3)),
}
"""Passes over the training examples, by their number."""
WARMUP_SHARE = 0.1
"""Of the steps: Mosbach et al. 2021, section 6."""
MAX_WARMUP = 10_000
"""Steps: nanoT5, T5."""
MIN_STEPS, MAX_STEPS = 200, 1_000_000
"""A run shorter than 200 steps has hardly left its warm-up (our choice); ByT5 was pretrained for 10^6."""
VALIDATIONS = 5
"""Validations, and checkpoints, of a run."""


@dataclass(frozen=True)
class Situation:
    """What the settings depend on.

    Attributes:
        kind: what trains.
        trainable: number of parameters that train.
        examples: number of different training examples that the run is about.
        share: their share of the examples drawn; the rest keeps up what the model can do.
    """

    kind: Kind
    trainable: int
    examples: int
    share: float = 1.0


@dataclass(frozen=True)
class Settings:
    """Recommended settings. `interval`: optimizer steps between validations, and between checkpoints."""

    optimizer: str
    rate: float
    batch: int
    steps: int
    warmup_steps: int
    interval: int
    passes: float
    rate_source: str


def recommend(situation: Situation) -> Settings:
    """Return the settings for a situation."""
    kind, examples = situation.kind, max(1, situation.examples)
    rate = RATES[kind]
    batch = 2 ** round(math.log2(_interpolate(BATCHES[kind], examples)))
    wanted = _interpolate(PASSES[kind], examples) * examples / (batch * situation.share)
    interval = max(1, round(_round(min(max(wanted, MIN_STEPS), MAX_STEPS) / VALIDATIONS)))
    steps = VALIDATIONS * interval
    return Settings(
        optimizer=rate.optimizer,
        rate=_round(_interpolate(rate.points, situation.trainable)),
        batch=batch,
        steps=steps,
        warmup_steps=min(MAX_WARMUP, round(WARMUP_SHARE * steps)),
        interval=interval,
        passes=steps * batch * situation.share / examples,
        rate_source=rate.source,
    )


def _interpolate(points: Points, size: float) -> float:
    """Return the value at `size`, on straight lines of the logarithms."""
    (low, value), *rest = points
    if size <= low:
        return value
    for high, upper in rest:
        if size <= high:
            place = math.log(size / low) / math.log(high / low)
            return value * (upper / value) ** place
        low, value = high, upper
    return value


def _round(value: float, digits: int = 2) -> float:
    """Return the value with `digits` significant digits."""
    return float(f"{value:.{digits - 1}e}")
