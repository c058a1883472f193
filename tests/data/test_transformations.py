"""Single transformations: speed, loudness, noise, rooms, masks and crops do what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from kebyt5_xm.data.augmentation import Crop, Gain, Noise, Perturb, Room, SpecAugment, Speed
from kebyt5_xm.data.augmentation.recordings import change_speed, num_samples_at

RATE = 8000


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def power(samples: Any) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.0, 1.1, 1.37])
def test_speed_changes_length_and_pitch(speed: float) -> None:
    changed, rate = change_speed((tone(440), RATE), speed)
    assert rate == RATE
    assert changed.dtype == np.float32
    assert len(changed) == num_samples_at(speed, 4000) == int(np.ceil(4000 * 100 / round(100 * speed)))
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed))))
    assert spectrum.argmax() * RATE / len(changed) == pytest.approx(440 * speed, abs=RATE / len(changed))


def test_speeds_are_drawn_from_the_list() -> None:
    lengths = {len(Speed((0.8, 1.25)).apply((tone(440), RATE), generator(n))[0]) for n in range(17)}
    assert lengths == {5000, 3200}


def test_gain_stays_in_its_range() -> None:
    found = [
        10 * np.log10(power(Gain((-7, 3)).apply((tone(440), RATE), generator(n))[0]) / power(tone(440)))
        for n in range(53)
    ]
    assert -7 <= min(found) < -4 < 0 < max(found) <= 3


@pytest.fixture
def noises(tmp_path: Path) -> str:
    """A short and a long recording at another sample rate."""
    draw = np.random.default_rng(1)
    for name, seconds in (("short", 0.1), ("long", 3.0)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * draw.standard_normal(round(16000 * seconds)), 16000)
    path = tmp_path / "noises.jsonl"
    path.write_text("".join(json.dumps({"audio": f"{name}.wav"}) + "\n" for name in ("short", "long")))
    return str(path)


def test_noise_has_the_power_asked_for(noises: str) -> None:
    noise, clean = Noise(noises, snr_db=(6.0, 6.0), probability=1.0), tone(440)
    added = [noise.apply((clean, RATE), generator(n))[0] - clean for n in range(7)]
    for one in added:
        assert 10 * np.log10(power(clean) / power(one)) == pytest.approx(6.0, abs=0.01)
    assert len({one.tobytes() for one in added}) == len(added), "another noise or another stretch each time"
    silence = np.zeros(100, dtype=np.float32), RATE
    assert noise.apply(silence, generator()) is silence


def test_noise_reaches_a_recording_shorter_than_a_sample_of_it(noises: str) -> None:
    noise, click = Noise(noises, probability=1.0), np.full(1, 0.3, dtype=np.float32)
    for seed in range(29):  # 1 / 44100 s falls between two samples of a noise at 16 kHz
        changed, rate = noise.apply((click, 44100), generator(seed))
        assert (len(changed), rate) == (1, 44100)


def test_a_room_adds_a_tail_that_falls_by_60_db_in_its_time() -> None:
    click = np.zeros(RATE, dtype=np.float32)
    click[1000] = 1.0
    heard, _ = Room((0.4, 0.4), (3.0, 3.0), probability=1.0).apply((click, RATE), generator())
    assert heard.shape == click.shape
    assert np.abs(heard).argmax() == 1000, "the direct sound stays where it is"
    assert power(heard) == pytest.approx(power(click), rel=1e-5)
    tail = heard[1001:]
    assert 10 * np.log10(heard[1000] ** 2 / np.sum(np.square(tail))) == pytest.approx(3.0, abs=0.01)
    early, late = power(tail[:400]), power(tail[1600:2000])  # 0.2 s apart, half of the time
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=2)


def test_masks_set_whole_frames_and_bands_to_the_mean() -> None:
    frames = torch.randn(101, 17, generator=torch.Generator().manual_seed(3))
    before = frames.clone()
    masked = SpecAugment(time_masks=1, time_width=23, time_share=0.1, frequency_masks=1, frequency_width=5)
    widths = set()
    for n in range(29):
        changed = masked.apply(frames, generator(n))
        assert frames.equal(before)
        is_mean = changed == before.mean()
        rows, columns = is_mean.all(1), is_mean.all(0)
        assert is_mean.equal(rows[:, None] | columns[None, :])
        assert changed[~is_mean].equal(before[~is_mean])
        widths.add((int(rows.sum()), int(columns.sum())))
    assert max(width for width, _ in widths) <= 10, "a tenth of the frames"
    assert max(width for _, width in widths) <= 5
    assert len(widths) > 7


def test_a_crop_is_a_part_of_the_image_in_its_size() -> None:
    row = np.arange(64, dtype=np.uint8) * 4
    image = Image.fromarray(np.stack([np.tile(row, (48, 1))] * 3, axis=2))
    spans = set()
    for n in range(13):
        changed = Crop(scale=(0.5, 0.5), ratio=(1.0, 1.0)).apply(image, generator(n))
        assert changed.size == (64, 48)
        columns = np.asarray(changed)[20, :, 0].astype(int)
        assert (np.diff(columns) >= 0).all(), "not mirrored"
        spans.add((columns[0], columns[-1]))
    assert len(spans) > 3
    assert all(last - first < 200 for first, last in spans)


def test_a_share_of_the_items_is_changed() -> None:
    from kebyt5_xm.data.augmentation.transformation import apply

    step = Perturb("missing_spaces", 1.0, probability=0.3)
    changed = sum(apply(step, "a b", generator(n)) == "ab" for n in range(1000))
    assert 240 < changed < 360
