"""Fuzzed media: each file is read correctly or refused with a one-line cause; none crashes or hangs.

First, bytes of valid files are mutated. Then whole structures are mutated: recordings are joined, cut, tagged, padded
and wrapped, and compared with FFmpeg, which chooses its own demuxer. Images of `image_cases` get their blocks
repeated, dropped and swapped, and are compared with Pillow.
"""

import io
import math
from collections import Counter
from collections.abc import Callable
from functools import cache

import av
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from fuzzing import EXAMPLES, FUZZ, STRUCTURE_FUZZ, encode_image, mutate, mutations
from hypothesis import given
from hypothesis import strategies as st
from image_cases import IMAGES, split_chunks
from PIL import Image
from recording_cases import ID3V1, WHOLE, make_ape, make_id3, make_lyrics, wrap_in_wav

from kebyt5_xm.data.media.opening import (
    MediaError,
    open_audio,
    open_image,
    open_media,
    read_audio_header,
    read_header,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(1800, EXAMPLES))]


def encode_audio(format: str, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    waveform = 0.5 * np.sin(np.arange(1409 * channels) / 7).reshape(-1, channels)
    soundfile.write(buffer, waveform, 16_000, format=format)
    return buffer.getvalue()


def encode_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ONES)
    return buffer.getvalue()


ONES = np.ones((30, 50), dtype=np.float32)
"""Most of its file is data: damage there leaves a file that can be read."""


MEDIA: dict[str, list[Callable[[], bytes]]] = {
    "image": [
        *(
            lambda f=f: encode_image(f)
            for f in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
        ),
        lambda: encode_image("JPEG", "CMYK"),
        lambda: encode_image("PNG", "P"),
    ],
    "audio": [
        *(lambda f=f: encode_audio(f) for f in ("WAV", "FLAC", "OGG", "MP3", "AIFF")),
        lambda: encode_audio("WAV", 3),
    ],
    "array": [encode_npy, lambda: safetensors.numpy.save({"x": ONES})],
}


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged files
def test_damaged_media_match_their_header_or_are_refused(media: str) -> None:
    samples = [make() for make in MEDIA[media]]
    outcomes = {"read": 0, "refused": 0}

    @FUZZ
    @given(number=st.integers(0, len(samples) - 1), changes=mutations())
    def check(number: int, changes: list[tuple[str, float, bytes]]) -> None:
        raw = mutate(samples[number], changes)
        try:
            header = read_header(raw, media)  # pyright: ignore[reportArgumentType]
            item = open_media(raw, media)  # pyright: ignore[reportArgumentType]
        except MediaError as error:
            refused = str(error)
        else:
            refused = None
        if refused is not None:
            assert "\n" not in refused
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        if media == "image":
            assert item.size == (header.width, header.height)
            assert item.mode == "RGB"
        elif media == "audio":
            assert (len(item[0]), item[1]) == (header.num_samples, header.sample_rate)
            assert math.isfinite(abs(item[0]).max())
        else:
            assert item.shape == header.shape

    check()
    assert min(outcomes.values()) > 0, outcomes  # both happen, or nothing is tested


PADDING_SECONDS = 0.16
"""What codecs may add or drop at the ends: two AAC frames at 16 kHz are 0.128 s."""


@cache
def encode_recording(name: str) -> bytes:
    return WHOLE[name]().raw


JUNK: dict[str, Callable[[], bytes]] = {
    "id3": lambda: make_id3(77),
    "id3 twice": lambda: make_id3(5) + make_id3(301),
    "id3v1": lambda: ID3V1,
    "ape": make_ape,
    "lyrics": lambda: make_lyrics() + ID3V1,
    "zeros": lambda: bytes(301),
    "line end": lambda: b"\r\n",
    "riff": lambda: b"RIFF\x04\0\0\0WAVE",
    "chunk": lambda: b"LIST\4\0\0\0INFO",
}


STEPS = ("cut", "front", "behind", "hole", "repeat", "wrap", "insert")
"""Changes to a recording: (kind, position as a share of its bytes, number of bytes, name of the junk)."""
Step = tuple[str, float, int, str]


def draw_recordings() -> st.SearchStrategy[tuple[list[str], list[Step]]]:
    """Draw one or two whole recordings, and changes to them."""
    size = st.sampled_from([1, 2, 417, 4096, 20_001])
    step = st.tuples(st.sampled_from(STEPS), st.floats(0, 1), size, st.sampled_from(sorted(JUNK)))
    names = st.lists(st.sampled_from(sorted(WHOLE)), min_size=1, max_size=2)
    return st.tuples(names, st.lists(step, max_size=2))


def build_recording(names: list[str], steps: list[Step]) -> bytes:
    raw = b"".join(encode_recording(name) for name in names)
    for step, share, size, junk in steps:
        at, more = int(share * len(raw)), JUNK[junk]()
        if step == "cut":
            raw = raw[:at]
        elif step == "front":
            raw = more + raw
        elif step == "behind":
            raw += more
        elif step == "hole":
            raw = raw[:at] + raw[at + size :]
        elif step == "repeat":
            raw = raw[: at + size] + raw[at:]
        elif step == "wrap":
            raw = wrap_in_wav(raw, 0x55)
        else:
            raw = raw[:at] + more + raw[at:]
    return raw


def measure_with_ffmpeg(raw: bytes) -> float:
    """Return the seconds of sound that FFmpeg finds."""
    seconds = 0.0
    try:
        with av.open(io.BytesIO(raw)) as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                try:
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.error.FFmpegError:
                    continue
    except (av.error.FFmpegError, IndexError, ValueError):
        return seconds
    return seconds


def test_recording_lengths_match_ffmpeg_or_the_file_is_refused() -> None:
    outcomes: Counter[str] = Counter()

    @STRUCTURE_FUZZ
    @given(drawn=draw_recordings())
    def check(drawn: tuple[list[str], list[Step]]) -> None:
        raw = build_recording(*drawn)
        try:
            header = read_audio_header(raw)
            waveform, rate = open_audio(raw)
        except MediaError as error:
            outcomes["refused" if "\n" not in str(error) else "in several lines"] += 1
            return
        outcomes["read"] += 1
        assert (header.num_samples, header.sample_rate) == (len(waveform), rate)
        assert len(waveform) / rate > measure_with_ffmpeg(raw) - PADDING_SECONDS

    with av.logging.Capture():  # FFmpeg's messages about damage
        check()
    assert not outcomes["in several lines"]
    assert min(outcomes["read"], outcomes["refused"]) > EXAMPLES // 100, outcomes


def split_blocks(raw: bytes) -> list[bytes]:
    """Split an image: into the chunks of a PNG, the segments of a JPEG, else pieces of 97 bytes."""
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return [raw[:8], *split_chunks(raw)]
    if raw.startswith(b"\xff\xd8"):
        places = [at for at in range(len(raw) - 1) if raw[at] == 0xFF and raw[at + 1] not in (0, 0xFF)]
        return [raw[a:b] for a, b in zip(places, [*places[1:], len(raw)], strict=True)]
    return [raw[at : at + 97] for at in range(0, len(raw), 97)]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged files
def test_pixels_match_pillow_or_the_image_is_refused() -> None:
    outcomes: Counter[str] = Counter()

    @STRUCTURE_FUZZ
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(IMAGES)))
        pieces = split_blocks(IMAGES[name]().raw)
        for _ in range(data.draw(st.integers(0, 2))):
            step = data.draw(st.sampled_from(["drop", "repeat", "swap", "cut", "append"]))
            a, b = (data.draw(st.integers(0, len(pieces) - 1)) for _ in "ab")
            if step == "drop" and len(pieces) > 1:
                del pieces[a]
            elif step == "repeat":
                pieces.insert(a, pieces[b])
            elif step == "swap":
                pieces[a], pieces[b] = pieces[b], pieces[a]
            elif step == "cut":
                pieces = pieces[: a + 1]
            else:
                pieces.append(pieces[b])
        raw = b"".join(pieces)
        try:
            header = read_header(raw, "image")
            found = open_image(raw)
        except MediaError as error:
            outcomes["refused" if "\n" not in str(error) else "in several lines"] += 1
            return
        outcomes["read"] += 1
        assert found.size == (header.width, header.height), name
        assert found.mode == "RGB"
        try:
            other = Image.open(io.BytesIO(raw))
            other.load()
            turned = other.getexif().get(0x0112, 0) > 1
        except Exception:  # Pillow limits metadata, which we do not read
            return
        if other.mode in ("RGB", "L") and other.size == found.size and not turned:
            outcomes["compared"] += 1
            if "transparency" not in other.info and not raw.startswith(b"II*\0"):
                np.testing.assert_array_equal(np.asarray(found), np.asarray(other.convert("RGB")), name)

    check()
    assert not outcomes["in several lines"]
    assert min(outcomes["read"], outcomes["refused"], outcomes["compared"]) > EXAMPLES // 100, outcomes
