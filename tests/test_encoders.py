"""Every encoder against the contract, on tiny untrained models."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch

from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.stored import StoredFeatures
from encoders.timm import TimmEncoder
from encoders.torchaudio import TorchaudioEncoder
from encoders.transformers import TransformersEncoder
from kebyt5_xm.contract import EncoderContract
from kebyt5_xm.errors import UserError

VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
CONVS = {"conv_dim": [20] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
SPEECH = {**VIT, "intermediate_size": 36, **CONVS}
LAYER_NORM = {**SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
WHISPER = {
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 36,
    "max_source_positions": 50,
    "vocab_size": 60000,
}
TORCHAUDIO = {
    "encoder_embed_dim": 24,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 36,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "extractor_conv_layer_config": [(20, 10, 5)] + [(20, 3, 2)] * 4 + [(20, 2, 2)] * 2,
}


def image_model(family, patch=8, **settings):
    sizes = {"image_size": 32, "patch_size": patch}
    if family != "dinov2":
        sizes["intermediate_size"] = 36
    return lambda: TransformersEncoder(family, pretrained=False, config={**VIT, **sizes}, **settings)


def timm_model(name, **settings):
    return lambda: TimmEncoder(name, pretrained=False, **settings)


def speech_model(family, config, **settings):
    return lambda: TransformersEncoder(family, pretrained=False, config=config, **settings)


def bundle(name, **settings):
    return lambda: TorchaudioEncoder(name, pretrained=False, shape=TORCHAUDIO, **settings)


ENCODERS = {
    "patches": lambda: PatchEncoder(image_size=(24, 40), patch_size=8, out_dim=20),
    "patches of any size": lambda: PatchEncoder(48, patch_size=8, out_dim=20, keep_aspect_ratio=True),
    "log-mel": lambda: LogMelEncoder(out_dim=19, stride=4, num_mels=23),
    "log-mel on a fixed scale": lambda: LogMelEncoder(out_dim=19, num_mels=23, normalize="fixed"),
    "log-mel at 8 kHz": lambda: LogMelEncoder(out_dim=19, stride=8, num_mels=23, sample_rate=8000),
    "stored sequences": lambda: StoredFeatures(dim=13),
    "stored grids": lambda: StoredFeatures(dim=13, grid=True),
    "timm ViT": timm_model("test_vit", image_size=64),
    "timm ViT, layer and prefix": timm_model("test_vit", layer=-2, keep_prefix=True, image_size=(48, 80)),
    "timm ViT, final prefix": timm_model("test_vit", keep_prefix=True, image_size=48),
    "timm ViT of any size": timm_model("test_vit", image_size=64, keep_aspect_ratio=True),
    "timm CNN": timm_model("test_efficientnet", image_size=64),
    "timm CNN, layer": timm_model("test_efficientnet", layer=1, image_size=(32, 64)),
    "timm CNN of any size": timm_model("test_efficientnet", image_size=64, keep_aspect_ratio=True),
    "timm ConvNeXt": timm_model("test_convnext", image_size=64),
    "torchaudio wav2vec2 base": bundle("WAV2VEC2_BASE"),
    "torchaudio XLS-R": bundle("WAV2VEC2_XLSR_300M"),
    "torchaudio XLS-R, weighted": bundle("WAV2VEC2_XLSR_300M", layer="weighted"),
    "torchaudio HuBERT large, layer": bundle("HUBERT_LARGE", layer=1),
    "torchaudio WavLM": bundle("WAVLM_LARGE", layer=-2),
    "SigLIP": image_model("siglip"),
    "SigLIP, layer and size": image_model("siglip", layer=-2, image_size=(24, 40)),
    "DINOv2": image_model("dinov2", patch=8),
    "DINOv2, prefix": image_model("dinov2", patch=8, keep_prefix=True),
    "CLIP": image_model("clip", layer=1),
    "Whisper": speech_model("whisper", WHISPER, preprocessing={"chunk_length": 1}),
    "Whisper, layer": speech_model("whisper", WHISPER, preprocessing={"chunk_length": 1}, layer=-2),
    "wav2vec2-bert": speech_model("wav2vec2-bert", {**VIT, "intermediate_size": 36}),
    "HuBERT base": speech_model("hubert", SPEECH),
    "HuBERT large": speech_model("hubert", LAYER_NORM),
    "wav2vec2 large, layer": speech_model("wav2vec2", LAYER_NORM, layer=1),
    "WavLM large": speech_model("wavlm", LAYER_NORM),
}


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
        return copy.deepcopy(build(name))  # building takes longer than most tests

    def items(self, media):
        if self.name.startswith("stored"):
            numbers = np.random.default_rng(3)
            places = [(2, 5), (3, 4), (1, 7)] if "grid" in self.name else [(5,), (11,), (2,)]
            return [numbers.standard_normal((*place, 13)).astype(np.float16) for place in places]
        items = super().items(media)
        if self.name.startswith("Whisper"):  # chunks of a second here: two and a bit
            items.append((np.random.default_rng(5).standard_normal(35003).astype(np.float32), 16000))
        return items


def test_a_steady_tone_is_seen_on_a_fixed_scale_alone() -> None:
    """Over a recording that never changes, every band is its own mean."""

    def prepared(normalize: Any, frequency: float) -> torch.Tensor:
        times = np.arange(16000 * 7 // 10) / 16000
        waveform = (0.1 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)
        return LogMelEncoder(num_mels=23, normalize=normalize).preprocessor().prepare((waveform, 16000))

    assert prepared("recording", 440).std(0).mean() < 1  # what is left is the window's beat with the tone
    same = (prepared("recording", 440).mean(0) - prepared("recording", 1760).mean(0)).abs().max()
    assert same < 1e-3
    assert (prepared("fixed", 440).mean(0) - prepared("fixed", 1760).mean(0)).abs().max() > 1
    assert prepared("fixed", 440).abs().max() < 4


def test_normalize_leaves_what_earlier_exports_and_caches_remember_of_the_other() -> None:
    recording = LogMelEncoder().preprocessor()
    assert type(recording).__qualname__ == "LogMelPreprocessor"
    assert set(vars(recording)) == {"sample_rate", "num_mels", "stack", "pads"}, (
        "else their fingerprint changes"
    )
    assert LogMelEncoder(normalize="fixed").preprocessor().fingerprint() != recording.fingerprint()
    with pytest.raises(UserError, match="did you mean 'fixed'"):
        LogMelEncoder(normalize="fixd")  # pyright: ignore[reportArgumentType]
