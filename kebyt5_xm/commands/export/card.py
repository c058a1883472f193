"""The model card of an export, filled from its run, under the headings of Hugging Face's template.

Facts that the run did not record are left out or marked as not recorded; no placeholder is written.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kebyt5_xm.commands.export.usage import (
    cross_modal_example,
    describe_modalities,
    describe_uses,
    text_example,
)
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.origin import Origin
from kebyt5_xm.model.runs.run import Run

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from kebyt5_xm.model.cross_modal import CrossModalT5

UNKNOWN = "not recorded"

CITATION = """```bibtex
@article{xue-etal-2022-byt5,
  title   = {{ByT5}: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models},
  author  = {Xue, Linting and Barua, Aditya and Constant, Noah and Al-Rfou, Rami and Narang, Sharan and
             Kale, Mihir and Roberts, Adam and Raffel, Colin},
  journal = {Transactions of the Association for Computational Linguistics},
  volume  = {10},
  year    = {2022}
}
```"""


def model_card(
    run: Run,
    model: "T5ForConditionalGeneration",
    *,
    name: str,
    step: int | None,
    denoising: dict[str, Any],
    origin: Origin,
    cross_modal: "CrossModalT5 | None" = None,
) -> str:
    """Return the text of README.md.

    Args:
        run: gives the recipe, metrics.csv and results.json.
        model: the exported backbone.
        name: the title.
        step: the optimizer step of the exported checkpoint, if known.
        denoising: as in `kebyt5_xm.commands.export.export.export_backbone`; empty if the run had no denoising source.
        origin: what the run started from.
        cross_modal: the whole model, if it is exported and not only its backbone `model`.
    """
    results = run.results()
    stores = _stores(run)
    languages = list(dict.fromkeys(language for _, language, _ in stores))
    sections = [
        front_matter(languages, origin),
        f"# {name}",
        *_details(cross_modal or model, languages, origin),
        *(["### Modalities", describe_modalities(cross_modal)] if cross_modal else []),
        *describe_uses(denoising, bool(cross_modal)),
        "## How to Get Started with the Model",
        cross_modal_example(cross_modal) if cross_modal else text_example(denoising),
        "## Training Details",
        "### Training Data",
        _training_data(stores),
        "### Training Procedure",
        "#### Preprocessing",
        _preprocessing(denoising),
        "#### Training Hyperparameters",
        _hyperparameters(run, results),
        "#### Speeds, Sizes, Times",
        _speeds(run, cross_modal or model, results, step),
        *_evaluation(run, step),
        "## Environmental Impact",
        _bullets(
            ("Hardware Type", results.get("hardware", UNKNOWN)),
            ("Hours used", _hours(results)),
            ("Carbon Emitted", "not measured"),
        ),
        *_specifications(model, results),
        "## Citation",
        CITATION,
    ]
    return "\n\n".join(sections) + "\n"


def front_matter(languages: list[str], origin: Origin) -> str:
    """Return the YAML front matter of a model card, between two lines of `---`."""
    content: dict[str, Any] = {"library_name": "transformers", "tags": ["byt5", "byte-level", "kebyt5-xm"]}
    if languages:
        content["language"] = languages
    if origin.licence:
        content["license"] = origin.licence
    if hub_ids := [entry for entry in origin.started_from if "/" in entry]:
        content["base_model"] = hub_ids[0]
    return "---\n" + yaml.safe_dump(content, allow_unicode=True, sort_keys=False) + "---"


def inherited_licence(origin: Origin) -> str:
    """Return the licence of a model that was trained further from others."""
    return f"{origin.licence or 'not stated by its origin'}; see NOTICE, whose limits of use apply here too"


def _details(
    model: "T5ForConditionalGeneration | CrossModalT5", languages: list[str], origin: Origin
) -> list[str]:
    if origin.started_from:
        start = " <- ".join(origin.started_from)
        licence = inherited_licence(origin)
    else:
        start = "from scratch"
        licence = "chosen by whoever publishes these weights; nothing is inherited"
    return [
        "A byte-level T5: it reads and writes the raw bytes of UTF-8 text and has no other vocabulary.",
        "## Model Details",
        "### Model Description",
        _bullets(
            (
                "Model type",
                f"encoder-decoder (`{type(model).__name__}`), {model.num_parameters():,} parameters",
            ),
            ("Language(s)", ", ".join(languages) or UNKNOWN),
            ("License", licence),
            ("Started from", start),
        ),
    ]


def _stores(run: Run) -> list[tuple[str, str, str]]:
    """Return (source, language, folder) of every training store of the recipe's denoising sources."""
    return [
        (source, language, str(path))
        for source, block in (run.config.get("data", {}).get("sources") or {}).items()
        for language, path in ((block.get("init_args") or {}).get("stores") or {}).items()
    ]


def _training_data(stores: list[tuple[str, str, str]]) -> str:
    if not stores:
        return "The recipe names no byte stores."
    rows = []
    for source, language, path in stores:
        num_bytes, num_documents = _store_size(path)
        rows.append([source, language, Path(path).name, num_bytes, num_documents])
    return "Text, as flat bytes.\n\n" + _table(["source", "language", "store", "bytes", "documents"], rows)


def _store_size(path: str) -> tuple[str, str]:
    from kebyt5_xm.data.text.store import Store

    try:
        store = Store(path)
    except UserError:  # the store was moved or deleted since training
        return UNKNOWN, UNKNOWN
    return f"{store.num_bytes:,}", f"{store.num_documents:,}"


def _preprocessing(denoising: dict[str, Any]) -> str:
    if not denoising:
        return "Text was turned into byte ids (byte + 3)."
    from kebyt5_xm.data.text.denoising import SpanDenoising

    objective = SpanDenoising(**denoising)
    return (
        f"Documents were joined end to end and cut into chunks of {objective.chunk_length} bytes, a byte's "
        f"id being byte + 3. About {objective.num_noise} bytes of each ({objective.noise_density:g}) were removed "
        f"in {objective.num_spans} spans (mean length {objective.mean_noise_span_length:g}), on "
        f"{objective.boundaries} boundaries, with `{objective.sentinels}` sentinels: inputs of "
        f"{objective.inputs_length} ids, targets of {objective.targets_length}."
    )


def _hyperparameters(run: Run, results: dict[str, Any]) -> str:
    config = run.config
    precision = results.get("precision", config.get("trainer", {}).get("precision")) or UNKNOWN
    model, data = config.get("model", {}), config.get("data", {})
    settings = {
        "seed": config.get("seed_everything"),
        "max_steps": config.get("trainer", {}).get("max_steps"),
        "gradient_clip_val": config.get("trainer", {}).get("gradient_clip_val"),
        "global_batch_size": data.get("global_batch_size"),
        "dropout": model.get("backbone", {}).get("dropout"),
        "frozen backbone": model.get("backbone", {}).get("frozen") or None,
        **{
            f"lora.{name}": ", ".join(f"{key} {value}" for key, value in entry.items())
            for name, entry in (model.get("lora") or {}).items()
        },
        "draft heads": (model.get("draft_heads") or {}).get("count"),
        **_block("optimizer", model.get("optimizer")),
        **_block("schedule", model.get("schedule")),
    }
    return _bullets(
        ("Training regime", precision),
        ("Strategy", results.get("strategy", UNKNOWN)),
        *((name, value) for name, value in settings.items() if value is not None),
    )


def _block(name: str, block: Any) -> dict[str, Any]:
    """Return a `class_path` block of a recipe as flat entries."""
    if not isinstance(block, dict):
        return {name: block}
    init_args = block.get("init_args") or {}
    return {name: block.get("class_path")} | {f"{name}.{key}": value for key, value in init_args.items()}


def _speeds(
    run: Run, model: "T5ForConditionalGeneration | CrossModalT5", results: dict[str, Any], step: int | None
) -> str:
    batch = run.config.get("data", {}).get("global_batch_size") or results.get("global_batch_size")
    examples = f"{step * batch:,}" if step is not None and batch else UNKNOWN
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    speed = f"{results['bytes_per_second']:,}" if "bytes_per_second" in results else UNKNOWN
    return _bullets(
        ("Optimizer steps of this checkpoint", f"{step:,}" if step is not None else UNKNOWN),
        ("Examples seen", examples),
        ("Bytes per second", f"{speed} (input and target ids, all ranks)"),
        ("Training time, hours", _hours(results)),
        ("Size of the weights", f"{size / 1e6:,.1f} MB, {str(model.dtype).removeprefix('torch.')}"),
        ("Trained until", results.get("date", UNKNOWN)),
    )


def _hours(results: dict[str, Any]) -> str:
    if "train_seconds" not in results:
        return UNKNOWN
    seconds = results["train_seconds"]
    return f"{seconds / 3600:.2f}" if seconds >= 360 else f"{seconds / 3600:.4f} ({seconds:.3g} seconds)"


def _evaluation(run: Run, step: int | None) -> list[str]:
    validated_step, parts = run.validation(step)
    columns = list(dict.fromkeys(column for values in parts.values() for column in values))
    rows = [[part, *(f"{v[c]:.4f}" if c in v else "" for c in columns)] for part, v in parts.items()]
    found = (
        f"At step {validated_step:,}:\n\n{_table(['part', *columns], rows)}"
        if parts
        else "No validation was recorded."
    )
    return [
        "## Evaluation",
        "### Testing Data, Factors & Metrics",
        "#### Testing Data",
        "The held-out end of each store, or the stores that the recipe names for validation; spans are drawn "
        "with a fixed seed, the same for every run.",
        "#### Factors",
        "Source and language.",
        "#### Metrics",
        "`loss` in nats per target id; `bits_per_byte` of the removed text. For comparison, the entropies of the "
        "same held-out bytes, in bits per byte: of all bytes alike (`uniform`), of single bytes (`unigram`), and "
        "of a byte given the one before (`bigram`).",
        "### Results",
        found,
    ]


def _specifications(model: "T5ForConditionalGeneration", results: dict[str, Any]) -> list[str]:
    from importlib.metadata import version

    c = model.config
    return [
        "## Technical Specifications",
        "### Model Architecture and Objective",
        f"T5 1.1 over {c.vocab_size} ids, head not tied to the embedding: d_model {c.d_model}, d_ff "
        f"{c.d_ff}, {c.num_heads} heads of {c.d_kv}, {c.num_layers} encoder and {c.num_decoder_layers} decoder "
        f"layers, relative positions in {c.relative_attention_num_buckets} buckets up to "
        f"{c.relative_attention_max_distance} bytes. Objective: span denoising.",
        "### Compute Infrastructure",
        "#### Hardware",
        str(results.get("hardware", UNKNOWN)),
        "#### Software",
        "kebyt5-xm, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "transformers")),
    ]


def _bullets(*entries: tuple[str, Any]) -> str:
    return "\n".join(f"- **{name}:** {value}" for name, value in entries)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
