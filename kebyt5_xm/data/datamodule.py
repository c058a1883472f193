"""The data module: `data` in a recipe."""

from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loader import Loader, Mixture, TrainingMicroBatches, ValidationMicroBatches
from kebyt5_xm.data.plan import Plan, fingerprint
from kebyt5_xm.data.source import Part, Source
from kebyt5_xm.errors import UserError
from kebyt5_xm.modality import MediaInterface
from kebyt5_xm.vocabulary import Sentinels


class DataModule(pl.LightningDataModule):
    """Sources, mixed by weight, in the order that the plan gives.

    Args:
        sources: name -> source. The names appear in logs (`train/loss/NAME/PART`).
        global_batch_size: examples of one optimizer step, over all ranks and accumulated micro-batches.
        micro_batch_size: examples of one forward pass on one rank. Gradients are accumulated over as many
            micro-batches as it takes; `trainer.accumulate_grad_batches` is set from these two.
        num_workers: data processes of each rank; the order never depends on it.
        seed: decides order, spans and dropout.
        accept_changes: resume although sources, seed or global batch have changed; the new plan starts at the
            same step.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        global_batch_size: int = 128,
        micro_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        accept_changes: bool = False,
    ) -> None:
        super().__init__()
        if not sources:
            raise UserError("data.sources is empty; expected at least one source")
        self.names = list(sources)
        self.sources = list(sources.values())
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.accept_changes = accept_changes
        self.next_step = 0
        self.plan: Plan | None = None

    def setup(self, stage: str) -> None:
        if self.plan is not None:
            return
        assert self.trainer is not None
        self.connect(self.trainer.lightning_module.interfaces())  # pyright: ignore
        if stage == "fit":
            self._set_accumulation()

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        """Tell the sources of the model's modalities, and make the plan. Raises `UserError`."""
        self.interfaces = interfaces
        for name, source in zip(self.names, self.sources, strict=True):
            try:
                source.connect(interfaces)
            except UserError as error:
                raise UserError(f"data.sources.{name}: {error}") from error
        parts, self.training = self._mixture(held_out=False)
        weights = [
            self.sources[s].weight * part.share
            for s, part in zip(self.training.source_of_part, parts, strict=True)
        ]
        self.plan = Plan(tuple(parts), tuple(weights), self.seed, self.global_batch_size)
        self.part_names = [part.name for part in parts]
        self.validation_parts, self.validating = self._mixture(held_out=True)
        self.validation_names = [part.name for part in self.validation_parts]

    def _mixture(self, held_out: bool) -> tuple[list[Part], Mixture]:
        parts, source_of_part, part_in_source = [], [], []
        for s, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            for p, part in enumerate(source.validation_parts() if held_out else source.parts()):
                full_name = f"{name}/{part.name}" if part.name else name
                parts.append(Part(full_name, part.num_rows, part.share, part.fingerprint))
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
        round_size = self.micro_batch_size * trainer.world_size
        if self.micro_batch_size < 1 or self.global_batch_size % round_size:
            raise UserError(
                f"data.global_batch_size {self.global_batch_size} is not a multiple of data.micro_batch_size "
                f"{self.micro_batch_size} x {trainer.world_size} ranks; change one of them"
            )
        trainer.accumulate_grad_batches = self.global_batch_size // round_size
        if isinstance(trainer.val_check_interval, int):
            trainer.val_check_interval *= trainer.accumulate_grad_batches

    def train_dataloader(self) -> Loader:
        trainer, plan = self.trainer, self.plan
        assert trainer is not None
        assert plan is not None
        dataset = TrainingMicroBatches(
            self.training,
            plan,
            self.micro_batch_size,
            trainer.global_rank,
            trainer.world_size,
            trainer.accumulate_grad_batches,
            trainer.max_steps,
        )
        return self._loader(dataset, self.next_step * trainer.accumulate_grad_batches)

    def val_dataloader(self) -> list[Loader]:
        assert self.trainer is not None
        return [
            self._loader(
                ValidationMicroBatches(
                    self.validating,
                    number,
                    part.num_rows,
                    self.micro_batch_size,
                    self.trainer.global_rank,
                    self.trainer.world_size,
                )
            )
            for number, part in enumerate(self.validation_parts)
        ]

    def _loader(self, dataset: TrainingMicroBatches | ValidationMicroBatches, start: int = 0) -> Loader:
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return Loader(dataset, start, self.num_workers, pin_memory=on_gpu)

    def description(self) -> dict[str, Any]:
        """Return, as plain values, all that decides which examples a run sees and in which order."""
        assert self.plan is not None
        settings = {
            f"{name}.{key}": value
            for name, source in zip(self.names, self.sources, strict=True)
            for key, value in source.settings().items()
        }
        return {**self.plan.description(), **settings}

    def state_dict(self) -> dict[str, Any]:
        return {"next_step": self.next_step, "description": self.description()}

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
                "data.accept_changes: true to go on with the new data from the same step"
            )
        self.next_step = state_dict["next_step"]
        rank_zero_info(f"data: continues at step {self.next_step}, fingerprint {self.fingerprint()}")

    def fingerprint(self) -> str:
        """Return a short digest of the description."""
        return fingerprint(self.description())

    def validation_batch(self, number: int, num_rows: int) -> Batch:
        """Return the first `num_rows` held-out examples of validation part `number` as one batch."""
        rows = min(num_rows, self.validation_parts[number].num_rows)
        return ValidationMicroBatches(self.validating, number, rows, rows, rank=0, world_size=1)[0]

    def sentinels(self, number: int) -> Sentinels:
        """Return the sentinel convention in which validation part `number` is to be shown."""
        settings = self.sources[self.validating.source_of_part[number]].settings()
        return cast(Sentinels, settings.get("sentinels", "descending"))

    def held_out_bytes(self, number: int) -> np.ndarray:
        """Return the raw held-out bytes [row, bytes] of validation part `number`; empty if it has none."""
        rows = np.arange(self.validation_parts[number].num_rows)
        source = self.sources[self.validating.source_of_part[number]]
        return source.raw_bytes(np.full_like(rows, self.validating.part_in_source[number]), rows)
