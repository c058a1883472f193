"""The recipe, the table and the class of docs/augmentation.md."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kebyt5_xm.data import augmentation
from kebyt5_xm.data.augmentation.transformation import apply, describe
from kebyt5_xm.training import recipe_check, signatures

PAGE = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_recipe_names_classes_and_options_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    recipe_check.check([str(path)])
    sources = yaml.safe_load(block("yaml"))["data"]["sources"].values()
    steps = [step for s in sources for steps in s["init_args"]["augment"].values() for step in steps]
    assert len(steps) == 7
    for step in steps:
        if step["class_path"].startswith("kebyt5_xm."):
            getattr(augmentation, step["class_path"].rpartition(".")[2])


def test_the_table_has_every_class_and_its_options() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([^|]*) \|$", PAGE, re.MULTILINE))
    assert sorted([*rows, "Transformation"]) == sorted(augmentation.__all__)
    for name, options in rows.items():
        known = signatures.read_options(f"kebyt5_xm.data.augmentation.{name}")
        assert known is not None
        assert set(re.findall(r"`(\w+)", options)) | {"probability"} == set(known) | {"probability"}


def test_the_class_works() -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    shift = names["Shift"](samples=5)
    waveform = np.arange(7, dtype=np.float32)
    changed, rate = apply(shift, (waveform, 8000), np.random.default_rng(1))
    assert rate == 8000
    assert sorted(changed) == sorted(waveform)
    assert "samples=5" in describe(shift)
