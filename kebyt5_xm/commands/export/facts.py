"""What a run recorded about itself, as its model card states it; None and empty for what it did not record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.commands.export.sources import SourceFacts, describe_data, list_sources
from kebyt5_xm.commands.export.usage import foreign_packages
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile
from kebyt5_xm.model.origin import Origin
from kebyt5_xm.model.runs.run import Run

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from kebyt5_xm.model.cross_modal import CrossModalT5

EXTRAS = {"image": "image", "audio": "audio", "array": ""}
"""Kind of media -> the extra of kebyt5-xm that opens its files."""


@dataclass(frozen=True)
class Power:
    """The electric power of a run, as its user knows it.

    Attributes:
        watts: mean power of one device, in W.
        grams_per_kwh: greenhouse gases of the grid, in g CO2 equivalent per kWh; None if unknown.
    """

    watts: float
    grams_per_kwh: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--watts", self.watts), ("--grams-per-kwh", self.grams_per_kwh)):
            if value is not None and not 0 < value < 1e6:
                raise UserError(f"found {name} {value:g}, expected a number above 0")


@dataclass(frozen=True)
class Result:
    """A metric of a source, with its interval where the run was evaluated."""

    source: str
    metric: str
    value: float
    low: float
    high: float
    examples: int

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class ModalityFacts:
    """A modality: what it takes, its classes, and whether its encoder kept its weights."""

    name: str
    media: str
    encoder: str
    adapter: str
    frozen: bool


@dataclass(frozen=True)
class RunFacts:
    """Everything that a card says. `step` is that of the exported checkpoint, `gate_layer` that of a delete gate."""

    name: str
    origin: Origin
    class_name: str
    num_parameters: int
    size_mb: float
    dtype: str
    backbone: Any
    modalities: list[ModalityFacts] = field(default_factory=list)
    sources: list[SourceFacts] = field(default_factory=list)
    denoising: Any = None
    settings: list[tuple[str, Any]] = field(default_factory=list)
    results: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    step: int | None = None
    examples_seen: int | None = None
    evaluated: list[Result] = field(default_factory=list)
    confidence: float = 0.95
    validated_step: int = 0
    validation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    power: Power | None = None
    lora_apart: bool = False
    gate_layer: int | None = None
    packages: list[str] = field(default_factory=list)

    @property
    def languages(self) -> list[str]:
        """The languages of the stores that it trained on."""
        parts = [part.name.rpartition("/")[2] for s in self.sources if s.denoises for part in s.parts]
        return list(dict.fromkeys(parts))

    @property
    def device_hours(self) -> float | None:
        """Hours of training, summed over devices."""
        return self.results.get("device_hours")

    @property
    def kwh(self) -> float | None:
        """Energy of the devices while they trained, in kWh."""
        if self.power is None or self.device_hours is None:
            return None
        return self.power.watts * self.device_hours / 1000

    @property
    def grams_co2(self) -> float | None:
        """Emissions of that energy, in g CO2 equivalent."""
        if self.kwh is None or self.power is None or self.power.grams_per_kwh is None:
            return None
        return self.kwh * self.power.grams_per_kwh

    @property
    def validation_columns(self) -> list[str]:
        """The figures of the held-out parts."""
        return list(dict.fromkeys(column for values in self.validation.values() for column in values))


def collect(
    run: Run,
    model: "T5ForConditionalGeneration",
    *,
    name: str,
    step: int | None,
    checkpoint: Path | None,
    denoising: Mapping[str, Any],
    origin: Origin,
    cross_modal: "CrossModalT5 | None" = None,
    lora_apart: bool = False,
    power: Power | None = None,
    trusted_modules: Sequence[str] = (),
) -> RunFacts:
    """Return the facts of a run.

    Args:
        run: gives the recipe, metrics.csv, results.json and evaluation.json.
        model: the exported backbone.
        name: the title of the card.
        step: the optimizer step of the exported checkpoint, if known.
        checkpoint: the checkpoint, which says what it was trained on.
        denoising: the settings of span denoising; empty if neither the run nor its start denoised.
        origin: what the run started from.
        cross_modal: the whole model, if it is exported and not only its backbone `model`.
        lora_apart: whether the updates are beside the weights.
        power: the power that the user states.
        trusted_modules: packages with classes of the run.
    """
    from kebyt5_xm.data.text.denoising import SpanDenoising

    whole = cross_modal or model
    results = run.results()
    description, seen = describe_data(run, checkpoint)
    evaluation = _evaluation(run, step)
    validated_step, validation = run.validation(step)
    batch = (run.config.get("data") or {}).get("global_batch_size") or results.get("global_batch_size")
    modalities = list_modalities(cross_modal) if cross_modal is not None else []
    gate = None if cross_modal is None else cross_modal.config.delete_gate
    return RunFacts(
        name=name,
        origin=origin,
        class_name=type(whole).__name__,
        num_parameters=whole.num_parameters(),
        size_mb=sum(p.numel() * p.element_size() for p in whole.parameters()) / 1e6,
        dtype=str(whole.dtype).removeprefix("torch."),
        backbone=model.config,
        modalities=modalities,
        sources=list_sources(run, description, trusted_modules),
        denoising=SpanDenoising(**denoising) if denoising else None,
        settings=_settings(run),
        results=results,
        software=results.get("software") or {},
        step=step,
        examples_seen=seen if seen is not None else step * batch if step is not None and batch else None,
        evaluated=_results(evaluation) if evaluation else [],
        confidence=evaluation.confidence if evaluation else 0.95,
        validated_step=validated_step,
        validation={part: values for part, values in validation.items() if part != "all"},
        power=power,
        lora_apart=lora_apart,
        gate_layer=gate["layer"] if gate else None,
        packages=_packages(modalities, cross_modal),
    )


def list_modalities(model: "CrossModalT5") -> list[ModalityFacts]:
    """Return the modalities of a model."""
    found = []
    for name in model.modalities:
        module, spec = model.modality(name), model.config.modalities[name]
        encoder, adapter = (spec[key]["class_path"] for key in ("encoder", "adapter"))
        frozen = module.encoder.keeps_initial_weights and not module.encoder_changed
        found.append(ModalityFacts(name, module.encoder.media, encoder, adapter, frozen))
    return found


def _packages(modalities: Sequence[ModalityFacts], model: "CrossModalT5 | None") -> list[str]:
    """Return what has to be installed to use a model."""
    if model is None:
        return ["torch", "transformers"]
    extras = dict.fromkeys(EXTRAS[modality.media] for modality in modalities)
    chosen = ",".join(extra for extra in extras if extra)
    return [f"kebyt5-xm[{chosen}]" if chosen else "kebyt5-xm", *foreign_packages(model.config.modalities)]


def _evaluation(run: Run, step: int | None) -> EvaluationFile | None:
    """Return RUN/evaluation.json if it is of the exported checkpoint."""
    found = EvaluationFile.read(run.path / "evaluation.json")
    return found if found is not None and step is not None and found.step == step else None


def _results(evaluation: EvaluationFile) -> list[Result]:
    return [
        Result(source, name, metric.score.value, metric.score.low, metric.score.high, block.examples)
        for source, block in evaluation.sources.items()
        for name, metric in block.metrics.items()
    ]


def _settings(run: Run) -> list[tuple[str, Any]]:
    """Return the settings that decide a training, by their names in the recipe."""
    config, results = run.config, run.results()
    trainer, model, data = (config.get(key) or {} for key in ("trainer", "model", "data"))
    settings = {
        "precision": results.get("precision", trainer.get("precision")),
        "strategy": results.get("strategy"),
        "seed": config.get("seed_everything"),
        "max_steps": trainer.get("max_steps"),
        "gradient_clip_val": trainer.get("gradient_clip_val"),
        "global_batch_size": data.get("global_batch_size"),
        **{f"budget.{key}": value for key, value in (data.get("budget") or {}).items()},
        "dropout": (model.get("backbone") or {}).get("dropout"),
        "frozen backbone": (model.get("backbone") or {}).get("frozen") or None,
        "slot_bias": model.get("slot_bias") if model.get("modalities") else None,
        **{
            f"lora.{name}": ", ".join(f"{key} {value}" for key, value in entry.items() if value is not None)
            for name, entry in (model.get("lora") or {}).items()
        },
        **{
            f"ctc.{name}": f"weight {modality['ctc']['weight']}"
            for name, modality in (model.get("modalities") or {}).items()
            if modality.get("ctc")
        },
        **{f"delete_gate.{key}": value for key, value in (model.get("delete_gate") or {}).items()},
        "draft heads": (model.get("draft_heads") or {}).get("count"),
        **_block("optimizer", model.get("optimizer")),
        **_block("schedule", model.get("schedule")),
    }
    return [(name, value) for name, value in settings.items() if value is not None]


def _block(name: str, block: Any) -> dict[str, Any]:
    """Return a `class_path` block of a recipe as flat entries."""
    if not isinstance(block, dict):
        return {name: block}
    init_args = block.get("init_args") or {}
    return {name: block.get("class_path")} | {f"{name}.{key}": value for key, value in init_args.items()}
