"""The measurement on small data: which rows it takes, and what it gathers from runs that have ended."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import small_data


def test_an_example_of_a_digit_is_an_image_with_all_its_captions():
    rows = [
        {"image": f"{digit}-{number}.png", "digit": digit, "language": language}
        for digit in range(3)
        for number in range(5)
        for language in ("ko", "en")
    ]
    chosen = small_data.choose_images(rows, 2, random.Random(0))
    assert Counter(row["digit"] for row in chosen) == {0: 4, 1: 4, 2: 4}
    assert all(count == 2 for count in Counter(row["image"] for row in chosen).values())
    assert chosen != small_data.choose_images(rows, 2, random.Random(1))


def test_an_example_of_a_number_is_a_voice_in_one_language():
    rows = [
        {"voice": voice, "language": language, "number": number}
        for voice in ("m1", "m2", "f1", "f2")
        for language in ("ko", "en")
        for number in range(3)
    ]
    chosen = small_data.choose_voices(rows, 4, random.Random(0))
    assert len({row["voice"] for row in chosen}) == 2
    assert set(Counter(row["number"] for row in chosen).values()) == {4}


def test_runs_that_have_ended_are_gathered_by_task_and_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(small_data, "FOLDER", tmp_path)
    for name, model in {"digits-16-0": 0.9, "digits-16-1": 0.8, "numbers-64-0": 0.5}.items():
        (tmp_path / name).mkdir()
        result = {"model": model, "linear": 0.7, "nearest": 0.6, "steps": 10, "train_seconds": 1.0}
        (tmp_path / name / small_data.RESULT).write_text(json.dumps(result))
    (tmp_path / "numbers-16-0").mkdir()  # has not ended
    figures = small_data.collect()
    assert list(figures) == ["digits_16", "numbers_64"]
    assert figures["digits_16"]["seeds"] == 2
    assert figures["digits_16"]["model"] == pytest.approx(0.85)
    assert figures["digits_16"]["lead_over_best_baseline"] == pytest.approx(0.15)
    assert figures["numbers_64"]["lead_over_best_baseline"] == pytest.approx(-0.2)
