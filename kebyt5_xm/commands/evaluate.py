"""`kebyt5-xm evaluate MODEL -c data.yaml`: metrics of any model on any held-out data, with intervals, and a page.

MODEL is a run, one of its checkpoints, an export, or a byte-level T5 that was trained elsewhere: a hub id or a folder
in the published layout. The recipe has `data.sources` with prompts, targets and metrics as for training; its other
parts are not used. Each source is evaluated on its `validation` rows, or on all rows of `path` if it names none.

    OUT/evaluation.json  OUT/predictions.jsonl  OUT/report.html
    OUT/config.yaml      the model and the data; `kebyt5-xm report OUT` and `compare` read it
"""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kebyt5_xm.commands.report import add_baselines, add_evaluation_arguments, check_numbers
from kebyt5_xm.durable import durable_folder
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report import write_report
from kebyt5_xm.training.recipes import add_config_argument

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm evaluate`."""
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint of one, an export, or a hub id")
    add_config_argument(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder to make (evaluations/MODEL-RECIPE, by their names)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation at --out")
    add_evaluation_arguments(parser)
    add_baselines(
        parser, "off", "what simple methods reach; training rows, from `path`, are then opened (off)"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the metrics and write the folder. Raises `UserError`."""
    check_numbers(args)
    out = args.out or Path("evaluations") / _name(args.model, args.config)
    check_output_folder(out, args.overwrite)

    from kebyt5_xm.evaluation.baselines.beside import BaselineChoice
    from kebyt5_xm.evaluation.columns import describe_scores
    from kebyt5_xm.evaluation.evaluate import Evaluation, write_evaluation
    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.device import open_device
    from kebyt5_xm.model.pretrained import RunBackbone, open_pretrained
    from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
    from kebyt5_xm.model.runs.run import Run
    from kebyt5_xm.training.from_recipes import build_held_out

    device = open_device(args.device)
    data, recipe = build_held_out(args.config, args.trust, with_training=args.baselines != "off")
    source = open_pretrained(args.model)
    checkpoint = source.run.checkpoint() if isinstance(source, RunBackbone) else None
    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust)
    fed = {name for part in data.sources.values() for name in part.modalities}
    data.idle_modalities = [name for name in model.processor.interfaces if name not in fed]
    evaluation = Evaluation.connected(model, data, device)
    if not len(data.validation):
        raise UserError(
            f"found no held-out examples in {', '.join(args.config)}; expected `validation` of a source, or `path`"
        )
    _make_parent(out)
    with durable_folder(out) as folder:
        _write_about(folder, args.model, source.config, model, recipe)
        step = checkpoint and checkpoint_step(checkpoint)
        name = checkpoint and checkpoint.name
        choice = BaselineChoice(args.baselines)
        found = write_evaluation(evaluation, folder, name, step, args.probed, args.robustness, choice)
    print(describe_scores(found))
    write_report(Run(out), evaluation.medium, None, args.examples, args.language)


def _make_parent(out: Path) -> None:
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make '{out}': {error.strerror or error}; choose another --out") from error


def check_output_folder(out: Path, overwrite: bool) -> None:
    """Raise `UserError` unless an evaluation may be written to `out`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    recipe = out / "config.yaml"
    if not recipe.is_file() or "evaluated_model:" not in recipe.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"'{out}' is not an evaluation and is not overwritten; choose another folder with --out"
        )
    if not overwrite:
        raise UserError(f"'{out}' holds an evaluation; choose another folder with --out, or --overwrite it")


def _name(model: str, recipes: list[str]) -> str:
    """Return the name of the folder for an evaluation of `model`: its last word, and those of the recipes."""
    path = Path(model)
    if path.name.endswith(".ckpt"):
        path = path.absolute().parents[1]
    words = [path.resolve().name if path.exists() else path.name, *(Path(recipe).stem for recipe in recipes)]
    return re.sub(r"[^\w.=-]+", "-", "-".join(words))


def _write_about(
    folder: Path, name: str, config: dict[str, Any], model: "CrossModalT5", recipe: dict[str, Any]
) -> None:
    """Write config.yaml and backbone/config.json, which the report reads as those of a run."""
    from kebyt5_xm.model.origin import Origin
    from kebyt5_xm.model.t5 import saved_config
    from kebyt5_xm.training.recipe_yaml import to_native
    from kebyt5_xm.weight_files import ABOUT

    parent = Origin.read(config)
    about = {"started_from": [name, *parent.started_from], "licence": parent.licence}
    (folder / "backbone").mkdir()
    (folder / "backbone" / "config.json").write_text(
        json.dumps({**saved_config(model.backbone.config), ABOUT: about}, indent=2) + "\n", encoding="utf-8"
    )
    modalities = json.loads(json.dumps({name: model.config.modalities[name] for name in model.modalities}))
    content = {"evaluated_model": name, "model": {"modalities": modalities}, **to_native(recipe)}
    (folder / "config.yaml").write_text(
        yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
