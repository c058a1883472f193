"""The sources of a run as its model card lists them.

Rows, shares and digests are those that the checkpoint was trained with: every checkpoint of one file records them,
and so does results.json. The files themselves may have changed since, and are only read where their digest is still
the recorded one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_reading import read_checkpoint
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.trust import TRUSTED, find_class_paths, without_working_folder

WEIGHTS = "weights."
"""Keys of a data description with the weight of a part over the steps: see `Cursor.description`."""
_PART = re.compile(r"(\d+) rows, share ([\d.]+), (\w+)(?:, (\d+) epochs)?")
"""A part in the description of a plan, as `kebyt5_xm.data.order.plan.Plan.description` writes it."""

_HUB_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")

_HELD_OUT_ONLY = ("validation", "validation_format", "references", "metrics")
"""Arguments of a source that concern held-out rows alone, whose file need not be here."""

MAX_VALUES = 20
"""A column with more values than this is free text, and no value of it is shown."""
MAX_VALUE_LENGTH = 32
ROWS_READ = 1000
"""Rows in which the values of a column are looked for."""


@dataclass(frozen=True)
class PartFacts:
    """A store or manifest that a run trained on; None for what the run did not record."""

    name: str
    file: str
    rows: int | None = None
    share: float | None = None
    digest: str | None = None
    held_out: str = ""
    held_out_rows: int | None = None
    held_out_digest: str | None = None


@dataclass(frozen=True)
class SourceFacts:
    """A source of a run.

    Attributes:
        prompt, target: templates of a table's rows; None for another kind of source.
        denoises: whether it trains by span denoising.
        labels: the closed list of answers, None for free text.
        modalities: those that its prompt feeds.
        packages: packages, besides this project's, that building it needs.
        datasets: ids of datasets on the hub that its files are in.
        values: text column -> its values, for columns that have few.
        weights: the weight over the steps, if it changes.
    """

    name: str
    class_path: str
    parts: list[PartFacts]
    prompt: Template | None = None
    target: Template | None = None
    denoises: bool = False
    labels: list[str] | None = None
    modalities: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    values: Mapping[str, list[str]] = field(default_factory=dict)
    weights: str | None = None

    @property
    def share(self) -> float | None:
        """Its share of the examples drawn; None if it is not recorded, or changes over the steps."""
        shares = [part.share for part in self.parts if part.share is not None]
        return sum(shares) if shares else None


def describe_data(run: Run, checkpoint: Path | None) -> tuple[dict[str, Any], int | None]:
    """Return the description of the data that a checkpoint was trained on, and how many examples it has seen.

    Empty and None if neither the checkpoint nor results.json records them.
    """
    state: Any = {}
    if checkpoint is not None and checkpoint.is_file():
        state = read_checkpoint(checkpoint).get("DataModule") or {}
    description = state.get("description") or run.results().get("data") or {}
    return description if isinstance(description, dict) else {}, state.get("next_index")


def list_sources(
    run: Run, description: Mapping[str, Any], trusted_modules: Sequence[str] = ()
) -> list[SourceFacts]:
    """Return the sources of a run's recipe, the most frequent first."""
    blocks = (run.config.get("data") or {}).get("sources") or {}
    held_out = run.results().get("held_out") or {}
    found = [
        _source(name, block, description, held_out, trusted_modules)
        for name, block in blocks.items()
        if isinstance(block, dict)
    ]
    return sorted(found, key=lambda source: -(source.share or 0.0))


def _source(
    name: str,
    block: Mapping[str, Any],
    description: Mapping[str, Any],
    held_out: Mapping[str, Any],
    trusted_modules: Sequence[str],
) -> SourceFacts:
    init_args = block.get("init_args") or {}
    class_path = str(block.get("class_path"))
    stores = init_args.get("stores")
    files = stores if isinstance(stores, dict) else {"": init_args.get("path", "")}
    parts = [_part(name, part, file, init_args, description, held_out) for part, file in files.items()]
    prompt, target = (Template.if_valid(init_args.get(key)) for key in ("prompt", "target"))
    labels = init_args.get("labels")
    words = labels.values() if isinstance(labels, dict) else labels or ()
    packages = {path.partition(".")[0] for _, path in find_class_paths(dict(block))}
    facts = SourceFacts(
        name,
        class_path,
        parts,
        prompt,
        target,
        denoises=isinstance(stores, dict),
        labels=None if labels is None else [str(word) for word in words],
        modalities=prompt.modalities if prompt else (),
        packages=tuple(sorted(packages - set(TRUSTED))),
        datasets=tuple(dict.fromkeys(_HUB_DATASET.findall(" ".join(map(str, files.values()))))),
        weights=_weights(name, description),
    )
    if prompt is None or not prompt.text_columns:
        return facts
    values = _values(block, prompt, parts[0].digest, trusted_modules)
    return replace(facts, values=values)


def _part(
    source: str,
    part: str,
    file: Any,
    init_args: Mapping[str, Any],
    description: Mapping[str, Any],
    held_out: Mapping[str, Any],
) -> PartFacts:
    name = f"{source}/{part}" if part else source
    recorded = _PART.fullmatch(str(description.get(f"parts.{name}", "")))
    kept = held_out.get(name) or {}
    validation = init_args.get("validation", 0.01 if "stores" in init_args else None)
    place = validation.get(part, "") if isinstance(validation, dict) else validation
    shown = f"{place:g}" if isinstance(place, float | int) else Path(str(place or "")).name
    return PartFacts(
        name,
        Path(str(file)).name,
        int(recorded[1]) if recorded else None,
        float(recorded[2]) if recorded and not any(key.startswith(WEIGHTS) for key in description) else None,
        recorded[3] if recorded else None,
        "" if shown == "0" else shown,
        kept.get("rows"),
        kept.get("digest"),
    )


def _weights(source: str, description: Mapping[str, Any]) -> str | None:
    """Return the weight of a source over the steps, which all its parts have; None if it does not change."""
    key = f"{WEIGHTS}{source}"
    return next(
        (str(w) for name, w in description.items() if name == key or name.startswith(f"{key}/")), None
    )


def _values(
    block: Mapping[str, Any], prompt: Template, digest: str | None, trusted_modules: Sequence[str]
) -> dict[str, list[str]]:
    """Return the values of the text columns that have few, from the rows that were trained on."""
    if digest is None:
        return {}
    from kebyt5_xm.data.media.bad_sample import BadSample
    from kebyt5_xm.data.sources.source import Source
    from kebyt5_xm.model.specs import build

    init_args = {key: value for key, value in block["init_args"].items() if key not in _HELD_OUT_ONLY}
    spec = {"class_path": block["class_path"], "init_args": init_args}
    try:
        with without_working_folder(trusted_modules):
            source = build(spec, Source, trusted_modules, where="data.sources")
            table = source.prompts(held_out=False)
    except (UserError, OSError):  # the files were moved, or the package is not here
        return {}
    if table is None or table.rows.fingerprint != digest:
        return {}
    found: dict[str, dict[str, None]] = {column: {} for column in prompt.text_columns}
    for number in range(min(len(table), ROWS_READ)):
        try:
            row = table.rows.row(number)
        except BadSample:
            continue
        for column, values in found.items():
            values[str(row.get(column))] = None
    return {
        column: list(values)
        for column, values in found.items()
        if len(values) <= MAX_VALUES and all(len(value) <= MAX_VALUE_LENGTH for value in values)
    }
