"""Inputs of transformers' encoders: preprocessing, feature counts, and the call of the model.

One class per kind of input. Each holds the model's image processor or feature extractor and applies it to one item at
a time. `RunModel` runs the model: (inputs, attention mask or None) -> last hidden state.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoImageProcessor, BaseImageProcessor, FeatureExtractionMixin

from encoders.media import (
    Convolution,
    conv_length,
    refuse_short,
    refuse_thin,
    resample,
    resampled_length,
    shortest_input,
)
from encoders.pretrained import loading
from kebyt5_xm.encoder import AudioHeader, Encoded, Header, ImageHeader, Preprocessor, Size, length_mask
from kebyt5_xm.errors import UserError, did_you_mean

RunModel = Callable[[Tensor, Tensor | None], Tensor]


class Inputs(Preprocessor):
    """A preprocessor that also passes its batches through the model."""

    processor: Any  # the model's image processor or feature extractor

    @abstractmethod
    def shortest(self) -> tuple[Tensor, Tensor]:
        """Return the shortest valid batch of one item."""

    def probe(self) -> Tensor:
        """Return zeros in the shape of the model's own input, for one item."""
        return self.shortest()[0]

    @abstractmethod
    def encode(self, run_model: RunModel, prepared: Tensor, lengths: Tensor) -> Encoded:
        """Pass a batch through the model."""


@dataclass
class Pixels(Inputs):
    """Images of one fixed size in pixels, prepared by the model's image processor."""

    processor: Any
    pixels: tuple[int, int]  # (height, width)
    features: Size
    num_prefix: int = 0  # tokens before the patches, which are dropped

    def size(self, header: Header) -> Size:
        assert isinstance(header, ImageHeader)
        refuse_thin(header.width, header.height)
        return self.features

    def prepare(self, item: Any) -> Tensor:  # -> [3, height, width]
        refuse_thin(item.width, item.height)
        return self.processor(images=item, return_tensors="pt")["pixel_values"][0]

    def shortest(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 3, *self.pixels), torch.tensor([3])

    def encode(self, run_model: RunModel, prepared: Tensor, lengths: Tensor) -> Encoded:
        features = run_model(prepared, None)
        if features.ndim == 4:  # feature map of a convolutional model, [B, D, rows, columns]
            features = features.flatten(2).transpose(1, 2)
        grid = self.features if len(self.features) == 2 else None
        return Encoded.full(features[:, self.num_prefix :], grid)


@dataclass
class Waveforms(Inputs):
    """Samples for a model that starts with convolutions over time (the wav2vec 2.0 family)."""

    processor: Any
    stack: tuple[Convolution, ...]
    pads: bool  # False with group norm over time

    @property
    def waveform_rate(self) -> int:
        return self.processor.sampling_rate

    def size(self, header: Header) -> Size:
        samples = _num_samples(header, self.processor.sampling_rate)
        refuse_short(samples, shortest_input(self.stack), self.processor.sampling_rate)
        return (conv_length(samples, self.stack),)

    def prepare(self, item: Any) -> Tensor:  # -> [samples]
        waveform = resample(item[0], item[1], self.processor.sampling_rate)
        rate = self.processor.sampling_rate
        return self.processor(waveform.numpy(), sampling_rate=rate, return_tensors="pt")["input_values"][0]

    def shortest(self) -> tuple[Tensor, Tensor]:
        samples = shortest_input(self.stack)
        return torch.zeros(1, samples), torch.tensor([samples])

    def encode(self, run_model: RunModel, prepared: Tensor, lengths: Tensor) -> Encoded:
        attention_mask = length_mask(lengths, prepared.shape[1]).long() if self.pads else None
        features = run_model(prepared, attention_mask)
        return Encoded(features, length_mask(conv_length(lengths, self.stack), features.shape[1]))


@dataclass
class WhisperChunks(Inputs):
    """Log-mel spectrograms in chunks of 30 s, padded with silence as in Whisper's training; features are cropped.

    A longer recording is split into chunks that the model encodes one by one, and their features are joined. Padding
    chunks of a batch are not computed.
    """

    processor: Any
    pads: bool = True

    @property
    def waveform_rate(self) -> int:
        return self.processor.sampling_rate

    def size(self, header: Header) -> Size:
        samples = _num_samples(header, self.processor.sampling_rate)
        refuse_short(samples, 1, self.processor.sampling_rate)
        return (self._count(samples),)

    def prepare(self, item: Any) -> Tensor:  # -> [samples]; spectrograms are computed per chunk in `collate`
        return resample(item[0], item[1], self.processor.sampling_rate)

    def collate(self, prepared: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return spectrograms [B, chunks, mel, frames] and the lengths [B] in samples."""
        rate, samples = self.processor.sampling_rate, self.processor.n_samples
        spectrograms = [
            self.processor(
                [chunk.numpy() for chunk in waveform.split(samples)], sampling_rate=rate, return_tensors="pt"
            )["input_features"]
            for waveform in prepared
        ]
        return nn.utils.rnn.pad_sequence(spectrograms, batch_first=True), torch.tensor(
            [len(w) for w in prepared]
        )

    def shortest(self) -> tuple[Tensor, Tensor]:
        return self.collate([torch.zeros(self.processor.hop_length)])

    def probe(self) -> Tensor:
        return torch.zeros(1, self.processor.feature_size, self.processor.nb_max_frames)

    def encode(self, run_model: RunModel, prepared: Tensor, lengths: Tensor) -> Encoded:
        chunks = -(-lengths // self.processor.n_samples)
        is_chunk = length_mask(chunks, prepared.shape[1])  # [B, chunks]
        encoded = run_model(prepared[is_chunk], None)
        features = encoded.new_zeros(*is_chunk.shape, *encoded.shape[1:])
        features[is_chunk] = encoded
        counts = self._count(lengths)
        longest = int(counts.max())
        return Encoded(features.flatten(1, 2)[:, :longest], length_mask(counts, longest))

    def _count(self, samples: Any) -> Any:
        """Return the number of features of `samples`: one per hop, halved by the second convolution."""
        full, rest = samples // self.processor.n_samples, samples % self.processor.n_samples
        frames = -(-rest // self.processor.hop_length)
        return full * (self.processor.nb_max_frames // 2) + (frames + 1) // 2


@dataclass
class FilterBanks(Inputs):
    """Log-mel filter banks of wav2vec2-bert: windows of 25 ms every 10 ms, stacked in pairs."""

    processor: Any
    pads: bool = True

    def size(self, header: Header) -> Size:
        samples = _num_samples(header, self.processor.sampling_rate)
        stack = self._stack()
        refuse_short(samples, shortest_input(stack), self.processor.sampling_rate)
        return (conv_length(samples, stack),)

    def prepare(self, item: Any) -> Tensor:  # -> [n, mel * stride]
        rate = self.processor.sampling_rate
        samples = resample(item[0], item[1], rate).numpy()
        output = self.processor(samples, sampling_rate=rate, return_tensors="np")
        # The extractor pads an odd last frame to a pair and masks it.
        return torch.from_numpy(
            np.ascontiguousarray(output["input_features"][0][output["attention_mask"][0] == 1])
        )

    def shortest(self) -> tuple[Tensor, Tensor]:
        width = self.processor.feature_size * self.processor.stride
        return torch.zeros(1, 1, width), torch.tensor([1])

    def encode(self, run_model: RunModel, prepared: Tensor, lengths: Tensor) -> Encoded:
        mask = length_mask(lengths, prepared.shape[1])
        return Encoded(run_model(prepared, mask.long()), mask)

    def _stack(self) -> tuple[Convolution, ...]:
        # The extractor's code fixes window and hop in samples, independent of its config.
        return (400, 160, 0), (self.processor.stride, self.processor.stride, 0)


def _num_samples(header: Header, sample_rate: int) -> int:
    assert isinstance(header, AudioHeader)
    return resampled_length(header.num_samples, header.sample_rate, sample_rate)


def image_processor(
    model: str,
    pretrained: bool,
    overrides: dict[str, Any],
    model_size: Any,
    resize_to: tuple[int, int] | None,
) -> Any:
    """Return the image processor of `model`, or a default one for an untrained model of `model_size` pixels.

    `resize_to` is a (height, width) in pixels to which whole images are resized, instead of the processor's rules.
    """
    if resize_to:
        size = {"height": resize_to[0], "width": resize_to[1]}
        overrides = {**overrides, "size": size, "do_resize": True}
    if pretrained:
        with loading(model):
            processor = AutoImageProcessor.from_pretrained(model, backend="pil", trust_remote_code=False)
    else:
        pixels = (model_size, model_size) if isinstance(model_size, int) else tuple(model_size or (224, 224))
        kind = overrides.get("image_processor_type", "ViTImageProcessor")
        cls = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind, None)
        if not (isinstance(cls, type) and issubclass(cls, BaseImageProcessor)):
            raise UserError(
                f"found image_processor_type '{kind}', expected an image processor of transformers"
            )
        processor = cls(size={"height": pixels[0], "width": pixels[1]})
    if resize_to and hasattr(processor, "do_center_crop"):
        overrides = {**overrides, "do_center_crop": False}
    return _override(processor, overrides)


def feature_extractor(
    model: str, pretrained: bool, overrides: dict[str, Any], default: FeatureExtractionMixin
) -> Any:
    """Return the feature extractor of `model`, or `default` if it is untrained."""
    with loading(model):
        return _override(
            AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False) if pretrained else default,
            overrides,
        )


def _override(processor: Any, overrides: dict[str, Any]) -> Any:
    settings = processor.to_dict()
    unknown = [key for key in overrides if key not in settings and not hasattr(processor, key)]
    if unknown:
        raise UserError(
            f"found '{unknown[0]}' in preprocessing, expected one of {', '.join(settings)}"
            f"{did_you_mean(unknown[0], settings)}"
        )
    return type(processor)(**{**settings, **overrides})
