"""The demo's handwritten digits and spoken numbers: real media, disjoint splits."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from demo.digits import write_digits
from demo.speech import number_words, write_speech
from kebyt5_xm.errors import UserError

NUM_NUMBERS = 13  # fewer than all hundred numbers, to be quick


def rows(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def image_of(row: dict, folder: Path) -> np.ndarray:
    with Image.open(folder / row["image"]) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_number_words():
    assert [number_words(n, "ko") for n in (0, 10, 16, 30, 99)] == ["영", "십", "십육", "삼십", "구십구"]
    assert [number_words(n, "en") for n in (7, 12, 20, 85)] == ["seven", "twelve", "twenty", "eighty-five"]
    assert [number_words(n, "zh") for n in (0, 11, 40, 72)] == ["零", "十一", "四十", "七十二"]
    assert [number_words(n, "ja") for n in (4, 10, 19, 90)] == [
        "よん",
        "じゅう",
        "じゅうきゅう",
        "きゅうじゅう",
    ]
    for language in ("ko", "en", "zh", "ja"):
        assert len({number_words(n, language) for n in range(100)}) == 100


def test_digits(tmp_path: Path):
    manifests = write_digits(tmp_path / "digits")
    train, heldout = rows(manifests.train), rows(manifests.heldout)
    assert (len(train), len(heldout)) == (manifests.train_rows, manifests.heldout_rows)
    assert len(train) / 4 + len(heldout) == 1797
    assert 250 < len(heldout) < 450

    def pixels(some: list[dict]) -> dict[str, int]:
        images = {row["image"]: row["digit"] for row in some}
        return {
            hashlib.sha256((tmp_path / "digits" / i).read_bytes()).hexdigest(): d for i, d in images.items()
        }

    assert not pixels(train).keys() & pixels(heldout).keys()
    for some in (train, heldout):  # every digit in every language
        assert len({(row["digit"], row["language"]) for row in some}) == 40
    captions = {row["caption"] for row in train if row["digit"] == 3}
    assert captions == {"숫자 삼", "the digit three", "数字三", "数字の三"}
    assert image_of(train[0], tmp_path / "digits").shape == (32, 32)
    # Captions belong to their images: a zero is empty in the middle, a one is not.
    ink = {digit: [] for digit in range(10)}
    for row in heldout:
        ink[row["digit"]].append(image_of(row, tmp_path / "digits")[14:18, 14:18].mean())
    assert np.mean(ink[0]) < 40 < 150 < np.mean(ink[1])


def test_speech(tmp_path: Path):
    manifests = write_speech(tmp_path / "speech", NUM_NUMBERS)
    train, heldout = rows(manifests.train), rows(manifests.heldout)
    assert (len(train), len(heldout)) == (manifests.train_rows, manifests.heldout_rows)
    assert (len(train), len(heldout)) == (NUM_NUMBERS * 4 * 6, NUM_NUMBERS * 4)
    assert not {row["voice"] for row in train} & {row["voice"] for row in heldout}
    clips = {}
    for row in train + heldout:
        path = tmp_path / "speech" / row["audio"]
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == 16000
        assert samples.ndim == 1
        assert len(samples) / rate == pytest.approx(row["seconds"], abs=1e-4)
        assert 0.1 < row["seconds"] < 2.0
        assert np.abs(samples.astype(int)).max() > 3000
        assert row["transcript"] == number_words(row["number"], row["language"])
        clips[samples.tobytes()] = row
    assert len(clips) == len(train) + len(heldout)  # no two clips are alike

    # Spoken as numbers, not spelled: ten takes less than three times as long as one.
    def mean_seconds(language: str, number: int) -> float:
        return np.mean(
            [r["seconds"] for r in train if (r["language"], r["number"]) == (language, number)]
        ).item()

    for language in ("ko", "en", "zh", "ja"):
        assert mean_seconds(language, 10) < 3 * mean_seconds(language, 1)

    write_speech(tmp_path / "again", NUM_NUMBERS)
    assert contents(tmp_path / "again") == contents(tmp_path / "speech")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"sklearn.*kebyt5-xm\[demo\]"):
        write_digits(tmp_path)
    hidden = tmp_path / "hidden" / "espeakng_loader"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(name='espeakng_loader')")
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent))
    with pytest.raises(UserError, match=r"espeakng_loader.*kebyt5-xm\[demo\]"):
        write_speech(tmp_path)
