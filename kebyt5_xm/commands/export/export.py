"""`kebyt5-xm export`: a run as a folder to keep, publish and start from.

A text-only run gives a plain T5 that transformers loads by itself. A run with modalities or a delete gate gives a
`CrossModalT5`, and each of its adapters separately. LoRA updates are merged into the weights; for a plain T5,
`--lora apart` writes them to OUT/lora, as peft loads them.

    OUT/config.json  OUT/model.safetensors  OUT/processor_config.json  OUT/adapters/NAME/

Draft heads go to OUT/draft_heads.safetensors, which transformers does not read; they are left out where LoRA is
apart, since they were trained with it. `--format ctranslate2` writes a text model for that engine instead.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kebyt5_xm.commands.export.card import model_cards
from kebyt5_xm.commands.export.ctranslate2_format import check_convertible, export_ctranslate2
from kebyt5_xm.commands.export.facts import Power, collect
from kebyt5_xm.commands.export.output_folder import atomic_folder, check_output_folder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model import lora_folder
from kebyt5_xm.model import origin as origins
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.delete_gate_files import refuse_gate, run_gate
from kebyt5_xm.model.draft_heads import FILE
from kebyt5_xm.model.draft_heads_files import about_heads, run_heads
from kebyt5_xm.model.finite import refuse_non_finite
from kebyt5_xm.model.lora import without_lora
from kebyt5_xm.model.origin import Origin, run_denoising
from kebyt5_xm.model.pretrained import RunBackbone
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run, resolve
from kebyt5_xm.model.t5 import load_state, saved_config, saved_state
from kebyt5_xm.model.tensor_files import write_tensors
from kebyt5_xm.trust import add_trust_argument
from kebyt5_xm.vocabulary import EXTRA_IDS
from kebyt5_xm.weight_files import ABOUT, MAX_SHARD_BYTES, write_digests, write_weights

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.draft_heads import DraftHeadsModule

Dtype = Literal["float32", "bfloat16"]
DTYPES = ("float32", "bfloat16")

TOKENIZER = {
    "tokenizer_class": "ByT5Tokenizer",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "extra_ids": EXTRA_IDS,
    "additional_special_tokens": [f"<extra_id_{n}>" for n in range(EXTRA_IDS)],
    "clean_up_tokenization_spaces": False,
}
"""tokenizer_config.json in the form of the published ByT5 repositories. transformers 4 cannot read the one that
transformers 5 saves."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run directory, or one checkpoint of it")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument(
        "--checkpoint", default="", metavar="best|last|PATH", help="default: the best, else the last"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export at --out")
    parser.add_argument(
        "--format",
        choices=("transformers", "ctranslate2"),
        default="transformers",
        help="who loads the folder",
    )
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, "int8"),
        default="float32",
        help="dtype of the weights; int8 for --format ctranslate2 alone",
    )
    parser.add_argument(
        "--lora",
        choices=("merged", "apart"),
        default="merged",
        help="LoRA updates: merged into the weights, or apart in OUT/lora for peft",
    )
    parser.add_argument(
        "--watts", type=float, metavar="W", help="mean power of one device while it trained, for the card"
    )
    parser.add_argument(
        "--grams-per-kwh",
        type=float,
        metavar="G",
        help="greenhouse gases of the grid in g CO2 equivalent per kWh; with --watts the card states emissions",
    )
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command. Raises `UserError`."""
    if args.watts is None and args.grams_per_kwh is not None:
        raise UserError("found --grams-per-kwh without --watts, expected both: emissions need the power")
    power = None if args.watts is None else Power(args.watts, args.grams_per_kwh)
    found = resolve(args.run)
    if args.checkpoint in ("best", "last"):
        found = Run(found.path, found.best if args.checkpoint == "best" else found.last)
    elif args.checkpoint:
        if not Path(args.checkpoint).exists():
            raise UserError(
                f"--checkpoint is '{args.checkpoint}'; expected best, last or an existing checkpoint"
            )
        found = Run(found.path, Path(args.checkpoint))
    lora_apart = args.lora == "apart"

    def write(out: Path, overwrite: bool, dtype: Dtype) -> None:
        export_run(
            found,
            out,
            overwrite=overwrite,
            dtype=dtype,
            trusted_modules=args.trust,
            lora_apart=lora_apart,
            power=power,
        )

    if args.format == "ctranslate2":
        check_convertible(found, lora_apart)
        export_ctranslate2(lambda out: write(out, False, "float32"), args.out, args.overwrite, args.dtype)
    elif args.dtype == "int8":
        raise UserError(
            "found --dtype int8 with --format transformers, expected --format ctranslate2; an export in float32 "
            "computes in int8 with `kebyt5-xm generate --dtype int8`"
        )
    else:
        write(args.out, args.overwrite, args.dtype)
    print(f"exported {found.checkpoint()} to {args.out}")


def export_run(
    run: Run,
    out: Path,
    overwrite: bool = False,
    dtype: Dtype = "float32",
    trusted_modules: Sequence[str] = (),
    lora_apart: bool = False,
    power: Power | None = None,
) -> None:
    """Export the model of a run's chosen, best or last checkpoint, with model cards filled from the run.

    `trusted_modules` are third-party packages with encoders and adapters of the run.
    `lora_apart` writes the weights without LoRA updates, and the updates to OUT/lora. `power` is for the cards.
    Raises `UserError` if there is no checkpoint, if it does not fit, or if `out` must not be written.
    """
    import torch

    check_output_folder(out, overwrite)
    checkpoint = run.checkpoint()
    recorded = RunBackbone(run).config
    origin = Origin.read(recorded)
    denoising = run_denoising(run, trusted_modules) or origin.denoising
    gate = run_gate(run)
    if lora_apart:
        refuse_gate(gate, f"the model of '{run.path}'", "export it with --lora merged")
    updates = lora_folder.read(run) if lora_apart else None
    heads = cross_modal = None
    if gate is not None or (run.config.get("model") or {}).get("modalities"):
        from kebyt5_xm.model.cross_modal import CrossModalT5
        from kebyt5_xm.model.saving import load_run

        cross_modal = load_run(CrossModalT5, run, trusted_modules)
        model = cross_modal.to(getattr(torch, dtype)).backbone
    else:
        model = Backbone(weights=str(checkpoint), dropout=recorded.get("dropout_rate", 0.0)).build()
        heads = None if lora_apart else run_heads(checkpoint)
        if updates is not None:
            load_state(model, without_lora(updates.tensors), str(checkpoint))
        model.to(getattr(torch, dtype))
    facts = collect(
        run,
        model,
        name=out.resolve().name,
        step=checkpoint_step(checkpoint),
        checkpoint=checkpoint,
        denoising=denoising,
        origin=origin,
        cross_modal=cross_modal,
        lora_apart=lora_apart,
        power=power,
        trusted_modules=trusted_modules,
    )
    cards = model_cards(facts, cross_modal)
    if cross_modal is not None:
        cross_modal.config.denoising = denoising
        export_cross_modal(cross_modal, out, cards=cards, origin=run.backbone, overwrite=overwrite)
        return
    export_backbone(
        model,
        out,
        denoising=denoising,
        cards=cards,
        origin=run.backbone,
        overwrite=overwrite,
        lora=updates,
        draft_heads=heads,
    )


def export_backbone(
    model: "T5ForConditionalGeneration",
    out: Path,
    *,
    denoising: dict[str, Any],
    cards: Mapping[str, str] | None = None,
    origin: Path | None = None,
    overwrite: bool = False,
    lora: "lora_folder.BackboneLoRA | None" = None,
    draft_heads: "DraftHeadsModule | None" = None,
) -> None:
    """Write a backbone as a folder for transformers 4.57 and 5: config, safetensors, tokenizer, model card.

    Args:
        model: has an untied head and the dtype in which it is saved.
        out: the folder, written complete or not at all.
        denoising: settings of the span denoising it was trained with, saved in config.json under `kebyt5_xm`.
        cards: file name -> text of the model cards.
        origin: folder that `kebyt5_xm.model.origin.record` wrote; its licence terms are copied.
        overwrite: replace an earlier export.
        lora: written to lora/, in peft's layout.
        draft_heads: written to draft_heads.safetensors, in the model's dtype.

    Raises `UserError` if `out` exists and must not be overwritten.
    """
    config = saved_config(model.config)
    about: dict[str, Any] = {"denoising": denoising, "backbone_hash": backbone_hash(model)}
    if origin is not None:
        recorded = Origin.read(json.loads((origin / "config.json").read_text(encoding="utf-8")))
        about = recorded.as_about() | about
    config |= {
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        ABOUT: about | about_heads(draft_heads),
    }
    generation = {key: config[key] for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    with atomic_folder(out, overwrite) as folder:
        for name, content in (
            ("config.json", config),
            ("generation_config.json", generation),
            ("tokenizer_config.json", TOKENIZER),
        ):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        state = {name: tensor.cpu().contiguous() for name, tensor in saved_state(model).items()}
        refuse_non_finite(state, f"export '{out}'")
        write_weights(state, folder, MAX_SHARD_BYTES)
        _write_cards(cards or {}, folder)
        if origin is not None:
            origins.copy_terms(origin, folder)
        if lora is not None:
            lora.write(folder / "lora", model.dtype)
        if draft_heads is not None:
            write_tensors(draft_heads.to(model.dtype), folder / FILE)
        write_digests(folder)


def export_cross_modal(
    model: "CrossModalT5", out: Path, *, cards: Mapping[str, str], origin: Path, overwrite: bool
) -> None:
    """Write a `CrossModalT5` with its processor settings, adapters, cards and inherited licence terms."""
    from kebyt5_xm.model.adapter_folder import save_adapter
    from kebyt5_xm.model.processor import CrossModalProcessor
    from kebyt5_xm.model.saving import save

    recorded = Origin.read(json.loads((origin / "config.json").read_text(encoding="utf-8")))
    about = recorded.as_about() | {
        "backbone_hash": backbone_hash(model.backbone),
        "denoising": model.config.denoising,
    }
    with atomic_folder(out, overwrite) as folder:
        save(model, folder, about)
        CrossModalProcessor.of(model).save_pretrained(folder)
        for name in model.modalities:
            save_adapter(model, name, folder / "adapters" / name)
        _write_cards(cards, folder)
        origins.copy_terms(origin, folder)


def _write_cards(cards: Mapping[str, str], folder: Path) -> None:
    for name, text in cards.items():
        (folder / name).write_text(text, encoding="utf-8")
