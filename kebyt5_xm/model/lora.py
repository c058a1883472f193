"""LoRA by YAML: which modules it goes into, and merging it into tensors. Hu et al. 2021 (arXiv 2106.09685).

peft does the training part (`kebyt5_xm.model.lora_layer`); nothing here imports it, so that what LoRA has trained is
merged, exported and used without it.
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
"""peft's own name for the only LoRA of a model; it stands in the keys."""

LORA_SUFFIXES = (f"lora_A.{ADAPTER_NAME}.weight", f"lora_B.{ADAPTER_NAME}.weight")
"""What LoRA adds below a module's own name: A [rank, in] and B [out, rank], by peft's names."""

_READ_BY_THEIR_PARENT = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""torch's fused modules take the weights of the Linear layers in them and never call those."""


@dataclass
class LoRA:
    """One entry of `model.lora` in a recipe: a low-rank update beside every Linear layer that a pattern matches.

    Args:
        pattern: shell pattern over the names of modules: `backbone.*.SelfAttention.[qv]`,
            `modalities.image.encoder.*`. `*` matches any run of characters, dots included; what matches and is no
            Linear layer is passed over.
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
    """Return the part of the model that a module or parameter is in: `backbone`, or `modalities.NAME.encoder`."""
    words = name.split(".")
    return words[0] if words[0] == "backbone" else ".".join(words[:3])


def find_targets(model: nn.Module, entries: dict[str, LoRA]) -> dict[str, str]:
    """Return module name -> entry name for every Linear layer that LoRA goes into; the last match wins.

    Raises `UserError` for a pattern that matches nothing, nothing that can take LoRA, or nothing that a later entry
    does not take over.
    """
    modules = dict(model.named_modules())
    found: dict[str, str] = {}
    for name, entry in entries.items():
        matched = [module for module in modules if module and fnmatchcase(module, entry.pattern)]
        if not matched:
            near = did_you_mean(entry.pattern, _patterns(modules)) or ";"
            example = next((n for n in reversed(modules) if _takes_lora(modules, n)), "none")
            raise UserError(
                f"model.lora.{name}: the pattern '{entry.pattern}' matches no module{near} names look like "
                f"'{example}'"
            )
        linear = [module for module in matched if _takes_lora(modules, module)]
        if not linear:
            kinds = sorted({type(modules[module]).__name__ for module in matched})
            more = ", ..." if len(kinds) > 4 else ""
            raise UserError(
                f"model.lora.{name}: the pattern '{entry.pattern}' matches {', '.join(kinds[:4])}{more}, but no "
                "Linear layer that is called by itself (torch's fused attention reads the weights of its own past "
                "any LoRA); give a pattern of Linear layers"
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
    """Return the tensors of a model with LoRA as those of the model without, its updates added to the weights.

    `entries` are those of the recipe; `prefix` is what the names of `tensors` lack in front. Computed in fp32, in the
    weights' dtype at the end.
    """
    result = without_lora(tensors)
    for name, update in find_updates(tensors, entries, prefix).items():
        weight = tensors[f"{name}.weight"]
        delta = update.b.float() @ update.a.float() * (update.entry.alpha / update.entry.rank)
        result[f"{name}.weight"] = (weight.float() + delta).to(weight.dtype)
    return result


def refuse_updates(names: Iterable[str]) -> None:
    """Raise `UserError` if names of tensors to be saved are those of a model with LoRA."""
    if any(name.endswith(LORA_SUFFIXES) for name in names):
        raise UserError(
            "the model holds LoRA updates beside its weights; call kebyt5_xm.model.lora_layer.merge(model) first, or "
            "export the run"
        )


@dataclass(frozen=True)
class Update:
    """What LoRA holds of one module."""

    entry: LoRA
    a: "Tensor"  # [rank, in]
    b: "Tensor"  # [out, rank]


def without_lora(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors that the model has without LoRA."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(LORA_SUFFIXES)}


def find_updates(
    tensors: "dict[str, Tensor]", entries: dict[str, LoRA], prefix: str = ""
) -> dict[str, Update]:
    """Return module name -> its update for every module of a checkpoint that LoRA was put into.

    Raises `UserError` if the recipe's entries are not those of the checkpoint.
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
                f"{f'rank {matches[-1].rank}' if matches else 'nothing of one'}; keep both as training wrote them"
            )
        found[name] = Update(matches[-1], a, tensors[f"{name}.{LORA_SUFFIXES[1]}"])
    return found


def _takes_lora(modules: dict[str, nn.Module], name: str) -> bool:
    module = modules[name]
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return False
    words = name.split(".")
    return not any(
        isinstance(modules[".".join(words[:n])], _READ_BY_THEIR_PARENT) for n in range(1, len(words))
    )


def _patterns(modules: Iterable[str]) -> set[str]:
    """Return module names, and the patterns that people write for them."""
    found = set()
    for name in modules:
        words = name.split(".")
        found |= {name, f"*.{words[-1]}", f"{words[0]}.*.{words[-1]}", f"{words[0]}.*.{'.'.join(words[-2:])}"}
        found |= {f"{'.'.join(words[:n])}.*" for n in range(1, len(words))}
    return found
