"""Every encoder against the contract, on tiny untrained models."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoders import ENCODERS

from encoders.stems import LogMelEncoder
from kebyt5_xm.contract import EncoderContract
from kebyt5_xm.errors import UserError


@functools.cache
def build(name):
    torch.manual_seed(13)
    return ENCODERS[name]().eval()


@pytest.mark.filterwarnings(
    "ignore:Support for mismatched key_padding_mask:UserWarning"
)  # WavLM in transformers
@pytest.mark.parametrize("name", ENCODERS)
class TestEveryEncoder(EncoderContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.name = name

    def make(self):
        return ENCODERS[self.name]()

    @pytest.fixture
    def encoder(self, name):
        return copy.deepcopy(build(name))  # building is slower than most tests

    def items(self, media):
        if self.name.startswith("stored"):
            numbers = np.random.default_rng(3)
            places = [(2, 5), (3, 4), (1, 7)] if "grid" in self.name else [(5,), (11,), (2,)]
            return [numbers.standard_normal((*place, 13)).astype(np.float16) for place in places]
        items = super().items(media)
        if self.name.startswith("Whisper"):  # chunks of a second here: two and a bit
            items.append((np.random.default_rng(5).standard_normal(35003).astype(np.float32), 16000))
        return items


def test_only_the_fixed_scale_shows_a_steady_tone() -> None:
    """In a constant recording, every mel band equals its mean."""

    def prepared(normalize: Any, frequency: float) -> torch.Tensor:
        times = np.arange(16000 * 7 // 10) / 16000
        waveform = (0.1 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)
        return LogMelEncoder(num_mels=23, normalize=normalize).preprocessor().prepare((waveform, 16000))

    assert prepared("recording", 440).std(0).mean() < 1  # the rest is the beat of window and tone
    same = (prepared("recording", 440).mean(0) - prepared("recording", 1760).mean(0)).abs().max()
    assert same < 1e-3
    assert (prepared("fixed", 440).mean(0) - prepared("fixed", 1760).mean(0)).abs().max() > 1
    assert prepared("fixed", 440).abs().max() < 4


def test_normalize_keeps_the_fingerprint_of_earlier_exports_and_caches() -> None:
    recording = LogMelEncoder().preprocessor()
    assert type(recording).__qualname__ == "LogMelPreprocessor"
    assert set(vars(recording)) == {"sample_rate", "num_mels", "stack", "pads"}, (
        "else their fingerprint changes"
    )
    assert LogMelEncoder(normalize="fixed").preprocessor().fingerprint() != recording.fingerprint()
    with pytest.raises(UserError, match="did you mean 'fixed'"):
        LogMelEncoder(normalize="fixd")  # pyright: ignore[reportArgumentType]
