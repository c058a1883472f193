"""Every recording is read whole or refused, in every container, however it was cut, joined, tagged or miscounted."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from made_recordings import (
    BASES,
    CHAINED,
    EXTRA,
    ID3V1,
    TAGGED_BEHIND,
    TAGGED_IN_FRONT,
    Made,
    ape,
    by_ffmpeg,
    by_libsndfile,
    id3,
    is_of,
    lyrics,
    speech,
)

from kebyt5_xm.data.media.opening import Limits, MediaError, Remote, audio_header, open_audio
from kebyt5_xm.data.media.reference import Span


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    return {}


def of(made: dict[str, Made], name: str) -> Made:
    if name not in made:
        made[name] = {**BASES, **EXTRA}[name]()
    return made[name]


def check(file: Made) -> np.ndarray | None:
    """Assert that header and decoding say the true length, or that it is refused for its cause."""
    if file.num_samples is None:
        with pytest.raises(MediaError, match=file.cause) as caught:
            open_audio(file.raw)
        assert "\n" not in str(caught.value)
        return None
    said = audio_header(file.raw)
    waveform, rate = open_audio(file.raw)
    assert (said.num_samples, said.sample_rate) == (file.num_samples, file.rate) == (len(waveform), rate)
    assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
    if file.error is not None:
        assert abs(waveform - speech(file.rate)).mean() <= file.error
    return waveform


@pytest.mark.parametrize("name", [*BASES, *EXTRA])
def test_the_header_and_the_samples_are_those_of_the_file(made, name):
    check(of(made, name))


@pytest.mark.parametrize("name", BASES)
def test_a_cut_recording_is_refused(made, name):
    raw = of(made, name).raw
    for size in [1, 11, *(len(raw) * np.array([3, 31, 57, 83, 97]) // 100), len(raw) - 5, len(raw) - 2]:
        with pytest.raises(MediaError, match=r"truncated|no readable recording"):
            open_audio(raw[:size])


@pytest.mark.parametrize("name", BASES)
def test_two_in_one_file_are_both_read_or_refused(made, name):
    one = of(made, name)
    assert one.num_samples
    twice = one.raw + one.raw
    if is_of(name, CHAINED):
        waveform = check(Made(twice, one.rate, 2 * one.num_samples, None))
        assert waveform is not None
        np.testing.assert_array_equal(waveform[: one.num_samples], open_audio(one.raw)[0])
    else:
        with pytest.raises(MediaError, match=r"second|two recordings|found more|announced|damaged: no"):
            open_audio(twice)


@pytest.mark.parametrize("name", BASES)
def test_tags_are_no_sound(made, name):
    one = of(made, name)
    tails = [ID3V1, ape(), ape() + ID3V1, bytes(301)]
    tails += [lyrics() + ID3V1] if is_of(name, (*CHAINED, "flac")) else []
    files = [one.raw + tail for tail in tails] if is_of(name, TAGGED_BEHIND) else []
    if is_of(name, TAGGED_IN_FRONT):
        files += [id3(300) + one.raw, id3(300) + id3(20) + bytes(33) + one.raw, ape() + one.raw]
    for raw in files:
        check(Made(raw, one.rate, one.num_samples, one.error))


def test_tags_need_not_be_utf_8(made):
    name = next(name for name in BASES if is_of(name, ("flac",)))
    one = of(made, name)
    tag = "제목=가".encode("cp949")
    body = bytes(4) + (1).to_bytes(4, "little") + len(tag).to_bytes(4, "little") + tag
    comment = b"\4" + len(body).to_bytes(3, "big") + body
    start = b"fLaC" + bytes([one.raw[4] & 0x7F]) + one.raw[5:42]  # the first block, which is not the last
    check(Made(start + comment + one.raw[42:], one.rate, one.num_samples, one.error))


def test_every_kind_of_source_gives_the_same(made, tmp_path):
    for name in ("wav PCM_16", "flac", "mp3", "ogg opus", "m4a aac", "webm opus"):
        raw = of(made, name).raw
        path = tmp_path / "a"
        path.write_bytes(b"x" * 13 + raw)
        whole = tmp_path / "b"
        whole.write_bytes(raw)
        expected, _ = open_audio(raw)
        span = Span(str(path), 13, len(raw), "a")
        for source in (span, whole, str(whole), Remote(whole.as_uri()), io.BytesIO(raw)):
            np.testing.assert_array_equal(open_audio(source)[0], expected)
            assert audio_header(source).num_samples == len(expected)


@pytest.mark.parametrize("name", BASES)
def test_the_limit_holds_before_anything_is_decoded(made, name, monkeypatch):
    file = of(made, name)
    if name not in ("mkv flac", "webm vorbis"):  # those are decoded to be counted, as far as the limit goes
        monkeypatch.setattr(
            "kebyt5_xm.data.media.recordings.audio._decode", lambda *_: pytest.fail("it was decoded")
        )
    for act in (open_audio, audio_header):
        with pytest.raises(MediaError, match="max_seconds"):
            act(file.raw, Limits(max_seconds=0.4))


def test_damage_is_never_passed_over():
    """A byte that is turned is seen by every format that has checksums or whose frames say their length."""
    numbers = np.random.default_rng(7)
    for raw in (
        by_libsndfile("OGG", "VORBIS"),
        by_libsndfile("OGG", "OPUS"),
        by_ffmpeg("ogg", "flac"),
        by_libsndfile("FLAC", "PCM_16"),
    ):
        for at in numbers.integers(9_000 * len(raw) // 10_000, len(raw) - 40, 7):
            turned = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]
            with pytest.raises(MediaError, match="damaged"):
                open_audio(turned)


def test_nothing_is_printed_about_a_damaged_file(made, capfd):
    for name in ("mp3", "aac adts", "m4a aac", "webm opus", "flac"):
        raw = of(made, name).raw
        half = len(raw) // 2
        for damaged in (raw[:half], raw[:half] + bytes(99) + raw[half + 99 :]):
            try:
                open_audio(damaged)
            except MediaError as error:
                pickle.loads(pickle.dumps(error))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_playlist_opens_no_other_file(tmp_path, made):
    """FFmpeg would follow it: no demuxer but the one that the content names is ever asked."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(of(made, "wav PCM_16").raw)
    for text in (
        f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ):
        path = Path(tmp_path, "a.m3u8")
        path.write_text(text)
        with pytest.raises(MediaError, match="no readable recording"):
            open_audio(path)
