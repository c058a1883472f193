"""LoRA by YAML: the layers that it adapts, and merging it into tensors. Hu et al. 2021 (arXiv 2106.09685).

peft is needed for training alone (`kebyt5_xm.model.lora_layer`). This file does not import it, so trained LoRA is
merged, exported and used without peft.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from kebyt5_xm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_NAME = "default"
"""peft's default name for a model's LoRA, a part of the keys."""

LORA_SUFFIXES = (f"lora_A.{ADAPTER_NAME}.weight", f"lora_B.{ADAPTER_NAME}.weight")
"""Keys that LoRA adds under a module's name: A [rank, in] and B [out, rank], by peft's names."""

_FUSED_MODULES = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Modules of torch that read the weights of their Linear layers and never call the layers."""


@dataclass
class LoRA:
    """One entry of `model.lora` in a recipe: a low-rank update of every Linear layer that a pattern matches.

    Args:
        pattern: shell pattern over the names of modules: `backbone.*.SelfAttention.[qv]`,
            `modalities.image.encoder.*`. `*` matches any run of characters, dots included. Modules that match and
            are not Linear layers are skipped.
        rank: rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: rate on the update's input, in training.
    """

    pattern: str
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UserError(
                f"found rank {self.rank}, alpha {self.alpha} and dropout {self.dropout} for the LoRA pattern "
                f"'{self.pattern}'; expected a rank and an alpha of 1 or more, and a rate from 0 to below 1"
            )


def part_of(name: str) -> str:
    """Return the part of the model that holds a module or parameter: `backbone`, or `modalities.NAME.encoder`."""
    words = name.split(".")
    return words[0] if words[0] == "backbone" else ".".join(words[:3])


def find_targets(model: nn.Module, entries: dict[str, LoRA]) -> dict[str, str]:
    """Return module name -> entry name for every Linear layer that LoRA adapts; the last match wins.

    Raises `UserError` for a pattern that matches no module, no layer that LoRA can adapt, or only layers that later
    entries match too.
    """
    modules = dict(model.named_modules())
    found: dict[str, str] = {}
    for name, entry in entries.items():
        matched = [module for module in modules if module and fnmatchcase(module, entry.pattern)]
        if not matched:
            near = did_you_mean(entry.pattern, _likely_patterns(modules)) or ";"
            example = next((n for n in reversed(modules) if _is_adaptable(modules, n)), "none")
            raise UserError(
                f"model.lora.{name}: the pattern '{entry.pattern}' matches no module{near} names look like "
                f"'{example}'"
            )
        linear = [module for module in matched if _is_adaptable(modules, module)]
        if not linear:
            kinds = sorted({type(modules[module]).__name__ for module in matched})
            more = ", ..." if len(kinds) > 4 else ""
            raise UserError(
                f"model.lora.{name}: the pattern '{entry.pattern}' matches {', '.join(kinds[:4])}{more}, but no "
                "Linear layer that is called by itself (torch's fused attention reads the weights of its Linear "
                "layers and never calls them); give a pattern of Linear layers"
            )
        found |= dict.fromkeys(linear, name)
    for name, entry in entries.items():
        if name not in found.values():
            raise UserError(
                f"model.lora.{name}: a later entry takes every layer that '{entry.pattern}' matches; drop one of them"
            )
    return found


def merge_updates(
    tensors: "dict[str, Tensor]", entries: dict[str, LoRA], prefix: str = ""
) -> "dict[str, Tensor]":
    """Return the tensors of a model with LoRA as the tensors of the plain model, the updates added to the weights.

    `entries` are those of the recipe; `prefix` was removed from the names of `tensors`. Computed in fp32, returned in
    the weights' dtype.
    """
    result = without_lora(tensors)
    for name, update in find_updates(tensors, entries, prefix).items():
        weight = tensors[f"{name}.weight"]
        delta = update.b.float() @ update.a.float() * (update.entry.alpha / update.entry.rank)
        result[f"{name}.weight"] = (weight.float() + delta).to(weight.dtype)
    return result


def refuse_updates(names: Iterable[str]) -> None:
    """Raise `UserError` if the names of tensors to be saved include LoRA updates."""
    if any(name.endswith(LORA_SUFFIXES) for name in names):
        raise UserError(
            "the model holds LoRA updates that are not merged; call kebyt5_xm.model.lora_layer.merge(model) first, "
            "or export the run"
        )


@dataclass(frozen=True)
class Update:
    """The LoRA update of one module."""

    entry: LoRA
    a: "Tensor"  # [rank, in]
    b: "Tensor"  # [out, rank]


def without_lora(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors except LoRA's."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(LORA_SUFFIXES)}


def find_updates(
    tensors: "dict[str, Tensor]", entries: dict[str, LoRA], prefix: str = ""
) -> dict[str, Update]:
    """Return module name -> update for every module of a checkpoint that LoRA adapts; `prefix` as in `merge_updates`.

    Raises `UserError` if the recipe's entries do not fit the checkpoint.
    """
    found = {}
    for key, a in tensors.items():
        if not key.endswith(f".{LORA_SUFFIXES[0]}"):
            continue
        name = key.removesuffix(f".{LORA_SUFFIXES[0]}")
        matches = [entry for entry in entries.values() if fnmatchcase(prefix + name, entry.pattern)]
        if not matches or matches[-1].rank != len(a):
            raise UserError(
                f"the checkpoint has a LoRA of rank {len(a)} in '{name}', but its run's config.yaml says "
                f"{f'rank {matches[-1].rank}' if matches else 'none'}; use both as training wrote them"
            )
        found[name] = Update(matches[-1], a, tensors[f"{name}.{LORA_SUFFIXES[1]}"])
    return found


def _is_adaptable(modules: dict[str, nn.Module], name: str) -> bool:
    module = modules[name]
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return False
    words = name.split(".")
    return not any(isinstance(modules[".".join(words[:n])], _FUSED_MODULES) for n in range(1, len(words)))


def _likely_patterns(modules: Iterable[str]) -> set[str]:
    """Return module names and likely patterns for them."""
    found = set()
    for name in modules:
        words = name.split(".")
        found |= {name, f"*.{words[-1]}", f"{words[0]}.*.{words[-1]}", f"{words[0]}.*.{'.'.join(words[-2:])}"}
        found |= {f"{'.'.join(words[:n])}.*" for n in range(1, len(words))}
    return found
