"""The inputs that transformers' encoders take: how each is prepared, counted and passed through the model.

One class a kind of input. Each holds the model's own image processor or feature extractor and applies it to one
item at a time. `Hidden` runs the model: (inputs, attention mask or None) -> last hidden state.
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

Hidden = Callable[[Tensor, Tensor | None], Tensor]


class Inputs(Preprocessor):
    """A preprocessor that also knows how its batches pass through the model."""

    processor: Any  # the model's image processor or feature extractor

    @abstractmethod
    def shortest(self) -> tuple[Tensor, Tensor]:
        """Return the shortest valid batch, of one item."""

    def probe(self) -> Tensor:
        """Return zeros in the shape of one item as the model itself takes it."""
        return self.shortest()[0]

    @abstractmethod
    def encode(self, hidden: Hidden, prepared: Tensor, lengths: Tensor) -> Encoded:
        """Pass a batch through the model."""


@dataclass
class Pixels(Inputs):
    """Images of one fixed size in pixels, given by the model's image processor."""

    processor: Any
    pixels: tuple[int, int]  # (height, width)
    features: Size
    num_prefix: int = 0  # tokens in front of the patches, to be dropped

    def size(self, header: Header) -> Size:
        assert isinstance(header, ImageHeader)
        refuse_thin(header.width, header.height)
        return self.features

    def prepare(self, item: Any) -> Tensor:  # -> [3, height, width]
        refuse_thin(item.width, item.height)
        return self.processor(images=item, return_tensors="pt")["pixel_values"][0]

    def shortest(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 3, *self.pixels), torch.tensor([3])

    def encode(self, hidden: Hidden, prepared: Tensor, lengths: Tensor) -> Encoded:
        features = hidden(prepared, None)
        if features.ndim == 4:  # the map of a convolutional model, [B, D, rows, columns]
            features = features.flatten(2).transpose(1, 2)
        grid = self.features if len(self.features) == 2 else None
        return Encoded.full(features[:, self.num_prefix :], grid)


@dataclass
class Waveforms(Inputs):
    """Samples for a model that begins with convolutions over time (the wav2vec 2.0 line)."""

    processor: Any
    stack: tuple[Convolution, ...]
    pads: bool  # not where a group norm runs over time

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

    def encode(self, hidden: Hidden, prepared: Tensor, lengths: Tensor) -> Encoded:
        attention_mask = length_mask(lengths, prepared.shape[1]).long() if self.pads else None
        features = hidden(prepared, attention_mask)
        return Encoded(features, length_mask(conv_length(lengths, self.stack), features.shape[1]))


@dataclass
class WhisperChunks(Inputs):
    """Log-mel spectrograms in chunks of 30 s, each padded with silence as Whisper was trained, then cropped.

    A longer recording becomes several chunks that the model sees one by one; their features are joined. Chunks
    that only fill up a batch are not computed.
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

    def prepare(self, item: Any) -> Tensor:  # -> [samples]; the spectrogram depends on where the chunks end
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

    def encode(self, hidden: Hidden, prepared: Tensor, lengths: Tensor) -> Encoded:
        chunks = -(-lengths // self.processor.n_samples)
        kept = length_mask(chunks, prepared.shape[1])  # [B, chunks]
        encoded = hidden(prepared[kept], None)
        features = encoded.new_zeros(*kept.shape, *encoded.shape[1:])
        features[kept] = encoded
        counts = self._count(lengths)
        longest = int(counts.max())
        return Encoded(features.flatten(1, 2)[:, :longest], length_mask(counts, longest))

    def _count(self, samples: Any) -> Any:
        """Return the features of so many samples: one a hop, then halved by the second convolution."""
        full, rest = samples // self.processor.n_samples, samples % self.processor.n_samples
        frames = -(-rest // self.processor.hop_length)
        return full * (self.processor.nb_max_frames // 2) + (frames + 1) // 2


@dataclass
class FilterBanks(Inputs):
    """Log-mel filter banks of wav2vec2-bert: 25 ms windows every 10 ms, stacked in pairs."""

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
        found = self.processor(samples, sampling_rate=rate, return_tensors="np")
        # The extractor pads an odd frame to a pair and masks it.
        return torch.from_numpy(
            np.ascontiguousarray(found["input_features"][0][found["attention_mask"][0] == 1])
        )

    def shortest(self) -> tuple[Tensor, Tensor]:
        width = self.processor.feature_size * self.processor.stride
        return torch.zeros(1, 1, width), torch.tensor([1])

    def encode(self, hidden: Hidden, prepared: Tensor, lengths: Tensor) -> Encoded:
        mask = length_mask(lengths, prepared.shape[1])
        return Encoded(hidden(prepared, mask.long()), mask)

    def _stack(self) -> tuple[Convolution, ...]:
        # Window and hop in samples are fixed in the extractor's code, whatever its config says.
        return (400, 160, 0), (self.processor.stride, self.processor.stride, 0)


def _num_samples(header: Header, sample_rate: int) -> int:
    assert isinstance(header, AudioHeader)
    return resampled_length(header.num_samples, header.sample_rate, sample_rate)


def image_processor(
    model: str, pretrained: bool, overrides: dict[str, Any], own_size: Any, squeeze: tuple[int, int] | None
) -> Any:
    """Return the image processor of `model`, or a plain one for an untrained model of `own_size` pixels.

    `squeeze` is the (height, width) in pixels that whole images are resized to in place of its own rules.
    """
    if squeeze:
        size = {"height": squeeze[0], "width": squeeze[1]}
        overrides = {**overrides, "size": size, "do_resize": True}
    if pretrained:
        with loading(model):
            processor = AutoImageProcessor.from_pretrained(model, backend="pil", trust_remote_code=False)
    else:
        pixels = (own_size, own_size) if isinstance(own_size, int) else tuple(own_size or (224, 224))
        kind = overrides.get("image_processor_type", "ViTImageProcessor")
        cls = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind, None)
        if not (isinstance(cls, type) and issubclass(cls, BaseImageProcessor)):
            raise UserError(
                f"found image_processor_type '{kind}', expected an image processor of transformers"
            )
        processor = cls(size={"height": pixels[0], "width": pixels[1]})
    if squeeze and hasattr(processor, "do_center_crop"):
        overrides = {**overrides, "do_center_crop": False}
    return _override(processor, overrides)


def feature_extractor(
    model: str, pretrained: bool, overrides: dict[str, Any], plain: FeatureExtractionMixin
) -> Any:
    """Return the feature extractor of `model`, or `plain` for an untrained one."""
    with loading(model):
        return _override(
            AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False) if pretrained else plain,
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
