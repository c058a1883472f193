"""The search for a rate: a range test, short runs while there is time, the page and the overlay."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.optim import SGD

from kebyt5_xm.commands.tune.choice import Point, best_rate, climb, first_rate
from kebyt5_xm.commands.tune.page import write_page
from kebyt5_xm.commands.tune.trials import Trials
from kebyt5_xm.commands.written_overlay import check_target, write_overlay
from kebyt5_xm.data.datamodule import check_steps
from kebyt5_xm.errors import UserError
from kebyt5_xm.training import trainer_options
from kebyt5_xm.training.from_recipes import build_with_config
from kebyt5_xm.training.gate_control import check_batches
from kebyt5_xm.training.library_messages import silence
from kebyt5_xm.training.optimization import MAX_RATE

LOWEST, HIGHEST = 1 / 300, 100.0
"""Factors on the recipe's rate between which the range test runs; also not above `MAX_RATE`."""
RANGE_SHARE = 0.3
"""Of the time, for the range test."""
RANGE_STEPS = (30, 120)
"""The fewest and the most steps of the range test."""
RUNS, FEWEST_RUNS = 6, 3
"""Short runs that the rest of the time is meant for, and the fewest: with two, the lowest loss may lie beyond."""
RUN_STEPS = (20, 400)
"""The fewest and the most steps of a short run."""
PAGE, OVERLAY = "tune.html", "rate.yaml"


@dataclass
class Found:
    """What a search has found.

    Attributes:
        points: of the range test.
        losses: rate -> loss after a short run, NaN if that diverged.
        steps: of each short run; 0 if there was no time for one.
        held_out: whether held-out examples judge the short runs; otherwise it is the training loss.
    """

    points: list[Point]
    losses: dict[float, float] = field(default_factory=dict)
    steps: int = 0
    held_out: bool = True

    @property
    def rate(self) -> float:
        """The chosen rate, with two digits."""
        finite = {rate: loss for rate, loss in self.losses.items() if math.isfinite(loss)}
        return float(f"{best_rate(finite) if finite else first_rate(self.points):.1e}")

    @property
    def reason(self) -> str:
        """Why this rate."""
        if not any(map(math.isfinite, self.losses.values())):
            return "a tenth of the rate of the lowest loss in the range test; no short run has confirmed it"
        judge = "held-out" if self.held_out else "training"
        listed = ", ".join(f"{rate:.2g}: {loss:.4g}" for rate, loss in sorted(self.losses.items()))
        return f"the lowest {judge} loss after {self.steps} steps ({listed})"


def tune(paths: list[str], minutes: float, out: Path | None, trusted_modules: Sequence[str] = ()) -> None:
    """Search, print, and write the page and the overlay. Raises `UserError`; Ctrl-C before any result exits 130."""
    if not 0 < minutes < math.inf:
        raise UserError(f"found --minutes {minutes:g}, expected more than 0")
    silence()
    task, data, recipe = build_with_config(paths, False, trusted_modules)
    out = out or Path(f"{recipe['run_dir']}-tune")
    if out.is_file() or (out / "config.yaml").exists():
        raise UserError(f"'{out}' is a file or holds a run; name another folder with --out")
    if (out / OVERLAY).exists():
        check_target(out / OVERLAY)
    trainer_options.check(recipe["trainer"])
    task.builder.check()
    check_batches(task.builder.delete_gate, data.budget)
    data.prepare(task.interfaces())
    data.connect(task.interfaces())
    check_steps(data, recipe["trainer"]["max_steps"], recipe["trainer"]["accumulate_grad_batches"], 1)
    logging.getLogger("lightning.pytorch").setLevel(
        logging.WARNING
    )  # the table of groups for every short run
    with _interruptible() as is_stopped:
        found = _search(Trials(task, data, recipe["trainer"], is_stopped), 60 * minutes, recipe, is_stopped)
    if len(found.points) < RANGE_STEPS[0] // 2 and is_stopped():
        print("stopped before the range test had found anything; nothing is written")
        raise SystemExit(130)
    out.mkdir(parents=True, exist_ok=True)
    write_page(found, " + ".join(paths), out / PAGE)
    overlay = rate_overlay(recipe, found.rate)
    use = write_overlay(out / OVERLAY, "tune", paths, [f"{found.rate:g}: {found.reason}."], overlay)
    print(
        f"the rate is {found.rate:g}: {found.reason}\nwrote {out / PAGE} and {out / OVERLAY}; train with\n  {use}"
    )


def rate_overlay(recipe: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """Return the overlay that sets the optimizer's rate; rates of groups keep their ratio to it."""
    optimizer = recipe["model"]["optimizer"]
    model: dict[str, Any] = {
        "optimizer": {"class_path": optimizer["class_path"], "init_args": {"lr": rate}},
    }
    old = (optimizer.get("init_args") or {}).get("lr")
    groups = {name: getattr(group, "lr", None) for name, group in (recipe["model"]["groups"] or {}).items()}
    scaled = {name: {"lr": float(f"{lr * rate / old:.2g}")} for name, lr in groups.items() if lr and old}
    return {"model": {**model, **({"groups": scaled} if scaled else {})}}


def _search(
    trials: Trials, seconds: float, recipe: Mapping[str, Any], is_stopped: Callable[[], bool]
) -> Found:
    """Return the findings of a range test and as many short runs as there is time for."""
    started = time.perf_counter()
    if not trials.rate > 0:
        raise UserError("model.optimizer.init_args.lr is 0, expected the rate to begin the search with")
    highest = HIGHEST if issubclass(trials.optimizer, SGD) else min(HIGHEST, MAX_RATE / max(trials.rates))
    test = trials.range_test(LOWEST, highest, RANGE_SHARE * seconds, *RANGE_STEPS)
    if test.is_short:
        needed = RANGE_STEPS[0] * test.step_seconds / RANGE_SHARE / 60
        raise UserError(
            f"a step takes {test.step_seconds:.2g} s here, too long for a range test of {RANGE_STEPS[0]} steps in "
            f"{RANGE_SHARE:.0%} of --minutes; give at least {math.ceil(needed * 1.2)} minutes, or a smaller batch"
        )
    found = Found(test.points, held_out=bool(trials.data.validation.parts))
    _print(f"range test: {len(found.points)} steps of {test.step_seconds:.2g} s")
    left = seconds - (time.perf_counter() - started)
    fitting = left / max(test.step_seconds, 1e-9)
    found.steps = min(max(RUN_STEPS[0], int(fitting / RUNS)), recipe["trainer"]["max_steps"], RUN_STEPS[1])
    if FEWEST_RUNS * found.steps > fitting or is_stopped():
        found.steps = 0
        return found
    longest = 0.0

    def measure(rate: float) -> float | None:
        nonlocal longest
        begun = time.perf_counter()
        if begun - started + longest > seconds or is_stopped():
            return None
        loss = trials.train(rate / trials.rate, found.steps)
        longest = max(longest, time.perf_counter() - begun)
        if is_stopped():
            return None
        _print(f"rate {rate:.2g}: loss {loss:.4g} after {found.steps} steps")
        return loss

    found.losses = climb(measure, first_rate(found.points), highest * trials.rate)
    return found


def _print(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed; a second Ctrl-C ends the process as usual."""
    pressed = False
    before = signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)
        _print("stopping after this step; press Ctrl-C again to end at once")

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
