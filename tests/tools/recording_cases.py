"""Recordings by real encoders (libsndfile and PyAV), and files that are cut, joined, wrapped, tagged or miscounted.

`WHOLE` are complete recordings. Tests cut, double and tag them; `CHAINED`, `TAGGED_BEHIND` and `TAGGED_IN_FRONT` name
the kinds that are then still readable. `ODD` are special cases. Each case has its true number of samples, or None if
it must be refused.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

NUM_SAMPLES = 24_011


@dataclass(frozen=True)
class RecordingCase:
    """A file. `num_samples` is its true length at `rate` Hz, or None if it must be refused with `cause`.

    `error` is the allowed mean difference from `make_speech(rate)`; None skips the comparison.
    """

    raw: bytes
    rate: int = 16_000
    num_samples: int | None = NUM_SAMPLES
    error: float | None = 0.03
    cause: str = ""


@cache
def make_speech(rate: int, num_samples: int = NUM_SAMPLES) -> np.ndarray:
    """Return a swelling tone with a little noise, so that no two parts of it are equal."""
    time = np.arange(num_samples) / rate
    noise = np.random.default_rng(0).standard_normal(num_samples)
    return (0.3 * np.sin(2 * np.pi * 440 * time) * np.minimum(1, time) + 0.02 * noise).astype(np.float32)


def encode_with_libsndfile(
    format: str, subtype: str, rate: int = 16_000, channels: int = 1, endian: str | None = None, **options
) -> bytes:
    buffer = io.BytesIO()
    samples = np.stack([make_speech(rate)] * channels, axis=1)
    soundfile.write(buffer, samples, rate, subtype, endian, format, **options)
    return buffer.getvalue()


def encode_with_ffmpeg(
    format: str,
    codec: str,
    rate: int = 16_000,
    layout: str = "mono",
    video: bool = False,
    streams: int = 1,
    speech: np.ndarray | None = None,
    bit_rate: int | None = None,
    **options: str,
) -> bytes:
    """Encode with PyAV, `speech` or `make_speech(rate)`; `options` are the muxer's."""
    speech = make_speech(rate) if speech is None else speech
    samples = np.stack([speech] * len(av.AudioLayout(layout).channels))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        with av.open(str(path), "w", format=format, options=options) as container:
            pictures = [container.add_stream("mpeg4", rate=25, width=32, height=16)] if video else []
            sounds = [container.add_stream(codec, rate=rate, layout=layout) for _ in range(streams)]
            for stream in sounds if bit_rate else ():
                stream.bit_rate = bit_rate
            container.start_encoding()
            for stream in pictures:
                for number in range(38):
                    image = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 6 * number, np.uint8))
                    container.mux(stream.encode(image.reformat(format="yuv420p")))
                container.mux(stream.encode(None))
            for stream in sounds:
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
                frame.sample_rate, frame.pts = rate, 0
                context = stream.codec_context
                resampler = av.AudioResampler(
                    format=context.format, layout=layout, rate=rate, frame_size=context.frame_size
                )
                for part in [*resampler.resample(frame), *resampler.resample(None)]:
                    container.mux(stream.encode(part))
                container.mux(stream.encode(None))
        return path.read_bytes()


def remux(raw: bytes, format: str) -> bytes:
    """Return the packets of a file in another container, without re-encoding."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        with av.open(io.BytesIO(raw)) as given, av.open(str(path), "w", format=format) as container:
            stream = container.add_stream_from_template(given.streams.audio[0])
            for packet in given.demux(given.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
        return path.read_bytes()


def wrap_in_wav(raw: bytes, tag: int) -> bytes:
    """Return a WAV header with format `tag` in front of any bytes."""
    layout = tag.to_bytes(2, "little") + bytes.fromhex("0100803e0000803e000001000000") + b"\0\0"
    fmt = b"fmt " + len(layout).to_bytes(4, "little") + layout
    data = b"data" + len(raw).to_bytes(4, "little") + raw + b"\0" * (len(raw) % 2)
    return b"RIFF" + (4 + len(fmt) + len(data)).to_bytes(4, "little") + b"WAVE" + fmt + data


WHOLE: dict[str, Callable[[], RecordingCase]] = {
    **{
        f"wav {subtype}": lambda s=subtype, e=error: RecordingCase(encode_with_libsndfile("WAV", s), error=e)
        for subtype, error in {
            "PCM_16": 1e-4,
            "PCM_U8": 1e-2,
            "PCM_24": 1e-6,
            "PCM_32": 1e-6,
            "FLOAT": 0,
            "DOUBLE": 0,
            "ULAW": 1e-2,
            "ALAW": 1e-2,
            "MS_ADPCM": 2e-2,
        }.items()
    },
    "wav IMA_ADPCM": lambda: RecordingCase(
        encode_with_libsndfile("WAV", "IMA_ADPCM"), num_samples=24_408, error=None
    ),
    "wav GSM610": lambda: RecordingCase(encode_with_libsndfile("WAV", "GSM610", 8_000), 8_000),
    "wav stereo": lambda: RecordingCase(encode_with_libsndfile("WAV", "PCM_24", channels=2), error=1e-6),
    "rifx": lambda: RecordingCase(encode_with_libsndfile("WAV", "PCM_16", endian="BIG"), error=1e-4),
    "wavex": lambda: RecordingCase(encode_with_libsndfile("WAVEX", "PCM_24", channels=5), error=1e-6),
    "rf64": lambda: RecordingCase(encode_with_libsndfile("RF64", "PCM_16"), error=1e-4),
    "w64": lambda: RecordingCase(encode_with_libsndfile("W64", "PCM_16"), error=1e-4),
    "aiff": lambda: RecordingCase(encode_with_libsndfile("AIFF", "PCM_16"), error=1e-4),
    "aiff-c sowt": lambda: RecordingCase(
        encode_with_libsndfile("AIFF", "PCM_16", endian="LITTLE"), error=1e-4
    ),
    # libsndfile's COMM chunk counts the pad byte.
    "aiff PCM_S8": lambda: RecordingCase(
        encode_with_libsndfile("AIFF", "PCM_S8"), num_samples=24_012, error=None
    ),
    "aiff-c FLOAT": lambda: RecordingCase(encode_with_libsndfile("AIFF", "FLOAT"), error=0),
    "caf": lambda: RecordingCase(encode_with_libsndfile("CAF", "PCM_16"), error=1e-4),
    "caf ALAC": lambda: RecordingCase(encode_with_libsndfile("CAF", "ALAC_16"), error=1e-4),
    "au": lambda: RecordingCase(encode_with_libsndfile("AU", "ULAW"), error=1e-2),
    "flac": lambda: RecordingCase(encode_with_libsndfile("FLAC", "PCM_16"), error=1e-4),
    "flac 24 stereo": lambda: RecordingCase(
        encode_with_libsndfile("FLAC", "PCM_24", 44_100, 2), 44_100, error=1e-6
    ),
    "flac of ffmpeg": lambda: RecordingCase(encode_with_ffmpeg("flac", "flac"), error=1e-4),
    "ogg vorbis": lambda: RecordingCase(encode_with_libsndfile("OGG", "VORBIS")),
    "ogg opus": lambda: RecordingCase(encode_with_libsndfile("OGG", "OPUS")),
    "ogg opus of ffmpeg": lambda: RecordingCase(encode_with_ffmpeg("ogg", "libopus", 48_000), 48_000),
    "ogg flac": lambda: RecordingCase(encode_with_ffmpeg("ogg", "flac"), error=1e-4),
    "mp3": lambda: RecordingCase(encode_with_libsndfile("MP3", "MPEG_LAYER_III")),
    "mp3 vbr stereo": lambda: RecordingCase(
        encode_with_libsndfile("MP3", "MPEG_LAYER_III", 44_100, 2, bitrate_mode="VARIABLE"), 44_100
    ),
    "mp3 of ffmpeg": lambda: RecordingCase(encode_with_ffmpeg("mp3", "libmp3lame", 48_000), 48_000),
    "mp2": lambda: RecordingCase(encode_with_ffmpeg("mp2", "mp2"), num_samples=21 * 1152, error=None),
    "mp3 in wav": lambda: RecordingCase(wrap_in_wav(encode_with_libsndfile("MP3", "MPEG_LAYER_III"), 0x55)),
    "aac adts": lambda: RecordingCase(encode_with_ffmpeg("adts", "aac"), num_samples=25 * 1024, error=None),
    "amr": lambda: RecordingCase(
        encode_with_ffmpeg("amr", "libopencore_amrnb", 8_000), 8_000, num_samples=151 * 160, error=None
    ),
    "m4a aac": lambda: RecordingCase(encode_with_ffmpeg("ipod", "aac", 44_100), 44_100),
    "m4a alac": lambda: RecordingCase(encode_with_ffmpeg("ipod", "alac"), error=1e-4),
    "mp4 aac, moov first": lambda: RecordingCase(encode_with_ffmpeg("mp4", "aac", movflags="+faststart")),
    "mp4 opus": lambda: RecordingCase(encode_with_ffmpeg("mp4", "libopus", 48_000), 48_000),
    # An MP4 does not state the padding that an MP3 encoder added behind.
    "mp4 mp3": lambda: RecordingCase(encode_with_ffmpeg("mp4", "libmp3lame"), num_samples=24_239, error=None),
    "mp4 in fragments": lambda: RecordingCase(
        encode_with_ffmpeg("mp4", "aac", movflags="frag_keyframe+empty_moov"), num_samples=25_035, error=None
    ),
    "mp4 with pictures": lambda: RecordingCase(encode_with_ffmpeg("mp4", "aac", video=True)),
    "mov pcm": lambda: RecordingCase(encode_with_ffmpeg("mov", "pcm_s16le"), error=1e-4),
    "mov pcm 24 stereo": lambda: RecordingCase(
        encode_with_ffmpeg("mov", "pcm_s24be", layout="stereo"), error=1e-6
    ),
    "mkv pcm 24 5.1": lambda: RecordingCase(
        encode_with_ffmpeg("matroska", "pcm_s24le", layout="5.1"), error=1e-6
    ),
    "m4a aac stereo": lambda: RecordingCase(
        encode_with_ffmpeg("ipod", "aac", 48_000, layout="stereo"), 48_000
    ),
    "3gp amr": lambda: RecordingCase(
        encode_with_ffmpeg("3gp", "libopencore_amrnb", 8_000), 8_000, error=None
    ),
    "webm opus": lambda: RecordingCase(encode_with_ffmpeg("webm", "libopus", 48_000), 48_000),
    "webm opus live": lambda: RecordingCase(encode_with_ffmpeg("webm", "libopus", 48_000, live="1"), 48_000),
    "webm vorbis": lambda: RecordingCase(remux(encode_with_libsndfile("OGG", "VORBIS"), "webm")),
    "mkv aac": lambda: RecordingCase(
        encode_with_ffmpeg("matroska", "aac"), num_samples=24 * 1024, error=None
    ),
    "mkv mp3": lambda: RecordingCase(encode_with_ffmpeg("matroska", "libmp3lame")),
    "mkv flac": lambda: RecordingCase(encode_with_ffmpeg("matroska", "flac"), error=1e-4),
    "mkv pcm": lambda: RecordingCase(encode_with_ffmpeg("matroska", "pcm_s16le"), error=1e-4),
    "mkv with pictures": lambda: RecordingCase(
        encode_with_ffmpeg("matroska", "libopus", 48_000, video=True), 48_000
    ),
}


def make_id3(length: int) -> bytes:
    return b"ID3\x04\0\0\0\0" + bytes([length >> 7, length & 127]) + bytes(length)


def make_ape() -> bytes:
    def mark(flags: int) -> bytes:
        numbers = (2000, 32 + len(body), 0, flags)
        return b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in numbers) + bytes(8)

    body = bytes.fromhex("0300000000000000") + b"a\0abc"
    return mark(0xA0000000) + body + mark(0x80000000)


def make_lyrics() -> bytes:
    body = b"LYRICSBEGIN" + b"IND00002" + b"10"
    return body + b"%06d" % len(body) + b"LYRICS200"


ID3V1 = b"TAG" + b"a" * 125
CHAINED = ("ogg", "mp3", "aac", "mp2")
"""Kinds of which two joined files are read as one recording; other kinds are refused."""
TAGGED_BEHIND = (*CHAINED, "flac", "wav", "aiff", "rifx", "w64", "caf", "rf64")
TAGGED_IN_FRONT = ("ogg", "mp3", "aac", "mp2", "flac", "wav", "aiff", "rifx", "w64", "caf", "rf64", "au")


def is_of_kind(name: str, kinds: tuple[str, ...]) -> bool:
    return name.split()[0] in kinds and "mp3 in wav" not in name


def patch(raw: bytes, at: int, data: bytes) -> bytes:
    return raw[:at] + data + raw[at + len(data) :]


def _make_wav(data: int, riff: int = 0, samples: bytes | None = None, rest: bytes = b"") -> bytes:
    """Return a WAV with the given lengths in its header."""
    samples = (make_speech(16_000) * 32767).astype("<i2").tobytes() if samples is None else samples
    fmt = b"fmt " + bytes.fromhex("10000000 0100 0100 803e0000 007d0000 0200 1000")
    return b"".join(
        [
            b"RIFF",
            riff.to_bytes(4, "little"),
            b"WAVE",
            fmt,
            b"data",
            data.to_bytes(4, "little"),
            samples,
            rest,
        ]
    )


def _make_wav_with_odd_chunk(pad: bytes) -> bytes:
    raw = encode_with_libsndfile("WAV", "PCM_16")
    at = raw.index(b"data")
    return raw[:at] + b"LIST" + (15).to_bytes(4, "little") + b"INFOISFT\3\0\0\0abc" + pad + raw[at:]


def _make_mp3_with_counts(frames: float, size: float = 1.0) -> bytes:
    raw = encode_with_libsndfile("MP3", "MPEG_LAYER_III")
    at = max(raw.find(b"Xing"), raw.find(b"Info")) + 8
    counts = [int.from_bytes(raw[a : a + 4], "big") for a in (at, at + 4)]
    said = [int(n * share) for n, share in zip(counts, (frames, size), strict=True)]
    return patch(raw, at, b"".join(n.to_bytes(4, "big") for n in said))


def _make_flac_with_count(num_samples: int) -> bytes:
    raw = encode_with_libsndfile("FLAC", "PCM_16")
    number = int.from_bytes(raw[18:26], "big") >> 36 << 36 | num_samples
    return patch(raw, 18, number.to_bytes(8, "big"))


def _make_ogg_without_page(number: int) -> bytes:
    raw = encode_with_libsndfile("OGG", "VORBIS")
    pages = [at for at in range(len(raw)) if raw.startswith(b"OggS", at)] + [len(raw)]
    return raw[: pages[number]] + raw[pages[number + 1] :]


PCM = 1e-4
ODD: dict[str, Callable[[], RecordingCase]] = {
    "ogg of two codecs": lambda: RecordingCase(
        encode_with_libsndfile("OGG", "VORBIS") + encode_with_libsndfile("OGG", "OPUS", channels=2),
        num_samples=2 * NUM_SAMPLES,
        error=None,
    ),
    "ogg of two rates": lambda: RecordingCase(
        encode_with_libsndfile("OGG", "VORBIS") + encode_with_libsndfile("OGG", "VORBIS", 44_100),
        num_samples=None,
        cause="Hz",
    ),
    "ogg with a lost page": lambda: RecordingCase(
        _make_ogg_without_page(2), num_samples=None, cause="damaged: page"
    ),
    "ogg without its last page": lambda: RecordingCase(
        _make_ogg_without_page(-2), num_samples=None, cause="truncated"
    ),
    "ogg of two streams side by side": lambda: RecordingCase(
        encode_with_ffmpeg("ogg", "libopus", 48_000, streams=2),
        num_samples=None,
        cause="several parallel streams",
    ),
    "mp3 that says half its frames": lambda: RecordingCase(_make_mp3_with_counts(0.5)),
    "mp3 that says more frames": lambda: RecordingCase(_make_mp3_with_counts(2.0)),
    "mp3 that says more frames and bytes": lambda: RecordingCase(
        _make_mp3_with_counts(2.0, 2.0), num_samples=None, cause="truncated"
    ),
    "mp3 with tags between": lambda: RecordingCase(
        _make_mp3_with_counts(1.0) + ID3V1 + make_id3(77) + _make_mp3_with_counts(1.0),
        num_samples=2 * NUM_SAMPLES,
        error=None,
    ),
    "mp3 without a piece": lambda: RecordingCase(
        (lambda raw: raw[:3000] + raw[3050:])(encode_with_libsndfile("MP3", "MPEG_LAYER_III")),
        num_samples=None,
        cause="damaged: no MP3 frame",
    ),
    "flac without a count": lambda: RecordingCase(_make_flac_with_count(0), error=PCM),
    "flac that says less": lambda: RecordingCase(
        _make_flac_with_count(12_000), num_samples=None, cause="found more"
    ),
    "flac that says more": lambda: RecordingCase(
        _make_flac_with_count(48_000), num_samples=None, cause="truncated.*48000.*24011"
    ),
    "flac with a hole": lambda: RecordingCase(
        patch(encode_with_libsndfile("FLAC", "PCM_16"), 20_000, bytes(50)), num_samples=None, cause="damaged"
    ),
    "wav of length 0": lambda: RecordingCase(_make_wav(0, 36), error=PCM),
    "wav of length 0 twice": lambda: RecordingCase(_make_wav(0), error=PCM),
    "wav of no known length": lambda: RecordingCase(_make_wav(0xFFFFFFFF, 0xFFFFFFFF), error=PCM),
    "wav that says two billion": lambda: RecordingCase(
        _make_wav(2_000_000_000, 2_000_000_036), num_samples=None, cause="truncated: 2000000000.*48022"
    ),
    "wav that says half": lambda: RecordingCase(
        _make_wav(24_010, 24_046), num_samples=None, cause="malformed"
    ),
    "w64 of no known length": lambda: RecordingCase(
        (lambda raw: patch(raw, raw.index(b"data") + 16, b"\xff" * 7 + b"\x7f"))(
            encode_with_libsndfile("W64", "PCM_16")
        ),
        error=PCM,
    ),
    "wav without samples": lambda: RecordingCase(
        _make_wav(0, 46, b"", b"LIST\2\0\0\0ab"), num_samples=None, cause="no samples"
    ),
    "wav with a chunk behind": lambda: RecordingCase(
        _make_wav(48_022, 48_070, rest=b"LIST\2\0\0\0ab"), error=PCM
    ),
    "wav with an odd chunk": lambda: RecordingCase(_make_wav_with_odd_chunk(b"\0"), error=PCM),
    "wav with an odd chunk, no pad byte": lambda: RecordingCase(_make_wav_with_odd_chunk(b""), error=PCM),
    "aiff that says less": lambda: RecordingCase(
        (lambda raw: patch(raw, raw.index(b"COMM") + 10, (12_000).to_bytes(4, "big")))(
            encode_with_libsndfile("AIFF", "PCM_16")
        ),
        num_samples=None,
        cause="malformed: 12000 .*24011",
    ),
    "m4a with a hole": lambda: RecordingCase(
        patch(encode_with_ffmpeg("ipod", "aac"), 6_000, bytes(1_500)), num_samples=None, cause="damaged"
    ),
    "mp4 of two sounds": lambda: RecordingCase(
        encode_with_ffmpeg("mp4", "aac", streams=2), num_samples=None, cause="2 streams of sound"
    ),
    "mp4 without sound": lambda: RecordingCase(
        encode_with_ffmpeg("mp4", "aac", video=True, streams=0), num_samples=None, cause="no sound"
    ),
    "webm with a hole": lambda: RecordingCase(
        patch(encode_with_ffmpeg("webm", "libopus", 48_000, live="1"), 3_000, bytes(700)),
        48_000,
        None,
        cause="damaged|truncated",
    ),
    "ac-3 in mkv": lambda: RecordingCase(
        encode_with_ffmpeg("matroska", "ac3", 48_000), num_samples=None, cause="found sound as ac3.*ffmpeg"
    ),
    "wavpack": lambda: RecordingCase(
        encode_with_ffmpeg("wv", "wavpack"), num_samples=None, cause="WavPack.*ffmpeg"
    ),
    "avi": lambda: RecordingCase(
        encode_with_ffmpeg("avi", "pcm_s16le"), num_samples=None, cause="AVI.*ffmpeg"
    ),
}
