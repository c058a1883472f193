"""Useful bytes trained a second on a CPU: `train.py` compared with transformers' T5.

python -m benchmarks.training

Two trainings, described in `benchmarks.training_data`: `mixed` (texts of mixed lengths) and `demo`. Every
contestant is a process of its own that does full optimizer steps in fp32, data loading included. They take turns, and
the best of three counts. Useful bytes are input and target ids without padding. Run it on an idle machine: in a plain
environment, OpenMP's threads spin while they wait, which on busy cores slows transformers down several times over.

- `ours_by_length`, `ours_packed`, `ours`: `train.py fit`, started as users start it;
- `transformers_ATTENTION_BATCHES`: transformers, started as its users start it;
- `transformers_ATTENTION_BATCHES_tuned`: transformers, with the variables that `train.py` sets for itself.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - its version belongs to the report
import transformers  # noqa: F401

from benchmarks import training_ours, training_peer
from benchmarks.report import write_report
from benchmarks.training_data import TINY, Sizes
from benchmarks.turns import Contestant, plain_environment, wait_until_ready

TRAININGS = ("mixed", "demo")
TURNS = 3
IDLE = 0.7
"""The load of a machine that does little else."""
DEMANDED, DEMANDED_TUNED = 1.5, 1.2
"""Ratios to the best peer as its users run it, and to the best peer with our variables."""


def main() -> None:
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {"load_before": load}
    if load > IDLE:
        print(
            f"the machine is busy (load {load:.1f}); expected it idle: ratios favour the side that spins less"
        )
    with tempfile.TemporaryDirectory(prefix="training-benchmark-") as name:
        folder = Path(name)
        Sizes(TINY).write(folder)
        for training in TRAININGS:
            figures[training] = measure(folder, training)
    demanded = {"ratio_ours_to_best_peer": DEMANDED, "ratio_ours_to_best_tuned_peer": DEMANDED_TUNED}
    write_report(
        "training",
        figures,
        {f"{training}.{ratio}": least for training in TRAININGS for ratio, least in demanded.items()},
    )


def measure(folder: Path, training: str) -> dict[str, Any]:
    """Return the figures of one training, `mixed` or `demo`."""
    plain = plain_environment()
    names: dict[str, training_ours.Batches] = (
        {"ours": "demo"} if training == "demo" else {"ours_by_length": "by_length", "ours_packed": "packed"}
    )
    batches = ("demo",) if training == "demo" else ("random", "grouped")
    ours = {name: Contestant(training_ours.command(folder, kind), plain) for name, kind in names.items()}
    peers: dict[str, Contestant] = {}
    try:
        wait_until_ready(list(ours.values()))
        settings = next(iter(ours.values())).settings
        for attention in ("eager", "sdpa"):
            for kind in batches:
                command = training_peer.command(folder, attention, kind)
                name = "_".join(("transformers", attention, *([] if kind == "demo" else [kind])))
                peers[name] = Contestant(command, plain)
                if kind != "random":  # far behind with any settings
                    peers[f"{name}_tuned"] = Contestant(command, plain | settings)
        wait_until_ready(list(peers.values()))
        for turn in range(TURNS):
            for name, contestant in {**ours, **peers}.items():
                if turn == 0 or "random" not in name:
                    contestant.turn()
        return {"settings": settings, **summarize({name: c.best for name, c in {**ours, **peers}.items()})}
    finally:
        for contestant in (*ours.values(), *peers.values()):
            contestant.close()


def summarize(best: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the figures of all contestants, which are the best, and their ratios."""
    rates = {name: figures["useful_bytes_per_s"] for name, figures in best.items()}
    ours = max((name for name in rates if name.startswith("ours")), key=rates.__getitem__)
    peers = [name for name in rates if not name.startswith("ours")]
    tuned = max((name for name in peers if name.endswith("tuned")), key=rates.__getitem__)
    plain = max((name for name in peers if not name.endswith("tuned")), key=rates.__getitem__)
    return {
        **best,
        "best_of_ours": ours,
        "best_peer": plain,
        "best_tuned_peer": tuned,
        "ratio_ours_to_best_peer": rates[ours] / rates[plain],
        "ratio_ours_to_best_tuned_peer": rates[ours] / rates[tuned],
    }


if __name__ == "__main__":
    main()
