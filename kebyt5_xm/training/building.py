"""Builds the model from `model` in a recipe: its parts, their first weights, and their interfaces for the data."""

from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import T5ForConditionalGeneration

from kebyt5_xm.data.media.feature_cache import FeatureCache
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.adapter_folder import load_adapter
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config, SlotBias
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import CTC, PREFIX, CTCHead, CTCHeads
from kebyt5_xm.model.delete_gate import DeleteGate
from kebyt5_xm.model.delete_gate_files import check_start, gate_tensors
from kebyt5_xm.model.draft_heads import DraftHeads, DraftHeadsModule
from kebyt5_xm.model.lora import LoRA, part_of
from kebyt5_xm.model.modality import Modality, cache_folder, interface
from kebyt5_xm.model.pretrained import open_pretrained
from kebyt5_xm.model.t5 import without_weights
from kebyt5_xm.model.tensor_files import load_tensors
from kebyt5_xm.training import groups as parameter_groups
from kebyt5_xm.training.ctc_check import check_model
from kebyt5_xm.training.gate_control import check_gate
from kebyt5_xm.training.groups import Group
from kebyt5_xm.training.resuming import resume_backbone
from kebyt5_xm.training.training_choice import TrainingChoice, decide


class ModelBuilder:
    """Checks the model of a recipe before weights are loaded, and builds it.

    The arguments are those of `kebyt5_xm.training.task.Task`. Encoders are built when they are first needed, and
    become part of the model.
    """

    def __init__(
        self,
        backbone: Backbone,
        modalities: dict[str, Modality],
        slot_bias: SlotBias,
        groups: dict[str, Group],
        lora: dict[str, LoRA],
        draft_heads: DraftHeads | None = None,
        delete_gate: DeleteGate | None = None,
    ) -> None:
        self.backbone = backbone
        self.modalities = modalities
        self.slot_bias: SlotBias = slot_bias
        self.groups = groups
        self.lora = lora
        self.draft_heads = draft_heads
        self.delete_gate = delete_gate
        self._caches: dict[str, FeatureCache] = {}
        self._is_resumed = self._gate_is_given = False

    def resume(self, recorded: Path) -> None:
        """Build the model without its starting weights, which a checkpoint replaces. `recorded` is RUN/backbone."""
        self.backbone = resume_backbone(self.backbone, recorded)
        self._is_resumed = True

    def build(self) -> CrossModalT5:
        """Return the model with its weights, in training mode. Raises `UserError` if they cannot be loaded."""
        model = self._compose(self.backbone.build())
        model.calibrate()
        if self._gate_is_given and model.delete_gate is not None:
            assert self.backbone.weights is not None
            tensors = gate_tensors(open_pretrained(self.backbone.weights))
            load_tensors(model.delete_gate, tensors, self.backbone.weights)
        for name, modality in self.modalities.items():
            if modality.weights is not None and not self._is_resumed:
                load_adapter(model, name, modality.weights)
            model.modality(name).dropout = modality.dropout
        self._decide(model).apply(model)
        model.train()  # encoders then put their frozen parts into eval mode
        return model

    def check(self) -> None:
        """Check every pattern on a model whose backbone has no weights yet, before they are loaded.

        Raises `UserError` for a pattern without effect, choices that contradict each other, and if nothing trains.
        """
        if self.delete_gate is not None:
            check_gate(self.delete_gate, self.backbone, self.ctc)
        if not self._is_resumed:
            self._gate_is_given = check_start(self.backbone.weights, self._gate_config)
        for name, modality in self.modalities.items():
            if modality.dropout is not None:
                modality.dropout.check(f"model.modalities.{name}.dropout")
            if modality.ctc is not None:
                modality.ctc.check(f"model.modalities.{name}.ctc")
        model = self._compose(without_weights(self.backbone.config()))
        choice = self._decide(model)
        parameters = choice.parameters()
        if not any(trains and not name.startswith(PREFIX) for name, trains in parameters):
            raise UserError(
                "nothing trains: model.backbone.frozen is true, or groups with `frozen: true` match all parameters; "
                "set one to false"
            )
        parameter_groups.split_by_layer(self.groups, parameters)
        check_model(self.ctc, model, parameters)
        for place in choice.lora:
            part, _, name = part_of(place).removesuffix(".encoder").partition(".")
            if part == "modalities" and name in self.modalities and self.modalities[name].cache is not None:
                raise UserError(
                    f"model.modalities.{name}.cache holds the features of a frozen encoder, but model.lora changes "
                    f"this one in '{place}'; take one of them out"
                )

    def _decide(self, model: CrossModalT5) -> TrainingChoice:
        return decide(model, self.backbone.frozen, self.lora, self.groups)

    @property
    def ctc(self) -> dict[str, CTC]:
        """Modality -> its CTC loss, for those that have one."""
        return {name: modality.ctc for name, modality in self.modalities.items() if modality.ctc is not None}

    @cached_property
    def _encoders(self) -> dict[str, Encoder]:
        return {name: modality.encoder() for name, modality in self.modalities.items()}

    def encoder(self, name: str) -> Encoder:
        """Return the encoder of a modality."""
        return self._encoders[name]

    def interfaces(self, read_caches: bool = True) -> dict[str, MediaInterface]:
        """Return modality -> what the data module must know of it.

        Raises `UserError` if a modality's cache has no features of its encoder and `read_caches` is true.
        """
        d_model = self.backbone.config().d_model
        return {
            name: interface(
                self._encoders[name],
                modality.adapter,
                d_model,
                self._cache(name) if read_caches and modality.cache is not None else None,
            )
            for name, modality in self.modalities.items()
        }

    def _cache(self, name: str) -> FeatureCache:
        if name not in self._caches:  # the hash of the weights takes a moment
            try:
                folder = cache_folder(self.modalities[name].cache, self._encoders[name])
                self._caches[name] = FeatureCache(folder)
                self._caches[name].check()
            except UserError as error:
                raise UserError(f"model.modalities.{name}.cache: {error}") from error
        return self._caches[name]

    @property
    def _gate_config(self) -> dict[str, Any] | None:
        return None if self.delete_gate is None else self.delete_gate.config()

    def _compose(self, backbone: T5ForConditionalGeneration) -> CrossModalT5:
        config = CrossModalT5Config(
            backbone.config.to_dict(), slot_bias=self.slot_bias, delete_gate=self._gate_config
        )
        modules = {}
        for name, modality in self.modalities.items():
            encoder = self._encoders[name]
            with backbone.device:  # adapters of a model without weights have none either
                modules[name] = encoder, modality.adapter(encoder.out_dim, backbone.config.d_model)
        heads = None
        if self.draft_heads is not None:
            width, vocab_size = backbone.config.d_model, backbone.config.vocab_size
            heads = DraftHeadsModule(self.draft_heads.count, width, vocab_size, backbone.device)
        ctc_heads = None
        if self.ctc:
            width = backbone.config.d_model
            ctc_heads = CTCHeads(
                {name: CTCHead(width, ctc.frames_per_slot, backbone.device) for name, ctc in self.ctc.items()}
            )
        return CrossModalT5(config, backbone, modules, draft_heads=heads, ctc_heads=ctc_heads)
