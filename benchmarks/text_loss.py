"""Text loss at equal bytes: the demo's text pretraining compared with transformers' Trainer on the same model.

    python -m demo                            # first: it makes the text
    python -m benchmarks.text_loss            # about an hour of one idle core
    python -m benchmarks.text_loss --only recipe adamw_3e-3 --seeds 1

Every contestant trains the model of `configs/demo/text.yaml` from random weights, on the same chunks of the same
documents, with as many examples in a step and as many bytes in all. Ours are

- `recipe`: the recipe as it is;
- `doctor`: the recipe under what `kebyt5-xm doctor --write` recommends, at the recipe's bytes.

The Trainer's are `benchmarks.text_loss_peer.RULES`. All of them, and the recipe, first train for a third of the steps
(`short`); the best three of the Trainer's, and ours, then train in full, and the best of each side with more seeds.
So the Trainer's rate is searched on the very figures that are reported, ours is not.

The figure is bits per byte of the removed spans of the recipe's held-out examples, from the saved model by our own
evaluation. The Trainer's models are also evaluated as they are in memory, by transformers' own code, and both must
agree. Finished runs are kept in runs/text_loss/ and not repeated. The Trainer needs accelerate, which
`pip install 'kebyt5-xm[finetune]'` brings.
"""

import argparse
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml
from transformers import T5ForConditionalGeneration

from benchmarks import text_loss_peer
from benchmarks.report import write_report
from kebyt5_xm.commands import cli
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.errors import UserError, exit_on_user_error
from kebyt5_xm.evaluation.evaluate import Evaluation
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.training import cli as training
from kebyt5_xm.training import from_recipes

RECIPE = Path("configs/demo/text.yaml")
FOLDER = Path("runs/text_loss")
OURS = ("recipe", "doctor")
SHORT = 3
"""A short run has the recipe's steps divided by this."""
FINALISTS = 3
"""Of the Trainer's rules, trained in full."""
SOURCE = "text"
"""The recipe's source."""
ALL = "all"
"""Key of all languages together."""
AGREEMENT = 1e-4
"""Bits per byte by which two implementations of one model may differ in fp32."""
Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write benchmarks/results/text_loss.json."""
    contestants = (*OURS, *text_loss_peer.RULES)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_loss", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=contestants, default=contestants, metavar="CONTESTANT")
    parser.add_argument("--seeds", type=int, default=3, help="of the best of ours and of the Trainer's")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for finished runs")
    options = parser.parse_args(arguments)
    with exit_on_user_error():
        names = options.only
        short_recipe = shorten(options.recipe, options.folder / "short")
        short = {
            name: measure(name, 0, short_recipe, options.folder / "short")
            for name in names
            if name != "doctor"
        }
        peers = sorted((name for name in short if name not in OURS), key=lambda name: short[name][ALL])
        measured = {
            name: [measure(name, 0, options.recipe, options.folder)]
            for name in names
            if name in OURS or name in peers[:FINALISTS]
        }
        for name in _best_of_both(measured):
            measured[name] += [
                measure(name, seed, options.recipe, options.folder) for seed in range(1, options.seeds)
            ]
        write_report(
            "text_loss", {**summarize(measured), "short": short, "not_measured": missing(measured, short)}
        )


def shorten(recipe: Path, folder: Path) -> Path:
    """Write the recipe with fewer steps into `folder`, validated at its end alone; return its path."""
    read = _read(recipe)
    steps = read["trainer"]["max_steps"] // SHORT
    read["trainer"] |= {"max_steps": steps, "val_check_interval": steps}
    read["checkpoint_every"] = steps
    read.pop("forgetting", None)  # which measures step 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(read), encoding="utf-8")
    return path


def measure(contestant: str, seed: int, recipe: Path, folder: Path) -> Figures:
    """Train and evaluate a contestant, unless it is done; return bits per byte by language, and steps."""
    place = folder / f"{contestant}-{seed}"
    done = place / "figures.json"
    if not done.is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        train = train_ours if contestant in OURS else train_peer
        figures = train(contestant, seed, recipe, place)
        done.write_text(json.dumps(figures), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def train_ours(contestant: str, seed: int, recipe: Path, place: Path) -> Figures:
    """Train by the recipe, or by what the doctor recommends for it."""
    run = place / "run"
    overlay: dict[str, Any] = {"run_dir": str(run), "seed_everything": seed}
    words = ["-c", str(recipe)]
    if contestant == "doctor":
        settings = place / "settings.yaml"
        cli.run("doctor", [*words, "--write", str(settings)])
        words += ["-c", str(settings)]
        overlay |= at_equal_bytes(_read(recipe), _read(settings))
    path = place / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay), encoding="utf-8")
    training.main(["fit", *words, "-c", str(path), "--trainer.enable_progress_bar", "false"])
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    bits = evaluate_saved(run, recipe)
    return {**bits, "steps": results["steps"]}


def at_equal_bytes(recipe: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return an overlay of the doctor's settings: as many examples as the recipe, its warm-up in proportion."""
    examples = recipe["trainer"]["max_steps"] * recipe["data"]["global_batch_size"]
    steps = examples // settings["data"]["global_batch_size"]
    warmup = settings["model"]["schedule"]["init_args"]["warmup_steps"]
    share = warmup / settings["trainer"]["max_steps"]
    return {
        "model": {"schedule": {"init_args": {"warmup_steps": round(share * steps)}}},
        "trainer": {"max_steps": steps, "val_check_interval": steps},
        "checkpoint_every": steps,
    }


def train_peer(contestant: str, seed: int, recipe: Path, place: Path) -> Figures:
    """Train with the Trainer, on the recipe's chunks and with its batch and steps."""
    rule = text_loss_peer.RULES[contestant]
    read = _read(recipe)
    task, data = from_recipes.build_task([str(recipe)], random_weights=True)
    source = data.sources[SOURCE]
    assert isinstance(source, Denoising)
    chunks = text_loss_peer.training_chunks(source)
    batch, steps = read["data"]["global_batch_size"], read["trainer"]["max_steps"]
    model = text_loss_peer.train(task.backbone.config(), chunks, source.objective, batch, steps, rule, seed)
    saved = place / "model"
    model.save_pretrained(saved)
    bits, here = evaluate_saved(saved, recipe), evaluate_plain(model, recipe)
    if any(math.fabs(bits[name] - here[name]) > AGREEMENT for name in bits):
        raise AssertionError(f"our evaluation of {saved} gives {bits}, transformers' own code {here}")
    return {**bits, "steps": steps}


def evaluate_saved(model: Path, recipe: Path) -> Figures:
    """Return bits per byte by language of a run, or of a folder that transformers has saved."""
    data = from_recipes.build_held_out([str(recipe)])[0]
    evaluation = Evaluation.connected(CrossModalT5.from_pretrained(model).eval(), data, torch.device("cpu"))
    return _bits(data, lambda batch: teacher_force(evaluation.model, batch.inputs, batch.labels).logits)


def evaluate_plain(model: T5ForConditionalGeneration, recipe: Path) -> Figures:
    """Return bits per byte by language of transformers' own model, by its own forward pass."""
    data = from_recipes.build_held_out([str(recipe)])[0]
    data.prepare({})
    data.connect({})

    def logits(batch: Any) -> torch.Tensor:
        mask = batch.inputs.attention_mask()
        return model(input_ids=batch.inputs.input_ids, attention_mask=mask, labels=batch.labels).logits

    return _bits(data, logits)


@torch.no_grad()
def _bits(data: DataModule, logits: Any) -> Figures:
    """Return bits per byte of every held-out part, and of all, for a function from a batch to its logits."""
    tally = Tally(len(data.validation), torch.device("cpu"))
    for number in range(len(data.validation)):
        for loaded in data.validation_loader(number):
            batch = loaded.to(torch.device("cpu"))
            tally.add(batch, token_losses(logits(batch), batch.labels))
    parts, whole = tally.totals()
    names = [name.removeprefix(f"{SOURCE}/") for name in data.validation.names]
    return {ALL: whole.bits_per_byte, **{n: p.bits_per_byte for n, p in zip(names, parts, strict=True)}}


def _best_of_both(measured: dict[str, list[Figures]]) -> list[str]:
    """Return the best of ours and the best of the Trainer's, at the first seed."""
    sides = ([n for n in measured if n in OURS], [n for n in measured if n not in OURS])
    return [min(side, key=lambda name: measured[name][0][ALL]) for side in sides if side]


def missing(*stages: Mapping[str, object]) -> list[str]:
    """Return the contestants that no stage has measured."""
    contestants = (*OURS, *text_loss_peer.RULES)
    return [name for name in contestants if not any(name in stage for stage in stages)]


def summarize(measured: dict[str, list[Figures]]) -> dict[str, Any]:
    """Return means, spreads, and the lead of ours over the best of the Trainer's.

    `lead_at_first_seed` are bits per byte, above 0 where ours is lower, of each of ours at the first seed;
    `lead` is that of the best of both over all their seeds.
    """
    figures: dict[str, Any] = {}
    for name, found in measured.items():
        figures[name] = {
            **{key: mean(one[key] for one in found) for key in found[0]},
            "seeds": len(found),
            **({f"{ALL}_deviation": stdev(one[ALL] for one in found)} if len(found) > 1 else {}),
        }
    best = _best_of_both(measured)
    if len(best) < 2:
        return figures
    ours, peer = best
    languages = [key for key in measured[peer][0] if key != "steps"]
    figures |= {
        "best_of_ours": ours,
        "best_of_trainer": peer,
        "lead": {key: figures[peer][key] - figures[ours][key] for key in languages},
        "lead_at_first_seed": {
            name: measured[peer][0][ALL] - measured[name][0][ALL] for name in measured if name in OURS
        },
    }
    return figures


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"found no recipe {path}; start this from the repository's root, or give --recipe")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
