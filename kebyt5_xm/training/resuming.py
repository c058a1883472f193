"""What a resumed run takes from its recipe and what from its checkpoint: every option of the recipe has an effect.

PyTorch and Lightning (2.6) restore an optimizer's learning rate, weight decay and betas from the checkpoint, and
ignore the recipe. Checkpoints therefore also hold the options of their recipe (`OptimizerOptions`). An option that
has changed since then takes effect from the first resumed step on. Weights come from the checkpoint alone.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.schedules import Schedule

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

KEY = "given"
"""The key of a checkpoint that holds the `OptimizerOptions` of its recipe."""

COMMON_OPTIONS = ("weight_decay", "betas", "eps", "momentum")
"""Entries of parameter groups that are always options; other entries may be counters of the optimizer."""

_NO_OPTIONS = {"params", "initial_lr"}

# -- the optimizer and the schedule -------------------------------------------------------------------


@dataclass(frozen=True)
class OptimizerOptions:
    """The options of a recipe's optimizer and schedule.

    Attributes:
        optimizer: class path of the optimizer.
        groups: options of each parameter group by name, and under `members` a digest of its parameters' names.
        schedule: options of the schedule by name, and under `class` its class path; empty without a schedule.
    """

    optimizer: str
    groups: list[dict[str, Any]]
    schedule: dict[str, Any]

    @classmethod
    def of(
        cls, optimizer: Optimizer, names: Mapping[int, str], schedule: LRScheduler | None
    ) -> "OptimizerOptions":
        """Return the options of a new optimizer and its schedule; `names` maps `id` of a parameter to its name."""
        groups = [
            {key: _plain(value) for key, value in group.items() if key not in _NO_OPTIONS}
            | {"lr": _plain(group.get("initial_lr", group["lr"]))}  # a schedule changes `lr`
            | {"members": _digest(names[id(p)] for p in group["params"])}
            for group in optimizer.param_groups
        ]
        return cls(_class_path(optimizer), groups, {} if schedule is None else _schedule_options(schedule))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_options(before: OptimizerOptions, now: OptimizerOptions, schedule: LRScheduler | None) -> None:
    """Raise `UserError` for a change that the checkpoint's state cannot follow; `schedule` is the recipe's."""
    remedy = "continue with the checkpoint's options, or start a new run from its weights with model.backbone.weights"
    if before.optimizer != now.optimizer:
        raise UserError(
            f"model.optimizer is {now.optimizer}, the checkpoint holds the state of a {before.optimizer}; {remedy}"
        )
    if [group["members"] for group in before.groups] != [group["members"] for group in now.groups]:
        raise UserError(
            "the checkpoint's optimizer has other groups than the recipe's: model.groups, or the frozen parameters, "
            f"have changed; {remedy}"
        )
    if before.schedule != now.schedule and schedule is not None and not isinstance(schedule, Schedule):
        raise UserError(
            f"model.schedule has changed ({_difference(before.schedule, now.schedule)}), but a schedule of PyTorch "
            f"can only continue unchanged; {remedy}, or take one of kebyt5_xm.schedules"
        )


def read_options(optimizer: Optimizer, now: OptimizerOptions) -> OptimizerOptions:
    """Return the options of a restored optimizer, for older checkpoints that do not hold those of their recipe."""
    groups = [
        {**new, **{key: _plain(group[key]) for key in COMMON_OPTIONS if key in new and key in group}}
        | {"lr": _plain(group.get("initial_lr", group["lr"]))}
        for group, new in zip(optimizer.param_groups, now.groups, strict=True)
    ]
    return OptimizerOptions(now.optimizer, groups, now.schedule)


def apply_options(
    before: OptimizerOptions,
    now: OptimizerOptions,
    optimizer: Optimizer,
    schedule: LRScheduler | None,
    steps_done: int,
) -> list[str]:
    """Apply changed options to the restored optimizer and schedule; return a description of each change.

    Unchanged options are left alone. `check_options` must have passed.
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
    else:  # a schedule of PyTorch, which computes each rate from the one before it
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


def _schedule_options(schedule: LRScheduler) -> dict[str, Any]:
    options = {
        key: _plain(value)
        for key, value in vars(schedule).items()
        if not key.startswith("_")
        and key not in ("last_epoch", "base_lrs")
        and isinstance(value, int | float | str | bool | list | tuple | None)
    }
    return {"class": _class_path(schedule), **options}


def _class_path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(value: Any) -> Any:
    """Return a value that checkpoints can hold without pickled code, and that is equal when it is read again."""
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _digest(names: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


# -- the recipe ------------------------------------------------------------------------------------------


def find_changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return option -> (value before, value now) of every difference between two recipes, in the order of `now`."""
    old, new = dict(_flatten(before, "")), dict(_flatten(now, ""))
    keys = dict.fromkeys([*new, *old])
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def check_changes(changes: dict[str, tuple[Any, Any]]) -> None:
    """Raise `UserError` for a change of starting weights: a resumed run does not read them."""
    for key, (before, now) in changes.items():
        words = key.split(".")
        if words[0] == "model" and words[-1] == "weights" and now is not None:
            raise UserError(
                f"{key} is {now}, and was {before} when the run was started last; a run that is continued takes its "
                "weights from the checkpoint: take the option back, or start a new run with it and another --run_dir"
            )


def describe_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    """Return the changes as text, without that of `run_dir`."""
    return "; ".join(
        f"{key}: {_to_text(before)} -> {_to_text(now)}"
        for key, (before, now) in changes.items()
        if key != "run_dir"
    )


def _to_text(value: Any) -> str:
    return "null" if value is None else str(value)


def _flatten(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


# -- Lightning's counts ------------------------------------------------------------------------------------


def restore_progress(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Convert Lightning's micro-batch counts in a checkpoint to the present accumulation.

    A run that is resumed on another number of ranks has another number of micro-batches per step.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    batches = checkpoint["global_step"] * accumulation
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(counts, batches))
    progress["is_last_batch"] = False
    # The whole run is one epoch for Lightning. Marked as unfinished, it continues if max_steps was raised.
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    for counts in (epochs["total"], epochs["current"]):
        counts.update(processed=0, completed=0)


# -- the backbone ----------------------------------------------------------------------------------------


@dataclass
class ResumedBackbone(Backbone):
    """The backbone of a resumed run: its shape is read from RUN/backbone, its weights from the checkpoint later.

    The weights that the run started from are no longer needed.

    Args:
        folder: RUN/backbone.
    """

    folder: str = ""

    def _pretrained_fields(self, source: Pretrained | None) -> dict[str, Any]:
        return json.loads((Path(self.folder) / "config.json").read_text(encoding="utf-8"))

    def _build_from_weights(self) -> "T5ForConditionalGeneration":
        return self._build_from_scratch()


def resume_backbone(backbone: Backbone, folder: Path) -> Backbone:
    """Return the backbone of a resumed run, or `backbone` itself if it reads no weights; `folder` is RUN/backbone."""
    if backbone.weights is None or not (folder / "config.json").is_file():
        return backbone
    return ResumedBackbone(**vars(backbone), folder=str(folder))


def other_model_error(error: RuntimeError) -> UserError:
    """Return the error to raise if PyTorch finds that a checkpoint's tensors are of another model."""
    differences = " ".join(line.strip() for line in str(error).splitlines()[1:])
    return UserError(
        f"the checkpoint is of another model than the recipe's: {differences[:300]}; continue it with its own recipe "
        "(-c RUN/config.yaml), or start from its weights with model.backbone.weights"
    )
