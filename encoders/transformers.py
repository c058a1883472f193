"""Image and speech encoders of transformers: from the hub, from a folder, or untrained from a config."""

import inspect
import json
from typing import Any

import torch
from torch import Tensor
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from encoders.media import conv_length, shortest_input
from encoders.meta import freeze_unreached, output_on_meta
from encoders.transformers_inputs import (
    FilterBanks,
    Inputs,
    Pixels,
    Waveforms,
    WhisperChunks,
    feature_extractor,
    image_processor,
)
from encoders.transformers_models import DERIVED, keep_layers, load_encoder
from kebyt5_xm.encoder import Encoded, Encoder, Size
from kebyt5_xm.errors import UserError

TESTED = ("siglip", "dinov2", "clip", "whisper", "wav2vec2-bert", "hubert", "wav2vec2", "wavlm")
PADS = ("hubert", "wav2vec2", "wavlm")
"""Families that pad if their convolutions have layer norm, which is tested to be harmless; others never pad."""

MAX_PREFIX = 16
"""Up to this many tokens beyond the patches count as prefix tokens (DINOv2 with registers has 5)."""


class TransformersEncoder(Encoder):
    """The encoder of `model`: a hub id, a folder, or with `pretrained: false` also a model type (`siglip`).

    Tested: SigLIP, DINOv2, CLIP, Whisper, wav2vec2-bert, HuBERT, wav2vec 2.0, WavLM. Other families for images or
    waveforms are accepted if a forward pass on the meta device gives the expected number of features.

    - `config`: overrides of the model's config; `preprocessing`: overrides of its image processor's or feature
      extractor's config.
    - `layer`: None for the model's last hidden state, or the index of a layer (negative from the end) for its raw
      output; later layers are dropped.
    - `keep_prefix`: keep class and register tokens before the patches; the features then form no grid.
    - `image_size`: the whole image is resized to these pixels (a square, or height and width), instead of the
      model's resizing and cropping; position embeddings are interpolated.
    """

    def __init__(
        self,
        model: str,
        pretrained: bool = True,
        frozen: bool = False,
        layer: int | None = None,
        keep_prefix: bool = False,
        image_size: int | tuple[int, int] | None = None,
        config: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, missing = load_encoder(model, pretrained, config or {})
        self.block = keep_layers(self.model, layer, model)
        self.interpolate = False
        if self.model.main_input_name == "pixel_values":
            self.media = "image"
            resize_to = (image_size, image_size) if isinstance(image_size, int) else image_size
            model_size = getattr(self.model.config, "image_size", None)
            processor = image_processor(model, pretrained, preprocessing or {}, model_size, resize_to)
            self.inputs: Inputs = self._pixels(processor, model, keep_prefix)
        else:
            self.media = "audio"
            option = "keep_prefix" if keep_prefix else "image_size" if image_size else None
            if option:
                raise UserError(f"found {option} for '{model}', which encodes audio; remove it")
            self.inputs = self._audio(model, pretrained, preprocessing or {})
        probe = self.inputs.probe()
        shape = output_on_meta(self.model, self._hidden, probe).shape  # [N, F, W] or [N, W, rows, columns]
        self.out_dim = shape[1] if len(shape) == 4 else shape[2]
        freeze_unreached(self.model, self._hidden, probe)
        unloaded = [name for name, p in self.model.named_parameters() if p.requires_grad and name in missing]
        if unloaded:
            raise UserError(
                f"found no '{unloaded[0]}' in the weights of '{model}' ({len(unloaded)} tensors are missing), "
                "expected all; name a complete checkpoint"
            )
        self.train()
        if frozen:
            self.freeze()

    def preprocessor(self) -> Inputs:
        return self.inputs

    def dummy(self) -> tuple[Tensor, Tensor]:
        return self.inputs.shortest()

    def offline(self, init_args: dict[str, Any]) -> dict[str, Any]:
        return {
            **init_args,
            "model": self.model.config.model_type,
            "pretrained": False,
            "image_size": None,  # it is in the preprocessing below
            "config": {k: v for k, v in self.model.config.to_dict().items() if k not in DERIVED},
            "preprocessing": json.loads(self.inputs.processor.to_json_string()),
        }

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        return self.inputs.encode(self._hidden, prepared, lengths)

    def _hidden(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        arguments: dict[str, Any] = {self.model.main_input_name: inputs}
        if attention_mask is not None:
            arguments["attention_mask"] = attention_mask
        if self.interpolate:
            arguments["interpolate_pos_encoding"] = True
        if self.block is None:
            return self.model(**arguments).last_hidden_state
        outputs: list[Any] = []
        hook = self.block.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            self.model(**arguments)
        finally:
            hook.remove()
        return outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]

    def _pixels(self, processor: Any, name: str, keep_prefix: bool) -> Pixels:
        from PIL import Image

        shapes = {
            tuple(processor(images=Image.new("RGB", size), return_tensors="pt")["pixel_values"].shape[1:])
            for size in ((53, 37), (37, 53))
        }
        if len(shapes) > 1 or len(next(iter(shapes))) != 3:
            raise UserError(
                f"found '{name}' to prepare images to {sorted(shapes)}, expected one size; set image_size"
            )
        (_, height, width) = shapes.pop()
        model_size = getattr(self.model.config, "image_size", None)
        model_size = (model_size, model_size) if isinstance(model_size, int) else model_size
        interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.interpolate = interpolates and model_size is not None and tuple(model_size) != (height, width)
        try:
            shape = output_on_meta(self.model, self._hidden, torch.zeros(1, 3, height, width)).shape
        except Exception as error:
            raise UserError(
                f"found '{name}' unable to encode an image of {height} x {width} pixels ({error}), expected one of "
                f"the families {', '.join(TESTED)} or a similar one; choose another model"
            ) from error
        features, prefix = _feature_layout(
            shape, getattr(self.model.config, "patch_size", None), height, width
        )
        if keep_prefix:
            if not prefix:
                raise UserError(f"found keep_prefix for '{name}', which has no prefix tokens; remove it")
            features, prefix = (shape[1],), 0
        return Pixels(processor, (height, width), features, prefix)

    def _audio(self, name: str, pretrained: bool, overrides: dict[str, Any]) -> Inputs:
        config = self.model.config
        if config.model_type == "whisper":
            plain = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
            return WhisperChunks(feature_extractor(name, pretrained, overrides, plain))
        if config.model_type == "wav2vec2-bert":
            return FilterBanks(feature_extractor(name, pretrained, overrides, SeamlessM4TFeatureExtractor()))
        kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
        if self.model.main_input_name != "input_values" or not kernels or not strides:
            raise UserError(
                f"found '{name}' of the family '{config.model_type}', expected one of {', '.join(TESTED)}, an image "
                "model, or a model of waveforms that starts with convolutions; write an encoder for it"
            )
        stack = tuple((kernel, stride, 0) for kernel, stride in zip(kernels, strides, strict=True))
        for samples in (shortest_input(stack), 3 * shortest_input(stack) + 7, 16000):
            found = output_on_meta(self.model, self._hidden, torch.zeros(1, samples)).shape[1]
            if found != conv_length(samples, stack):
                raise UserError(
                    f"found {found} features for {samples} samples from '{name}', expected "
                    f"{conv_length(samples, stack)} by its convolutions; write an encoder for it"
                )
        pads = config.model_type in PADS and config.feat_extract_norm == "layer"
        return Waveforms(
            feature_extractor(name, pretrained, overrides, Wav2Vec2FeatureExtractor()), stack, pads
        )


def _feature_layout(shape: torch.Size, patch: Any, height: int, width: int) -> tuple[Size, int]:
    """Return the size of the features and the number of prefix tokens before them."""
    if len(shape) == 4:
        return (shape[2], shape[3]), 0
    if isinstance(patch, int):
        rows, columns = height // patch, width // patch
        if 0 <= shape[1] - rows * columns <= MAX_PREFIX:
            return (rows, columns), shape[1] - rows * columns
    return (shape[1],), 0
