"""FFmpeg's decoders, through PyAV: one thread, no word on the terminal, and every error is damage."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.reference import Refused
from kebyt5_xm.errors import UserError

STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""Of FFmpeg's decoders: damage that a checksum shows is an error."""


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
    names = (
        [f"libopencore_{codec}"] if codec.startswith("amr") else []
    )  # it knows pauses, FFmpeg's own does not
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
    samples = frame.to_ndarray()  # [channels, samples], or [1, samples x channels] where they are interleaved
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    waveform = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float64)
    if samples.dtype.kind == "u":
        waveform = waveform - 128.0
    scale = {"u": 1 / 128, "i": 1 / (1 << (8 * samples.dtype.itemsize - 1))}.get(samples.dtype.kind, 1.0)
    return (waveform * np.float32(scale)).astype(np.float32, copy=False)
