"""wav2vec 2.0, HuBERT, WavLM and XLS-R from torchaudio's bundles: waveform -> one feature every 20 ms."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from encoders.media import (
    Convolution,
    conv_length,
    refuse_short,
    resample,
    resampled_length,
    shortest_input,
)
from encoders.meta import freeze_unreached
from encoders.pretrained import checkpoint_file, load_exactly, loading
from kebyt5_xm.encoder import AudioHeader, Encoded, Encoder, Header, Preprocessor, Size, length_mask
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.weight_files import read_tensors

try:
    from torchaudio import pipelines
    from torchaudio.models import wav2vec2_model, wavlm_model
except ImportError as error:
    raise UserError(
        "found no torchaudio, which TorchaudioEncoder needs; run: pip install 'kebyt5-xm[audio]'"
    ) from error

FACTORIES = {"Wav2Vec2": wav2vec2_model, "WavLM": wavlm_model}
"""Builder of each architecture, by the bundles' name of it (HuBERT is built as Wav2Vec2)."""


@dataclass(frozen=True)
class WaveformPreprocessor(Preprocessor):
    """Waveform at any rate -> samples at the model's rate, normalised per recording if the bundle requires it."""

    sample_rate: int
    normalize: bool
    stack: tuple[Convolution, ...]
    pads: bool = False

    @property
    def waveform_rate(self) -> int:
        return self.sample_rate

    def size(self, header: Header) -> Size:
        assert isinstance(header, AudioHeader)
        samples = resampled_length(header.num_samples, header.sample_rate, self.sample_rate)
        refuse_short(samples, shortest_input(self.stack), self.sample_rate)
        return (conv_length(samples, self.stack),)

    def prepare(self, item: Any) -> Tensor:  # -> [samples]
        waveform = resample(item[0], item[1], self.sample_rate)
        # The bundle itself would normalise over the whole batch, including other recordings and padding.
        return nn.functional.layer_norm(waveform, waveform.shape) if self.normalize else waveform


class TorchaudioEncoder(Encoder):
    """A self-supervised speech encoder by the name of its bundle, for instance `WAV2VEC2_XLSR_300M`.

    - `pretrained`: load the bundle's weights; `checkpoint_path`: load a state dict with torchaudio's names instead.
    - `shape`: overrides of the architecture's arguments, for untrained models only.
    - `layer`: None for the final features (normed if the model has a last norm), the index of a transformer layer
      (negative from the end) for its raw output, or `weighted` for a learned average of all layers.
    - `frozen` with `weighted` freezes the bundle's model, while the layer weights train.

    Models with group norm over time (the BASE ones and WAV2VEC2_LARGE) are never padded, since padding would change
    their features. WavLM is never padded either, because torchaudio's attention takes no mask there. Such recordings
    are encoded in batches of equal length.
    """

    media = "audio"

    def __init__(
        self,
        bundle: str,
        pretrained: bool = True,
        checkpoint_path: str | None = None,
        frozen: bool = False,
        layer: int | Literal["weighted"] | None = None,
        shape: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        wav2vec2_bundle = _find_bundle(bundle)
        from_bundle = pretrained and checkpoint_path is None
        if from_bundle and shape:
            raise UserError(
                f"found a shape for the pretrained '{bundle}'; remove shape or set pretrained: false"
            )
        if from_bundle:
            with loading(bundle):
                model = wav2vec2_bundle.get_model()
            self.model = getattr(model, "model", model)  # without the wrapper that normalises over the batch
        else:
            self.model = _build(wav2vec2_bundle, shape or {})
            if checkpoint_path:
                tensors = read_tensors(checkpoint_file(checkpoint_path))
                load_exactly(self.model, tensors, checkpoint_path)
        self.model.aux = None  # the output layer of a speech recogniser
        self._preprocessor = _build_preprocessor(wav2vec2_bundle, self.model)
        layers = self.model.encoder.transformer.layers
        self.out_dim = self.model.encoder.transformer.pos_conv_embed.embed_dim
        self.layer_logits = nn.Parameter(torch.zeros(len(layers))) if layer == "weighted" else None
        self.layer = self._keep_layers(layer, bundle)
        self._model_frozen = frozen  # settings are part of the key of feature caches, which stay valid
        freeze_unreached(self, self._features, self.dummy()[0])
        self.train()
        if frozen:
            self.freeze(except_for=["layer_logits"])

    def preprocessor(self) -> WaveformPreprocessor:
        return self._preprocessor

    def dummy(self) -> tuple[Tensor, Tensor]:
        samples = shortest_input(self._preprocessor.stack)
        return torch.zeros(1, samples), torch.tensor([samples])

    def offline(self, init_args: dict[str, Any]) -> dict[str, Any]:
        return {**init_args, "pretrained": False, "checkpoint_path": None}

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        features = self._features(prepared, lengths if self._preprocessor.pads else None)
        counts = conv_length(lengths, self._preprocessor.stack)
        return Encoded(features, length_mask(counts, features.shape[1]))

    def _features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:  # -> [N, F, W]
        # The model's forward would drop layers at random, which gives ranks unequal graphs.
        layers, _ = self.model.extract_features(waveforms, lengths)
        features = layers[-1]
        transformer = self.model.encoder.transformer
        if self.layer is None and not transformer.layer_norm_first:  # then the norm comes last
            features = transformer.layer_norm(features)
        if self.layer_logits is None:
            return features
        weights = self.layer_logits.softmax(0).to(features.dtype)
        return torch.einsum("lbnd,l->bnd", torch.stack(layers), weights)

    def _keep_layers(
        self, layer: int | Literal["weighted"] | None, bundle: str
    ) -> int | Literal["weighted"] | None:
        if not isinstance(layer, int):
            return layer
        transformer = self.model.encoder.transformer
        count = len(transformer.layers)
        if not -count <= layer < count:
            raise UserError(
                f"found layer: {layer} for '{bundle}', expected {-count} to {count - 1}: it has {count} layers"
            )
        transformer.layers = transformer.layers[: layer % count + 1]
        return layer % count


def _find_bundle(name: str) -> Any:
    bundle = getattr(pipelines, name, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        known = [
            key for key in dir(pipelines) if isinstance(getattr(pipelines, key), pipelines.Wav2Vec2Bundle)
        ]
        raise UserError(
            f"found no bundle '{name}', expected one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    return bundle


def _build(bundle: Any, shape: dict[str, Any]) -> Any:
    """Return the untrained model of a bundle, whose arguments are in a private attribute only."""
    arguments = bundle._params
    unknown = [key for key in shape if key not in arguments]
    if unknown:
        raise UserError(
            f"found '{unknown[0]}' in shape, expected one of {', '.join(arguments)}"
            f"{did_you_mean(unknown[0], arguments)}"
        )
    return FACTORIES[bundle._model_type](**{**arguments, "aux_num_out": None, **shape})


def _build_preprocessor(bundle: Any, model: Any) -> WaveformPreprocessor:
    blocks = model.feature_extractor.conv_layers
    return WaveformPreprocessor(
        sample_rate=int(bundle.sample_rate),
        normalize=bundle._normalize_waveform,
        stack=tuple((block.kernel_size, block.stride, 0) for block in blocks),
        pads=bundle._model_type != "WavLM"
        and not any(isinstance(b.layer_norm, nn.GroupNorm) for b in blocks),
    )
