"""Excerpts of recordings: equal to the whole in every format, of bounded cost, refused where they cannot be."""

import io
import math
import os
import pickle
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import recording_cases
import soundfile

from kebyt5_xm.data.media.opening import (
    Excerpt,
    Limits,
    MediaError,
    open_audio,
    open_media,
    read_audio_header,
    read_header,
)
from kebyt5_xm.data.media.reference import FileSpan, LocalPath
from kebyt5_xm.encoder import AudioHeader
from kebyt5_xm.errors import UserError

RATE = 8_000


def noise(num_samples: int, rate: int = RATE) -> np.ndarray:
    """Bursts of noise, so that encoders with a bit reservoir use it."""
    burst = np.sin(np.arange(num_samples) / rate * 11) > 0.5
    return (0.2 * np.random.default_rng(2).standard_normal(num_samples) * burst).astype(np.float32)


def encode(samples: np.ndarray, format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=format, subtype="PCM_16")
    return buffer.getvalue()


@pytest.mark.parametrize("name", recording_cases.WHOLE)
def test_an_excerpt_is_that_stretch_of_the_whole_to_the_bit(name: str) -> None:
    raw = recording_cases.WHOLE[name]().raw
    whole, rate = open_audio(raw)
    draw = np.random.default_rng(1)
    bounds = [(0, len(whole)), (0, 1), (len(whole) - 1, len(whole))]
    bounds += [tuple(sorted(draw.choice(len(whole), 2, replace=False).tolist())) for _ in range(9)]
    for begin, stop in bounds:
        excerpt = Excerpt(raw, begin / rate, (stop - begin) / rate)
        assert read_audio_header(excerpt) == AudioHeader(stop - begin, rate)
        np.testing.assert_array_equal(open_audio(excerpt)[0], whole[begin:stop])


@pytest.mark.parametrize(
    ("codec", "rate", "bit_rate"),
    [
        ("libmp3lame", 16_000, 8_000),
        ("libmp3lame", 24_000, 32_000),
        ("libmp3lame", 44_100, 64_000),
        ("mp2", 16_000, 32_000),
    ],
)
def test_frames_that_need_many_frames_before_them(codec: str, rate: int, bit_rate: int) -> None:
    speech = noise(4 * rate, rate)
    format = "mp2" if codec == "mp2" else "mp3"
    raw = recording_cases.encode_with_ffmpeg(format, codec, rate, speech=speech, bit_rate=bit_rate)
    whole = open_audio(raw)[0]
    for begin in range(0, len(whole) - 500, len(whole) // 61):
        found, _ = open_audio(Excerpt(raw, begin / rate, 400 / rate))
        np.testing.assert_array_equal(found, whole[begin : begin + 400])


@pytest.mark.parametrize("name", ["ogg vorbis", "ogg opus", "mp3", "aac adts"])
def test_an_excerpt_may_cross_the_joint_of_two_recordings(name: str) -> None:
    raw = recording_cases.WHOLE[name]().raw * 2
    whole, rate = open_audio(raw)
    middle = len(whole) // 2
    for begin, stop in ((middle - 700, middle + 900), (middle, middle + 3), (middle - 3, middle)):
        found, _ = open_audio(Excerpt(raw, begin / rate, (stop - begin) / rate))
        np.testing.assert_array_equal(found, whole[begin:stop])


class CountedFile(io.BytesIO):
    num_read = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.num_read += len(found)
        return found


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_long_file_is_entered_in_the_middle(format: str) -> None:
    samples = np.random.default_rng(3).uniform(-0.5, 0.5, 400 * RATE)
    file = CountedFile(encode(samples, format))
    found, _ = open_audio(Excerpt(file, 350.0, 0.5), Limits(max_seconds=1))
    assert abs(found - samples[350 * RATE : 350 * RATE + RATE // 2]).max() < 1e-4
    assert file.num_read < len(file.getvalue()) / 4


@pytest.mark.parametrize(("format", "codec"), [("ipod", "aac"), ("webm", "libopus")])
def test_what_must_be_decoded_from_its_start_fills_no_memory(format: str, codec: str) -> None:
    rate = 48_000
    raw = recording_cases.encode_with_ffmpeg(format, codec, rate, speech=noise(60 * rate, rate))
    open_audio(Excerpt(raw, 0.0, 0.1))  # libraries are imported
    tracemalloc.start()
    found, _ = open_audio(Excerpt(raw, 55.0, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == rate
    assert peak < 60 * rate  # bytes; the whole would take four times as many


def test_times_are_rounded_to_samples_and_neighbours_share_no_sample() -> None:
    whole = open_audio(encode(noise(3 * RATE)))[0]
    # 0.0000625 s is half a sample; in binary, 0.1 + 0.2 is more than 0.3.
    times = ["0", "0.1", "0.3", "0.7000625", "1.1", "2.9999", "3"]
    found = [
        open_audio(Excerpt(encode(noise(3 * RATE)), float(a), round(float(b) - float(a), 9)))[0]
        for a, b in pairwise(times)
    ]
    np.testing.assert_array_equal(np.concatenate(found), whole)
    start, length = 0.0000625, 0.000125  # ties go to the even sample: 0.5 -> 0, 1.5 -> 2
    assert len(open_audio(Excerpt(encode(whole), start, length))[0]) == 2
    # 0.000125 + 0.0004375 s end at sample 4.5, where binary numbers give 4.500000000000001.
    assert len(open_audio(Excerpt(encode(whole), 0.000125, 0.0004375))[0]) == 3


def test_written_times_may_overshoot_the_end_by_half_a_second() -> None:
    raw = encode(noise(2 * RATE))
    whole = open_audio(raw)[0]
    for seconds in (None, 1.0, 1.4999, 1.5):
        np.testing.assert_array_equal(open_audio(Excerpt(raw, 1.0, seconds))[0], whole[RATE:])
    for start, seconds, words in (
        (1.0, 1.501, r"found a recording of 2\.000 s, expected one that holds 1 to 2\.501 s"),
        (2.0, None, r"holds 2 s to its end"),
        (2.0, 0.1, r"holds 2 to 2\.1 s"),
        (150.0, 1.0, r"holds 150 to 151 s"),
        (1.0, 1e-5, r"found no sample from 1 s on for 1e-05 s"),
    ):
        for act in (open_audio, read_audio_header):
            with pytest.raises(MediaError, match=words):
                act(Excerpt(raw, start, seconds))


@pytest.mark.parametrize("time", [-0.1, math.nan, math.inf, 1e8, "abc", True])
def test_impossible_times_are_refused_at_once(time: object) -> None:
    for times in ((time, 1.0), (0.0, time)):
        with pytest.raises(UserError, match=r"found an excerpt .* expected seconds as a number"):
            Excerpt("a.wav", *times)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="excerpt of 0 seconds"):
        Excerpt("a.wav", 0.0, 0.0)


def test_the_limit_is_of_the_excerpt() -> None:
    raw = encode(noise(3 * RATE))
    limits = Limits(max_seconds=1.0)
    assert len(open_audio(Excerpt(raw, 1.0, 1.0), limits)[0]) == RATE
    for excerpt in (Excerpt(raw, 1.0, 1.001), Excerpt(raw, 1.0)):
        for act in (open_audio, read_audio_header):
            with pytest.raises(MediaError, match=r"seconds, expected at most 1; raise max_seconds"):
                act(excerpt, limits)


def test_every_kind_of_file_has_excerpts(tmp_path: Path) -> None:
    raw = encode(noise(2 * RATE))
    expected = open_audio(raw)[0][RATE // 2 : RATE]
    path = tmp_path / "a.wav"
    path.write_bytes(raw)
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"x" * 512 + raw)
    pcm = tmp_path / "b.pcm"
    pcm.write_bytes((noise(32_000) * 32768).astype("<i2").tobytes())
    local = LocalPath(str(path), "link.wav")
    for source in (
        path,
        str(path),
        local,
        raw,
        io.BytesIO(raw),
        FileSpan(str(shard), 512, len(raw), "a.wav"),
    ):
        for _ in range(2):
            np.testing.assert_array_equal(open_audio(Excerpt(source, 0.5, 0.5))[0], expected)
    excerpt = pickle.loads(pickle.dumps(Excerpt(local, 0.5, 0.5)))
    assert (excerpt, excerpt.source.name) == (Excerpt(local, 0.5, 0.5), "link.wav")
    np.testing.assert_array_equal(open_audio(Excerpt(pcm, 1.0))[0], open_audio(pcm)[0][16_000:])
    with pytest.raises(MediaError, match=r"b\.wav: there is no such file"):
        open_audio(Excerpt(tmp_path / "b.wav", 0.0, 1.0))


def test_the_name_in_the_row_decides_for_a_linked_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(bytes(2 * 16_000))
    assert len(open_audio(Excerpt(LocalPath(str(path), "1.pcm"), 0.5))[0]) == 8_000
    with pytest.raises(MediaError, match="no readable recording"):
        open_audio(Excerpt(LocalPath(str(path), "1.raw"), 0.5))


def test_a_file_that_changed_is_parsed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(noise(2 * RATE)))
    assert read_audio_header(Excerpt(path, 1.0)).num_samples == RATE
    path.write_bytes(encode(noise(3 * RATE)))
    assert read_audio_header(Excerpt(path, 1.0)).num_samples == 2 * RATE
    same_size = bytearray(path.read_bytes())
    same_size[44:] = bytes(len(same_size) - 44)
    path.write_bytes(same_size)
    os.utime(path, ns=(1, 1))
    assert not open_audio(Excerpt(path, 1.0))[0].any()
    path.write_bytes(encode(noise(3 * RATE))[:-1000])
    with pytest.raises(MediaError, match="truncated"):
        open_audio(Excerpt(path, 0.0, 0.1))


@pytest.mark.parametrize("media", ["image", "array"])
def test_only_recordings_have_excerpts(media: str, tmp_path: Path) -> None:
    for act in (open_media, read_header):
        with pytest.raises(MediaError, match=rf"a start and a length .* {media}"):
            act(Excerpt(tmp_path / "a.png", 0.0, 1.0), media)  # pyright: ignore[reportArgumentType]
