"""Contestants of `benchmarks.text_loss`: transformers' T5 under its own Trainer.

The model is `T5ForConditionalGeneration` of the recipe's config as transformers initialises it, attention by torch's
kernels. The data are the recipe's chunks, in an order that the Trainer shuffles anew in each pass, and a collator
removes spans of each example when it is drawn, as `benchmarks.denoising` describes. What is not named here is the
Trainer's default: gradients clipped to a norm of 1, no weight decay, one process.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Adafactor, T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments, set_seed

from benchmarks.denoising import collate
from benchmarks.peers import plain_t5
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.data.text.denoising import SpanDenoising


@dataclass(frozen=True)
class Rule:
    """How the Trainer optimizes: its own options, and what it has no option for.

    Attributes:
        options: of `TrainingArguments`; `warmup_steps` below 1 is a share of the steps.
        scale_parameter: Adafactor's steps in proportion to each matrix, which T5's authors used; the Trainer's
            `optim: adafactor` has no such option, so the optimizer is handed over.
        fan_in_head: the head starts with a deviation of d_model^-0.5, as ours; transformers gives it 1.
    """

    options: dict[str, Any]
    scale_parameter: bool = False
    fan_in_head: bool = False


WARM_LINEAR = {"lr_scheduler_type": "linear", "warmup_steps": 0.05}
CONSTANT = {"lr_scheduler_type": "constant"}
RULES: dict[str, Rule] = {
    "adamw_default": Rule({}),
    "adamw_1e-3": Rule({"learning_rate": 1e-3, **WARM_LINEAR}),
    "adamw_3e-3": Rule({"learning_rate": 3e-3, **WARM_LINEAR}),
    # the rate that transformers' documentation recommends for T5
    "adafactor_1e-3": Rule({"optim": "adafactor", "learning_rate": 1e-3, **CONSTANT}),
    "adafactor_1e-2": Rule({"optim": "adafactor", "learning_rate": 1e-2, **WARM_LINEAR}),
    # Raffel et al. 2020, section 3.1.2: 0.01 for the first 10,000 steps
    "adafactor_scaled_1e-2": Rule({"learning_rate": 1e-2, **CONSTANT}, scale_parameter=True),
}


def train(
    config: T5Config,
    chunks: NDArray[np.uint8],
    objective: SpanDenoising,
    batch: int,
    steps: int,
    rule: Rule,
    seed: int,
) -> T5ForConditionalGeneration:
    """Train for `steps` steps of `batch` of the chunks [n, chunk_length]; return the model."""
    set_seed(seed)
    model = plain_t5(config)
    if rule.fan_in_head:
        torch.nn.init.normal_(model.lm_head.weight, std=model.config.d_model**-0.5)
    rng = np.random.default_rng(seed)

    def denoise(rows: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
        inputs, labels = collate(np.stack(rows), objective, rng)
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            seed=seed,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            **rule.options,
        )
        given = (adafactor(model, arguments.learning_rate), None) if rule.scale_parameter else (None, None)
        trainer = Trainer(model, arguments, denoise, list(chunks), optimizers=given)  # pyright: ignore[reportArgumentType]
        trainer.train()
    assert trainer.state.global_step == steps
    return model.eval()


def adafactor(model: T5ForConditionalGeneration, rate: float) -> Adafactor:
    """Return transformers' Adafactor with steps in proportion to each matrix, at a given rate."""
    return Adafactor(
        model.parameters(), lr=rate, scale_parameter=True, relative_step=False, warmup_init=False
    )


def training_chunks(source: Denoising) -> NDArray[np.uint8]:
    """Return all chunks [n, chunk_length] that a source trains on, of all languages."""
    return np.concatenate(
        [
            source.chunks(np.full(part.num_rows, number), np.arange(part.num_rows), held_out=False)
            for number, part in enumerate(source.parts())
        ]
    )
