"""A tiny model of images and audio, and media for it; sizes are different primes where possible."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.t5 import saved_config

SHAPE = {"d_model": 29, "d_ff": 37, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 7}
SAMPLE_RATE = 8000
IMAGE_SLOTS = 6  # 16 x 24 pixels in patches of 8
LINEAR = {"class_path": "kebyt5_xm.adapters.Linear"}
SPECS: dict[str, dict[str, Any]] = {
    "image": {
        "encoder": {
            "class_path": "encoders.stems.PatchEncoder",
            "init_args": {"image_size": (16, 24), "patch_size": 8, "out_dim": 12},
        },
        "adapter": {**LINEAR, "init_args": {"modality_vector": True}},
    },
    "speech": {
        "encoder": {
            "class_path": "encoders.stems.LogMelEncoder",
            "init_args": {"out_dim": 13, "sample_rate": SAMPLE_RATE, "num_mels": 11},
        },
        "adapter": {**LINEAR, "init_args": {"begin_end": True}},
    },
}
LABELS = torch.tensor([[70, 80, 90, 1]])


def tiny_model(
    specs: dict[str, Any] = SPECS, seed: int = 3, trusted_modules: Sequence[str] = (), **fields: Any
) -> CrossModalT5:
    """Return a calibrated model in eval mode whose logits are large enough to differ."""
    torch.manual_seed(seed)
    backbone = saved_config(Backbone(shape=SHAPE).config())
    model = CrossModalT5(CrossModalT5Config(backbone, specs, **fields), trusted_modules=trusted_modules)
    torch.nn.init.normal_(model.backbone.lm_head.weight, std=2.0)
    bias = model.backbone.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
    torch.nn.init.normal_(bias.weight, std=2.0)  # transformers' own start is too small to matter
    model.calibrate()
    return model.eval()


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def recording(seed: int, num_samples: int = 1801) -> tuple[np.ndarray, int]:
    samples = np.random.default_rng(seed).standard_normal(num_samples) * 0.1
    return samples.astype(np.float32), SAMPLE_RATE


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write a.png and b.wav; return their paths."""
    import soundfile

    picture(5).save(folder / "a.png")
    soundfile.write(folder / "b.wav", *recording(7), subtype="FLOAT")
    return folder / "a.png", folder / "b.wav"


ROWS: list[list[Any]] = [
    ["텍스트만 있는 줄"],
    [picture(1), " ko:"],
    [recording(2, 2503), " en:"],
    ["a ", picture(3), " b ", recording(4), " c ", picture(5)],
    ["x"],
]


def logits(model: CrossModalT5, segments, labels=LABELS) -> torch.Tensor:
    inputs = model.processor(segments)
    rows = len(inputs["input_ids"])
    with torch.no_grad():
        return model(**inputs, decoder_input_ids=model.shift_right(labels.expand(rows, -1))).logits
