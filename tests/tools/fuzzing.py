"""Settings of the fuzz tests, a small image, and random mutations of files."""

import io
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

LONG = "KEBYT5_XM_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("KEBYT5_XM_FUZZ", "500"))
FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=not LONG,  # `make test` tries the same files every time, `make fuzz` new ones
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
STRUCTURE_FUZZ = FUZZ if LONG else settings(FUZZ, max_examples=EXAMPLES // 5)
"""For tests that build whole files from drawn parts, which is slower."""


def encode_image(format: str = "PNG", mode: str = "RGB") -> bytes:
    """Return a small image file; mutations of a larger one would rarely hit anything else in an archive."""
    buffer = io.BytesIO()
    Image.effect_mandelbrot((19, 13), (-2, -1, 1, 1), 20).convert(mode).save(buffer, format)
    return buffer.getvalue()


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Draw one to five (kind, position as a share of the file, data); half the positions are in the first tenth."""
    position = st.one_of(st.floats(0, 0.1), st.floats(0, 1))
    kind = st.sampled_from(["replace", "insert", "cut", "repeat", "end"])
    special = st.sampled_from(
        [b"\0", b"\n", b'"', b"\xff\xff\xff\xff", b"{", b"\xe3\x81", b"\x7f\xff\xff\xff"]
    )
    data = st.one_of(special, st.binary(min_size=1, max_size=9))
    return draw(st.lists(st.tuples(kind, position, data), min_size=1, max_size=5))


def mutate(raw: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Return a file with changes drawn from `mutations`."""
    for kind, position, data in changes:
        at = int(position * len(raw))
        if kind == "replace":
            raw = raw[:at] + data + raw[at + len(data) :]
        elif kind == "insert":
            raw = raw[:at] + data + raw[at:]
        elif kind == "cut":
            raw = raw[:at] + raw[at + 7 * len(data) :]
        elif kind == "repeat":
            raw = raw[:at] + raw[at // 2 :]
        else:
            raw = raw[:at]
    return raw
