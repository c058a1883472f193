"""The stages with media, each an overlay of YAML: add digits to text, then spoken numbers to both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo import console
from demo.digits import write_digits
from demo.evaluate import HeldOut, evaluate
from demo.folder import DATA, FOLDER, RECIPES
from demo.speech import write_speech
from demo.text import LANGUAGES
from demo.text_stage import RECIPE as TEXT_RECIPE
from demo.text_stage import RUN as TEXT_RUN
from demo.text_stage import Clock, export, train
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run

IMAGE_RECIPES = (TEXT_RECIPE, RECIPES / "image.yaml")
JOINT_RECIPES = (*IMAGE_RECIPES, RECIPES / "speech.yaml")
IMAGE_RUN, JOINT_RUN = FOLDER / "image", FOLDER / "joint"
NUM_NUMBERS = 100

DIGITS = HeldOut("image", DATA / "digits" / "heldout.jsonl", "image", "caption")
NUMBERS = HeldOut("speech", DATA / "speech" / "heldout.jsonl", "audio", "transcript")


def run_image(options: Sequence[str] = ()) -> dict[str, Any]:
    """Run the stage of text and digits and return its figures; `options` are added to `train.py`'s."""
    clock = Clock()
    console.heading("image: handwritten digits with captions in four languages, laid over text by one YAML")
    with clock("data"):
        manifests = write_digits(DATA / "digits")
    print(f"{manifests.train_rows} rows to train on, {manifests.heldout_rows} images held out")
    with clock("train"):
        train(IMAGE_RECIPES, options)
    with clock("export"):
        export(IMAGE_RUN)
    with clock("evaluate"):
        evaluated = evaluate(IMAGE_RUN, DIGITS)
    return {
        "run": str(IMAGE_RUN),
        "steps": Run(IMAGE_RUN).results()["steps"],
        **evaluated,
        "seconds": clock.seconds,
    }


def run_joint(options: Sequence[str] = (), num_numbers: int = NUM_NUMBERS) -> dict[str, Any]:
    """Run the stage of text, digits and spoken numbers and return its figures."""
    clock = Clock()
    console.heading("joint: spoken numbers in four languages, one more YAML; text and digits train on")
    with clock("data"):
        manifests = write_speech(DATA / "speech", num_numbers)
    print(f"{manifests.train_rows} recordings to train on, {manifests.heldout_rows} of other voices held out")
    with clock("train"):
        train(JOINT_RECIPES, options)
    with clock("export"):
        folder = export(JOINT_RUN)
    with clock("evaluate"):
        image, speech = evaluate(JOINT_RUN, DIGITS), evaluate(JOINT_RUN, NUMBERS)
    return {
        "run": str(JOINT_RUN),
        "export": str(folder),
        "steps": Run(JOINT_RUN).results()["steps"],
        "bits_per_byte_before": bits_per_byte(TEXT_RUN),
        "bits_per_byte": bits_per_byte(JOINT_RUN),
        "image": image,
        "speech": speech,
        "seconds": clock.seconds,
    }


def bits_per_byte(run: Path) -> dict[str, float]:
    """Return the bits per byte of each language's held-out text at the exported checkpoint."""
    directory = Run(run)
    _, parts = directory.validation(checkpoint_step(directory.checkpoint()))
    return {language: parts[f"text/{language}"]["bits_per_byte"] for language in LANGUAGES}
