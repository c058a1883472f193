"""A tiny pretraining run for tests: stores of random text, the recipe, training on it, and the metrics of the run."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from processes import train

from kebyt5_xm.data.text.store_writer import StoreWriter
from kebyt5_xm.model.runs.run import Run

WORDS = {
    "ko": "나라 말이 중국과 달라 문자와 서로 통하지 아니하므로 어린 백성이",
    "en": "the quick brown fox jumps over a lazy dog while it rains",
}
STEPS = 7
GLOBAL_BATCH = 8
STRATEGIES = {
    "ddp": "ddp",
    "fsdp2": {"class_path": "kebyt5_xm.training.sharding.FSDP2"},
    "zero2": {"class_path": "cpu_deepspeed.CPUDeepSpeedStrategy", "init_args": {"stage": 2}},
    "zero3": {"class_path": "cpu_deepspeed.CPUDeepSpeedStrategy", "init_args": {"stage": 3}},
}
"""Strategies for two ranks, as `trainer.strategy` of a recipe. DeepSpeed runs on CPU processes here."""


def write_stores(folder: Path, num_bytes: int = 20_011) -> dict[str, str]:
    """Write one store per language of `num_bytes` or a little more; return language -> folder."""
    stores = {}
    for number, (language, words) in enumerate(WORDS.items()):
        draw = np.random.default_rng(number)
        with StoreWriter(folder / language, language) as store:
            written = 0
            while written < num_bytes:
                document = " ".join(draw.choice(words.split(), 13)).encode()
                store.write(document)
                written += len(document)
        stores[language] = str(folder / language)
    return stores


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    """Return a recipe with accumulation, over the stores in `folder`."""
    return {
        "run_dir": str(folder / run),
        "seed_everything": 5,
        "checkpoint_every": 2,
        "model": {
            "backbone": {
                "shape": {
                    "d_model": 32,
                    "d_kv": 8,
                    "d_ff": 48,
                    "num_heads": 3,
                    "num_layers": 2,
                    "num_decoder_layers": 2,
                }
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
            "schedule": {"class_path": "kebyt5_xm.schedules.Cosine", "init_args": {"warmup_steps": 2}},
        },
        "data": {
            "global_batch_size": GLOBAL_BATCH,
            "micro_batch_size": 2,
            "num_workers": 0,
            "sources": {
                "text": {
                    "class_path": "kebyt5_xm.data.Denoising",
                    "init_args": {
                        "stores": {language: str(folder / language) for language in WORDS},
                        "inputs_length": 61,
                        "validation": 0.05,
                    },
                }
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_steps": STEPS,
            "val_check_interval": 3,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            **trainer,
        },
    }


def resumable_recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    """Return the recipe with dropout and two data workers: a run to be killed and continued."""
    contents = recipe(folder, run, **trainer)
    contents["model"]["backbone"]["dropout"] = 0.1
    contents["data"]["num_workers"] = 2
    return contents


def write_recipe(folder: Path, name: str, contents: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(contents, allow_unicode=True))
    return str(path)


def fit(folder: Path, name: str, contents: dict[str, Any], *args: str, ranks: int = 1) -> list[int]:
    """Train on `contents`; output goes to FOLDER/NAME.log. Return the exit codes of the ranks."""
    path = write_recipe(folder, name, contents)
    return train(["fit", "-c", path, *args], folder / f"{name}.log", ranks)


def fit_to_log(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> list[int]:
    """Train on `contents`; output goes to FOLDER/log. Return the exit codes of the ranks."""
    path = write_recipe(folder, "recipe", contents)
    return train(["fit", "-c", path, *args], folder / "log", ranks)


def fit_and_read_log(
    folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1
) -> tuple[list[int], str]:
    """Train on `contents`; return the exit codes of the ranks and the output of the first one."""
    codes = fit_to_log(folder, contents, *args, ranks=ranks)
    return codes, (folder / "log").read_text()


def log_of(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text()[-3000:]


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    if checkpoint.is_file():
        return torch.load(checkpoint, weights_only=True)["state_dict"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))


def losses(run: Run) -> dict[str, float]:
    return {
        f"{row['step']} {row['metric']}": row["value"] for row in run.metrics() if "loss" in row["metric"]
    }


def train_losses(run: Path) -> dict[tuple[float, str], float]:
    """Return the last logged value of every loss: steps trained again after a kill are logged again."""
    return {
        (row["step"], row["metric"]): row["value"]
        for row in Run(run).metrics()
        if row["metric"].startswith("train/loss")
    }
