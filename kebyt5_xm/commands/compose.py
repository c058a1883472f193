"""`kebyt5-xm compose`: joins adapters of separate runs on one backbone into one model, without training.

    kebyt5-xm compose BACKBONE --adapter EXPORT_A/adapters/image --adapter EXPORT_B/adapters/speech --out FOLDER

Each adapter is bound to its backbone by a hash, which must be that of BACKBONE. The folder of an adapter has no
frozen encoder; its weights are read from the export that contains the folder.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.commands.export.export import DTYPES, export_cross_modal
from kebyt5_xm.commands.export.output_folder import check_output_folder
from kebyt5_xm.errors import UserError
from kebyt5_xm.trust import add_trust_argument

if TYPE_CHECKING:
    from torch import Tensor

    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.origin import Origin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "backbone", metavar="BACKBONE", help="the backbone of the adapters: an export, a run or a hub id"
    )
    parser.add_argument(
        "--adapter",
        action="append",
        required=True,
        metavar="[NAME=]FOLDER",
        help="an adapter's folder, as in EXPORT/adapters; NAME gives its modality another name",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export at --out")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command. Raises `UserError`."""
    import torch

    from kebyt5_xm.model.backbone import Backbone
    from kebyt5_xm.model.origin import Origin, record

    check_output_folder(args.out, args.overwrite)
    adapters = parse_adapters(args.adapter)
    model = compose(args.backbone, adapters, args.trust).to(getattr(torch, args.dtype))
    with tempfile.TemporaryDirectory() as folder:
        origin_folder = Path(folder) / "origin"
        record(Backbone(weights=args.backbone), origin_folder)
        origin = Origin.read(json.loads((origin_folder / "config.json").read_text(encoding="utf-8")))
        model.config.denoising = origin.denoising
        cards = _cards(args.out.resolve().name, model, origin)
        export_cross_modal(model, args.out, cards=cards, origin=origin_folder, overwrite=args.overwrite)
    print(f"composed {', '.join(adapters)} on {args.backbone} into {args.out}")


def parse_adapters(arguments: Sequence[str]) -> dict[str, Path]:
    """Return modality name -> folder of `[NAME=]FOLDER` arguments. Raises `UserError`."""
    from kebyt5_xm.model.adapter_folder import read_content
    from kebyt5_xm.model.configuration import check_modality_names

    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        renamed = bool(equals) and not Path(argument).exists()
        folder = Path(path if renamed else argument)
        modality = name if renamed else read_content(folder)["modality"]
        check_modality_names([modality])
        if modality in found:
            raise UserError(
                f"'{found[modality]}' and '{folder}' are both of the modality '{modality}'; give one another name: "
                f"--adapter {modality}2={folder}"
            )
        found[modality] = folder
    return found


def compose(backbone: str, adapters: dict[str, Path], trusted_modules: Sequence[str] = ()) -> "CrossModalT5":
    """Return a model in eval mode, in fp32, from a backbone and adapters that were trained on it.

    Raises `UserError` with both hashes for an adapter of another backbone.
    """
    from kebyt5_xm.model.adapter_folder import load_adapter, read_content
    from kebyt5_xm.model.backbone import Backbone
    from kebyt5_xm.model.configuration import CrossModalT5Config
    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.delete_gate_files import refuse_gate, saved_gate
    from kebyt5_xm.model.pretrained import open_pretrained
    from kebyt5_xm.model.specs import build_modalities
    from kebyt5_xm.model.t5 import saved_config

    gate = saved_gate(open_pretrained(backbone))
    refuse_gate(gate, f"the model of '{backbone}'", "train the adapters together with it, in one run")
    contents = {name: read_content(folder) for name, folder in adapters.items()}
    t5 = Backbone(weights=backbone).build()
    specs = {n: {key: content[key] for key in ("encoder", "adapter")} for n, content in contents.items()}
    config = CrossModalT5Config(saved_config(t5.config), specs, slot_bias=_slot_bias(contents))
    modalities = build_modalities(specs, t5.config.d_model, trusted_modules)
    model = CrossModalT5(config, t5, modalities)
    for name, folder in adapters.items():
        load_adapter(model, name, folder)
        if not (folder / "encoder.safetensors").is_file():
            _load_frozen_encoder(model, name, folder, contents[name]["modality"])
    model.measure_byte_rms()
    return model.eval()


def _slot_bias(contents: dict[str, dict[str, Any]]) -> Any:
    found = {name: content.get("slot_bias", "shared") for name, content in contents.items()}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name}: {value}" for name, value in found.items())
        raise UserError(
            f"the adapters were trained with different model.slot_bias ({listed}), expected one; train one again"
        )
    return next(iter(found.values()))


def _load_frozen_encoder(model: "CrossModalT5", name: str, folder: Path, original: str) -> None:
    """Load an encoder's weights from the export that contains the folder of its adapter."""
    from kebyt5_xm.model.pretrained import LocalFolder
    from kebyt5_xm.model.tensor_files import load_tensors, unique_tensors

    encoder = model.modality(name).encoder
    if not unique_tensors(encoder):  # it has no weights: stored features
        return
    around = folder.resolve().parents[1]
    prefix = f"modalities.{original}.encoder."
    is_model = (around / "config.json").is_file()
    tensors: dict[str, Tensor] = LocalFolder(around).all_tensors() if is_model else {}
    tensors = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    if not tensors:
        raise UserError(
            f"the encoder of '{folder}' was frozen, so its weights are in the export around it, but '{around}' "
            f"{'has no such weights' if is_model else 'is no export'}; give the folder within its export"
        )
    dtype = next(model.modality(name).adapter.parameters()).dtype
    load_tensors(encoder, tensors, str(around))
    encoder.to(dtype)


def _cards(name: str, model: "CrossModalT5", origin: "Origin") -> dict[str, str]:
    from kebyt5_xm.commands.export.card import CARDS, render
    from kebyt5_xm.commands.export.facts import list_modalities
    from kebyt5_xm.commands.export.metadata import base_metadata, front_matter
    from kebyt5_xm.commands.export.usage import cross_modal_code

    modalities = list_modalities(model)
    metadata = front_matter(base_metadata(origin, [modality.media for modality in modalities]))
    facts = {"name": name, "origin": origin, "modalities": modalities, "code": cross_modal_code(model, [])}
    return {
        file: f"{metadata}\n\n{render(f'composed.{language}.md', **facts)}"
        for file, language in CARDS.items()
    }
