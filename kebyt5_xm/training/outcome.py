"""What a finished run prints: its held-out metrics at the best and the last checkpoint, and what to do with them."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.columns import align, figure
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run

ALL = "all"
"""Name of all held-out parts together."""


@dataclass(frozen=True)
class _Kept:
    """A checkpoint, its step, and the figures of the last validation at or before it: (part, metric) -> value."""

    path: Path
    step: int
    validated: int | None
    figures: dict[tuple[str, str], float]

    @property
    def heading(self) -> str:
        if self.validated is None or self.validated == self.step:
            return f"step {self.step}"
        return f"step {self.step}, validated at {self.validated}"


def describe_outcome(run: Run) -> str:
    """Return the table of a run, the paths of its checkpoints, and the next commands.

    It is read from the run's files. A run without a validation has no best checkpoint and no table. Raises
    `UserError` if there is no checkpoint, or none that can be read.
    """
    best, last = _kept(run, run.best) if _has_best(run) else None, _kept(run, run.last)
    kept = {"best": best, "last": last} if best else {"last": last}
    names = dict.fromkeys(name for found in kept.values() for name in found.figures)
    parts = list(dict.fromkeys(part for part, _ in names))
    ordered = sorted(names, key=lambda name: (name[0] == ALL, parts.index(name[0])))
    monitored = _name(str(run.config.get("monitor") or ""))
    heading = ("held out", "metric", *(f"{word} ({found.heading})" for word, found in kept.items()))
    rows = [
        (
            part,
            f"{metric} *" if best and (part, metric) == monitored else metric,
            *(figure(found.figures.get((part, metric))) for found in kept.values()),
        )
        for part, metric in ordered
    ]
    table = [align([heading, *rows])] if rows else ["no validation was run, so no checkpoint is the best"]
    note = ["* decides which checkpoint is the best"] if any("*" in row[1] for row in rows) else []
    places = align([(word, str(found.path)) for word, found in kept.items()])
    commands = align([(f"  {command}", f"# {purpose}") for command, purpose in next_commands(run)])
    return "\n".join(["", *table, *note, "", places, "", "next:", commands])


def next_commands(run: Run) -> list[tuple[str, str]]:
    """Return the commands to go on with, and what each is for."""
    path = shlex.quote(str(run.path))
    out = shlex.quote(str(run.path / "export"))
    return [
        (f"kebyt5-xm report {path}", "metrics with intervals, examples and curves as a page"),
        (f"kebyt5-xm export {path} --out {out}", "a folder to keep, publish and load"),
        (f"kebyt5-xm serve {path}", "a page to ask it in a browser, and an API"),
    ]


def _has_best(run: Run) -> bool:
    try:
        return run.best.exists()
    except UserError:
        return False


def _kept(run: Run, path: Path) -> _Kept:
    step = checkpoint_step(path) or 0
    found: dict[tuple[str, str], float] = {}
    validated = None
    for row in sorted(run.metrics(), key=lambda row: row["step"]):  # stable: the last row of a step is valid
        name = _name(row["metric"])
        if name is not None and row["step"] <= step:
            found = found if row["step"] == validated else {}
            validated = row["step"]
            found[name] = row["value"]
    return _Kept(path, step, validated, found)


def _name(logged: str) -> tuple[str, str] | None:
    """Return the held-out part and the metric of a logged name; None if it is not of a validation."""
    kind, _, rest = logged.partition("/")
    metric, _, part = rest.partition("/")
    return (part or ALL, metric) if kind == "val" else None
