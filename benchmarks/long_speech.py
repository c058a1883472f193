"""Long recordings of the demo's spoken numbers, with pauses, and when each number is said.

Joined recordings are made from single numbers, so that the beginning of every word is known to the sample.
"""

import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.folder import Manifests, write_manifests
from demo.text import LANGUAGES

RATE = 16_000
TRAIN_PAUSES = (0.02, 0.8)
"""Seconds of the pauses in training."""
PER_LANGUAGE, SECONDS = 40, 60.0
"""Training recordings of each language, and how long each is."""
MOST_WORDS = 3
"""Numbers of an excerpt: one to so many."""
NOISE_DECIBELS = (-75.0, -55.0)
"""Level of the noise in each recording, of full scale."""
AUDIBLE = 0.02
"""A number begins where its samples first reach so much of their highest. Its file has some silence before."""


@dataclass(frozen=True)
class Number:
    """A spoken number: its words, its samples [time], and where in them it begins and ends."""

    text: str
    samples: NDArray[np.float32]
    begin: int
    end: int


@dataclass(frozen=True)
class Said:
    """A word of a recording, and when it is said, in seconds."""

    text: str
    start: float
    stop: float


def read_numbers(manifest: Path, language: str) -> list[Number]:
    """Return the spoken numbers of a language in one of the demo's manifests."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return [
        _read(manifest.parent / row["audio"], row["transcript"])
        for row in rows
        if row["language"] == language
    ]


def _read(path: Path, text: str) -> Number:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
    samples /= 32768
    loud = np.flatnonzero(np.abs(samples) >= AUDIBLE * np.abs(samples).max())
    return Number(text, samples, int(loud[0]), int(loud[-1]) + 1)


def join(
    numbers: Sequence[Number], seconds: float, pauses: tuple[float, float], random: np.random.Generator
) -> tuple[NDArray[np.float32], list[Said]]:
    """Return a recording of drawn numbers, `seconds` long or a little more, and what is said in it.

    With pauses of 0, the silence in the numbers' files is cut off too.
    """
    parts: list[NDArray[np.float32]] = []
    said: list[Said] = []
    at = 0
    while at < seconds * RATE:
        number = numbers[int(random.integers(len(numbers)))]
        first, last = (0, len(number.samples)) if pauses[1] else (number.begin, number.end)
        samples = number.samples[first:last].copy()
        samples *= 10 ** (random.uniform(-6, 3) / 20)
        start = at + number.begin - first
        said.append(Said(number.text, start / RATE, (start + number.end - number.begin) / RATE))
        pause = np.zeros(int(random.uniform(*pauses) * RATE), dtype=np.float32)
        parts += [samples, pause]
        at += len(samples) + len(pause)
    whole: NDArray[np.float32] = np.concatenate(parts, dtype=np.float32)
    level = 10 ** (random.uniform(*NOISE_DECIBELS) / 20)
    whole += level * random.standard_normal(len(whole), dtype=np.float32)
    return whole, said


def write_excerpts(speech: Path, folder: Path) -> Manifests:
    """Write long recordings and manifests of their excerpts for training, from the demo's folder of speech.

    Columns: audio, start and length in seconds, transcript, language.
    """
    random = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    for part, count in (("train", PER_LANGUAGE), ("heldout", PER_LANGUAGE // 20)):
        for language in LANGUAGES:
            numbers = read_numbers(speech / f"{part}.jsonl", language)
            for number in range(count):
                samples, said = join(numbers, SECONDS, TRAIN_PAUSES, random)
                name = f"{part}-{language}-{number}.wav"
                write_wave(folder / name, samples)
                rows[part] += [
                    {"audio": name, "language": language, **row} for row in _excerpts(said, random)
                ]
    return write_manifests(folder, rows["train"], rows["heldout"])


def _excerpts(said: Sequence[Said], random: np.random.Generator) -> list[dict[str, Any]]:
    """Return excerpts of one to `MOST_WORDS` words, cut somewhere in the pauses around them."""
    rows, first = [], 1
    while first < len(said) - MOST_WORDS:
        words = said[first : first + int(random.integers(1, MOST_WORDS + 1))]
        after = said[first + len(words)]
        start = random.uniform(said[first - 1].stop, words[0].start)
        length = random.uniform(words[-1].stop, after.start) - start
        transcript = " ".join(word.text for word in words)
        rows.append({"start": round(start, 4), "length": round(length, 4), "transcript": transcript})
        first += len(words)
    return rows


def write_wave(path: Path, samples: NDArray[np.float32]) -> None:
    """Write a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", "not compressed"))
        file.writeframes((samples * 32767).clip(-32768, 32767).round().astype("<i2").tobytes())
