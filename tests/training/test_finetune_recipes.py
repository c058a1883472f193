"""Runs each recipe of `configs/finetune/` for two steps on a few rows, in the format of the published files.

The backbone is tiny, stems replace pretrained encoders, and the stores of text are small. Source, layout, prompt,
labels, references, metrics and monitor are those of the recipe. `tests/training/test_recipes_parse.py` parses the
same recipes with their real encoders.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
import tiny_run
import yaml

from kebyt5_xm.data.text.store_writer import StoreWriter
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import cli as training

# Lightning 2.6.6 calls a deprecated method of jsonargparse 4.53 and a deprecated class of torch 2.11, and recommends
# more data workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("base", "denoising")
QUICK = ("nsmc", "ksponspeech")
"""These also run in `make check`; each of the others takes two seconds."""
RECIPES = sorted(
    path.stem for path in (ROOT / "configs" / "finetune").glob("*.yaml") if path.stem not in SHARED
)
TINY: dict[str, Any] = {
    "model": {
        "backbone": {
            "weights": None,
            "shape": tiny_run.recipe(Path(), "")["model"]["backbone"]["shape"],
        },
        "schedule": {"init_args": {"warmup_steps": 1}},
    },
    "data": {"global_batch_size": 4, "micro_batch_size": 2, "num_workers": 0, "max_skipped": 0.3},
    "trainer": {
        "accelerator": "cpu",
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 2,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
    "checkpoint_every": 2,
}
LINEAR = {"class_path": "kebyt5_xm.adapters.Linear"}
REPLACEMENTS = {
    "speech_xlsr": {
        "speech": {
            "encoder": {
                "class_path": "encoders.stems.LogMelEncoder",
                "init_args": {"out_dim": 12, "num_mels": 17},
            },
            "adapter": LINEAR,
        }
    },
    "image_siglip": {
        "image": {
            "encoder": {
                "class_path": "encoders.stems.PatchEncoder",
                "init_args": {"image_size": 16, "out_dim": 8},
            },
            "adapter": LINEAR,
        }
    },
}
"""Overlay of `configs/add/` -> the modalities that replace it here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the sets, the stores, the recipes and the overlays of this test."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "configs").symlink_to(ROOT / "configs")
    published.write_sets(folder / "sets")
    for language in ("ko", "en", "zh", "ja"):
        with StoreWriter(folder / "stores" / language, language) as store:
            for _ in range(211):
                store.write("나라 말이 중국과 달라 the quick brown fox".encode())
    write(folder / "tiny.yaml", TINY)
    write(folder / "short_text.yaml", {"data": {"sources": {"text": {"init_args": {"inputs_length": 61}}}}})
    for name, modalities in REPLACEMENTS.items():
        overlay = yaml.safe_load((ROOT / "configs" / "add" / f"{name}.yaml").read_text(encoding="utf-8"))
        write(folder / f"{name}.yaml", {**overlay, "model": {"modalities": modalities}})
    return folder


def write(path: Path, contents: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(contents, allow_unicode=True), encoding="utf-8")


def files(name: str) -> list[str]:
    """Return the recipes of the command in the header of a recipe, with the overlays of this test."""
    text = (ROOT / "configs" / "finetune" / f"{name}.yaml").read_text(encoding="utf-8")
    named = re.findall(r"-c (\S+)", text.split("\n#\n")[1])
    named = [re.sub(r"configs/add/", "", path) for path in named]
    return [*named, "tiny.yaml", *(["short_text.yaml"] if any("denoising" in path for path in named) else [])]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in RECIPES]
)
def test_two_steps_on_rows_as_published(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    recipe = yaml.safe_load((ROOT / "configs" / "finetune" / f"{name}.yaml").read_text(encoding="utf-8"))
    arguments = [word for path in files(name) for word in ("-c", path)]
    training.main(["fit", *arguments])
    run = Run(recipe["run_dir"])
    values: dict[str, list[float]] = {}
    for row in run.metrics():
        values.setdefault(row["metric"], []).append(row["value"])
    assert len(values["train/loss"]) == 2
    assert np.isfinite(values["train/loss"]).all()
    assert len(values[recipe["monitor"]]) == 1, "the monitor is a metric that the recipe logs"
    assert run.best.exists()
    skipped = run.path / "skipped.jsonl"
    rows = [json.loads(line) for line in skipped.read_text("utf-8").splitlines()] if skipped.exists() else []
    assert {row["cause"] for row in rows} <= ODD.get(name, set())


ODD = {"nsmc": {"column 'document' is null"}}
"""Recipe -> causes of skipped rows: an empty review."""


DOCS = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_the_table_of_sets_agrees_with_the_recipe(name: str) -> None:
    recipe = yaml.safe_load((ROOT / "configs" / "finetune" / f"{name}.yaml").read_text(encoding="utf-8"))
    (line,) = [line for line in DOCS.splitlines() if f"[{name}](../configs/finetune/{name}.yaml)" in line]
    _, metric, source = recipe["monitor"].split("/")
    assert f"| `{metric}`" in line, "the metric that is monitored stands first"
    path = recipe["data"]["sources"][source]["init_args"]["path"]
    assert path.removeprefix("sets/") in line


def test_the_layout_of_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, block in re.findall(r"^```\w+\n# (faq\.\w+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(block, encoding="utf-8")
    lines = ["몇 시? => 두 시", "어디? => 서울", "누구? => 나"]
    published.write_lines(folder / "faq" / "train.txt", lines)
    published.write_lines(folder / "faq" / "heldout.txt", lines)
    training.main(["fit", "-c", "configs/finetune/base.yaml", "-c", "faq.yaml", "-c", "tiny.yaml"])
    assert "val/exact_match/faq" in {row["metric"] for row in Run("runs/faq").metrics()}
    published.write_lines(folder / "faq" / "heldout.txt", [*lines, "어떻게?"])
    with pytest.raises(SystemExit) as ended:
        training.main(
            ["fit", "-c", "configs/finetune/base.yaml", "-c", "faq.yaml", "-c", "tiny.yaml", "--run_dir", "b"]
        )
    assert ended.value.code == 2
