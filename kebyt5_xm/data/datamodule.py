"""The data module: `data` in a recipe."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import TrainingMicroBatches, TrainingOrders, ValidationMicroBatches
from kebyt5_xm.data.loading.validation import Validation
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.order.cursor import Cursor
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.order.plan import fingerprint, list_changes
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.data.sources.checks import check_fed
from kebyt5_xm.data.sources.measuring import check_usable, measure
from kebyt5_xm.data.sources.source import Source
from kebyt5_xm.errors import UserError

DEFAULT_GLOBAL_BATCH = 128


class DataModule(pl.LightningDataModule):
    """Sources, mixed by weight, in the order that the plan gives.

    Args:
        sources: name -> source. The names appear in logs (`train/loss/NAME/PART`).
        temperature: sources are drawn with p ~ weight^(1 / temperature). 1 takes the weights as they are.
        global_batch_size: examples of one optimizer step, over all ranks and accumulated micro-batches; 128 if
            neither this nor `budget` is given.
        micro_batch_size: examples of one forward pass on one rank. Gradients are accumulated over as many
            micro-batches as it takes; `trainer.accumulate_grad_batches` is set from these two.
        budget: a global batch by length, padded or packed; `micro_batch_size` then applies to validation only.
        num_workers: data processes of each rank; the order of examples does not depend on it.
        timeout: seconds that a worker may take for one fetch before the run ends; 0 waits without end.
        seed: decides order, spans and dropout.
        max_skipped: the run stops if more than this share of a source's examples cannot be made.
        accept_changes: resume even if sources, seed or global batch have changed; the new plan starts at the same
            example.
        idle_modalities: modalities that no source needs to feed; any other modality without a source is an error.

    Attributes:
        model_interfaces: returns the interfaces of the model to train; set by `Task.connect`.
        interfaces: modality -> its data side. This and the attributes below exist after `connect`.
        training: the mixture of the training parts.
        validation: the held-out parts.
        cursor: how far the run has come, and the plan of the rest.
    """

    interfaces: dict[str, MediaInterface]
    training: Mixture
    validation: Validation
    cursor: Cursor

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
        idle_modalities: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not sources:
            raise UserError("data.sources is empty; expected at least one source")
        self.sources = sources
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
        default = DEFAULT_GLOBAL_BATCH if budget is None else 0
        self.global_batch_size = default if global_batch_size is None else global_batch_size
        self.micro_batch_size = micro_batch_size
        self.budget = budget
        self.num_workers = num_workers
        self.timeout = timeout
        self.seed = seed
        self.max_skipped = max_skipped
        self.accept_changes = accept_changes
        self.idle_modalities = idle_modalities or []
        self.length_table_seconds = 0.0
        self._connected = False
        self.model_interfaces: Callable[[], dict[str, MediaInterface]] = _raise_unconnected
        self._train_loader: Loader | None = None

    def prepare_data(self) -> None:
        """Make the sources' length tables, in one process of each machine."""
        self.prepare(self.model_interfaces())

    def prepare(self, interfaces: dict[str, MediaInterface]) -> None:
        """Make the sources' length tables, with a progress bar if it takes more than two seconds."""
        self._connect_sources(interfaces)
        self.length_table_seconds += measure(self.sources)

    def setup(self, stage: str) -> None:
        if self._connected:
            return
        assert self.trainer is not None
        self.connect(self.model_interfaces())
        if not len(self.validation):
            if stage == "validate":
                raise UserError(
                    "found no held-out examples to validate on, expected `validation` of a source in data.sources"
                )
            self.trainer.limit_val_batches = 0  # else Lightning warns of the empty list of loaders
        for line in self.validation.left_out():
            rank_zero_info(line)
        if stage == "fit":
            check_usable(self.sources, self.max_skipped, self.budget and self.budget.longest)
            self._set_accumulation()

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        """Connect the sources to the model's modalities, and make the plan. Raises `UserError`."""
        self._connect_sources(interfaces)
        self.training = Mixture.training(self.sources, self.seed, interfaces)
        sources = [self.training.source(number) for number in range(len(self.training.parts))]
        self.cursor = Cursor(
            self.training.parts,
            weights=[source.weight for source in sources],
            is_text=[source.is_text for source in sources],
            temperature=self.temperature,
            seed=self.seed,
        )
        self.validation = Validation(Mixture.validation(self.sources, interfaces))
        self._connected = True

    def _connect_sources(self, interfaces: dict[str, MediaInterface]) -> None:
        self.interfaces = interfaces
        for name, source in self.sources.items():
            try:
                source.connect(interfaces)
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from error
        check_fed(self.sources, interfaces, self.idle_modalities)

    def text_parts(self) -> list[str]:
        """Return the names of the held-out parts of text sources."""
        names = self.validation.names
        return [name for n, name in enumerate(names) if self.validation.source(n).is_text]

    def set_text_factor(self, factor: float) -> None:
        """Multiply the recipe's weight of text sources from the next optimizer step on.

        Call it on every rank, between two optimizer steps.
        """
        self.cursor.set_text_factor(factor)
        if self._train_loader is not None:
            self._train_loader.restart(self._orders())

    # -- optimizer steps ---------------------------------------------------------------------------

    def _set_accumulation(self) -> None:
        """Set `accumulate_grad_batches`, and turn Lightning's interval in batches into one in steps."""
        trainer = self.trainer
        assert trainer is not None
        self._check_steps(trainer)
        trainer.accumulate_grad_batches = self.steps.num_micro_batches // trainer.world_size
        if isinstance(trainer.val_check_interval, int):
            trainer.val_check_interval *= trainer.accumulate_grad_batches

    def _check_steps(self, trainer: pl.Trainer) -> None:
        """Check the steps on the first rank, since counting them takes time. Raises `UserError` on all ranks."""
        failure = None
        if trainer.is_global_zero:
            try:
                check_steps(self, trainer.max_steps, trainer.accumulate_grad_batches, trainer.world_size)
            except UserError as error:  # the other ranks wait for it
                failure = error
        failure = trainer.strategy.broadcast(failure)
        if failure is not None:
            raise failure

    @property
    def steps(self) -> Steps:
        """The run's optimizer steps."""
        plan = self.cursor.plan
        if self.budget is not None:
            return BudgetedSteps(plan, self.training.lengths, self.budget)
        num_micro_batches = self.global_batch_size // self.micro_batch_size
        return CountedSteps(plan, self.training.lengths, self.micro_batch_size, num_micro_batches)

    # -- loaders -----------------------------------------------------------------------------------

    def train_dataloader(self) -> Loader:
        trainer = self.trainer
        assert trainer is not None
        length = trainer.max_steps * trainer.accumulate_grad_batches
        self._train_loader = self._loader(TrainingMicroBatches(self.training), self._orders(), length)
        return self._train_loader

    def _orders(self) -> TrainingOrders:
        trainer = self.trainer
        assert trainer is not None
        next_step, next_index = self.cursor.next_step, self.cursor.next_index
        place = trainer.global_rank, trainer.world_size, next_step, next_index
        return TrainingOrders(self.steps, *place, trainer.max_steps, self.cursor.plan_at)

    def val_dataloader(self) -> list[Loader]:
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return [self.validation_loader(number, rank, world_size) for number in range(len(self.validation))]

    def validation_loader(self, number: int, rank: int = 0, world_size: int = 1) -> Loader:
        """Return the micro-batches of validation part `number` of one rank."""
        dataset = self.validation.micro_batches(number, self.micro_batch_size, rank, world_size)
        return self._loader(dataset, range(len(dataset)), len(dataset))

    def _loader(
        self, dataset: TrainingMicroBatches | ValidationMicroBatches, orders: Iterable[Any], length: int
    ) -> Loader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return Loader(dataset, orders, length, self.num_workers, pin_memory=on_gpu, timeout=self.timeout)

    # -- the checkpoint ----------------------------------------------------------------------------

    def description(self) -> dict[str, Any]:
        """Return everything that decides a run's examples and their order, as plain values."""
        settings = {
            f"{name}.{key}": value
            for name, source in self.sources.items()
            for key, value in source.settings().items()
        }
        size = f"{self.global_batch_size} examples" if self.budget is None else str(self.budget)
        return {"global_batch": size, **self.cursor.description(), **settings}

    def state_dict(self) -> dict[str, Any]:
        return {**self.cursor.state_dict(), "description": self.description()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.trainer is not None and self.trainer.state.fn == "validate":
            return  # held-out data alone are read, and may be any
        old, new = state_dict["description"], self.description()
        changes = list_changes(old, new)
        if changes and not self.accept_changes:
            raise UserError(
                f"the checkpoint was trained on other data: {'; '.join(changes)}; undo the change, or set "
                "data.accept_changes: true to go on with the new data from the same example"
            )
        if changes:
            rank_zero_info(f"data: changed since the checkpoint, and accepted: {'; '.join(changes)}")
        self.cursor.load_state_dict(state_dict)
        rank_zero_info(f"data: continues at step {self.cursor.next_step}, fingerprint {fingerprint(new)}")


def _raise_unconnected() -> dict[str, MediaInterface]:
    raise UserError("the data knows no model; call task.connect(data) before the trainer's fit or validate")


def check_steps(data: DataModule, max_steps: int, accumulation: int, world_size: int) -> None:
    """Raise `UserError` if the global batch cannot be cut into steps, or if the sources end before the run.

    Args:
        data: connected.
        max_steps, accumulation: `trainer.max_steps` and `trainer.accumulate_grad_batches` as given.
        world_size: number of ranks.
    """
    if max_steps < 1:
        raise UserError(f"trainer.max_steps is {max_steps}; expected the number of optimizer steps")
    if accumulation != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches is {accumulation}; leave it out, it follows from "
            "data.global_batch_size and data.micro_batch_size"
        )
    if data.micro_batch_size < 1:
        raise UserError(f"data.micro_batch_size is {data.micro_batch_size}; expected at least 1")
    if data.budget is None:
        round_size = data.micro_batch_size * world_size
        if data.global_batch_size < 1 or data.global_batch_size % round_size:
            raise UserError(
                f"data.global_batch_size {data.global_batch_size} is not a multiple of data.micro_batch_size "
                f"{data.micro_batch_size} x {world_size} ranks; change one of them"
            )
    elif data.steps.num_micro_batches % world_size:
        raise UserError(
            f"data.budget makes {data.steps.num_micro_batches} micro-batches a step, which {world_size} ranks "
            "cannot share evenly; change global_length or micro_length"
        )
    done = data.steps.count(max_steps, data.cursor.plan_at)
    if done < max_steps:
        raise UserError(
            f"trainer.max_steps is {max_steps}, but the sources end after {done} whole steps; set it to {done}, or "
            "`epochs` of a source higher, or to null"
        )
