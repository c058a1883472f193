"""The doctor's settings on small data, against simple baselines: the demo's digits and spoken numbers.

    python -m demo                          # first: it makes the digits and the text model that runs start from
    python -m benchmarks.small_data         # two tasks, 16 and 64 examples a class, three seeds: hours on 2 cores
    python -m benchmarks.small_data --tasks digits --examples 16 --seeds 1

A class of the digits is a digit, and an example is an image with its captions in four languages; a class of the
numbers is a number, and an example is one voice in one language. Nothing is searched: `kebyt5-xm doctor --write` sets
optimizer, rates, batch and steps. Images are augmented as in the demo's recipe, recordings by more speeds. Baselines
are those of `kebyt5-xm report`, on the same rows. Held-out images and voices are the demo's. Runs that have ended are
kept in runs/small_data/: remove the folder to measure again.
"""

import argparse
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from benchmarks.report import write_report
from demo.folder import DATA, RECIPES
from demo.speech import write_speech
from kebyt5_xm.commands import cli
from kebyt5_xm.errors import UserError, exit_on_user_error
from kebyt5_xm.training import cli as training

FOLDER = Path("runs/small_data")
VOICES = (
    *("m1", "m2", "m3", "m5", "m6", "m7", "m8", "f1", "f2", "f4", "f5"),
    *("Alex", "Andrea", "Annie", "Lee", "Denis"),
)
"""espeak-ng's variants to train on: 16, so that a number has 64 examples in four languages."""
FEW_VOICES = {
    "class_path": "kebyt5_xm.data.augmentation.Speed",
    "init_args": {"factors": [0.75, 0.82, 0.9, 1.0, 1.1, 1.2, 1.32]},
}
"""Of the spoken numbers: a task of four voices may have those of one sex alone. Speed moves pitch and formants."""
METRIC = "exact_match"
RESULT = "small_data.json"
"""What a run that has ended leaves in its folder: a measurement that was stopped goes on where it was."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One task: `recipe` is laid over the demo's text, `source` trains, and `choose` its rows."""

    source: str
    recipe: str
    choose: Callable[[Rows, int, random.Random], Rows]


def choose_images(rows: Rows, examples: int, rng: random.Random) -> Rows:
    """Return the rows of `examples` images of each digit."""
    images: dict[int, list[str]] = {}
    for row in rows:
        if row["image"] not in images.setdefault(row["digit"], []):
            images[row["digit"]].append(row["image"])
    chosen = {image for digit in sorted(images) for image in rng.sample(sorted(images[digit]), examples)}
    return [row for row in rows if row["image"] in chosen]


def choose_voices(rows: Rows, examples: int, rng: random.Random) -> Rows:
    """Return the rows of as many voices as give `examples` recordings of each number."""
    languages = {row["language"] for row in rows}
    voices = set(rng.sample(sorted({row["voice"] for row in rows}), examples // len(languages)))
    return [row for row in rows if row["voice"] in voices]


TASKS = {
    "digits": Task("digits", "image.yaml", choose_images),
    "numbers": Task("speech", "speech.yaml", choose_voices),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write benchmarks/results/small_data.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--examples", nargs="+", type=int, default=[16, 64], help="of each class")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    with exit_on_user_error():
        for seed in range(options.seeds):
            for task in options.tasks:
                for examples in options.examples:
                    measure(task, examples, seed)
                    write_report("small_data", collect())


def collect() -> dict[str, Any]:
    """Return the figures of all runs that have ended, by task and examples of a class."""
    figures = {}
    for task in TASKS:
        for folder in sorted(FOLDER.glob(f"{task}-*-0"), key=lambda folder: int(folder.name.split("-")[1])):
            name = folder.name.removesuffix("-0")
            found = [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{name}-*/{RESULT}"))]
            if found:
                figures[name.replace("-", "_")] = summarize(found)
    return figures


def measure(task: str, examples: int, seed: int) -> None:
    """Train once, unless it was done before; write the model's score, the baselines', the steps and the seconds."""
    run = FOLDER / f"{task}-{examples}-{seed}"
    if (run / RESULT).is_file():
        return
    shutil.rmtree(run, ignore_errors=True)
    overlay = write_overlay(task, examples, seed, run)
    recipes = [str(RECIPES / "text.yaml"), str(RECIPES / TASKS[task].recipe), str(overlay)]
    settings = overlay.with_name("settings.yaml")
    settings.unlink(missing_ok=True)
    words = [word for recipe in recipes for word in ("-c", recipe)]
    cli.run("doctor", [*words, "--write", str(settings)])
    training.main(["fit", *words, "-c", str(settings), "--trainer.enable_progress_bar", "false"])
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    source = evaluation["sources"][TASKS[task].source]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    result = {
        "model": source["metrics"][METRIC]["value"],
        **{b["method"]: b["metrics"][METRIC]["value"] for b in source["baselines"]["measured"]},
        "steps": results["steps"],
        "train_seconds": results["train_seconds"],
    }
    (run / RESULT).write_text(json.dumps(result), encoding="utf-8")


def write_overlay(task: str, examples: int, seed: int, run: Path) -> Path:
    """Write the rows to train on and the overlay that names them; return the overlay."""
    folder = FOLDER / "data" / f"{task}-{examples}-{seed}"
    found = TASKS[task]
    source = data_folder(task)
    rows = [json.loads(line) for line in (source / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = found.choose(rows, examples, random.Random(seed))
    # beside the media, since paths are relative to the manifest
    manifest = source / f"{task}-{examples}-{seed}.jsonl"
    manifest.write_text(
        "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in chosen), encoding="utf-8"
    )
    init_args: dict[str, Any] = {
        "path": str(manifest),
        "metrics": [{"class_path": "kebyt5_xm.metrics.ExactMatch"}],
        "weight": 20.0,
    }
    sources: dict[str, Any] = {found.source: {"init_args": init_args}, "text": {"init_args": {"weight": 1.0}}}
    model: dict[str, Any] = {"backbone": {"weights": "runs/demo/text"}}
    if task == "numbers":  # the demo's recipe for speech goes on with the digits
        sources["digits"] = None
        init_args["augment"] = {"speech": [FEW_VOICES]}
        model["modalities"] = {"image": None}
    overlay: dict[str, Any] = {
        "run_dir": str(run),
        "seed_everything": seed,
        "report": True,
        "model": model,
        "data": {"global_batch_size": None, "sources": sources},  # both recipes have a budget
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay, allow_unicode=True), encoding="utf-8")
    return path


def data_folder(task: str) -> Path:
    """Return the folder of a task's media, made if it is missing. Raises `UserError` without the demo's."""
    if not (DATA / "digits" / "train.jsonl").is_file():
        raise UserError(f"found no {DATA / 'digits'}, which the demo makes; run: python -m demo")
    if task == "digits":
        return DATA / "digits"
    folder = FOLDER / "speech"
    if not (folder / "train.jsonl").is_file():
        write_speech(folder, train_voices=VOICES)
    return folder


def summarize(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return means over seeds, the spread of the model's score, and its lead over the best baseline."""
    means = {name: mean(one[name] for one in found) for name in found[0]}
    baselines = {
        name: value for name, value in means.items() if name not in ("model", "steps", "train_seconds")
    }
    return {
        **means,
        "seeds": len(found),
        **({"model_deviation": stdev(one["model"] for one in found)} if len(found) > 1 else {}),
        "lead_over_best_baseline": means["model"] - max(baselines.values()),
    }


if __name__ == "__main__":
    main()
