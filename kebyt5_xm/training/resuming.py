"""What a resumed run takes from its recipe and what from its checkpoint, so that no option is read and not used.

PyTorch and Lightning (2.6) restore an optimizer's learning rate, weight decay and betas from the checkpoint, over
what the recipe says now. A checkpoint therefore also holds what its recipe gave (`Given`), and where the recipe gives
something else since, that is what holds from the first resumed step on.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError
from kebyt5_xm.schedules import Schedule

KEY = "given"
"""The key of a checkpoint that holds what its recipe gave."""

COMMON = ("weight_decay", "betas", "eps", "momentum")
"""Options of optimizers that are never state: some keep counters among them."""

_OWN_GROUP = {"params", "initial_lr"}


@dataclass(frozen=True)
class Given:
    """What a recipe gives for the optimizer.

    Attributes:
        optimizer: its class.
        groups: of each, its options, by name, and a digest of its parameters' names under `members`.
        schedule: its class, and its options by name; empty without one.
    """

    optimizer: str
    groups: list[dict[str, Any]]
    schedule: dict[str, Any]

    @classmethod
    def of(cls, optimizer: Optimizer, names: Mapping[int, str], schedule: LRScheduler | None) -> "Given":
        """Return what an optimizer and its schedule were made with; `names` by the tensors' `id`."""
        groups = [
            {key: _plain(value) for key, value in group.items() if key not in _OWN_GROUP}
            | {"lr": _plain(group.get("initial_lr", group["lr"]))}  # a schedule changes the other
            | {"members": _digest(names[id(p)] for p in group["params"])}
            for group in optimizer.param_groups
        ]
        given = cls(_class_path(optimizer), groups, {})
        return given if schedule is None else given._scheduled(schedule)

    def _scheduled(self, schedule: LRScheduler) -> "Given":
        options = {
            key: value
            for key, value in vars(schedule).items()
            if not key.startswith("_") and isinstance(value, int | float | str | bool | list | tuple | None)
        }
        for counted in ("last_epoch", "base_lrs"):
            options.pop(counted, None)
        options = {key: _plain(value) for key, value in options.items()}
        return Given(self.optimizer, self.groups, {"class": _class_path(schedule), **options})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Given":
        return cls(**content)


def check(before: Given, now: Given, schedule: LRScheduler | None) -> None:
    """Raise `UserError` for a change that the state in the checkpoint does not fit; `schedule` is the recipe's."""
    remedy = (
        "continue with the checkpoint's own, or start a new run from its weights with model.backbone.weights"
    )
    if before.optimizer != now.optimizer:
        raise UserError(
            f"model.optimizer is {now.optimizer}, the checkpoint holds the state of a {before.optimizer}; {remedy}"
        )
    if [group["members"] for group in before.groups] != [group["members"] for group in now.groups]:
        raise UserError(
            "the checkpoint's optimizer has other groups than the recipe's: model.groups, or what is frozen, gives "
            f"them other parameters; {remedy}"
        )
    if before.schedule != now.schedule and schedule is not None and not isinstance(schedule, Schedule):
        raise UserError(
            f"model.schedule has changed ({_difference(before.schedule, now.schedule)}), and a schedule of PyTorch's "
            f"goes on as its checkpoint says; {remedy}, or take one of kebyt5_xm.schedules"
        )


def restored(optimizer: Optimizer, now: Given) -> Given:
    """Return what the recipe of an older checkpoint gave, which does not say so: what its optimizer had."""
    groups = [
        {**new, **{key: _plain(group[key]) for key in COMMON if key in new and key in group}}
        | {"lr": _plain(group.get("initial_lr", group["lr"]))}
        for group, new in zip(optimizer.param_groups, now.groups, strict=True)
    ]
    return Given(now.optimizer, groups, now.schedule)


def apply(
    before: Given, now: Given, optimizer: Optimizer, schedule: LRScheduler | None, steps_done: int
) -> list[str]:
    """Put what the recipe has changed into the optimizer that was restored, and return the changes, in words.

    Where nothing has changed nothing is touched. `check` has passed.
    """
    changes: list[str] = []
    rates_change = before.schedule != now.schedule
    if rates_change:
        changes.append(f"schedule: {_difference(before.schedule, now.schedule)}")
    for group, old, new in zip(optimizer.param_groups, before.groups, now.groups, strict=True):
        for key, value in new.items():
            if key == "members" or old.get(key) == value:
                continue
            if key == "lr":
                rates_change = True
            else:
                group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
            changes.append(f"{new.get('name', 'default')}: {key} {old.get(key)} -> {value}")
    if not rates_change:
        return changes
    rates: list[float | Tensor] = [float(new["lr"]) for new in now.groups]
    if isinstance(schedule, Schedule):
        schedule.base_lrs, schedule.last_epoch = list(rates), steps_done
        following = [float(rate) for rate in schedule.get_lr()]
        schedule._last_lr = list(following)
    elif schedule is None:
        following = rates
    else:  # of PyTorch's, whose next rate follows from the last one
        old_rates = [float(old["lr"]) for old in before.groups]
        scales = [new / old if old else 1.0 for new, old in zip(rates, old_rates, strict=True)]
        following = [float(g["lr"]) * scale for g, scale in zip(optimizer.param_groups, scales, strict=True)]
        schedule.base_lrs = list(rates)
    for group, rate, next_rate in zip(optimizer.param_groups, rates, following, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(next_rate)
        else:
            group["lr"] = next_rate
        if schedule is not None:
            group["initial_lr"] = rate
    return changes


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {before.get(key, 'none')} -> {now.get(key, 'none')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    )


def _class_path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:
    """Return a value that a checkpoint holds without pickled code, and that equals itself when read again."""
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _digest(names: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
