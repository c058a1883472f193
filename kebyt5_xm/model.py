"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.adapters.adapter import scale_ratio
from kebyt5_xm.backbone import t5_config
from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.slot_bias import zero_bias_at_slots
from kebyt5_xm.splice import MediaGroup, slot_positions, splice
from kebyt5_xm.vocabulary import PAD_ID

SlotBias = Literal["shared", "zero"]


class CrossModalT5Config(PreTrainedConfig):
    """Configuration of a `CrossModalT5`.

    Args:
        backbone: the fields of the T5Config.
        modalities: name -> {encoder, adapter}, each {class_path, init_args}, as in a recipe.
        slot_bias: relative position bias of slots, `shared` with text or `zero`.
        denoising: the settings of span denoising the backbone was trained with, the sentinel convention
            among them.
    """

    model_type = "kebyt5_xm"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        modalities: dict[str, dict[str, Any]] | None = None,
        slot_bias: SlotBias = "shared",
        denoising: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.modalities = modalities or {}
        self.slot_bias = slot_bias
        self.denoising = denoising or {}
        kwargs = {"is_encoder_decoder": True, "pad_token_id": 0, "eos_token_id": 1, **kwargs}
        super().__init__(**{"decoder_start_token_id": 0, "tie_word_embeddings": False, **kwargs})


class ModalityModule(nn.Module):
    """The weights of one modality."""

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter

    def forward(self, prepared: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors [N, M, D] of N media and their mask [N, M], valid ones first."""
        encoded = self.encoder(prepared, lengths)
        return self.adapter(encoded.features, encoded.mask, encoded.grid)

    def dummy(self, device: torch.device) -> Tensor:
        """Return a zero that depends on every weight here, for a rank that has no input."""
        encoded = self.encoder.run_dummy(device)
        vectors, _ = self.adapter(encoded.features, encoded.mask, encoded.grid)
        return vectors.sum() * 0.0


class CrossModalEncoder(nn.Module):
    """Bytes and media in, the T5 encoder's states out: what `generate` calls once."""

    main_input_name = "input_ids"

    def __init__(self, owner: "CrossModalT5") -> None:
        super().__init__()
        self._owner = [owner]  # in a list, so that the model is not a child of its own child

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        media: list[MediaGroup] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Return the states [B, S, D]; see `CrossModalT5.forward`."""
        return self._owner[0].encode(input_ids, attention_mask, media)


class CrossModalT5(PreTrainedModel, GenerationMixin):
    """An encoder-decoder over bytes and media. Without modalities it computes exactly what its backbone does."""

    config_class = CrossModalT5Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(
        self,
        config: CrossModalT5Config,
        backbone: T5ForConditionalGeneration | None = None,
        modalities: Mapping[str, tuple[Encoder, Adapter]] | None = None,
    ) -> None:
        super().__init__(config)
        self.backbone = backbone or T5ForConditionalGeneration(t5_config(config.backbone))
        self.modalities = nn.ModuleDict(
            {
                name: ModalityModule(encoder, adapter)
                for name, (encoder, adapter) in (modalities or {}).items()
            }
        )
        self.generation_config = self.backbone.generation_config
        self.scale_ratios: dict[str, Tensor] = {}
        if config.slot_bias == "zero":
            zero_bias_at_slots(self.backbone)

    # -- encoding -------------------------------------------------------------------------------------

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        media: list[MediaGroup] | None = None,
        idle_modalities: Mapping[str, int] | None = None,
    ) -> BaseModelOutput:
        """Return the encoder's states [B, S, D] for byte ids [B, S], PAD at every slot, and the media of the slots.

        `idle_modalities` says how many times a modality's encoder is to run on its dummy besides, so that it
        runs equally often on every rank.
        """
        embedded = self.backbone.shared(input_ids)
        media = media or []
        for group in media:
            vectors, mask = self._modality(group.modality)(group.prepared, group.lengths)
            self.scale_ratios[group.modality] = scale_ratio(vectors, mask, self.byte_rms())
            embedded = splice(embedded, vectors, mask, group)
        for name, times in (idle_modalities or {}).items():
            for _ in range(times):
                embedded = embedded + self._modality(name).dummy(embedded.device).to(embedded.dtype)
        extra = {}
        if self.config.slot_bias == "zero":
            extra["slots"] = slot_positions(input_ids.shape, media, input_ids.device)
        return self.backbone.encoder(inputs_embeds=embedded, attention_mask=attention_mask, **extra)

    def _modality(self, name: str) -> ModalityModule:
        if name not in self.modalities:
            known = ", ".join(self.modalities) or "none"
            raise UserError(
                f"no modality '{name}'{did_you_mean(name, self.modalities)}; the model has {known}"
            )
        module = self.modalities[name]
        assert isinstance(module, ModalityModule)
        return module

    def byte_rms(self) -> float:
        """Return the root mean square of the byte embeddings as they were when the adapters were calibrated."""
        return self._byte_rms

    _byte_rms: float = 1.0

    def calibrate(self) -> None:
        """Measure the byte embeddings and start every adapter's gain at their scale."""
        self._byte_rms = float(self.backbone.shared.weight.detach().float().square().mean().sqrt())
        for name in self.modalities:
            self._modality(name).adapter.calibrate(self._byte_rms)

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
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return transformers' Seq2SeqLMOutput: logits [B, T, V], the loss if `labels` [B, T] are given.

        Give `input_ids` [B, S] with `media`, or the `encoder_outputs` of an earlier call; `attention_mask`
        [B, S] belongs to either. The other arguments are T5's.
        """
        if encoder_outputs is None:
            assert input_ids is not None
            encoder_outputs = self.encode(input_ids, attention_mask, media, idle_modalities)
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.shift_right(labels)
        output = self.backbone(
            attention_mask=attention_mask,
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            **kwargs,
        )
        if labels is not None:
            losses = token_losses(output.logits, labels)
            output["loss"] = losses.sum() / (labels != IGNORE_INDEX).sum()
        return output

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T] of `labels` [B, T]: one step later, behind the start id."""
        shifted = labels.new_full(labels.shape, PAD_ID)  # T5 starts with the pad id
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, PAD_ID)
        return shifted

    # -- what transformers asks for ---------------------------------------------------------------------

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


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood [B, T] of every label in nats, fp32, zero where there is none."""
    return F.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
    )
