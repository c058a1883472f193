"""Rules for importing code, for every command and for `from_pretrained`.

- `kebyt5_xm` and `encoders` are always the packages of this installation, wherever Python is started.
- A recipe that the user gives may name any class. Python searches the working folder for its module last, so that a
  file there cannot hide a library.
- Runs and exports may come from a third party. They may name classes of `TRUSTED` (runs also of `LIBRARIES`) and of
  the packages that the user trusts by name (`--trust`, `trusted_modules`). Nothing is imported from the working
  folder for them, except a package that is trusted by name and exists nowhere else.

A recipe belongs to a run if its name is config.yaml, as training saves it, or if it lies in a run's folder.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from kebyt5_xm import HOME, leave_working_folder, register_encoders
from kebyt5_xm.errors import UserError

TRUSTED = ("kebyt5_xm", "encoders")
"""Packages, submodules included, whose classes are always trusted."""

LIBRARIES = ("torch", "lightning", "torchvision.transforms.v2")
"""Packages whose classes are trusted in a run's recipe too: optimizers, parts of the trainer, changes of images."""

RENAMED = {
    "kebyt5_xm.sharding.FSDP2": "kebyt5_xm.training.sharding.FSDP2",
    "kebyt5_xm.data.denoise.Denoising": "kebyt5_xm.data.Denoising",
    "kebyt5_xm.data.manifest_source.Manifest": "kebyt5_xm.data.Manifest",
    **{
        f"kebyt5_xm.{home}.{former}": f"kebyt5_xm.{home}.{former.partition('.')[2]}"
        for home, classes in {
            "adapters": (
                "pointwise.Linear",
                "pointwise.MLP",
                "stacking.FrameStacking",
                "stacking.PixelShuffle",
            ),
            "data.layouts": (
                "aligned_text.AlignedText",
                "korean_captions.KoreanCaptions",
                "ksponspeech.KsponSpeech",
                "question_answering.Squad",
                "transcripts.Transcripts",
                "visual_questions.VisualQuestions",
            ),
            "metrics": (
                "auprc.AUPRC",
                "character_f1.CharacterF1",
                "correlation.Pearson",
                "correlation.Spearman",
                "label_f1.MacroF1",
                "label_f1.MicroF1",
                "matching.Accuracy",
                "matching.ExactMatch",
                "rouge.RougeL",
                "rouge.RougeW",
                "threshold_f1.ThresholdF1",
                "vqa_accuracy.VQAAccuracy",
            ),
        }.items()
        for former in classes
    },
}
"""Former class path -> current class path, for older recipes, runs and exports."""


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option `--trust PACKAGE`, which gives `trust`: a list of packages."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let a run or an export import classes of this package too; may be given several times",
    )


# -- this project's own packages --------------------------------------------------------------------------


def check_encoders() -> None:
    """Raise `UserError` if the imported package `encoders` is not this project's."""
    register_encoders()
    ours = os.path.join(HOME, "encoders")
    module = sys.modules.get("encoders")
    places = [os.path.realpath(place) for place in getattr(module, "__path__", None) or [""]]
    if places != [os.path.realpath(ours)]:
        found = getattr(module, "__file__", None) or places[0] or "nowhere"
        raise UserError(
            f"found another package 'encoders' ({found}), expected that of kebyt5_xm ({ours}); give "
            "yours another name, or import kebyt5_xm before it"
        )


# -- the working folder -----------------------------------------------------------------------------------


def search_working_folder_last() -> None:
    """Make the working folder the last entry of Python's path."""
    leave_working_folder()
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def make_importable(packages: Iterable[str]) -> None:
    """Call `search_working_folder_last` if one of `packages` exists in the working folder only."""
    for package in packages:
        name = package.partition(".")[0]
        is_here = Path(name).is_dir() or Path(f"{name}.py").is_file()
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        if is_here and not any(finder.find_spec(name, None) for finder in finders):
            search_working_folder_last()
            return


@contextmanager
def without_working_folder(trusted_modules: Sequence[str] = ()) -> Iterator[None]:
    """Import nothing from the working folder in this block, except what `make_importable` allows."""
    removed = leave_working_folder()
    make_importable(trusted_modules)
    try:
        yield
    finally:
        for number, entry in removed:
            sys.path.insert(number, entry)


# -- class paths in recipes and config.json --------------------------------------------------------------------


def check_class_trusted(
    class_path: str, trusted_modules: Sequence[str], where: str, always: Sequence[str] = TRUSTED
) -> None:
    """Raise `UserError` unless `class_path` lies in a trusted package."""
    if isinstance(trusted_modules, str):
        raise UserError(f"found trusted_modules='{trusted_modules}', expected a list: ['{trusted_modules}']")
    if not any(class_path.startswith(f"{name}.") for name in (*always, *trusted_modules)):
        package = class_path.partition(".")[0]
        raise UserError(
            f"{where} is '{class_path}', and '{package}' is not trusted, so it was not imported; expected a class "
            f"of {' or '.join(TRUSTED)}. If you trust its code, pass trusted_modules=['{package}'] (--trust "
            f"{package} in a command)"
        )
    if class_path.startswith("encoders."):
        check_encoders()


def replace_renamed_classes(recipe: Any) -> Any:
    """Replace `RENAMED` class paths in a recipe or a part of one, and return it. Each rename is printed once."""
    for _, block in _find_classes(recipe, "", set()):
        if (former := block["class_path"]) in RENAMED:
            block["class_path"] = RENAMED[former]
            _print_renamed(former)
    return recipe


@cache
def _print_renamed(former: str) -> None:
    print(f"'{former}' is now '{RENAMED[former]}'; the new name is used", file=sys.stderr)


def check_trusted(recipe: dict[str, Any], trusted_modules: Sequence[str]) -> None:
    """Raise `UserError` if a run's recipe names a class outside the trusted packages; import nothing."""
    for where, class_path in find_class_paths(recipe):
        check_class_trusted(class_path, trusted_modules, where, (*TRUSTED, *LIBRARIES))


def find_packages(recipe: dict[str, Any]) -> list[str]:
    """Return the packages of all classes that a recipe names; a user who has just run it trusts them."""
    return sorted({class_path.partition(".")[0] for _, class_path in find_class_paths(recipe)})


def find_class_paths(recipe: Any) -> Iterator[tuple[str, str]]:
    """Yield (place, class path) of every class that a recipe, or a part of one, names."""
    for where, block in _find_classes(recipe, "", set()):
        yield where, block["class_path"]


def _find_classes(value: Any, where: str, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, mapping) of every mapping with a `class_path`; a mapping that a YAML alias repeats only once."""
    if isinstance(value, dict | list):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield where, value
        for key, item in value.items():
            yield from _find_classes(item, f"{where}.{key}" if where else str(key), seen)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _find_classes(item, f"{where}[{number}]", seen)
