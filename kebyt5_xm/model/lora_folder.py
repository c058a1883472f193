"""Writes a backbone's trained LoRA as a folder in peft's layout.

FOLDER/adapter_config.json         ranks, alphas and the layers by name
FOLDER/adapter_model.safetensors   A and B of every layer
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.finite import refuse_non_finite
from kebyt5_xm.model.lora import Update, find_updates
from kebyt5_xm.model.runs.checkpoint_reading import BACKBONE_PREFIX, MODEL_PREFIX
from kebyt5_xm.model.runs.run import Run, backbone_tensors, lora_entries
from kebyt5_xm.weight_files import write_safetensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PEFT_PREFIX = "base_model.model."
"""peft's name for the model that it wraps, in the keys of adapter_model.safetensors."""


@dataclass(frozen=True)
class BackboneLoRA:
    """The tensors of a run's backbone, LoRA not merged, and the updates by module name."""

    tensors: "dict[str, Tensor]"
    updates: dict[str, Update]

    def write(self, folder: Path, dtype: "torch.dtype") -> None:
        """Write the updates into a new folder in peft's format; raise `UserError` if peft is not installed."""
        try:
            from peft import LoraConfig, TaskType
        except ImportError as error:
            raise UserError(
                "--lora apart writes peft's format and needs it; install it with `pip install 'kebyt5-xm[finetune]'`,"
                " or export merged weights"
            ) from error

        entries = {name: update.entry for name, update in self.updates.items()}
        rank = Counter(entry.rank for entry in entries.values()).most_common(1)[0][0]
        alpha = Counter(entry.alpha for entry in entries.values()).most_common(1)[0][0]
        dropouts = {
            entry.dropout for entry in entries.values()
        }  # peft has one for all; only training uses it
        config = LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM,
            inference_mode=True,
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropouts.pop() if len(dropouts) == 1 else 0.0,
            target_modules=list(entries),
            rank_pattern={re.escape(name): e.rank for name, e in entries.items() if e.rank != rank},
            alpha_pattern={re.escape(name): e.alpha for name, e in entries.items() if e.alpha != alpha},
        )
        config.save_pretrained(str(folder))
        tensors = {}
        for name, update in self.updates.items():
            for letter, tensor in (("A", update.a), ("B", update.b)):
                tensors[f"{_PEFT_PREFIX}{name}.lora_{letter}.weight"] = tensor.to(dtype).contiguous()
        refuse_non_finite(tensors, f"'{folder}'")
        write_safetensors(tensors, folder / "adapter_model.safetensors")


def read(run: Run) -> BackboneLoRA:
    """Return the LoRA of a run's backbone. Raises `UserError` if it cannot be exported apart from the weights."""
    if (run.config.get("model") or {}).get("modalities"):
        raise UserError(
            f"--lora apart: run '{run.path}' has modalities, and a CrossModalT5 is one model that peft does not "
            "load; export it merged"
        )
    entries = lora_entries(run)
    if not entries:
        raise UserError(
            f"--lora apart: the recipe of run '{run.path}' has no model.lora; export it without --lora apart"
        )
    tensors = backbone_tensors(run.checkpoint(), merge=False)
    found = find_updates(tensors, entries, BACKBONE_PREFIX.removeprefix(MODEL_PREFIX))
    return BackboneLoRA(tensors, found)
