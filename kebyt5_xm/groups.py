"""Which parameters train, and how fast: optimizer groups by pattern."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from kebyt5_xm.errors import UserError, did_you_mean


@dataclass
class Group:
    """Parameters whose name matches a shell pattern, and what they take instead of the optimizer's values.

    Names are those of the model: `backbone.encoder.block.0.layer.0.SelfAttention.q.weight`. `*` matches any
    run of characters, dots included: `backbone.decoder.*`, `modalities.image.adapter.*`, `*layer_norm*`.
    """

    pattern: str
    lr: float | None = None
    weight_decay: float | None = None


DEFAULT = "default"


def assign(groups: dict[str, Group], parameters: Iterable[tuple[str, bool]]) -> dict[str, list[str]]:
    """Return group name -> parameter names, for (name, trainable) pairs; the last match wins.

    What matches none is in the group `default`. Raises `UserError` for a pattern that matches nothing, or
    frozen parameters alone.
    """
    parameters = list(parameters)
    assigned: dict[str, list[str]] = {DEFAULT: [], **{name: [] for name in groups}}
    if DEFAULT in groups:
        raise UserError(f"model.groups has a group '{DEFAULT}'; that name is taken, choose another")
    for name, group in groups.items():
        matched = [trainable for parameter, trainable in parameters if fnmatchcase(parameter, group.pattern)]
        if not matched:
            parts = {prefix for parameter, _ in parameters for prefix in _prefixes(parameter)}
            near = did_you_mean(group.pattern.strip("*").strip("."), parts)
            raise UserError(
                f"model.groups.{name}: the pattern '{group.pattern}' matches no parameter{near or '; '}"
                f"{'' if not near else '; '}names look like '{parameters[-1][0]}'"
            )
        if not any(matched):
            raise UserError(
                f"model.groups.{name}: the pattern '{group.pattern}' matches only frozen parameters; "
                "unfreeze them or drop the group"
            )
    for parameter, trainable in parameters:
        if trainable:
            matches = [name for name, group in groups.items() if fnmatchcase(parameter, group.pattern)]
            assigned[matches[-1] if matches else DEFAULT].append(parameter)
    return {name: names for name, names in assigned.items() if names}


def _prefixes(parameter: str) -> list[str]:
    words = parameter.split(".")
    return [".".join(words[:n]) for n in range(1, len(words) + 1)]


def optimizer_groups(groups: dict[str, Group], named: Iterable[tuple[str, Tensor]]) -> list[dict]:
    """Return the parameter groups to hand to a torch optimizer, each with its `name`."""
    tensors = dict(named)
    result = []
    for name, parameters in assign(groups, [(n, t.requires_grad) for n, t in tensors.items()]).items():
        entry: dict = {"name": name, "params": [tensors[parameter] for parameter in parameters]}
        group = groups.get(name)
        for key in ("lr", "weight_decay"):
            if group is not None and getattr(group, key) is not None:
                entry[key] = getattr(group, key)
        result.append(entry)
    return result


def table(param_groups: list[dict], num_frozen: int) -> str:
    """Return the printed table of an optimizer's real groups."""
    lines = [f"{'group':<20}{'tensors':>9}{'parameters':>16}{'lr':>12}{'weight decay':>14}"]
    for group in param_groups:
        size = sum(p.numel() for p in group["params"])
        lr = float(group.get("initial_lr", group["lr"]))
        lines.append(
            f"{group.get('name', DEFAULT):<20}{len(group['params']):>9}{size:>16,}{lr:>12.3g}"
            f"{float(group.get('weight_decay', 0.0)):>14.3g}"
        )
    lines.append(f"{'(frozen)':<20}{'':>9}{num_frozen:>16,}")
    return "\n".join(lines)
