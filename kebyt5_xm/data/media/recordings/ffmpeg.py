"""FFmpeg's decoders, through PyAV: one thread, no word on the terminal, and every error is damage."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.reference import Refused
from kebyt5_xm.errors import UserError

STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""Of FFmpeg's decoders: damage that a checksum shows is an error."""

DTYPES = {
    "flt": np.float32,
    "dbl": np.float64,
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
}
"""By FFmpeg's names of sample formats, without the "p" of planar ones."""


def pyav() -> Any:
    """Return PyAV, which keeps FFmpeg silent unless it is told otherwise."""
    try:
        import av
    except ImportError:
        raise UserError(
            "found a compressed recording but no PyAV (av); install it: pip install 'kebyt5-xm[audio]'"
        ) from None
    return av


def decode_packets(codec: str, packets: Iterable[bytes], sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield one channel of float32 for `packets` of a stream without a container."""
    av = pyav()
    # OpenCORE knows pauses, FFmpeg's own decoder does not.
    names = [f"libopencore_{codec}"] if codec.startswith("amr") else []
    context = next(
        av.CodecContext.create(name, "r") for name in (*names, codec) if name in av.codecs_available
    )
    context.options = dict(STRICT)
    context.thread_count = 1
    for packet in packets:
        yield from decode(context, av.Packet(packet), sample_rate)
    yield from decode(context, None, sample_rate)


def decode(context: Any, packet: Any, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield one channel of float32 for a packet; None is for what the decoder still holds."""
    try:
        frames = context.decode(packet)
    except pyav().error.FFmpegError as error:
        raise Refused(f"truncated or damaged: a packet cannot be decoded ({error.strerror})") from None
    for frame in frames:
        if frame.is_corrupt:
            raise Refused("damaged: the decoder found a corrupt frame")
        if frame.sample_rate != sample_rate:
            raise Refused(
                f"its header says {sample_rate} Hz, its sound has {frame.sample_rate} Hz (HE-AAC?); convert it to "
                "FLAC or WAV"
            )
        yield mono(frame)


def mono(frame: Any) -> NDArray[np.float32]:
    """Return the mean of the channels of a frame, [samples], integers as shares of their range."""
    name, count = frame.format.name, frame.samples
    dtype = DTYPES[name.removesuffix("p")]
    if name.endswith("p"):  # planar: each channel has its own buffer
        channels = [np.frombuffer(plane, dtype, count) for plane in frame.planes]
    else:
        width = len(frame.layout.channels)
        channels = list(np.frombuffer(frame.planes[0], dtype, count * width).reshape(count, width).T)
    waveform = channels[0] if len(channels) == 1 else np.mean(channels, axis=0, dtype=np.float64)
    if dtype is np.uint8:
        waveform = (waveform - 128.0) / 128
    elif np.issubdtype(dtype, np.integer):
        waveform = waveform / np.float64(1 << (8 * dtype().itemsize - 1))
    return np.asarray(waveform, dtype=np.float32)
