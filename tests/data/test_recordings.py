"""In every container, a cut, joined, tagged or miscounted recording is read completely or refused."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from recording_cases import (
    CHAINED,
    ID3V1,
    ODD,
    TAGGED_BEHIND,
    TAGGED_IN_FRONT,
    WHOLE,
    RecordingCase,
    encode_with_ffmpeg,
    encode_with_libsndfile,
    is_of_kind,
    make_ape,
    make_id3,
    make_lyrics,
    make_speech,
)

from kebyt5_xm.data.media.opening import Limits, MediaError, RemoteUrl, open_audio, read_audio_header
from kebyt5_xm.data.media.reference import FileSpan


@pytest.fixture(scope="module")
def cases() -> dict[str, RecordingCase]:
    return {}


def get_case(cases: dict[str, RecordingCase], name: str) -> RecordingCase:
    if name not in cases:
        cases[name] = {**WHOLE, **ODD}[name]()
    return cases[name]


def check(file: RecordingCase) -> np.ndarray | None:
    """Assert that header and decoded samples have the true length, or that the file is refused with its cause."""
    if file.num_samples is None:
        with pytest.raises(MediaError, match=file.cause) as caught:
            open_audio(file.raw)
        assert "\n" not in str(caught.value)
        return None
    header = read_audio_header(file.raw)
    waveform, rate = open_audio(file.raw)
    assert (header.num_samples, header.sample_rate) == (file.num_samples, file.rate) == (len(waveform), rate)
    assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
    if file.error is not None:
        assert abs(waveform - make_speech(file.rate)).mean() <= file.error
    return waveform


@pytest.mark.parametrize("name", [*WHOLE, *ODD])
def test_header_and_samples_match_the_file(cases, name):
    check(get_case(cases, name))


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_recording_is_refused(cases, name):
    raw = get_case(cases, name).raw
    for size in [1, 11, *(len(raw) * np.array([3, 31, 57, 83, 97]) // 100), len(raw) - 5, len(raw) - 2]:
        with pytest.raises(MediaError, match=r"truncated|no readable recording"):
            open_audio(raw[:size])


@pytest.mark.parametrize("name", WHOLE)
def test_two_joined_recordings_are_both_read_or_refused(cases, name):
    case = get_case(cases, name)
    assert case.num_samples
    twice = case.raw + case.raw
    if is_of_kind(name, CHAINED):
        waveform = check(RecordingCase(twice, case.rate, 2 * case.num_samples, None))
        assert waveform is not None
        np.testing.assert_array_equal(waveform[: case.num_samples], open_audio(case.raw)[0])
    else:
        with pytest.raises(MediaError, match=r"second|two recordings|found more|announced|damaged: no"):
            open_audio(twice)


@pytest.mark.parametrize("name", WHOLE)
def test_tags_are_not_read_as_sound(cases, name):
    case = get_case(cases, name)
    tails = [ID3V1, make_ape(), make_ape() + ID3V1, bytes(301)]
    tails += [make_lyrics() + ID3V1] if is_of_kind(name, (*CHAINED, "flac")) else []
    files = [case.raw + tail for tail in tails] if is_of_kind(name, TAGGED_BEHIND) else []
    if is_of_kind(name, TAGGED_IN_FRONT):
        files += [
            make_id3(300) + case.raw,
            make_id3(300) + make_id3(20) + bytes(33) + case.raw,
            make_ape() + case.raw,
        ]
    for raw in files:
        check(RecordingCase(raw, case.rate, case.num_samples, case.error))


def test_tags_need_not_be_utf_8(cases):
    name = next(name for name in WHOLE if is_of_kind(name, ("flac",)))
    case = get_case(cases, name)
    tag = "제목=가".encode("cp949")
    body = bytes(4) + (1).to_bytes(4, "little") + len(tag).to_bytes(4, "little") + tag
    comment = b"\4" + len(body).to_bytes(3, "big") + body
    start = (
        b"fLaC" + bytes([case.raw[4] & 0x7F]) + case.raw[5:42]
    )  # the first metadata block, without its last-block flag
    check(RecordingCase(start + comment + case.raw[42:], case.rate, case.num_samples, case.error))


def test_every_kind_of_source_gives_the_same_samples(cases, tmp_path):
    for name in ("wav PCM_16", "flac", "mp3", "ogg opus", "m4a aac", "webm opus"):
        raw = get_case(cases, name).raw
        path = tmp_path / "a"
        path.write_bytes(b"x" * 13 + raw)
        whole = tmp_path / "b"
        whole.write_bytes(raw)
        expected, _ = open_audio(raw)
        span = FileSpan(str(path), 13, len(raw), "a")
        for source in (span, whole, str(whole), RemoteUrl(whole.as_uri()), io.BytesIO(raw)):
            np.testing.assert_array_equal(open_audio(source)[0], expected)
            assert read_audio_header(source).num_samples == len(expected)


@pytest.mark.parametrize("name", WHOLE)
def test_the_limit_is_checked_before_decoding(cases, name, monkeypatch):
    file = get_case(cases, name)
    if name not in ("mkv flac", "webm vorbis"):  # these are decoded to count their samples, up to the limit
        monkeypatch.setattr(
            "kebyt5_xm.data.media.recordings.audio._checked_blocks", lambda *_: pytest.fail("it was decoded")
        )
    for act in (open_audio, read_audio_header):
        with pytest.raises(MediaError, match="max_seconds"):
            act(file.raw, Limits(max_seconds=0.4))


def test_damage_is_never_skipped():
    """Every format with checksums or frame lengths detects a flipped byte."""
    numbers = np.random.default_rng(7)
    for raw in (
        encode_with_libsndfile("OGG", "VORBIS"),
        encode_with_libsndfile("OGG", "OPUS"),
        encode_with_ffmpeg("ogg", "flac"),
        encode_with_libsndfile("FLAC", "PCM_16"),
    ):
        for at in numbers.integers(9_000 * len(raw) // 10_000, len(raw) - 40, 7):
            flipped = raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]
            with pytest.raises(MediaError, match="damaged"):
                open_audio(flipped)


def test_nothing_is_printed_about_a_damaged_file(cases, capfd):
    for name in ("mp3", "aac adts", "m4a aac", "webm opus", "flac"):
        raw = get_case(cases, name).raw
        half = len(raw) // 2
        for damaged in (raw[:half], raw[:half] + bytes(99) + raw[half + 99 :]):
            try:
                open_audio(damaged)
            except MediaError as error:
                pickle.loads(pickle.dumps(error))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_playlist_opens_no_other_file(tmp_path, cases):
    """FFmpeg would follow a playlist. Only the demuxer that matches the content is used."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(get_case(cases, "wav PCM_16").raw)
    for text in (
        f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ):
        path = Path(tmp_path, "a.m3u8")
        path.write_text(text)
        with pytest.raises(MediaError, match="no readable recording"):
            open_audio(path)
