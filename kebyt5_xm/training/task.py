"""The LightningModule: `model` in a recipe."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.randomness import hash64
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.judging import Judging, write_answers
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import SlotBias
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.lora import LoRA
from kebyt5_xm.model.modality import Modality
from kebyt5_xm.model.network import Outputs, teacher_forced, token_losses
from kebyt5_xm.optimizers import RMSScaledAdamW, is_elementwise
from kebyt5_xm.training import groups as parameter_groups
from kebyt5_xm.training import resuming
from kebyt5_xm.training.building import Building
from kebyt5_xm.training.fit_checks import optimization
from kebyt5_xm.training.groups import Group
from kebyt5_xm.training.memory import memory, sharding
from kebyt5_xm.training.metrics_log import is_logged
from kebyt5_xm.training.resuming import Given
from kebyt5_xm.training.sharding import shard
from kebyt5_xm.training.step_watch import StepWatch

BYTE_RMS = "byte_rms"
"""The key of a checkpoint that holds the scale of the byte embeddings at the start."""

OptimizerFactory = Callable[[Iterable], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]


class Task(pl.LightningModule):
    """Training of a `CrossModalT5` on whatever mixture the data module holds.

    Args:
        backbone: size or weights of the T5.
        modalities: name -> encoder and adapter of what enters beside text; none for text alone.
        slot_bias: relative position bias between slots and everything else: `shared` with text, or `zero`.
        optimizer: any torch optimizer; RMS-scaled AdamW for training from scratch (see
            `kebyt5_xm.optimizers`), which is taken if none is given, AdamW or Adafactor otherwise.
        schedule: called with the optimizer and `trainer.max_steps`; a constant rate if left out.
        groups: name -> pattern, learning rate and weight decay of the parameters that differ from the
            optimizer's own; the last match wins.
        lora: name -> pattern, rank and alpha of low-rank updates; the rest of the part they go into is then frozen.
    """

    def __init__(
        self,
        backbone: Backbone,
        modalities: dict[str, Modality] | None = None,
        slot_bias: SlotBias = "shared",
        optimizer: OptimizerFactory | None = None,
        schedule: ScheduleFactory | None = None,
        groups: dict[str, Group] | None = None,
        lora: dict[str, LoRA] | None = None,
    ) -> None:
        super().__init__()
        self.building = Building(backbone, modalities or {}, slot_bias, groups or {}, lora or {})
        self.optimizer: OptimizerFactory = optimizer or RMSScaledAdamW
        self.schedule = schedule
        self.model: CrossModalT5 | None = None
        self.watch = StepWatch()
        self._given: Given | None = None  # by this recipe, and by that of the checkpoint
        self._given_before: Given | None = None
        self.step_start = 0
        """The first example of the step that is being trained on."""
        self._connected: DataModule | None = None

    def connect(self, data: DataModule) -> None:
        """Train on `data`, and let it ask for what it must know of the model's modalities."""
        self._connected = data
        data.model_interfaces = self.interfaces

    # -- building ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if self.model is not None:
            return
        for name in (name for name, modality in self.modalities.items() if modality.cache is not None):
            if getattr(self.trainer.strategy, "zero_stage_3", False):
                raise UserError(
                    f"model.modalities.{name}.cache: ZeRO 3 shards the encoder, which then must run equally often on "
                    "all ranks; take the cache out, or use ZeRO 2, DDP or FSDP2"
                )
        self.building.check()
        self.model = self.building.build()

    @property
    def backbone(self) -> Backbone:
        """Size or weights of the T5."""
        return self.building.backbone

    @property
    def modalities(self) -> dict[str, Modality]:
        """What enters beside text."""
        return self.building.modalities

    def interfaces(self, read_caches: bool = True) -> dict[str, MediaInterface]:
        """Return what the data side must know of each modality: see `kebyt5_xm.training.building`."""
        return self.building.interfaces(read_caches)

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            shard(self._model, self.device_mesh)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = optimization(self, self._model, self.trainer.max_steps)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy) and not is_elementwise(optimizer):
            raise UserError(
                f"{type(optimizer).__name__} needs whole matrices, but DeepSpeed ZeRO hands an optimizer flat "
                "partitions; use torch.optim.AdamW, or DDP or FSDP2 instead of DeepSpeed"
            )
        frozen = sum(p.numel() for p in self._model.parameters() if not p.requires_grad)
        rank_zero_info(parameter_groups.table(optimizer.param_groups, frozen))
        rank_zero_info(memory(self._model, self.optimizer, sharding(self.trainer.strategy)))
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        self._given = Given.of(optimizer, names, schedule)
        self._check_given(schedule)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _check_given(self, schedule: LRScheduler | None) -> None:
        if self._given is not None and self._given_before is not None:
            resuming.check(self._given_before, self._given, schedule)

    def _apply_given(self) -> None:
        """Put what the recipe gives the optimizer now in the place of what a checkpoint has restored."""
        if not self.trainer.global_step or self._given is None:
            return
        optimizer, schedule = self.trainer.optimizers[0], self._scheduler
        before = self._given_before or resuming.restored(optimizer, self._given)
        changes = resuming.apply(before, self._given, optimizer, schedule, self.trainer.global_step)
        if changes:
            rank_zero_info(f"changed since the checkpoint: {'; '.join(changes)}")

    @property
    def _scheduler(self) -> LRScheduler | None:
        configs = self.trainer.lr_scheduler_configs
        return configs[0].scheduler if configs else None  # pyright: ignore[reportReturnType]

    @property
    def _model(self) -> CrossModalT5:
        assert self.model is not None, "setup() has not been called"
        return self.model

    # -- training ----------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> Tensor:
        """Return the negative log-likelihood [B, T] of every target id of a batch, in nats."""
        return token_losses(self._output(batch).logits, batch.labels)

    def _output(self, batch: Batch) -> Outputs:
        return teacher_forced(self._model, batch.inputs, batch.labels, self._idle_modalities(batch))

    def _idle_modalities(self, batch: Batch) -> dict[str, int]:
        """Return how often each encoder must run on its dummy so that all ranks run it equally often.

        Without that, a rank that has only text would leave the others waiting for its gradients or shards.
        """
        if self.trainer.world_size == 1 or not self.modalities:
            return {}
        calls = Counter(group.modality for group in batch.inputs.media)
        own = torch.tensor([calls[name] for name in self.modalities], device=self.device)
        most = own.clone()
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        idle = (most.clamp(min=1) - own).tolist()
        return {name: times for name, times in zip(self.modalities, idle, strict=True) if times}

    def on_train_start(self) -> None:
        self._apply_given()
        strategy = self.trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy):
            # In fp32, ZeRO 1 and 2 (DeepSpeed 0.19) take steps that are not finite unless they are told.
            strategy.model.optimizer.check_grad_overflow = True  # pyright: ignore

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Randomness follows the position alone, so a resumed run needs no generator state.
        seed = hash64(
            self._seed,
            batch.progress.step,
            batch_idx % self.trainer.accumulate_grad_batches,
            self.global_rank,
        )
        torch.manual_seed(int(seed >> 1))
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self._model.scale_ratios.clear()
            self._padding: dict[str, list[tuple[int, int]]] = {}
            self.tally = Tally(len(self._data.training.parts), self.device)
            self.watch.begin()
            self.step_start = self._data.course.next_index
        self._position = batch.progress.next_step, batch.progress.next_index
        # The step that loggers see; after a resume Lightning's own count may be one off (2.6.6).
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Give weights that no example of this step reached a gradient of zero, as dummies do on many ranks.

        An optimizer passes over what has none: no decay, no moments, and other results on other ranks.
        """
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):  # its flat partitions have them
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, by the norm that also decides whether the step may be taken at all."""
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):  # it does both itself
            return
        norm = self.watch.judge(optimizer)
        if not self.watch.finite:
            return
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            self.watch.clip(optimizer, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            zero = self.trainer.strategy.model.optimizer  # pyright: ignore
            norm = getattr(zero, "_global_grad_norm", 0.0) or 0.0
            self.watch.judged_elsewhere(not getattr(zero, "overflow", False), float(norm))
        # Here, not at the batch's end: callbacks that save a checkpoint run before the module's own hook.
        self._data.course.advance(*self._position)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self.tally.add(batch, losses)
        for name, share in batch.padding.items():
            self._padding.setdefault(name, []).append(share)
        # Lightning divides by the accumulation and the strategy averages over ranks; undoing both leaves the
        # sum over the whole global batch divided by the plan's count of target ids.
        accumulation = self.trainer.accumulate_grad_batches
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            accumulation **= 2  # DeepSpeed divides once more; AdamW hides it, gradient clipping does not
        loss = self.watch.loss(losses, self.trainer.world_size * accumulation / batch.progress.num_targets)
        # Text alone teaches adapters on a frozen backbone nothing, and a loss without a graph would be refused.
        return loss if loss.requires_grad else loss.requires_grad_()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not batch.progress.ends_step:
            return
        if batch.progress.next_step != self.global_step:
            raise RuntimeError(
                f"trained {self.global_step} steps, but the plan says {batch.progress.next_step}"
            )
        if is_logged(self.trainer):
            self._log_step(batch.progress.step)

    def _log_step(self, step: int) -> None:
        parts, whole = self.tally.totals(self.trainer.strategy)
        self.log("train/loss", whole.loss, prog_bar=True, logger=False)
        # Not by `self.log`: it would repeat a part's last value in steps that have no example of it.
        metrics = {"train/loss": whole.loss}
        for name, part in zip(self._data.training.names, parts, strict=True):
            if part.targets:
                metrics[f"train/loss/{name}"] = part.loss
        for group in self.trainer.optimizers[0].param_groups:
            metrics[f"lr/{group.get('name', parameter_groups.DEFAULT)}"] = float(group["lr"])
        for name, ratio in self._model.scale_ratios.items():
            metrics[f"scale_ratio/{name}"] = float(ratio)
        for name, shares in self._padding.items():  # of this rank, whose loggers these are
            used, of_all = map(sum, zip(*shares, strict=True))
            metrics[f"padding/{name}"] = 1 - used / of_all
        metrics |= {f"epochs/{name}": epochs for name, epochs in self._data.course.epochs().items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step)

    @property
    def _data(self) -> DataModule:
        if self._connected is None:
            raise UserError(
                "the task knows no data; call task.connect(data) before the trainer's fit or validate"
            )
        return self._connected

    @property
    def _seed(self) -> int:
        return self._data.seed

    # -- validation --------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._validation = Tally(len(self._data.validation), self.device)
        self._judging = Judging(self._data, self.trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        output = self._output(batch)
        self._validation.add(batch, token_losses(output.logits, batch.labels))
        answering = self._judging.answering(dataloader_idx)
        if answering is not None:
            assert batch.row is not None
            written = answering.answers(self._model, output.states, output.mask, batch.row >= 0)
            self._judging.add(dataloader_idx, batch, written)

    def on_validation_epoch_end(self) -> None:
        parts, whole = self._validation.totals(self.trainer.strategy)
        for name, part in zip(self._data.validation.names, parts, strict=True):
            if part.bytes:  # else not one example of the part could be made
                self.log(f"val/loss/{name}", part.loss)
                self.log(f"val/bits_per_byte/{name}", part.bits_per_byte)
        if whole.bytes:
            self.log("val/loss", whole.loss, prog_bar=True)
            self.log("val/bits_per_byte", whole.bits_per_byte, prog_bar=True)
        judged = self._judging.judge()
        for part in judged:
            for metric, value in part.values().items():
                self.log(f"val/{metric}/{part.name}", value)
        if judged and self.trainer.is_global_zero and self.trainer.state.fn == "fit":
            folder = Path(self.trainer.default_root_dir) / "predictions"
            write_answers(judged, folder / f"step={self.global_step}.jsonl")

    # -- state -------------------------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As PyTorch's; raises `UserError` if the tensors are of another model."""
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            differences = " ".join(line.strip() for line in str(error).splitlines()[1:])
            raise UserError(
                f"the checkpoint is of another model than the recipe's: {differences[:300]}; continue it with its "
                "own recipe (-c RUN/config.yaml), or start from its weights with model.backbone.weights"
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._given is not None:
            checkpoint[resuming.KEY] = self._given.as_dict()
        checkpoint[BYTE_RMS] = self._model.byte_rms()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restate Lightning's counts of micro-batches for the present accumulation.

        A run that is resumed on other ranks takes other micro-batches to a step; steps are what stays.
        """
        if BYTE_RMS in checkpoint:  # of the weights that the run started from
            self._model.config.byte_rms = checkpoint[BYTE_RMS]
        if self.trainer.state.fn != "fit":
            return
        if resuming.KEY in checkpoint:
            self._given_before = Given.read(checkpoint[resuming.KEY])
            self._check_given(self._scheduler)
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, batches))
        progress["is_last_batch"] = False
        # A finished run that is given more steps goes on in its one epoch; else Lightning would end at once.
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counts in (epochs["total"], epochs["current"]):
            counts.update(processed=0, completed=0)
