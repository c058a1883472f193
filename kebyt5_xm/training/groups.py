"""Optimizer groups: learning rate and weight decay of parameters by the pattern of their names."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor
from torch.optim import Optimizer

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model import delete_gate, draft_heads
from kebyt5_xm.training.layer_decay import find_places


@dataclass
class Group:
    """Options of the parameters whose names match a pattern, instead of the optimizer's defaults.

    Names are those of the model: `backbone.encoder.block.0.layer.0.SelfAttention.q.weight`. `*` matches any
    characters, dots included: `backbone.decoder.*`, `modalities.image.adapter.*`, `*layer_norm*`.

    Args:
        pattern: shell pattern of parameter names.
        lr: learning rate.
        weight_decay: weight decay.
        layer_decay: above 0, at most 1. The rate of a block is multiplied by layer_decay^(number of blocks above it),
            that of the embeddings by one power more; see `kebyt5_xm.training.layer_decay`.
        frozen: if true, the parameters do not train; if false, they train although LoRA would freeze them; see
            `kebyt5_xm.training.training_choice`.
    """

    pattern: str
    lr: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
    frozen: bool | None = None

    def __post_init__(self) -> None:
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(
                f"the group of the pattern '{self.pattern}' has a layer_decay of {self.layer_decay}; expected more "
                "than 0 and at most 1, such as 0.9"
            )
        if self.frozen and (self.lr, self.weight_decay, self.layer_decay) != (None, None, None):
            raise UserError(
                f"the group of the pattern '{self.pattern}' is frozen and has a learning rate or a decay; expected "
                "one or the other"
            )


DEFAULT = "default"
DRAFT_HEADS = "draft_heads"
"""The group of draft heads that match no pattern: their gradients are apart from the model's norm."""

DELETE_GATE = "delete_gate"
"""The group of a delete gate whose parameters match no pattern."""

DELETE_GATE_SCALE = 0.1
"""Factor of a gate's learning rate. Few steps at the model's own rate move a gate from one end to the other, before
the controller of its loss can see it (docs/experiments.md). Our own choice."""

_OWN_GROUPS = {draft_heads.PREFIX: DRAFT_HEADS, delete_gate.PREFIX: DELETE_GATE}
"""Prefix of parameter names -> the group of those that match no pattern; the others are in `default`."""

_SCALE = "scale"
"""Key of an optimizer group for the factor of its learning rate, until `scale_rates` applies it."""


def assign(groups: dict[str, Group], parameters: Iterable[tuple[str, bool]]) -> dict[str, list[str]]:
    """Return group name -> parameter names, for (name, trainable) pairs; the last match wins.

    Parameters that match no pattern are in the group `default`, or in their part's own. Raises `UserError` for a
    pattern that matches no parameter, and for one that matches only frozen parameters unless its group freezes them.
    """
    parameters = list(parameters)
    assigned: dict[str, list[str]] = {DEFAULT: [], **{name: [] for name in groups}}
    assigned |= {name: [] for name in _OWN_GROUPS.values()}
    for name in (DEFAULT, *_OWN_GROUPS.values()):
        if name in groups:
            raise UserError(f"model.groups has a group '{name}'; that name is taken, choose another")
    for name, group in groups.items():
        matched = [trainable for parameter, trainable in parameters if fnmatchcase(parameter, group.pattern)]
        if not matched:
            parts = {prefix for parameter, _ in parameters for prefix in _prefixes(parameter)}
            near = did_you_mean(group.pattern.strip("*").strip("."), parts)
            raise UserError(
                f"model.groups.{name}: the pattern '{group.pattern}' matches no parameter{near or '; '}"
                f"{'' if not near else '; '}names look like '{parameters[-1][0]}'"
            )
        if not any(matched) and not group.frozen:
            raise UserError(
                f"model.groups.{name}: the pattern '{group.pattern}' matches only frozen parameters; "
                "unfreeze them or drop the group"
            )
    for parameter, trainable in parameters:
        if trainable:
            matches = [
                name for name, g in groups.items() if not g.frozen and fnmatchcase(parameter, g.pattern)
            ]
            own = next(
                (group for prefix, group in _OWN_GROUPS.items() if parameter.startswith(prefix)), DEFAULT
            )
            assigned[matches[-1] if matches else own].append(parameter)
    return {name: names for name, names in assigned.items() if names}


def split_by_layer(
    groups: dict[str, Group], parameters: Iterable[tuple[str, bool]]
) -> list[tuple[str, str, float, list[str]]]:
    """Return (optimizer group, group, factor of the learning rate, parameter names) of every optimizer group.

    A group with `layer_decay` becomes one optimizer group for every block: `NAME/encoder.block.3`. Raises `UserError`
    as `assign` does, and for a decay if no parameter of the group belongs to a stack of blocks.
    """
    parameters = list(parameters)
    found = []
    for name, members in assign(groups, parameters).items():
        decay = groups[name].layer_decay if name in groups else None
        if decay is None:
            found.append((name, name, DELETE_GATE_SCALE if name == DELETE_GATE else 1.0, members))
            continue
        place_of = find_places([parameter for parameter, _ in parameters])
        if not any(place_of[member] for member in members):
            raise UserError(
                f"model.groups.{name}: layer_decay is {decay}, but nothing that '{groups[name].pattern}' matches "
                "belongs to a stack of numbered blocks; drop layer_decay, or give the pattern of a stack"
            )
        split: dict[tuple[str, float], list[str]] = {}
        for member in members:
            place = place_of[member]
            label, above = (place.label, place.above) if place else ("", 0)
            split.setdefault((f"{name}/{label}" if label else name, decay**above), []).append(member)
        found += [(label, name, scale, names) for (label, scale), names in split.items()]
    return found


def make_optimizer_groups(groups: dict[str, Group], named: Iterable[tuple[str, Tensor]]) -> list[dict]:
    """Return named parameter groups for a torch optimizer; call `scale_rates` on the optimizer afterwards."""
    tensors = dict(named)
    result = []
    for label, name, scale, parameters in split_by_layer(
        groups, [(n, t.requires_grad) for n, t in tensors.items()]
    ):
        entry: dict = {"name": label, "params": [tensors[parameter] for parameter in parameters]}
        group = groups.get(name)
        for key in ("lr", "weight_decay"):
            if group is not None and getattr(group, key) is not None:
                entry[key] = getattr(group, key)
        result.append(entry if scale == 1 else {**entry, _SCALE: scale})
    return result


def scale_rates(optimizer: Optimizer) -> None:
    """Apply layer decays and a gate's factor to the rates, which may be defaults that only the optimizer knows."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop(_SCALE, 1.0)


def format_table(param_groups: list[dict], num_frozen: int) -> str:
    """Return a table of an optimizer's groups for printing, and the share of the model that trains."""
    names = [group.get("name", DEFAULT) for group in param_groups]
    width = max(20, *(len(name) + 2 for name in names))
    lines = [f"{'group':<{width}}{'tensors':>9}{'parameters':>16}{'lr':>12}{'weight decay':>14}"]
    trainable = 0
    for name, group in zip(names, param_groups, strict=True):
        size = sum(p.numel() for p in group["params"])
        trainable += size
        lr = float(group.get("initial_lr", group["lr"]))
        lines.append(
            f"{name:<{width}}{len(group['params']):>9}{size:>16,}{lr:>12.3g}"
            f"{float(group.get('weight_decay', 0.0)):>14.3g}"
        )
    lines.append(f"{'(frozen)':<{width}}{'':>9}{num_frozen:>16,}")
    lines.append(f"{trainable / max(trainable + num_frozen, 1):.2%} of {trainable + num_frozen:,} train")
    return "\n".join(lines)


def _prefixes(parameter: str) -> list[str]:
    words = parameter.split(".")
    return [".".join(words[:n]) for n in range(1, len(words) + 1)]
