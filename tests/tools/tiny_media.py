"""Tiny images and recordings with manifests, overlays that use them, and faulty encoders."""

import json
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from encoders.stems import LogMelEncoder, PatchEncoder, PatchPreprocessor
from kebyt5_xm.encoder import Encoded

NUM_IMAGES, NUM_RECORDINGS = 13, 11
SAMPLE_RATE = 8000


def write_media(folder: Path) -> None:
    """Write images.jsonl, speech.jsonl and their files; the recordings differ in length."""
    numbers = np.random.default_rng(3)
    images, recordings = [], []
    for n in range(NUM_IMAGES):
        pixels = numbers.integers(0, 256, (19, 23, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        images.append({"picture": f"{n}.png", "caption": f"그림 {n}"})
    for n in range(NUM_RECORDINGS):
        samples = (numbers.standard_normal(997 + 211 * n) * 3000).astype("<i2")
        with wave.open(str(folder / f"{n}.wav"), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        recordings.append({"recording": f"{n}.wav", "transcript": f"number {n}"})
    write_manifest(folder / "images.jsonl", images)
    write_manifest(folder / "speech.jsonl", recordings)


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def image_overlay(folder: Path, encoder: str = "encoders.stems.PatchEncoder", **init_args: Any) -> dict:
    return _overlay(
        "image",
        {"class_path": encoder, "init_args": {"image_size": 16, "out_dim": 8, **init_args}},
        {"class_path": "kebyt5_xm.adapters.Linear"},
        "captions",
        {
            "path": str(folder / "images.jsonl"),
            "validation": str(folder / "images.jsonl"),
            "max_validation_examples": 3,
            "prompt": "{picture:image} 설명: ",
            "target": "{caption}",
            "weight": 0.3,
        },
    )


def speech_overlay(folder: Path, encoder: str = "encoders.stems.LogMelEncoder", **init_args: Any) -> dict:
    settings = {"out_dim": 12, "sample_rate": SAMPLE_RATE, "num_mels": 17, **init_args}
    return _overlay(
        "speech",
        {"class_path": encoder, "init_args": settings},
        {"class_path": "kebyt5_xm.adapters.Linear", "init_args": {"begin_end": True}},
        "speech",
        {
            "path": str(folder / "speech.jsonl"),
            "prompt": "{recording:speech}",
            "target": "{transcript}",
            "weight": 0.5,
        },
    )


def _overlay(modality: str, encoder: dict, adapter: dict, source: str, init_args: dict) -> dict:
    return {
        "model": {"modalities": {modality: {"encoder": encoder, "adapter": adapter}}},
        "data": {"sources": {source: {"class_path": "kebyt5_xm.data.Manifest", "init_args": init_args}}},
    }


class PatchesWithStatistics(PatchEncoder):
    """Has weights as if from a library, dropout, and a running statistic that changes in training mode."""

    def __init__(
        self, image_size: int = 16, out_dim: int = 8, frozen: bool = False, library: int = 17
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(library)
            super().__init__(image_size=image_size, out_dim=out_dim)
        self.statistics = nn.BatchNorm1d(out_dim)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls_in_training", torch.zeros(()))
        if frozen:
            self.freeze()

    def offline(self, init_args: dict[str, Any]) -> dict[str, Any]:
        return {**init_args, "library": 19}  # other weights, like a pretrained encoder without its file

    def forward(self, prepared: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        if self.training:
            self.calls_in_training += 1
        encoded = super().forward(prepared, lengths)
        features = self.statistics(encoded.features.transpose(1, 2)).transpose(1, 2)
        return Encoded(self.dropout(features), encoded.mask, encoded.grid)


@dataclass(frozen=True)
class OneRowMore(PatchPreprocessor):
    def size(self, header: Any) -> tuple[int, int]:
        rows, columns = super().size(header)
        return rows + 1, columns


class LyingPatches(PatchEncoder):
    """Announces one row of patches too many."""

    def preprocessor(self) -> OneRowMore:
        honest = super().preprocessor()
        return OneRowMore(honest.image_size, honest.patch_size, honest.keep_aspect_ratio)


class LeakingFrames(LogMelEncoder):
    """Includes padding in its mean."""

    def forward(self, prepared: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        encoded = super().forward(prepared, lengths)
        return Encoded(encoded.features - encoded.features.mean(1, keepdim=True), encoded.mask)


class PatchesWithDeadWeight(PatchEncoder):
    """Has a weight that no feature depends on."""

    def __init__(self, image_size: int = 16, out_dim: int = 8) -> None:
        super().__init__(image_size=image_size, out_dim=out_dim)
        self.dead = nn.Parameter(torch.ones(3))
