"""The forward pass: a T5 backbone and the modalities whose vectors enter its byte embeddings.

`kebyt5_xm.model.cross_modal.CrossModalT5` adds answering, saving and loading.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.adapters.adapter import scale_ratio
from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.data.inputs import Inputs, MediaGroup, Packing
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.attention.interface import refuse_eager, takes_patterns
from kebyt5_xm.model.attention.teacher_forcing import decode, encoder_patterns
from kebyt5_xm.model.configuration import CrossModalT5Config, check_modality_names
from kebyt5_xm.model.ctc import CTCHeads
from kebyt5_xm.model.delete_gate import GatedStates
from kebyt5_xm.model.draft_heads import DraftHeadsModule
from kebyt5_xm.model.gated_encoder import encode_gated, make_gate
from kebyt5_xm.model.generation_encoder import CrossModalEncoder
from kebyt5_xm.model.modality_module import ModalityModule
from kebyt5_xm.model.outputs import Outputs, TeacherForced
from kebyt5_xm.model.specs import build_modalities
from kebyt5_xm.model.splice import Unchecked, slot_positions, splice
from kebyt5_xm.model.t5 import EMBEDDING_ALIASES, t5, t5_config
from kebyt5_xm.vocabulary import PAD_ID


class CrossModalNetwork(PreTrainedModel, GenerationMixin):
    """An encoder-decoder over bytes and media. Without modalities its outputs are those of its backbone.

    Args:
        config: the configuration of backbone and modalities.
        backbone: the T5; built from `config.backbone` with random weights by default.
        modalities: name -> encoder and adapter; built from `config.modalities` by default.
        draft_heads: heads that guess further ids; none by default.
        ctc_heads: heads that read transcripts off the encoder's states, in training; none by default.
        trusted_modules: packages, besides this project's own, whose classes `config.modalities` may name.
    """

    config_class = CrossModalT5Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _keys_to_ignore_on_save = [f"backbone.{name}" for name in EMBEDDING_ALIASES]  # noqa: RUF012 - transformers' name

    def __init__(
        self,
        config: CrossModalT5Config,
        backbone: T5ForConditionalGeneration | None = None,
        modalities: Mapping[str, tuple[Encoder, Adapter]] | None = None,
        trusted_modules: Sequence[str] = (),
        draft_heads: DraftHeadsModule | None = None,
        ctc_heads: CTCHeads | None = None,
    ) -> None:
        super().__init__(config)
        self.backbone = backbone or t5(t5_config(config.backbone))
        if modalities is None:
            d_model = self.backbone.config.d_model
            modalities = build_modalities(config.modalities, d_model, trusted_modules)
        check_modality_names(modalities)
        self.modalities = nn.ModuleDict(
            {name: ModalityModule(encoder, adapter) for name, (encoder, adapter) in modalities.items()}
        )
        self.draft_heads = draft_heads
        self.ctc_heads = ctc_heads
        self.delete_gate = (
            None if config.delete_gate is None else make_gate(self.backbone, **config.delete_gate)
        )
        self.generation_config = self.backbone.generation_config
        self.scale_ratios: dict[str, Tensor] = {}
        self.unchecked: Unchecked | None = None  # set where training must not wait for a GPU
        if config.slot_bias == "zero":
            refuse_eager(self.backbone, "slot_bias: zero")

    # -- encoding -------------------------------------------------------------------------------------

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        media: list[MediaGroup] | None = None,
        idle_modalities: Mapping[str, int] | None = None,
        packing: Packing | None = None,
        extents: NDArray[np.int64] | None = None,
    ) -> BaseModelOutput:
        """Return the encoder's states [B, S, D] for byte ids [B, S], PAD at every slot, and the media of the slots.

        `attention_mask` [B, S] marks the valid ids, None for all; `packing`, of packed rows, takes its place.
        `extents` (see `Inputs`) tell the same on the host, so that nothing waits for the device.
        `idle_modalities` is how many more times each modality's encoder runs, on its dummy, so that it runs equally
        often on every rank. With a delete gate the result is `GatedStates`, whose rows may be shorter.
        """
        embedded = self.backbone.shared(input_ids)
        unchecked = self.unchecked if torch.is_grad_enabled() else None
        media, idle = media or [], idle_modalities or {}
        for name in {**dict.fromkeys(group.modality for group in media), **idle}:
            self.modality(name)  # raises for an unknown name
        for name in self.modalities:  # the same order on every rank, since sharded weights are gathered here
            for group in media:
                if group.modality == name:
                    vectors, mask = self.modality(name)(group.prepared, group.lengths, group.encoded)
                    self.scale_ratios[name] = scale_ratio(vectors, mask, self.byte_rms())
                    vectors = self.modality(name).drop(vectors)
                    embedded = splice(embedded, vectors, mask, group, unchecked)
            for _ in range(idle.get(name, 0)):
                embedded = embedded + self.modality(name).dummy(embedded.device).to(embedded.dtype)
        if not takes_patterns(self.backbone):
            return self.backbone.encoder(inputs_embeds=embedded, attention_mask=attention_mask)
        slots = None
        if self.config.slot_bias == "zero":
            slots = slot_positions(input_ids.shape, media, input_ids.device)
        if (gate := self.delete_gate) is not None:
            if packing is not None:
                raise UserError(
                    "found packed rows, expected one example in each: a delete gate knows no packing"
                )
            return encode_gated(self.backbone, gate, embedded, attention_mask, slots, extents)
        patterns = encoder_patterns(attention_mask, packing, slots, extents)
        return self.backbone.encoder(inputs_embeds=embedded, patterns=patterns)

    def modality(self, name: str) -> ModalityModule:
        """Return the weights of a modality; raise `UserError` if the model has none of that name."""
        if name not in self.modalities:
            known = ", ".join(self.modalities) or "none"
            raise UserError(
                f"no modality '{name}'{did_you_mean(name, self.modalities)}; the model has {known}"
            )
        module = self.modalities[name]
        assert isinstance(module, ModalityModule)
        return module

    def byte_rms(self) -> float:
        """Return the root mean square of the byte embeddings at its last measurement."""
        return self.config.byte_rms

    def measure_byte_rms(self) -> float:
        """Measure the root mean square of the byte embeddings, store it in the config and return it."""
        self.config.byte_rms = float(self.backbone.shared.weight.detach().float().square().mean().sqrt())
        return self.config.byte_rms

    def calibrate(self) -> None:
        """Measure the byte embeddings and set every adapter's gain to their scale."""
        rms = self.measure_byte_rms()
        for name in self.modalities:
            self.modality(name).adapter.calibrate(rms)

    # -- forward --------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        media: list[MediaGroup] | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        labels: Tensor | None = None,
        idle_modalities: Mapping[str, int] | None = None,
        packing: Packing | None = None,
        extents: NDArray[np.int64] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        ctc_positions: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return transformers' Seq2SeqLMOutput: logits [B, T, V], the loss if `labels` [B, T] are given.

        Pass `input_ids` [B, S] and `media`, or the `encoder_outputs` of an earlier call, with `attention_mask`
        [B, S] in either case (of a delete gate's states: `encoder_mask`). If rows hold several examples each, pass
        their `packing` instead of the mask and `decoder_input_ids` from `packing.shift_right`; there is no loss
        then. `extents` are those of `Inputs`. transformers' Trainer passes `num_items_in_batch`, the target ids of a
        whole step, by which the loss is then divided. `ctc_positions` are those of `CTCHeads.forward`. The other
        arguments are T5's.
        """
        if packing is not None:
            refuse_eager(self.backbone, "packing")
        if encoder_outputs is None:
            assert input_ids is not None
            encoder_outputs = self.encode(input_ids, attention_mask, media, idle_modalities, packing, extents)
        scores = None
        if self.delete_gate is not None:
            if isinstance(encoder_outputs, GatedStates):
                attention_mask = encoder_outputs.mask
                extents = extents if encoder_outputs.positions is None else None  # they are of all positions
            attention_mask, scores = encoder_mask.split(attention_mask)
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.shift_right(labels)
        if packing is not None or self._is_teacher_forced(labels, decoder_attention_mask, kwargs):
            assert decoder_input_ids is not None
            states = encoder_outputs[0]
            logits, final = decode(
                self.backbone, states, decoder_input_ids, attention_mask, packing, extents, scores
            )
            output = TeacherForced(logits=logits, encoder_last_hidden_state=states)
            if isinstance(encoder_outputs, GatedStates):
                output["encoder_mask"], output["gate"] = encoder_outputs.mask, encoder_outputs.gate
            if self.draft_heads is not None and self.training:
                output["draft_logits"] = self.draft_heads(final.detach(), decoder_input_ids)
            if self.ctc_heads is not None and ctc_positions is not None:
                output["ctc_logits"] = self.ctc_heads(states, ctc_positions)
        else:
            if scores is not None:
                scores = encoder_mask.join(attention_mask, scores)
                attention_mask = encoder_mask.additive(scores, encoder_outputs[0].dtype)
            output = self.backbone(
                attention_mask=attention_mask,
                encoder_outputs=encoder_outputs,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                **kwargs,
            )
        if labels is not None:
            assert output.logits is not None
            losses = token_losses(output.logits, labels)
            count = (labels != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
            output["loss"] = losses.sum() / count
        return output

    def _is_teacher_forced(
        self, labels: Tensor | None, decoder_attention_mask: Tensor | None, others: dict[str, Any]
    ) -> bool:
        """Return whether a call asks for logits alone, without a cache or anything else of transformers' T5."""
        use_cache = others.get("use_cache")
        has_others = any(value is not None for name, value in others.items() if name != "use_cache")
        is_plain = decoder_attention_mask is None and not has_others and takes_patterns(self.backbone)
        return is_plain and (use_cache is False or (use_cache is None and labels is not None))

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T] of `labels` [B, T]: shifted by one, after the start id."""
        shifted = labels.new_full(labels.shape, PAD_ID)  # T5 starts with the pad id
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, PAD_ID)
        return shifted

    # -- interface of transformers ----------------------------------------------------------------------

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return CrossModalEncoder(self)

    def get_decoder(self) -> nn.Module:
        return self.backbone.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.shared

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.lm_head

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        return self.shift_right(labels)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `UserError`: the vocabulary is fixed to bytes."""
        raise UserError("the vocabulary is fixed to bytes and cannot be resized; slots need no tokens")


def teacher_force(
    model: CrossModalNetwork,
    inputs: Inputs,
    labels: Tensor,
    idle_modalities: Mapping[str, int] | None = None,
    ctc_positions: Mapping[str, Tensor] | None = None,
) -> Outputs:
    """Return the model's outputs for inputs whose targets are `labels` [B, T], from one call of the model."""
    mask = inputs.attention_mask()
    output = model(
        input_ids=inputs.input_ids,
        attention_mask=mask,
        media=inputs.media,
        packing=inputs.packing,
        extents=inputs.extents,
        decoder_input_ids=(inputs.packing or model).shift_right(labels),
        idle_modalities=idle_modalities,
        ctc_positions=ctc_positions,
        use_cache=False,
    )
    return Outputs.of(output, mask)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood [B, T] of every label in nats, fp32; zero where it is `IGNORE_INDEX`."""
    losses = F.cross_entropy(  # over rows of V: twice as fast on a CPU as over the second axis of [B, V, T]
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view_as(labels)
