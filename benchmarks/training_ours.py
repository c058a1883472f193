"""Contestants of `benchmarks.training`: `train.py fit` with a recipe and a callback that waits between turns."""

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import yaml

from benchmarks.training_data import DEMO_RECIPE, Sizes, demo
from benchmarks.turns import Turns
from kebyt5_xm.data.batch import Batch

Batches = Literal["by_length", "packed", "demo"]
STEPS = 10**6
"""More than any turns take."""


class WaitBetweenTurns(pl.Callback):
    """Counts the optimizer steps of a run, and waits after each turn of `steps` steps."""

    def __init__(self, steps: int, warmup: int = 1) -> None:
        self.turns = Turns(steps, warmup)
        self._ids = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._ids += batch.num_ids
        if batch.progress.ends_step:
            ids, self._ids = self._ids, 0
            self.turns.step_done(ids)


def command(folder: Path, batches: Batches) -> list[str]:
    """Write a recipe for the data in `folder` and return the arguments of Python that train by it."""
    sizes = Sizes.read(folder)
    recipe = _common(folder, batches, sizes)
    configs = []
    if batches == "demo":
        configs = ["-c", str(DEMO_RECIPE)]
        given = demo()["data"]["sources"]["text"]["init_args"]
        source = {"stores": dict.fromkeys(given["stores"], str(folder / "store")), "validation": None}
        recipe["data"] = {"sources": {"text": {"init_args": source}}}
    else:
        recipe |= _mixed(folder, sizes, packed=batches == "packed")
    path = folder / f"{batches}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return ["train.py", "fit", *configs, "-c", str(path)]


def _common(folder: Path, batches: Batches, sizes: Sizes) -> dict[str, Any]:
    turns = {"steps": sizes.demo_steps if batches == "demo" else 1}
    return {
        "run_dir": str(folder / f"run-{batches}"),
        "trainer": {
            "accelerator": "cpu",
            "max_steps": STEPS,
            "val_check_interval": STEPS,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": f"{__name__}.{WaitBetweenTurns.__name__}", "init_args": turns}],
        },
        "checkpoint_every": STEPS,
    }


def _mixed(folder: Path, sizes: Sizes, packed: bool) -> dict[str, Any]:
    micro_length = sizes.rows_of_micro_batch * sizes.row_length
    budget = {"global_length": sizes.micro_batches * micro_length, "micro_length": micro_length}
    texts = {
        "path": str(folder / "rows.jsonl"),
        "prompt": "{text}",
        "target": "{answer}",
        "max_source_length": sizes.longest,
    }
    return {
        "model": {"backbone": {"shape": sizes.shape}},
        "data": {
            "budget": {**budget, **({"packed_length": sizes.row_length} if packed else {})},
            "num_workers": 0,
            "sources": {"texts": {"class_path": "kebyt5_xm.data.Manifest", "init_args": texts}},
        },
    }
