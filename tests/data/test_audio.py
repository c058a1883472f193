"""Recordings: formats, sample rates, limits, samples without a header, and waveforms in memory."""

import copy
import io
import os
import pickle

import numpy as np
import pytest
import soundfile
import torch

from kebyt5_xm.data.media.opening import (
    Limits,
    MediaError,
    RemoteUrl,
    as_mono,
    open_audio,
    read_audio_header,
    read_header,
    resolve,
)
from kebyt5_xm.data.media.reference import FileSpan
from kebyt5_xm.encoder import AudioHeader

TIME = np.arange(4801) / 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype=None, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype, **options)
    return buffer.getvalue()


def test_samples_without_header_are_recognised_by_suffix_only(tmp_path):
    stored = (TONE * 32767).astype("<i2")
    path = tmp_path / "KsponSpeech_000001.pcm"
    tar = tmp_path / "shard"
    tar.write_bytes(b"\0" * 11 + stored.tobytes())
    span = FileSpan(str(tar), 11, stored.nbytes, "a/000001.pcm")
    for odd in (b"", b"\x7f"):  # half a sample is dropped
        path.write_bytes(stored.tobytes() + odd)
        for source in (path, str(path), RemoteUrl(path.as_uri()), span):
            waveform, rate = open_audio(source)
            assert (waveform.dtype, rate) == (np.float32, 16_000)
            assert np.array_equal(waveform, stored.astype(np.float32) / 32768)
            assert read_header(source, "audio") == AudioHeader(len(TONE), 16_000)
    unnamed = (
        stored.tobytes(),
        io.BytesIO(stored.tobytes()),
        path.rename(tmp_path / "a.raw"),
        FileSpan(str(tar), 11, stored.nbytes, "a"),
    )
    for source in unnamed:
        with pytest.raises(MediaError, match="no readable recording"):
            open_audio(source)


def test_the_name_in_the_row_counts_for_a_symbolic_link(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "ab12").write_bytes(bytes(2 * 1601))
    (tmp_path / "1.pcm").symlink_to("objects/ab12")
    found = resolve(tmp_path, "1.pcm")
    assert found == os.path.join(os.path.realpath(tmp_path), "objects", "ab12")
    for readable in (found, pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert readable.name == "1.pcm"
        assert len(open_audio(readable)[0]) == 1601


@pytest.mark.parametrize("format", ["WAV", "AIFF", "FLAC", "OGG"])
def test_a_file_with_a_header_is_read_by_content_despite_its_suffix(tmp_path, format):
    path = tmp_path / "a.PCM"
    path.write_bytes(encode(TONE, 8_000, format=format))
    assert open_audio(path)[1] == 8_000
    assert read_header(path, "audio") == AudioHeader(len(TONE), 8_000)


def test_bad_samples_without_header(tmp_path):
    path = tmp_path / "a.pcm"
    for raw, limit, words in (
        (b"", 1.0, "no samples"),
        (b"x", 1.0, "no samples"),
        (b"xy" * 16_001, 1.0, "1.0 sec"),
    ):
        path.write_bytes(raw)
        for act in (open_audio, read_audio_header):
            with pytest.raises(MediaError, match=rf"a\.pcm: .*{words}"):
                act(path, Limits(max_seconds=limit))


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0),
        ("WAVEX", "PCM_24", 1e-6),
        ("AIFF", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.1),
        ("MP3", None, 0.05),
    ],
)
def test_common_recordings_are_read_and_truncated_ones_refused(tmp_path, format, subtype, tolerance):
    raw = encode(np.stack([TONE * 0.5, TONE * 1.5], axis=1), format=format, subtype=subtype)
    path = tmp_path / "misnamed.raw"
    path.write_bytes(raw)
    for source in (path, raw, io.BytesIO(raw)):
        waveform, rate = open_audio(source)
        assert (waveform.dtype, waveform.shape, rate) == (np.float32, TONE.shape, 16_000)
        assert abs(waveform - TONE).mean() <= tolerance
        assert read_header(source, "audio") == AudioHeader(len(TONE), 16_000)
    for share in (0.0, 0.02, 0.5, 0.98):
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(MediaError, match=r"misnamed\.raw: \S"):
            open_audio(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_cut_between_pages_is_refused(subtype):
    noise = np.random.default_rng(5).standard_normal(6 * 48_000).astype(np.float32) / 9
    raw = encode(noise, 48_000, "OGG", subtype)
    assert len(open_audio(raw)[0]) == len(noise)
    pages = [n for n in range(len(raw)) if raw.startswith(b"OggS", n)]
    assert len(pages) > 4
    for cut in pages[3:]:
        with pytest.raises(MediaError, match="truncated: the last page"):
            read_header(raw[:cut], "audio")


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_the_rate_is_kept(rate):
    waveform, found = open_audio(encode(TONE, rate))
    assert (len(waveform), found) == (len(TONE), rate)


def test_recordings_that_are_refused():
    silence = np.zeros(31, dtype=np.float32)
    assert not open_audio(encode(silence))[0].any()  # silence is valid
    broken = TONE.copy()
    for value in (np.nan, np.inf):
        broken[17] = value
        with pytest.raises(MediaError, match="NaN or infinite"):
            open_audio(encode(broken, subtype="FLOAT"))
    for raw, words in [
        (encode(TONE[:0]), "no samples"),
        (encode(TONE, 4000), "4000 Hz"),
        (encode(TONE, 384_000), "384000 Hz"),
        (encode(TONE, format="SVX"), "no readable recording"),
        (b"", "no readable recording"),
        (b"RIFF" + b"\xff" * 40, "no readable recording"),
        (b"\0" * 1000, "no readable recording"),
        (encode(TONE, format="AIFF")[:44], "truncated: found no chunk of samples"),
        (encode(TONE)[:20], "truncated: found no chunk of samples"),
    ]:
        for act in (open_audio, lambda raw: read_header(raw, "audio")):
            with pytest.raises(MediaError, match=words):
                act(raw)


def test_a_long_recording_is_refused_from_its_header(monkeypatch):
    hour = encode(np.zeros(8000 * 601, dtype=np.int16), 8000, "FLAC")
    assert len(hour) < 30_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    for act in (open_audio, lambda raw: read_header(raw, "audio")):
        with pytest.raises(MediaError, match=r"601\.0 seconds, expected at most 600.*max_seconds"):
            act(hour)
    assert read_header(hour, "audio", Limits(max_seconds=601)).num_samples == 8000 * 601


def test_a_wav_of_unknown_length_is_read_to_its_end():
    raw = bytearray(encode(TONE, subtype="PCM_16"))
    at = raw.index(b"data") + 4
    for announced in (0xFFFFFFFF, 0x7FFFF000):
        raw[at : at + 4] = announced.to_bytes(4, "little")
        assert len(open_audio(bytes(raw))[0]) == len(TONE)
    raw[at : at + 4] = (2 * len(TONE) + 2).to_bytes(4, "little")
    with pytest.raises(MediaError, match="truncated"):
        open_audio(bytes(raw))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("rate", "channels", "frame_samples"), [(16_000, 1, 576), (44_100, 2, 1152)])
def test_an_mp3_without_a_length_is_never_cut(mode, rate, channels, frame_samples):
    """libsndfile alone returns a quarter of such a recording, or refuses it."""
    noise = np.random.default_rng(0).normal(0, 0.2, 20_011)
    samples = np.concatenate([np.tile(TONE, 5), noise, np.zeros(30_013)])
    raw = encode(
        np.stack([samples] * channels, axis=1), rate, "MP3", bitrate_mode=mode, compression_level=0.5
    )
    whole, _ = open_audio(raw)
    assert len(whole) == len(samples)
    bare = raw[raw.index(raw[:2], 4) :]  # without the first frame, which holds the length
    for source in (bare, b"ID3\x04\0\0\0\0\x02\x01" + bytes(257) + bare, bare + b"TAG" + bytes(125)):
        waveform, found = open_audio(source)
        assert found == rate
        assert read_header(source, "audio") == AudioHeader(len(waveform), rate)
        assert 0 <= len(waveform) - len(samples) < 3 * 1152
        # The decoder's 529 samples are dropped, the encoder's padding in front (576 more) is not known.
        np.testing.assert_allclose(waveform[576:70_000], whole[: 70_000 - 576], atol=1e-4)
    assert len(open_audio(raw + raw)[0]) >= 2 * len(
        samples
    )  # joined: the length in the first part covers only that part
    for damaged, words in [
        (bare[:-7], "truncated"),
        (bare[:3000] + b"xx" + bare[3000:], "damaged"),
        (b"junk" + bare, "damaged|no readable recording"),
    ]:
        with pytest.raises(MediaError, match=words):
            read_header(damaged, "audio")
    with pytest.raises(MediaError, match=r"more than .* seconds, expected at most"):
        read_header(bare, "audio", Limits(max_seconds=1.0))


def test_a_waveform_in_memory():
    both = np.stack([TONE, 3 * TONE], axis=1).astype(np.float64)
    tensor = torch.from_numpy(both.T.copy()).requires_grad_()
    for samples in (both, both.T, tensor, tensor.bfloat16(), torch.from_numpy(both), both.astype(np.float16)):
        waveform, rate = as_mono(samples, np.int64(16_000))
        assert (waveform.dtype, waveform.shape, rate, type(rate)) == (np.float32, TONE.shape, 16_000, int)
        np.testing.assert_allclose(waveform, 2 * TONE, atol=0.02)
    for samples in (TONE, TONE[None], TONE[:, None], torch.from_numpy(TONE)[None], TONE.tolist()):
        assert np.array_equal(as_mono(samples, 16_000.0)[0], TONE)
    for samples, words in [
        (TONE[:0], "no samples"),
        (np.zeros((1, 0), dtype=np.float32), "no samples"),
        (np.array([0.1, np.nan], dtype=np.float32), "NaN"),
        (np.arange(5), "int64 of shape"),
        (torch.zeros(5, dtype=torch.int16), r"int16 of shape .*divide by 32768"),
        (TONE > 0, "bool of shape"),
        (TONE + 0j, "complex64 of shape"),
        (TONE.astype(np.uint8), "uint8 of shape"),
        (np.array(["a"]), "of shape"),
        (np.array(0.5), r"shape \[\]"),
        (np.zeros((2, 3, 5), dtype=np.float32), r"shape \[2, 3, 5\]"),
        (np.zeros((7, 5), dtype=np.float32), r"shape \[7, 5\]"),
        (np.zeros((11, 997), dtype=np.float32), r"shape \[11, 997\].*at most 8 channels.*a list of lists"),
        (np.zeros((1, 2, 997), dtype=np.float32), r"shape \[1, 2, 997\]"),
        (32768 * TONE, "expected floats from -1 to 1; divide 16-bit samples by 32768"),
        ([[0.1], [0.1, 0.2]], "recording"),
    ]:
        with pytest.raises(MediaError, match=words) as caught:
            as_mono(samples, 16_000)
        assert "\n" not in str(caught.value)
    for rate, words in [
        (50, "50 Hz"),
        (22_050.5, "whole number"),
        ("x", "whole number"),
        (None, "whole number"),
    ]:
        with pytest.raises(MediaError, match=words):
            as_mono(TONE, rate)
