"""The metadata of a model card: the YAML between its first two lines of `---`, as the hub reads it."""

import math
import re
from typing import Any

import yaml

from kebyt5_xm.commands.export.facts import Result, RunFacts
from kebyt5_xm.model.origin import Origin

LIBRARY = "kebyt5-xm"

HUB_METRICS = {
    "accuracy": "accuracy",
    "bleu": "bleu",
    "character_error_rate": "cer",
    "chr_f": "chrf",
    "cider": "cider",
    "exact_match": "exact_match",
    "macro_f1": "f1",
    "micro_f1": "f1",
    "pearson": "pearsonr",
    "rouge_l": "rouge",
    "spearman": "spearmanr",
    "word_error_rate": "wer",
}
"""Name of a metric here -> the hub's identifier (https://huggingface.co/metrics)."""


def front_matter(content: dict[str, Any]) -> str:
    """Return the YAML front matter, between two lines of `---`."""
    return "---\n" + yaml.safe_dump(content, allow_unicode=True, sort_keys=False) + "---"


def run_metadata(facts: RunFacts) -> dict[str, Any]:
    """Return the metadata of an exported run; a key without a recorded value is absent."""
    media = [modality.media for modality in facts.modalities]
    tag = pipeline_tag(media)
    content: dict[str, Any] = base_metadata(facts.origin, media)
    if facts.gate_layer is not None:  # no plain T5
        content["library_name"] = LIBRARY
    if languages := [code for code in facts.languages if re.fullmatch(r"[a-z]{2,3}", code)]:
        content["language"] = languages
    if datasets := list(dict.fromkeys(name for source in facts.sources for name in source.datasets)):
        content["datasets"] = datasets
    results = [result for result in facts.evaluated if math.isfinite(result.value)]
    if metrics := list(dict.fromkeys(hub_metric(result.metric) for result in results)):
        content["metrics"] = metrics
        content["model-index"] = [{"name": facts.name, "results": _model_index(facts, tag)}]
    if facts.grams_co2 is not None and facts.power is not None:
        content["co2_eq_emissions"] = {
            "emissions": round(facts.grams_co2, 3),
            "source": f"{facts.power.watts:g} W x {facts.device_hours:g} device hours x "
            f"{facts.power.grams_per_kwh:g} g/kWh, as stated at export",
            "training_type": "fine-tuning" if facts.origin.started_from else "pre-training",
            "hardware_used": facts.results.get("hardware", ""),
        }
    return content


def base_metadata(origin: Origin, media: list[str]) -> dict[str, Any]:
    """Return the metadata that every export has: library, task, tags, licence and base model.

    `media` are the kinds that the modalities take; a plain T5, without any, is loaded by transformers.
    """
    content: dict[str, Any] = {
        "library_name": LIBRARY if media else "transformers",
        "pipeline_tag": pipeline_tag(media),
        "tags": ["byt5", "byte-level", LIBRARY],
    }
    content |= licence_metadata(origin)
    if hub_ids := [entry for entry in origin.started_from if "/" in entry]:
        content["base_model"] = hub_ids[0]
    return content


def licence_metadata(origin: Origin) -> dict[str, str]:
    """Return `license`, and the name and link that the hub wants of one that is not among its own.

    Nothing is inherited from scratch. The terms of a hub model hold even where its card names no licence.
    """
    hub_ids = [entry for entry in origin.started_from if "/" in entry]
    licence = origin.licence or ("other" if hub_ids else None)
    if licence is None:
        return {}
    if licence != "other":
        return {"license": licence}
    link = origin.licence_link or (f"https://huggingface.co/{hub_ids[-1]}" if hub_ids else "")
    return {
        "license": licence,
        "license_name": origin.licence_name or "see-notice",
        **({"license_link": link} if link else {}),
    }


def pipeline_tag(media: list[str]) -> str:
    """Return the hub's task of a model whose modalities take these kinds of media."""
    kinds = {kind for kind in media if kind != "array"}
    tags = {frozenset({"image"}): "image-text-to-text", frozenset({"audio"}): "audio-text-to-text"}
    return tags.get(frozenset(kinds), "any-to-any" if kinds else "text-generation")


def hub_metric(name: str) -> str:
    """Return the hub's identifier of a metric, or our name if the hub has none."""
    return HUB_METRICS.get(name, name)


def _interval(result: Result, confidence: float) -> dict[str, float]:
    if not result.has_interval:
        return {}
    return {"confidence": confidence, "low": round(result.low, 6), "high": round(result.high, 6)}


def _model_index(facts: RunFacts, tag: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for source in dict.fromkeys(result.source for result in facts.evaluated):
        results = [r for r in facts.evaluated if r.source == source and math.isfinite(r.value)]
        metrics = [
            {
                "type": hub_metric(result.metric),
                "value": round(result.value, 6),
                "name": result.metric,
                "args": {**_interval(result, facts.confidence), "examples": result.examples},
            }
            for result in results
        ]
        dataset = {"name": source, "type": source, "split": "held-out"}
        if metrics:
            entries.append({"task": {"type": tag}, "dataset": dataset, "metrics": metrics})
    return entries
