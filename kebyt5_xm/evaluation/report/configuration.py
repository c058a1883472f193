"""What was trained, with which settings, on which data, and what it cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from kebyt5_xm.evaluation.report.record import Record, SkippedRows, section
from kebyt5_xm.evaluation.report.wording import NONE, bilingual, code, data, duration, number, percent
from kebyt5_xm.model.origin import Origin

MAX_CAUSES = 10
MAX_VALUE = 60
"""Characters of a setting's value."""

Fact = tuple[Markup, str | Markup | None]
"""Name and value; None if not recorded."""


@dataclass(frozen=True)
class Configuration:
    """The main settings, (name, encoder, frozen, adapter) of the modalities, and the merged recipe."""

    facts: list[Fact]
    modalities: list[tuple[str, Markup | None, bool | None, Markup | None]]
    recipe: str


@dataclass(frozen=True)
class Skips:
    """Examples of a source that could not be used, and (cause, times) of the most frequent causes."""

    source: str
    count: int
    share: str
    causes: list[tuple[str, int]]
    more_causes: int


def describe_configuration(record: Record) -> Configuration:
    """Return the configuration of a run."""
    return Configuration(
        _facts(record),
        [
            (
                name,
                _class(section(block, "encoder")) or Markup(),
                section(section(block, "encoder"), "init_args").get("frozen"),
                _class(section(block, "adapter")) or Markup(),
            )
            for name, block in record.modalities.items()
        ],
        yaml.safe_dump(record.config, allow_unicode=True, sort_keys=False, width=100),
    )


def list_costs(record: Record) -> list[Fact]:
    """Return speed, memory, and device hours."""
    results, evaluation = record.results, record.evaluation

    def text(value: Any, to_text: Callable[[Any], str]) -> str | None:
        return to_text(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    hours, rate = results.get("device_hours"), results.get("bytes_per_second")
    written = evaluation.generated_bytes_per_second if evaluation else None
    return [
        (bilingual("Trained on"), _of(results.get("hardware"))),
        (bilingual("Training time"), text(results.get("train_seconds"), duration)),
        (bilingual("Device hours"), text(hours, lambda hours: f"{hours:.3g} h")),
        (bilingual("Training speed"), text(rate, lambda rate: f"{number(round(rate))} B/s")),
        (bilingual("Peak memory"), text(results.get("peak_memory_gb"), lambda size: f"{size:.2f} GB")),
        (bilingual("Evaluated on"), _of(evaluation.hardware if evaluation else None)),
        (bilingual("Evaluation time"), text(evaluation.seconds if evaluation else None, duration)),
        (bilingual("Writing speed"), text(written, lambda rate: f"{number(rate)} B/s")),
    ]


def count_epochs(record: Record, source: str) -> str:
    """Return the epochs of a source: the fewest and the most of its parts."""

    def is_part(name: str) -> bool:
        return name == source or name.startswith(f"{source}/")

    found = [points[-1][1] for part, points in record.below("epochs/").items() if is_part(part)]
    by_part = record.results.get("epochs")
    if not found and isinstance(by_part, dict):
        found = [float(v) for part, v in by_part.items() if isinstance(v, int | float) and is_part(part)]
    if not found:
        return NONE
    low, high = f"{min(found):.2f}", f"{max(found):.2f}"
    return low if low == high else f"{low} – {high}"


def list_skips(record: Record) -> list[Skips]:
    """Return the skips of every source, counted by results.json, else by skipped.jsonl."""
    counted = record.results.get("skipped") or {}
    found = []
    for name in dict.fromkeys([*record.skipped, *counted]):
        skipped, entry = record.skipped.get(name, SkippedRows()), counted.get(name) or {}
        count, drawn = entry.get("skipped", skipped.total), entry.get("drawn")
        causes = skipped.causes.most_common(MAX_CAUSES)
        share = percent(count / drawn) if drawn else NONE
        found.append(Skips(name, count, share, causes, len(skipped.causes) - len(causes)))
    return found


def flatten(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return the settings of a recipe as (dotted key, value); an empty mapping is a value."""
    if isinstance(config, dict) and config:
        return [
            entry
            for key, value in config.items()
            for entry in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, str(config))] if prefix else []


def _facts(record: Record) -> list[Fact]:
    config, results, shape = record.config, record.results, record.backbone
    model, trainer = section(config, "model"), section(config, "trainer")
    backbone = section(model, "backbone")
    origin = Origin.read(shape)
    start = data(" ← ".join(origin.started_from)) if origin.started_from else None
    batch = section(config, "data").get("global_batch_size") or results.get("global_batch_size")
    return [
        (bilingual("Started from"), (start or bilingual("from scratch")) if shape else None),
        (bilingual("Licence of the start"), _of(origin.licence or None)),
        (bilingual("Shape of the backbone"), _shape(shape)),
        (
            bilingual("Parameters"),
            _parameters(results.get("parameters"), results.get("trainable_parameters")),
        ),
        (bilingual("Optimizer steps"), _of(results.get("steps"))),
        (bilingual("Global batch (examples)"), _of(batch)),
        (bilingual("Optimizer"), _class(model.get("optimizer"))),
        (bilingual("Schedule"), _class(model.get("schedule"))),
        (bilingual("Backbone frozen"), bilingual("yes") if backbone.get("frozen") else None),
        (bilingual("Dropout"), _of(backbone.get("dropout"))),
        (bilingual("Precision"), _of(results.get("precision") or trainer.get("precision"))),
        (bilingual("Strategy"), _of(results.get("strategy") or trainer.get("strategy"))),
        (bilingual("Seed"), _of(config.get("seed_everything"))),
    ]


def _shape(shape: dict[str, Any]) -> Markup | None:
    keys = ("d_model", "num_layers", "num_decoder_layers", "num_heads")
    if any(key not in shape for key in keys):
        return None
    width, encoder, decoder, heads = (str(shape[key]) for key in keys)
    return bilingual(
        "width {width}, {encoder} encoder and {decoder} decoder layers, {heads} heads",
        width=width,
        encoder=encoder,
        decoder=decoder,
        heads=heads,
    )


def _parameters(total: Any, training: Any) -> str | Markup | None:
    if not isinstance(total, int):
        return None
    if not isinstance(training, int) or training == total:
        return number(total)
    return bilingual("{total} ({training} train)", total=number(total), training=number(training))


def _class(block: Any) -> Markup | None:
    """Return a class name with its arguments, without those that are None or off."""
    if not isinstance(block, dict) or "class_path" not in block:
        return code(block) if isinstance(block, str) else None
    name = str(block["class_path"]).rpartition(".")[2]
    given = [
        f"{key}={_value(value)}"
        for key, value in section(block, "init_args").items()
        if value is not None and value is not False and key != "frozen"
    ]
    return code(f"{name}({', '.join(given)})")


def _value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"


def _of(value: Any) -> str | Markup | None:
    if value is None:
        return None
    return number(value) if isinstance(value, int) and not isinstance(value, bool) else data(_value(value))
