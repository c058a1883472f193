"""The data module: `data` in a recipe."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.denoise import Denoising
from kebyt5_xm.data.loader import (
    Loader,
    Mixture,
    TrainingMicroBatches,
    TrainingOrders,
    ValidationMicroBatches,
)
from kebyt5_xm.data.plan import Plan, fingerprint
from kebyt5_xm.data.pool import num_cores
from kebyt5_xm.data.source import Part, Selection, Source
from kebyt5_xm.data.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.errors import UserError
from kebyt5_xm.modality import MediaInterface
from kebyt5_xm.vocabulary import Sentinels


class DataModule(pl.LightningDataModule):
    """Sources, mixed by weight, in the order that the plan gives.

    Args:
        sources: name -> source. The names appear in logs (`train/loss/NAME/PART`).
        temperature: sources are drawn with p ~ weight^(1 / temperature). 1 takes the weights as they are.
        global_batch_size: examples of one optimizer step, over all ranks and accumulated micro-batches; 128 unless
            given, or a `budget` in its place.
        micro_batch_size: examples of one forward pass on one rank. Gradients are accumulated over as many
            micro-batches as it takes; `trainer.accumulate_grad_batches` is set from these two.
        budget: a global batch by length instead of by number, padded or packed; `micro_batch_size` is then that of
            validation alone.
        num_workers: data processes of each rank; the order never depends on it.
        timeout: seconds after which a worker that gives nothing ends the run; 0 waits for ever.
        seed: decides order, spans and dropout.
        max_skipped: largest share of a source's examples that may be impossible to make before the run stops.
        accept_changes: resume although sources, seed or global batch have changed; the new plan starts at the
            same example.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        temperature: float = 1.0,
        global_batch_size: int | None = None,
        micro_batch_size: int = 8,
        budget: Budget | None = None,
        num_workers: int = 2,
        timeout: float = 600.0,
        seed: int = 0,
        max_skipped: float = 0.01,
        accept_changes: bool = False,
    ) -> None:
        super().__init__()
        if not sources:
            raise UserError("data.sources is empty; expected at least one source")
        self.names = list(sources)
        self.sources = list(sources.values())
        self.temperature = temperature
        if budget is not None and global_batch_size is not None:
            raise UserError(
                f"found data.global_batch_size {global_batch_size} and data.budget, expected one of them; set "
                "data.global_batch_size: null for the budget"
            )
        if budget is not None:
            budget.check()
        if not temperature > 0:
            raise UserError(f"data.temperature is {temperature}; expected more than 0")
        if not 0 <= max_skipped <= 1:
            raise UserError(f"data.max_skipped is {max_skipped}; expected a share from 0 to 1")
        self.global_batch_size = global_batch_size or (
            128 if global_batch_size is None and budget is None else 0
        )
        self.micro_batch_size = micro_batch_size
        self.budget = budget
        self.num_workers = num_workers
        self.timeout = timeout
        self.seed = seed
        self.max_skipped = max_skipped
        self.accept_changes = accept_changes
        self.next_step = 0
        self.next_index = 0
        self.plan: Plan | None = None
        self.text_changes: list[tuple[int, float]] = []  # (first example, factor on the weight of text)
        self.length_table_seconds = 0.0
        self._train_loader: Loader | None = None

    def prepare_data(self) -> None:
        """Make the sources' length tables, in one process of every machine while the others wait."""
        assert self.trainer is not None
        self.prepare(self.trainer.lightning_module.interfaces())  # pyright: ignore

    def prepare(self, interfaces: dict[str, MediaInterface]) -> None:
        """Make what the sources need made once, with a progress bar if it takes longer than a moment."""
        self._connect_sources(interfaces)
        started, num_rows = time.perf_counter(), 0
        with tqdm(unit=" rows", desc="lengths", disable=None, delay=2.0) as bar:

            def progress(rows: int) -> None:
                nonlocal num_rows
                num_rows += rows
                bar.update(rows)

            for source in self.sources:
                source.prepare(max(1, num_cores()), progress)
        if num_rows:
            self.length_table_seconds = time.perf_counter() - started
            rank_zero_info(
                f"data: measured the lengths of {num_rows} rows in {self.length_table_seconds:.1f} s, once; they are "
                "kept for the next run"
            )

    def setup(self, stage: str) -> None:
        if self.plan is not None:
            return
        assert self.trainer is not None
        self.connect(self.trainer.lightning_module.interfaces())  # pyright: ignore
        if stage == "fit":
            self._check_impossible()
            self._set_accumulation()

    def _check_impossible(self) -> None:
        """Raise `UserError` if headers alone say that too many rows cannot be used."""
        for name, source in zip(self.names, self.sources, strict=True):
            bad, rows = source.impossible()
            if bad > self.max_skipped * rows:
                path, _ = source.place(0)
                raise UserError(
                    f"data.sources.{name}: {bad} of {rows} rows of {path} give no example, more than "
                    f"data.max_skipped {self.max_skipped:g} allows; `kebyt5-xm lint` with the same -c names "
                    "them all: mend the rows, or raise data.max_skipped"
                )

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        """Tell the sources of the model's modalities, and make the plan. Raises `UserError`."""
        self._connect_sources(interfaces)
        parts, self.training = self._mixture(held_out=False)
        self.parts = tuple(parts)
        self._follow(self._recipe_plan())
        self.part_names = [part.name for part in parts]
        self.validation_parts, self.validating = self._mixture(held_out=True)
        self.validation_names = [part.name for part in self.validation_parts]

    def _weights(self, text_factor: float) -> tuple[float, ...]:
        """Return the weight of every part, with that of denoising sources multiplied."""
        weights = []
        for s, part in zip(self.training.source_of_part, self.parts, strict=True):
            weight = self.sources[s].weight * (text_factor if self._is_text(s) else 1.0)
            weights.append(weight ** (1 / self.temperature) * part.share)
        return tuple(weights)

    def _recipe_plan(self) -> Plan:
        return Plan(self.parts, self._weights(1.0), self.seed)

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._counted, self._drawn = self.next_index, plan.drawn(self.next_index)

    def _is_text(self, source: int) -> bool:
        return isinstance(self.sources[source], Denoising)

    # -- the share of text -------------------------------------------------------------------------

    def text_parts(self) -> list[str]:
        """Return the names of the held-out parts of denoising sources."""
        pairs = zip(self.validation_names, self.validating.source_of_part, strict=True)
        return [name for name, s in pairs if self._is_text(s)]

    def text_share(self) -> float:
        """Return the share of the examples that are drawn from denoising sources now."""
        assert self.plan is not None
        pairs = zip(self.training.source_of_part, self.plan.shares(self.next_index), strict=True)
        return float(sum(share for s, share in pairs if self._is_text(s)))

    @property
    def text_factor(self) -> float:
        """What the weight of denoising sources is multiplied with now."""
        return self.text_changes[-1][1] if self.text_changes else 1.0

    def set_text_factor(self, factor: float) -> None:
        """Multiply the recipe's weight of denoising sources from the next optimizer step on.

        Every part goes on at its own next row. Call it on every rank, between two optimizer steps.
        """
        assert self.plan is not None
        self.text_changes.append((self.next_index, factor))
        self._follow(self.plan.continued(self.next_index, self._weights(factor)))
        if self._train_loader is not None:
            self._train_loader.begin_anew(self._orders())

    def drawn(self) -> np.ndarray:
        """Return how many examples of each training part the finished steps have drawn."""
        assert self.plan is not None
        if self.next_index > self._counted:  # only what is new: a whole block takes a tenth of a second
            self._drawn = self._drawn + self.plan.count(self._counted, self.next_index)
            self._counted = self.next_index
        return self._drawn

    def epochs(self) -> dict[str, float]:
        """Return part -> passes over its rows."""
        pairs = zip(self.parts, self.drawn(), strict=True)
        return {part.name: float(drawn) / part.num_rows for part, drawn in pairs}

    def _connect_sources(self, interfaces: dict[str, MediaInterface]) -> None:
        self.interfaces = interfaces
        for name, source in zip(self.names, self.sources, strict=True):
            try:
                source.connect(interfaces)
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from error

    def _mixture(self, held_out: bool) -> tuple[list[Part], Mixture]:
        parts, source_of_part, part_in_source = [], [], []
        for s, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            for p, part in enumerate(source.validation_parts() if held_out else source.parts()):
                full_name = f"{name}/{part.name}" if part.name else name
                parts.append(replace(part, name=full_name))
                source_of_part.append(s)
                part_in_source.append(p)
        seed = 0 if held_out else self.seed  # held-out spans are the same for every run
        return parts, Mixture(self.sources, source_of_part, part_in_source, seed, held_out, self.interfaces)

    def _set_accumulation(self) -> None:
        """Set `accumulate_grad_batches`, and turn Lightning's interval in batches into one in steps."""
        trainer = self.trainer
        assert trainer is not None
        if trainer.max_steps < 1:
            raise UserError(
                f"trainer.max_steps is {trainer.max_steps}; expected the number of optimizer steps"
            )
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}; leave it out, it "
                "follows from data.global_batch_size and data.micro_batch_size"
            )
        if self.micro_batch_size < 1:
            raise UserError(f"data.micro_batch_size is {self.micro_batch_size}; expected at least 1")
        if self.budget is None:
            round_size = self.micro_batch_size * trainer.world_size
            if self.global_batch_size < 1 or self.global_batch_size % round_size:
                raise UserError(
                    f"data.global_batch_size {self.global_batch_size} is not a multiple of data.micro_batch_size "
                    f"{self.micro_batch_size} x {trainer.world_size} ranks; change one of them"
                )
        elif self.steps.num_micro_batches % trainer.world_size:
            raise UserError(
                f"data.budget makes {self.steps.num_micro_batches} micro-batches a step, which {trainer.world_size} "
                "ranks cannot share evenly; change global_length or micro_length"
            )
        self._check_end(trainer.max_steps)
        trainer.accumulate_grad_batches = self.steps.num_micro_batches // trainer.world_size
        if isinstance(trainer.val_check_interval, int):
            trainer.val_check_interval *= trainer.accumulate_grad_batches

    def _check_end(self, max_steps: int) -> None:
        """Raise `UserError` if the sources end before the run does."""
        assert self.plan is not None
        if self.plan.num_examples is None:
            return
        done = start = 0
        while done < max_steps:
            try:
                start = self.steps.batch(start).stop
            except UserError as error:
                raise UserError(
                    f"trainer.max_steps is {max_steps}, but the sources end after {done} whole steps; set it to "
                    f"{done}, or `epochs` of a source higher, or to null"
                ) from error
            done += 1

    @property
    def steps(self) -> Steps:
        """The run's optimizer steps."""
        assert self.plan is not None
        if self.budget is not None:
            return BudgetedSteps(self.plan, self.training.lengths, self.budget)
        num_micro_batches = self.global_batch_size // self.micro_batch_size
        return CountedSteps(self.plan, self.training.lengths, self.micro_batch_size, num_micro_batches)

    def train_dataloader(self) -> Loader:
        trainer = self.trainer
        assert trainer is not None
        length = trainer.max_steps * trainer.accumulate_grad_batches
        self._train_loader = self._loader(TrainingMicroBatches(self.training), self._orders(), length)
        return self._train_loader

    def _orders(self) -> TrainingOrders:
        trainer = self.trainer
        assert trainer is not None
        rank, world_size = trainer.global_rank, trainer.world_size
        return TrainingOrders(
            self.steps, rank, world_size, self.next_step, self.next_index, trainer.max_steps
        )

    def val_dataloader(self) -> list[Loader]:
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return [
            self.validation_loader(number, rank, world_size) for number in range(len(self.validation_parts))
        ]

    def validation_loader(self, number: int, rank: int = 0, world_size: int = 1) -> Loader:
        """Return the micro-batches of validation part `number` of one rank."""
        num_rows = self.validation_parts[number].num_rows
        dataset = ValidationMicroBatches(
            self.validating, number, num_rows, self.micro_batch_size, rank, world_size
        )
        return self._loader(dataset, range(len(dataset)), len(dataset))

    def _loader(
        self, dataset: TrainingMicroBatches | ValidationMicroBatches, orders: Iterable[Any], length: int
    ) -> Loader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(dataset, orders, length, self.num_workers, pin_memory=on_gpu, timeout=self.timeout)

    def description(self) -> dict[str, Any]:
        """Return, as plain values, all that decides which examples a run sees and in which order."""
        assert self.plan is not None
        settings = {
            f"{name}.{key}": value
            for name, source in zip(self.names, self.sources, strict=True)
            for key, value in source.settings().items()
        }
        size = f"{self.global_batch_size} examples" if self.budget is None else str(self.budget)
        return {"global_batch": size, **self._recipe_plan().description(), **settings}

    def state_dict(self) -> dict[str, Any]:
        return {
            "next_step": self.next_step,
            "next_index": self.next_index,
            "text_changes": [list(change) for change in self.text_changes],
            "description": self.description(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        old, new = state_dict["description"], self.description()
        changes = [
            f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changes and not self.accept_changes:
            raise UserError(
                "the checkpoint was trained on other data: "
                + "; ".join(changes)
                + "; undo the change, or set "
                "data.accept_changes: true to go on with the new data from the same example"
            )
        self.next_step, self.next_index = state_dict["next_step"], state_dict["next_index"]
        self.text_changes = [(index, factor) for index, factor in state_dict.get("text_changes", [])]
        plan = self._recipe_plan()
        for index, factor in self.text_changes:
            plan = plan.continued(index, self._weights(factor))
        self._follow(plan)
        rank_zero_info(f"data: continues at step {self.next_step}, fingerprint {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Return a short digest of the description."""
        return fingerprint(self.description())

    def validation_source(self, number: int) -> Source:
        """Return the source of validation part `number`."""
        return self.sources[self.validating.source_of_part[number]]

    def answer_length(self, number: int) -> int:
        """Return how many ids an answer to an example of validation part `number` may have.

        Twice the longest target held out: a model that does not end yet should not take all day to show it.
        """
        rows = np.arange(self.validation_parts[number].num_rows)
        part = np.full_like(rows, self.validating.part_in_source[number])
        selection = Selection(part, rows, rows.astype(np.uint64), self.validating.seed, held_out=True)
        return 2 * max(8, int(self.validation_source(number).lengths(selection)[:, 1].max(initial=0)))

    def validation_batch(self, number: int, num_rows: int) -> Batch:
        """Return the first `num_rows` held-out examples of validation part `number` as one batch."""
        rows = min(num_rows, self.validation_parts[number].num_rows)
        return ValidationMicroBatches(self.validating, number, rows, rows, rank=0, world_size=1)[0]

    def sentinels(self, number: int) -> Sentinels:
        """Return the sentinel convention in which validation part `number` is to be shown."""
        return self.validation_source(number).sentinels

    def held_out_bytes(self, number: int) -> np.ndarray:
        """Return the raw held-out bytes [row, bytes] of validation part `number`; empty if it has none."""
        rows = np.arange(self.validation_parts[number].num_rows)
        source = self.validation_source(number)
        return source.raw_bytes(np.full_like(rows, self.validating.part_in_source[number]), rows)
