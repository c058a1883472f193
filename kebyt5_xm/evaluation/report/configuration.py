"""What was trained, on what it was built, with which settings, and what it cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from kebyt5_xm.evaluation.report.language import bilingual, code, data
from kebyt5_xm.evaluation.report.numbers import duration, number
from kebyt5_xm.evaluation.report.recorded import Record, section
from kebyt5_xm.model.origin import Origin

MAX_VALUE = 60
"""Characters of a setting's value."""

Fact = tuple[Markup, str | Markup | None]
"""Name and value; None for what is not recorded."""


@dataclass(frozen=True)
class Configuration:
    """The settings that decide most, (name, encoder, frozen, adapter) of the modalities, and the merged recipe."""

    facts: list[Fact]
    modalities: list[tuple[str, Markup | None, bool | None, Markup | None]]
    recipe: str


def configuration(record: Record) -> Configuration:
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


def costs(record: Record) -> list[Fact]:
    """Return speed, memory, and hours of devices."""
    results, evaluation = record.results, record.evaluation

    def told(value: Any, told_as: Callable[[Any], str]) -> str | None:
        return told_as(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    hours, rate = results.get("device_hours"), results.get("bytes_per_second")
    written = evaluation.generated_bytes_per_second if evaluation else None
    return [
        (bilingual("Trained on"), _of(results.get("hardware"))),
        (bilingual("Training time"), told(results.get("train_seconds"), duration)),
        (bilingual("Device hours"), told(hours, lambda hours: f"{hours:.3g} h")),
        (bilingual("Training speed"), told(rate, lambda rate: f"{number(round(rate))} B/s")),
        (bilingual("Peak memory"), told(results.get("peak_memory_gb"), lambda size: f"{size:.2f} GB")),
        (bilingual("Evaluated on"), _of(evaluation.hardware if evaluation else None)),
        (bilingual("Evaluation time"), told(evaluation.seconds if evaluation else None, duration)),
        (bilingual("Writing speed"), told(written, lambda rate: f"{number(rate)} B/s")),
    ]


def flattened(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return the settings of a recipe as (dotted key, value); an empty mapping is a value."""
    if isinstance(config, dict) and config:
        return [
            entry
            for key, value in config.items()
            for entry in flattened(value, f"{prefix}.{key}" if prefix else str(key))
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
    """Return a class with its arguments, of switches those that are on; the recipe below has its module and all."""
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
    told = f"{value:g}" if isinstance(value, float) else str(value)
    return told if len(told) <= MAX_VALUE else told[: MAX_VALUE - 1] + "…"


def _of(value: Any) -> str | Markup | None:
    if value is None:
        return None
    return number(value) if isinstance(value, int) and not isinstance(value, bool) else data(_value(value))
