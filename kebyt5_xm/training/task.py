"""The LightningModule: `model` in a recipe."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.optim import Optimizer

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.randomness import hash64
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import SlotBias
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.delete_gate import DeleteGate
from kebyt5_xm.model.draft_heads import DraftHeads
from kebyt5_xm.model.lora import LoRA
from kebyt5_xm.model.modality import Modality
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.model.outputs import Outputs
from kebyt5_xm.model.splice import Unchecked
from kebyt5_xm.optimizers import RMSScaledAdamW
from kebyt5_xm.training import groups as parameter_groups
from kebyt5_xm.training.averages import take_raw_weights
from kebyt5_xm.training.building import ModelBuilder
from kebyt5_xm.training.groups import Group
from kebyt5_xm.training.loggers import is_log_step
from kebyt5_xm.training.optimization import Optimization, OptimizerFactory, ScheduleFactory
from kebyt5_xm.training.resuming import other_model_error, restore_progress
from kebyt5_xm.training.sharding import idle_calls, refuse_caches, shard
from kebyt5_xm.training.side_losses import SideLosses
from kebyt5_xm.training.smoothing import check_smoothing, smooth
from kebyt5_xm.training.step_watch import StepWatch, fill_gradients
from kebyt5_xm.training.validation import ValidationScores

BYTE_RMS = "byte_rms"
"""The key of a checkpoint that holds the RMS of the byte embeddings at the start of the run."""


class Task(pl.LightningModule):
    """Training of a `CrossModalT5` on whatever mixture the data module holds.

    Args:
        backbone: size or weights of the T5.
        modalities: name -> encoder and adapter; none for text alone.
        slot_bias: relative position bias of pairs that touch a slot: `shared` with text, or `zero`.
        optimizer: any torch optimizer. The default, RMS-scaled AdamW, is for training from scratch (see
            `kebyt5_xm.optimizers`); take AdamW or Adafactor otherwise.
        schedule: called with the optimizer and `trainer.max_steps`; by default the rate is constant.
        groups: name -> pattern, learning rate and weight decay of parameters that differ from the optimizer's
            defaults; the last match wins.
        lora: name -> pattern, rank and alpha of low-rank updates; the rest of the part they go into is then frozen.
        draft_heads: heads that guess further bytes, so that answers are written faster; none by default.
        delete_gate: a gate that shortens the encoder's sequence after an early layer; none by default.
        label_smoothing: share of every label that is spread over bytes and the end, in the training loss alone.
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
        draft_heads: DraftHeads | None = None,
        delete_gate: DeleteGate | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing
        self.builder = ModelBuilder(
            backbone, modalities or {}, slot_bias, groups or {}, lora or {}, draft_heads, delete_gate
        )
        self.optimization = Optimization(optimizer or RMSScaledAdamW, schedule, groups or {})
        self.model: CrossModalT5 | None = None
        self.watch = StepWatch()
        self.step_start = 0  # index of the first example of the present step
        self._connected_data: DataModule | None = None

    def connect(self, data: DataModule) -> None:
        """Train on `data`, and let it ask for the interfaces of the model's modalities."""
        self._connected_data = data
        data.model_interfaces = self.interfaces

    # -- building ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        is_new = self.model is None  # otherwise a run before this one has built it
        if is_new:
            if cached := [name for name, modality in self.modalities.items() if modality.cache is not None]:
                refuse_caches(cached, self.trainer.strategy)
            self.builder.check()
        if stage == "fit" and self._connected_data is not None:
            self.side_losses = SideLosses(self.builder, self._data, self.trainer.strategy)
        if is_new:
            self.model = self.builder.build()

    @property
    def backbone(self) -> Backbone:
        """Size or weights of the T5."""
        return self.builder.backbone

    @property
    def modalities(self) -> dict[str, Modality]:
        """Name -> encoder and adapter."""
        return self.builder.modalities

    def interfaces(self, read_caches: bool = True) -> dict[str, MediaInterface]:
        """Return modality -> what the data module must know of it: see `ModelBuilder.interfaces`."""
        return self.builder.interfaces(read_caches)

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            shard(self._model, self.device_mesh)

    def configure_optimizers(self) -> Any:
        return self.optimization.configure(self._model, self.trainer)

    @property
    def _model(self) -> CrossModalT5:
        assert self.model is not None, "setup() has not been called"
        return self.model

    # -- training ----------------------------------------------------------------------------------

    def _output(self, batch: Batch, ctc_positions: dict[str, Tensor] | None = None) -> Outputs:
        idle = idle_calls(batch, self.modalities, self.trainer.world_size, self.device)
        return teacher_force(self._model, batch.inputs, batch.labels, idle, ctc_positions)

    def on_train_start(self) -> None:
        self.optimization.apply_changes(self.trainer)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            # By default, ZeRO 1 and 2 (DeepSpeed 0.19) do not skip steps that are not finite in fp32.
            self.trainer.strategy.model.optimizer.check_grad_overflow = True  # pyright: ignore

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The seed depends only on the position in the run, so a resumed run needs no generator state.
        number = batch_idx % self.trainer.accumulate_grad_batches
        seed = hash64(self._data.seed, batch.progress.step, number, self.global_rank)
        # Without a GPU, `torch.manual_seed` formats the stack in every step, in case one appears.
        set_seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        set_seed(int(seed >> 1))
        if number == 0:
            self._model.scale_ratios.clear()
            self._model.unchecked = Unchecked() if self.device.type == "cuda" else None
            self._padding: dict[str, list[tuple[int, int]]] = {}
            self.tally = Tally(len(self._data.training.parts), self.device)
            self.side_losses.begin(self._model, batch.progress.step)
            self.watch.begin()
            self.step_start = self._data.cursor.next_index
        self._position = batch.progress.next_step, batch.progress.next_index
        # The step that loggers see; after a resume, Lightning's count may be off by one (2.6.6).
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Give a gradient of zero to weights that no example of this step reached.

        Optimizers skip weights without a gradient: no decay, no moments. On several ranks, dummy inputs already give
        zeros, so this makes the results independent of the number of ranks.
        """
        # DeepSpeed's flat buffers hold a gradient for every weight.
        if not isinstance(self.trainer.strategy, DeepSpeedStrategy):
            fill_gradients(optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, by the norm that also decides whether the step is taken."""
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):  # DeepSpeed clips and decides by itself
            return
        heads = self._model.draft_heads
        self.watch.judge(optimizer, [] if heads is None else [*heads.parameters()])
        if not self.watch.is_finite:
            return
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            self.watch.clip(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            zero = self.trainer.strategy.model.optimizer  # pyright: ignore
            norm = getattr(zero, "_global_grad_norm", 0.0) or 0.0
            self.watch.record(not getattr(zero, "overflow", False), float(norm))
        if not self.watch.is_finite and self._model.unchecked is not None:
            self._model.unchecked.check()
        # Here, not at the batch's end: callbacks that save a checkpoint run before the module's own hook.
        self.side_losses.end(self.trainer.strategy, self.watch.is_finite)
        self._data.cursor.advance(*self._position)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self._output(batch, self.side_losses.ctc.find(batch))
        losses = token_losses(output.logits, batch.labels)  # [B, T], in nats
        self.tally.add(batch, losses)
        if self.label_smoothing:
            losses = smooth(losses, output.logits, batch.labels, self.label_smoothing)
        for name, used_and_total in batch.padding.items():
            self._padding.setdefault(name, []).append(used_and_total)
        # Lightning divides by the accumulation, and the strategy averages over ranks. Undoing both gives the sum over
        # the global batch, divided by the plan's number of target ids.
        accumulation = self.trainer.accumulate_grad_batches
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            # DeepSpeed divides a second time. The clipping norm shows it; AdamW ignores the scale.
            accumulation **= 2
        factor = self.trainer.world_size * accumulation / batch.progress.num_targets
        loss = self.watch.add_loss(losses, factor)
        loss = sum(self.side_losses.add(output, batch, factor), loss)
        # A batch of text trains nothing if only adapters train, but Lightning refuses a loss without a graph.
        return loss if loss.requires_grad else loss.requires_grad_()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if not batch.progress.ends_step:
            return
        if batch.progress.next_step != self.global_step:
            raise RuntimeError(
                f"trained {self.global_step} steps, but the plan says {batch.progress.next_step}"
            )
        if is_log_step(self.trainer):
            self._log_step(batch.progress.step)

    def _log_step(self, step: int) -> None:
        parts, whole = self.tally.totals(self.trainer.strategy)
        self.log("train/loss", whole.loss, prog_bar=True, logger=False)
        # Not `self.log`, which repeats a part's last value in steps that have no example of the part.
        metrics = {"train/loss": whole.loss}
        names = self._data.training.names
        metrics |= {f"train/loss/{n}": p.loss for n, p in zip(names, parts, strict=True) if p.targets}
        metrics |= self.side_losses.metrics(self.trainer.strategy)
        for group in self.trainer.optimizers[0].param_groups:
            metrics[f"lr/{group.get('name', parameter_groups.DEFAULT)}"] = float(group["lr"])
        metrics |= {f"scale_ratio/{name}": float(ratio) for name, ratio in self._model.scale_ratios.items()}
        for name, shares in self._padding.items():  # of this rank alone
            used, of_all = map(sum, zip(*shares, strict=True))
            metrics[f"padding/{name}"] = 1 - used / of_all
        metrics |= {f"epochs/{name}": epochs for name, epochs in self._data.cursor.epochs().items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step)

    @property
    def _data(self) -> DataModule:
        if self._connected_data is None:
            raise UserError("the task has no data; call task.connect(data) before fitting or validating")
        return self._connected_data

    # -- validation --------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._validation = ValidationScores(self._data, self.trainer, self.device)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._validation.add(self._model, batch, self._output(batch), dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        for name, value in self._validation.metrics().items():
            self.log(name, value, prog_bar=name in ("val/loss", "val/bits_per_byte"))

    # -- state -------------------------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load as PyTorch does; raise `UserError` if the tensors are of another model."""
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise other_model_error(error) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.optimization.save(checkpoint)
        self.side_losses.save(checkpoint)
        checkpoint[BYTE_RMS] = self._model.byte_rms()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore raw weights, the optimizer's options, and Lightning's counts of micro-batches."""
        if BYTE_RMS in checkpoint:
            self._model.config.byte_rms = checkpoint[BYTE_RMS]
        if self.trainer.state.fn != "fit":
            return
        take_raw_weights(checkpoint)
        self.side_losses.load(checkpoint)
        self.optimization.load(checkpoint, self.trainer)
        restore_progress(checkpoint, self.trainer.accumulate_grad_batches)
