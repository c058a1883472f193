"""A training step on images with a frozen encoder: features computed in the step, or read from a cache.

OMP_NUM_THREADS=2 python -m benchmarks.cache

Both steps open their files, make slots and train the adapter and a tiny T5. One decodes, prepares and encodes the
images; the other reads their features. Random weights cost as much time as pretrained ones.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.report import measure_seconds, write_report
from benchmarks.training_data import TINY
from encoders.timm import TimmEncoder
from kebyt5_xm.adapters import MLP
from kebyt5_xm.data.batch import collate
from kebyt5_xm.data.inputs import Example, MediaItem
from kebyt5_xm.data.media.feature_cache import FeatureCache, Segment, media_key
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.modality import encoder_key, interface
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

MODELS = ("test_vit", "tf_efficientnet_lite0", "vit_small_patch16_224")
NUM_IMAGES = 8
SIDE = 320


def main() -> None:
    figures = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(name, Path(folder))
    write_report("cache", figures)


def measure(name: str, folder: Path) -> dict[str, float]:
    """Return the figures of one timm model."""
    torch.manual_seed(0)
    paths = write_images(folder)
    encoder = TimmEncoder(name, pretrained=False, frozen=True)
    backbone = Backbone(shape=TINY).build()
    width = backbone.config.d_model

    def adapter(in_dim: int, d_model: int) -> MLP:
        return MLP(in_dim, d_model)

    modalities = {"image": (encoder, adapter(encoder.out_dim, width))}
    model = CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, modalities)
    model.calibrate()
    model.train()
    plain = interface(encoder, adapter, width)

    def fill() -> Path:
        target = folder / encoder_key(encoder)
        segment = Segment(target, {"encoder": name, "out_dim": encoder.out_dim, "dtype": "float32"})
        prepared, lengths = plain.collate([plain.load(path)[0] for path in paths])
        with torch.no_grad():
            encoded = encoder(prepared, lengths)
        for path, features in zip(paths, encoded.features, strict=True):
            segment.add(media_key(path.read_bytes()), features, encoded.grid)
        segment.finish()
        return target

    cache = FeatureCache(fill())
    cached = interface(encoder, adapter, width, cache)
    times = measure_seconds(
        {
            "computed": lambda: step(model, plain, paths),
            "cached": lambda: step(model, cached, paths),
            "fill": fill,
        }
    )
    saved = times["computed"] - times["cached"]
    return {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "computed_images_per_s": NUM_IMAGES / times["computed"],
        "cached_images_per_s": NUM_IMAGES / times["cached"],
        "ratio_cached_to_computed": times["computed"] / times["cached"],
        "epochs_until_the_fill_is_earned_back": times["fill"] / saved if saved > 0 else float("inf"),
        "kilobytes_an_image": cached.load(paths[0])[0].nbytes / 1000,
    }


def step(model: CrossModalT5, media: MediaInterface, paths: list[Path]) -> None:
    """Run forward and backward on a batch with one image and one caption per example."""
    examples = []
    for path in paths:
        prepared, count = media.load(path)
        ids = np.concatenate([np.full(count, PAD_ID, dtype=np.int16), encode("설명:"), [EOS_ID]]).astype(
            np.int16
        )
        target = np.append(encode("a caption of some thirty bytes"), EOS_ID).astype(np.int16)
        examples.append(Example(ids, target, (MediaItem("image", prepared, 0, count),)))
    batch = collate(examples, np.zeros(len(examples), dtype=np.int64), interfaces={"image": media}).to("cpu")
    loss = token_losses(teacher_force(model, batch.inputs, batch.labels).logits, batch.labels).mean()
    loss.backward()
    model.zero_grad(set_to_none=True)


def write_images(folder: Path) -> list[Path]:
    """Write smooth images as PNG files; noise would decode more slowly than photographs."""
    paths = []
    for number in range(NUM_IMAGES):
        small = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        paths.append(folder / f"{number}.png")
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


if __name__ == "__main__":
    main()
