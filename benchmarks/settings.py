"""What a setting changes: short runs of the demo's tasks that differ in one setting, with seeds.

    python -m demo                       # first: it makes the data and the text model that runs start from
    python -m benchmarks.settings        # about two hours of one core; ended runs are kept in runs/settings/
    python -m benchmarks.settings --only digits --seeds 1

Tables: `text`, pretraining from random weights at three sizes, by optimizer and rate; `digits`, 16 images of each
digit, by augmentation, regularisation, averaging, schedule and optimizer; `numbers`, 16 recordings of each number, by
augmentation. Both start from the demo's text model; `plain` is the recipe without any of them. A figure is the mean
of seeds with their standard deviation, at the last step. Only settings of one table compare.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from benchmarks.report import write_report
from benchmarks.small_data import METRIC, TASKS, write_overlay
from demo.folder import RECIPES
from kebyt5_xm.errors import exit_on_user_error
from kebyt5_xm.training import cli as training
from kebyt5_xm.training.recipes import Recipe, overlay

FOLDER = Path("runs/settings")
RESULT = "settings.json"
"""What a run that has ended leaves in its folder."""
TEXT_STEPS, MEDIA_STEPS = 200, 400
EXAMPLES = 16
"""Of each class, in the tables of media."""


@dataclass(frozen=True)
class Table:
    """Runs that compare: `recipes` are laid over one another, each variant over them."""

    recipes: tuple[str, ...]
    figure: str
    variants: Mapping[str, Recipe]


def optimizer(name: str, rate: float, of_modalities: float | None = None) -> Recipe:
    """Return the overlay of an optimizer, of which no argument but the rate is set."""
    arguments = {"lr": rate, **({"weight_decay": 0.0} if "Scaled" in name else {})}
    model: dict[str, Any] = {"optimizer": {"class_path": name, "init_args": arguments}}
    if of_modalities is not None:
        model["groups"] = {"modalities": {"pattern": "modalities.*", "lr": of_modalities}}
    return {"model": model}


SHAPES = {
    "0.2M": {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16},
    "0.5M": {},
    "2M": {"d_model": 192, "d_ff": 512, "num_heads": 6, "d_kv": 32},
}
"""Of the backbone, beside the demo's two layers on each side; the demo's own is 0.5M."""
OPTIMIZERS = {
    "rms_scaled_adamw_0.05": optimizer("kebyt5_xm.optimizers.RMSScaledAdamW", 0.05),
    "rms_scaled_adamw_0.02": optimizer("kebyt5_xm.optimizers.RMSScaledAdamW", 0.02),
    "adamw_3e-3": optimizer("torch.optim.AdamW", 3e-3),
    "adamw_1e-3": optimizer("torch.optim.AdamW", 1e-3),
}


def without_augmentation(source: str) -> Recipe:
    """Return the overlay that takes the augmentation of a source out."""
    return {"data": {"sources": {source: {"init_args": {"augment": None}}}}}


ON_DIGITS: Mapping[str, Recipe] = {
    "plain": {},
    "ema": {"ema": {"decay": 0.99}},
    "label_smoothing_0.1": {"model": {"label_smoothing": 0.1}},
    "backbone_dropout_0.1": {"model": {"backbone": {"dropout": 0.1}}},
    "slot_dropout_0.1": {"model": {"modalities": {"image": {"dropout": {"slots": 0.1}}}}},
    "warmup_stable_decay": {
        "model": {
            "schedule": {
                "class_path": "kebyt5_xm.schedules.WarmupStableDecay",
                "init_args": {"warmup_steps": 20},  # the recipe's
            }
        }
    },
    "adamw_1e-3": optimizer("torch.optim.AdamW", 1e-3, 1e-3),
    "adamw_3e-4": optimizer("torch.optim.AdamW", 3e-4, 3e-4),
}
"""What is laid over the recipe without augmentation."""

TABLES = {
    "text": Table(
        ("text.yaml",),
        "bits_per_byte",
        {
            f"{size}_{name}": overlay({"model": {"backbone": {"shape": shape}}}, settings)
            for size, shape in SHAPES.items()
            for name, settings in OPTIMIZERS.items()
        },
    ),
    "digits": Table(
        ("text.yaml", "image.yaml"),
        METRIC,
        {
            "augmented": {},
            **{name: overlay(without_augmentation("digits"), one) for name, one in ON_DIGITS.items()},
        },
    ),
    # image.yaml for its rates; `write_overlay` takes its source and modality out
    "numbers": Table(
        ("text.yaml", "image.yaml", "speech.yaml"),
        METRIC,
        {"augmented": {}, "plain": without_augmentation("speech")},
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write benchmarks/results/settings.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.settings", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    with exit_on_user_error():
        for seed in range(options.seeds):
            for table in options.only:
                for variant in TABLES[table].variants:
                    measure(table, variant, seed)
                    write_report("settings", collect())


def measure(table: str, variant: str, seed: int) -> None:
    """Train once, unless it was done before; write the run's figure."""
    run = FOLDER / f"{table}-{variant}-{seed}"
    if (run / RESULT).is_file():
        return
    shutil.rmtree(run, ignore_errors=True)
    found = TABLES[table]
    steps = TEXT_STEPS if table == "text" else MEDIA_STEPS
    settings = overlay(
        {
            "run_dir": str(run),
            "seed_everything": seed,
            "trainer": {"max_steps": steps, "val_check_interval": steps, "enable_progress_bar": False},
            "checkpoint_every": steps,
            "forgetting": None,
        },
        found.variants[variant],
    )
    recipes = [RECIPES / name for name in found.recipes]
    if table != "text":
        recipes.append(write_overlay(table, EXAMPLES, seed, run))
    path = FOLDER / "overlays" / f"{run.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    training.main(["fit", *(word for recipe in (*recipes, path) for word in ("-c", str(recipe)))])
    (run / RESULT).write_text(json.dumps(figure_of(run, table)), encoding="utf-8")


def figure_of(run: Path, table: str) -> float:
    """Return the figure of a run that has ended."""
    if table == "text":
        return json.loads((run / "results.json").read_text(encoding="utf-8"))["bits_per_byte"]
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation["sources"][TASKS[table].source]["metrics"][TABLES[table].figure]["value"]


def collect() -> dict[str, Any]:
    """Return, by table and variant, the mean over the seeds that have ended, their deviation and number."""
    figures: dict[str, Any] = {}
    for table, found in TABLES.items():
        for variant in found.variants:
            values = [
                json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{table}-{variant}-*/{RESULT}"))
            ]
            if values:
                deviation = {"deviation": stdev(values)} if len(values) > 1 else {}
                figures.setdefault(table, {})[variant] = {
                    found.figure: mean(values),
                    **deviation,
                    "seeds": len(values),
                }
    return figures


if __name__ == "__main__":
    main()
