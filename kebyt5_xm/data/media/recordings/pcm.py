"""Recordings without a header, as KsponSpeech has them: 16-bit little-endian samples of one channel at 16 kHz.

Nothing in such a file tells what it is, so its name has to: a path, a URL or a file in a shard that ends in `.pcm`.
Bytes without a name are never taken for it, and a file so named that begins like a WAV, AIFF, CAF, AU, FLAC or Ogg
file is read as that. Some recordings of KsponSpeech have an odd number of bytes: the last one is half a sample,
and none.
"""

import os
from typing import Any, BinaryIO

from kebyt5_xm.data.media.reference import Local, Readable, Remote, Span

SUFFIX = ".pcm"
SAMPLE_RATE = 16_000  # Hz, as are the number of channels and of bits: Bang et al. 2020, KsponSpeech
SETTINGS: dict[str, Any] = {
    "samplerate": SAMPLE_RATE,
    "channels": 1,
    "format": "RAW",
    "subtype": "PCM_16",
    "endian": "LITTLE",
}
"""What libsndfile is told of them."""
HEADERS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff", b".snd", b"fLaC", b"OggS")


def is_headerless(source: Readable, stream: BinaryIO) -> bool:
    """Return whether `source`, opened as `stream`, is to be read as samples from its first byte on."""
    match source:
        case Local():
            name = source.name  # behind a link the file itself may be called anything
        case str() | os.PathLike():
            name = os.fspath(source)
        case Remote():
            name = source.name
        case Span():
            name = source.name
        case _:
            return False
    if not name.lower().endswith(SUFFIX):
        return False
    stream.seek(0)
    return stream.read(4) not in HEADERS
