"""Recommended settings beside those of the recipe, with the reason for each, and the overlay that sets them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kebyt5_xm.commands.doctor.findings import Finding
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.order.filling import Filling, fitting_budget, measure_filling
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.lora import LORA_SUFFIXES
from kebyt5_xm.training.inherited_rate import find_inherited_rate
from kebyt5_xm.training.recommendation import Kind, Settings, Situation, recommend
from kebyt5_xm.training.task import Task

MUCH_PADDING = 0.15
"""A budget is recommended from this share of padding on, and a warning given if it saves so much. Our own choice."""
COSINE = "kebyt5_xm.schedules.Cosine"


@dataclass(frozen=True)
class Advice:
    """The recommendation for a recipe.

    Attributes:
        budget: examples of a step by length; None if by number, in micro-batches of `micro_batch_size`.
        filling: of the first steps with it, None if the sources do not last for one.
    """

    situation: Situation
    settings: Settings
    budget: Budget | None
    micro_batch_size: int
    filling: Filling | None

    @property
    def reason(self) -> str:
        """Why, in one phrase."""
        found = self.situation
        return (
            f"{_WHAT[found.kind]}: {found.trainable:,} parameters train on {found.examples:,} examples, "
            f"{found.share:.0%} of what is drawn"
        )


_WHAT: dict[Kind, str] = {
    "from scratch": "the backbone trains from scratch",
    "from weights": "the backbone trains from weights",
    "lora": "LoRA trains in the backbone",
    "adapters": "the backbone is frozen",
}


def advise(task: Task, model: CrossModalT5, data: DataModule, num_ranks: int) -> tuple[Advice, Filling]:
    """Return the recommendation, and how the recipe's own steps are filled. Raises `UserError` without examples."""
    situation = describe_situation(task, model, data)
    settings = recommend(situation)
    filling = measure_filling(data.steps, data.training.lengths)
    plan, lengths = data.cursor.plan, data.training.lengths
    micro = data.micro_batch_size if data.budget is None else max(1, settings.batch // num_ranks)
    micro = _largest_divisor(max(1, settings.batch // num_ranks), micro)
    counted = CountedSteps(plan, lengths, micro, settings.batch // micro)
    by_number = _measure(counted)
    if by_number is not None and by_number.padding < MUCH_PADDING:
        return Advice(situation, settings, None, micro, by_number), filling
    packs = task.backbone.attention != "eager"  # its boolean masks leak between packed examples
    budget = fitting_budget(plan, lengths, settings.batch, filling.micro_positions, num_ranks, packs)
    by_length = _measure(BudgetedSteps(plan, lengths, budget))
    return Advice(situation, settings, budget, data.micro_batch_size, by_length), filling


def describe_situation(task: Task, model: CrossModalT5, data: DataModule) -> Situation:
    """Return what trains, and on how many examples: those of sources that teach a task, or else all."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    of_backbone = [name for name, _ in parameters if name.startswith("backbone.")]
    kind: Kind = "adapters"
    if any(name.endswith(LORA_SUFFIXES) for name in of_backbone):
        kind = "lora"
    elif of_backbone:
        kind = "from scratch" if task.backbone.weights is None else "from weights"
    mixture, weights = data.training, data.cursor.plan.weights
    numbers = range(len(mixture.parts))
    tasks = [number for number in numbers if not mixture.source(number).is_text] or [*numbers]
    rows = sum(mixture.parts[number].num_rows for number in tasks)
    share = sum(weights[number] for number in tasks) / sum(weights)
    return Situation(kind, sum(p.numel() for _, p in parameters), rows, share)


def list_advice(
    advice: Advice, filling: Filling, data: DataModule, recipe: Mapping[str, Any], paths: Sequence[str]
) -> Iterator[Finding]:
    """Yield the findings that set the recipe beside the recommendation."""
    inherited = find_inherited_rate(paths)
    if inherited is not None:
        yield Finding("rate", "WARNING", str(inherited))
    settings = advice.settings
    yield Finding(
        "advice: rate",
        "ok",
        f"recommended {_name(settings.optimizer)} at {settings.rate:g}, a cosine after {settings.warmup_steps} steps "
        f"of warm-up; the recipe has {_describe_optimizer(recipe)}. {advice.reason}; {settings.rate_source}",
    )
    examples = filling.examples / max(1, filling.steps)
    yield Finding(
        "advice: steps",
        "ok",
        f"recommended {settings.batch} examples a step for {settings.steps} steps, {settings.passes:.3g} passes over "
        f"{advice.situation.examples:,} examples; the recipe has about {examples:.3g} examples a step for "
        f"{recipe['trainer']['max_steps']} steps",
    )
    yield _padding(advice, filling, data)


def _padding(advice: Advice, filling: Filling, data: DataModule) -> Finding:
    """Return the finding on padding; a warning if the recommendation saves much."""
    has = "its budget" if data.budget is not None else "its batches by number"
    found = f"with {has}, {_describe(filling)} (the first {filling.steps} steps, {filling.examples} examples)"
    if filling.left_out:
        found += f"; {filling.left_out} examples are impossible, or have no place in a row"
    how = (
        f"data.budget {advice.budget}"
        if advice.budget is not None
        else f"{advice.settings.batch} examples a step"
    )
    saves = 0.0
    if advice.filling is not None:
        found += f"; with {how}, {_describe(advice.filling)}"
        saves = filling.padding - advice.filling.padding
    return Finding("advice: padding", "ok" if saves < MUCH_PADDING else "WARNING", found)


def _describe(filling: Filling) -> str:
    return (
        f"{filling.input_padding:.0%} of the encoder's positions and {filling.target_padding:.0%} of the decoder's "
        "hold nothing"
    )


def to_overlay(advice: Advice, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overlay of a recipe that sets what is recommended."""
    settings, budget = advice.settings, advice.budget
    init_args: dict[str, Any] = {"lr": settings.rate}
    if _class_path(recipe["model"]["optimizer"]) != settings.optimizer:
        init_args["weight_decay"] = 0.0  # torch's AdamW has 0.01
    data: dict[str, Any]
    if budget is None:
        data = {
            "budget": None,
            "global_batch_size": settings.batch,
            "micro_batch_size": advice.micro_batch_size,
        }
    else:
        data = {"global_batch_size": None, "budget": vars(budget)}
    return {
        "model": {
            "optimizer": {"class_path": settings.optimizer, "init_args": init_args},
            "schedule": {"class_path": COSINE, "init_args": {"warmup_steps": settings.warmup_steps}},
        },
        "data": data,
        "trainer": {"max_steps": settings.steps, "val_check_interval": settings.interval},
        "checkpoint_every": settings.interval,
    }


def _measure(steps: BudgetedSteps | CountedSteps) -> Filling | None:
    """Return how the first steps are filled; None if the sources do not last for one."""
    return measure_filling(steps, steps.lengths) if steps.count(1) else None


def _largest_divisor(number: int, limit: int) -> int:
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(1, limit))


def _class_path(block: Any) -> str | None:
    return block.get("class_path") if block is not None else None


def _name(class_path: str | None) -> str:
    return (class_path or "its default").rpartition(".")[2]


def _describe_optimizer(recipe: Mapping[str, Any]) -> str:
    """Return the recipe's optimizer, rate and schedule in words."""
    optimizer, schedule = recipe["model"]["optimizer"], recipe["model"]["schedule"]
    rate = ((optimizer or {}).get("init_args") or {}).get("lr")
    at = "" if rate is None else f" at {float(rate):g}"
    shape = "a constant rate" if schedule is None else _name(_class_path(schedule))
    rates = [name for name, group in (recipe["model"]["groups"] or {}).items() if _rate(group) is not None]
    return f"{_name(_class_path(optimizer))}{at}, {shape}" + (
        f", and rates of their own for the groups {', '.join(rates)}, which the overlay leaves"
        if rates
        else ""
    )


def _rate(group: Any) -> Any:
    return group.get("lr") if hasattr(group, "get") else getattr(group, "lr", None)
