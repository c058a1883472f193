"""Augmentation that cannot work is refused before training, in one line that says what to do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
from torchvision.transforms import v2

from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.torchaudio import TorchaudioEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.augmentation import Crop, Gain, Noise, Perturb, Room, SpecAugment, Speed, Transformation
from kebyt5_xm.data.media.feature_cache import FeatureCache
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface

INFINITE = float("inf")


class Longer(Transformation):
    kind = "audio"

    def apply(self, item: Any, generator: np.random.Generator) -> Any:
        return np.concatenate([item[0], item[0]]), item[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    tiny_media.write_media(folder)
    return folder


@pytest.fixture(scope="module")
def interfaces() -> dict[str, MediaInterface]:
    frames = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    return {
        "image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 29),
        "speech": interface(frames, Linear, 29),
    }


def connect(folder: Path, modality: str, augment: Any, interfaces: dict[str, MediaInterface]) -> None:
    table, column = {"image": ("images", "picture"), "speech": ("speech", "recording")}[modality]
    text = "caption" if modality == "image" else "transcript"
    source = Manifest(
        str(folder / f"{table}.jsonl"), f"{{{column}:{modality}}} {{{text}}}", "x", augment=augment
    )
    source.connect(interfaces)


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown modality": (
        "image",
        {"imag": []},
        "augment.imag, expected .* image, caption; did you mean 'image'",
    ),
    "column of media": ("image", {"picture": []}, "augment.picture, expected a modality .* or a column"),
    "new size": (
        "image",
        {"image": [v2.Resize(8)]},
        "into one of .*, expected the same size.*augmentation.Crop",
    ),
    "new size at times": (
        "image",
        {"image": [v2.RandomApply([v2.RandomCrop(7)], p=0.5)]},
        "into one of 7 x 7, expected the same size",
    ),
    "tensors": ("image", {"image": [v2.ToImage()]}, "into Image, expected a Pillow image.*ToPILImage"),
    "labels": ("image", {"image": [v2.MixUp(num_classes=3)]}, "augment.image: MixUp failed on an image"),
    "boxes": (
        "image",
        {"image": [v2.SanitizeBoundingBoxes()]},
        "augment.image: SanitizeBoundingBoxes failed",
    ),
    "image for speech": (
        "speech",
        {"speech": [v2.Grayscale()]},
        "Grayscale, for media of the kind image, but 'speech'",
    ),
    "speech for image": ("image", {"image": [Gain()]}, "Gain, for media of the kind audio, but 'image'"),
    "masks of images": (
        "image",
        {"image": [SpecAugment()]},
        "SpecAugment, which masks frames, but 'image' takes images",
    ),
    "two speeds": ("speech", {"speech": [Speed(), Speed()]}, r"augment.speech\[1\] is a second Speed"),
    "new length": ("speech", {"speech": [Longer()]}, "only Speed may change the length"),
    "image for text": ("image", {"caption": [v2.Grayscale()]}, "changes no text.*Perturb"),
    "blur for text": ("image", {"caption": [Perturb("blur", 4.0)]}, "changes no text"),
    "bytes, then text": (
        "image",
        {"caption": [Perturb("byte_noise", 0.1), Perturb("jamo", 0.1)]},
        "byte_noise, after which .* make it the last",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(folder: Path, interfaces: dict[str, MediaInterface], case: str) -> None:
    modality, augment, message = CASES[case]
    with pytest.raises(UserError, match=message) as refused:
        connect(folder, modality, augment, interfaces)
    assert "\n" not in str(refused.value)


def test_what_fits_is_not(folder: Path, interfaces: dict[str, MediaInterface]) -> None:
    as_tensors = [v2.PILToTensor(), v2.RandomInvert(), v2.ToPILImage()]
    connect(folder, "image", {"image": as_tensors, "caption": [Perturb("typos", 0.1)]}, interfaces)
    connect(folder, "speech", {"speech": []}, interfaces)


def test_masks_need_frames(folder: Path) -> None:
    shape = {
        "encoder_embed_dim": 24,
        "encoder_num_layers": 1,
        "encoder_num_heads": 4,
        "encoder_ff_interm_features": 36,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 4,
        "extractor_conv_layer_config": [(20, 10, 5)] + [(20, 3, 2)] * 4 + [(20, 2, 2)] * 2,
    }
    raw = interface(TorchaudioEncoder("WAV2VEC2_BASE", pretrained=False, shape=shape), Linear, 29)
    with pytest.raises(UserError, match=r"its encoder's input, which is no spectrogram.*LogMelEncoder"):
        connect(folder, "speech", {"speech": [SpecAugment()]}, {"speech": raw})
    connect(folder, "speech", {"speech": [Gain()]}, {"speech": raw})


def test_cached_features_are_of_plain_media(folder: Path, interfaces: dict[str, MediaInterface]) -> None:
    image = interfaces["image"]
    cached = MediaInterface(image.media, image.preprocessor, image.adapter, FeatureCache(folder))
    with pytest.raises(
        UserError, match=r"take `cache` out of model\.modalities\.image, or image out of `augment`"
    ):
        connect(folder, "image", {"image": [Crop()]}, {"image": cached})
    connect(folder, "image", {"caption": [Perturb("typos", 0.1)]}, {"image": cached})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: Gain(probability=0.0), "Gain has the probability 0.0, expected more than 0 and at most 1"),
        (lambda f: Crop(probability=1.5), "Crop has the probability 1.5"),
        (lambda f: Crop(scale=(0.5, 1.2)), r"Crop has scale \[0.5, 1.2\], .* to 1; correct it"),
        (lambda f: Crop(ratio=(0.0, 1.0)), r"Crop has ratio \[0.0, 1.0\], .* from 0.001 to 1000"),
        (lambda f: Crop(ratio=(1.0, INFINITE)), r"Crop has ratio \[1.0, inf\]"),
        (lambda f: Gain((3, -3)), r"Gain has decibels \[3, -3\], expected \[least, most\]"),
        (lambda f: Room(seconds=(0.0, 0.5)), r"Room has seconds \[0.0, 0.5\], .* from 0.01 to 100"),
        (lambda f: Room(seconds=(0.1, INFINITE)), r"Room has seconds \[0.1, inf\]"),
        (
            lambda f: Room(direct_db=(-1e5, 0.0)),
            r"Room has direct_db \[-100000.0, 0.0\], .* from -200 to 200",
        ),
        (lambda f: Gain((0.0, INFINITE)), r"Gain has decibels \[0.0, inf\]"),
        (lambda f: Gain((0.0, 1000.0)), "from -200 to 200"),
        (lambda f: Noise(str(f / "speech.jsonl"), "recording", (-INFINITE, 0.0)), r"snr_db \[-inf, 0.0\]"),
        (lambda f: Speed((float("nan"),)), r"Speed has the factors \[nan\]"),
        (lambda f: Speed((INFINITE,)), r"Speed has the factors \[inf\]"),
        (lambda f: Speed(()), r"Speed has the factors \[\], expected a list of speeds"),
        (lambda f: Speed((0.9, 3.0)), "from 0.5 to 2"),
        (lambda f: Speed((0.905,)), "in hundredths"),
        (lambda f: SpecAugment(time_masks=-1), "SpecAugment has time_masks -1, expected 0 or more"),
        (lambda f: SpecAugment(time_masks=0, frequency_width=0), "SpecAugment .* takes nothing out"),
        (lambda f: SpecAugment(time_share=0.0), "time_share 0.0, expected more than 0 and at most 1"),
        (
            lambda f: Perturb("typos", 2.0),
            r"the strength 2.0 for typos, expected 0 to 1 \(share of keystrokes\)",
        ),
        (lambda f: Perturb("jpeg", 0), "expected 1 to 100"),
        (
            lambda f: Noise(str(f / "none.jsonl")),
            "found no manifest of noises at .*none.jsonl.*correct `manifest`",
        ),
        (lambda f: Noise(str(f / "speech.jsonl"), "recordin"), "column 'recordin'.*did you mean 'recording'"),
        (lambda f: Noise(str(f / "images.jsonl"), "picture"), "the first noise of .*correct the row"),
    ],
)
def test_wrong_values_are_refused(folder: Path, make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(folder)
