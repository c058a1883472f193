"""Text to byte ids and back, and sentinel ids for removed spans.

The vocabulary is ByT5's (Xue et al. 2022, arXiv 2105.13626): three special ids, the 256 bytes, and extra ids. Text
never becomes a special id: "</s>" in a text is four bytes.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kebyt5_xm.errors import UserError, did_you_mean

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
BYTE_OFFSET = 3
"""The id of byte b is b + 3."""
FIRST_EXTRA_ID = BYTE_OFFSET + 256
EXTRA_IDS = 125
"""`<extra_id_0>` to `<extra_id_124>` of transformers' `ByT5Tokenizer`, from 259 on."""
VOCAB_SIZE = FIRST_EXTRA_ID + EXTRA_IDS
"""384: 3 special ids, 256 bytes, 125 extra ids."""

Sentinels = Literal["descending", "extra_id"]
"""Which ids stand for removed spans: `descending` is 258, 257, ..., as ByT5 and KEByT5 were pretrained;
`extra_id` is 259, 260, ..., as `ByT5Tokenizer` numbers `<extra_id_0>`, `<extra_id_1>`, ... The published
checkpoints never saw ids from 259 on."""

_FIRST = {"descending": FIRST_EXTRA_ID - 1, "extra_id": FIRST_EXTRA_ID}
_STEP = {"descending": -1, "extra_id": 1}
MAX_SENTINELS: dict[Sentinels, int] = {"descending": 11, "extra_id": EXTRA_IDS}
"""Number of sentinels that cannot occur in text: the bytes 0xFF down to 0xF5 never occur in UTF-8 (RFC 3629,
section 1), while 0xF4 begins valid characters; no extra id is a byte."""

_BYTE = np.dtype(np.uint8)
_OFFSET = np.array(BYTE_OFFSET, dtype=np.int16)
# Keeps an example on one line: line ends and tabs become visible signs, other control characters their code.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x09: "⇥",
    0x0A: "↵",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def encode(text: str) -> NDArray[np.int16]:
    """Return the byte ids of a text, without an end-of-sequence id.

    Raises UserError for a lone surrogate, which UTF-8 cannot encode.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"found the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, expected "
            "Unicode text; read the file as UTF-8, or give text.encode('utf-8', 'replace').decode()"
        ) from None
    return encode_bytes(raw)


def encode_bytes(raw: bytes | bytearray | memoryview) -> NDArray[np.int16]:
    """Return the ids of raw bytes, whether or not they are UTF-8."""
    # Casting and then adding in place is a third faster than one addition that casts, at any length.
    ids = np.frombuffer(raw, _BYTE).astype(np.int16)
    ids += _OFFSET
    return ids


def as_ids(ids: ArrayLike) -> NDArray[np.integer]:
    """Return the ids of one sequence as an array; integers beyond 64 bits stay Python integers.

    Raises UserError unless `ids` is one sequence of integers.
    """
    sequence = np.asarray(ids)
    if sequence.size == 0:
        return np.empty(0, dtype=np.int64)
    if sequence.ndim != 1:
        raise UserError(f"found ids of shape {sequence.shape}, expected one sequence; decode row by row")
    if sequence.dtype.kind in "iu":
        return sequence
    # NumPy converts lists that mix negative integers and integers beyond 63 bits to floats.
    whole = np.array(ids, dtype=object)
    if not all(isinstance(id_, int) for id_ in whole):
        raise UserError(
            f"found ids of type {sequence.dtype}, expected integers; take the argmax of logits first"
        )
    return whole


def decode_bytes(ids: ArrayLike) -> bytes:
    """Return the bytes among the ids of one sequence; special, extra and invalid ids are dropped.

    Raises UserError for ids that are not integers or not one sequence, never because of the value of an id.
    """
    sequence = as_ids(ids)
    is_byte = (sequence >= BYTE_OFFSET) & (sequence < BYTE_OFFSET + 256)
    return (sequence[is_byte.astype(bool)] - BYTE_OFFSET).astype(np.uint8).tobytes()


def decode(ids: ArrayLike) -> str:
    """Return the text of one sequence, with U+FFFD for invalid UTF-8. Accepts any ids, as `decode_bytes` does."""
    return decode_bytes(ids).decode("utf-8", "replace")


def sentinel_ids(sentinels: Sentinels, count: int) -> NDArray[np.int16]:
    """Return the first `count` sentinels of a convention, in the order in which spans use them.

    Raises UserError for more than `MAX_SENTINELS` of the convention, and for an unknown convention.
    """
    if sentinels not in MAX_SENTINELS:
        raise UserError(
            f"found sentinels '{sentinels}', expected one of {list(MAX_SENTINELS)}"
            f"{did_you_mean(sentinels, MAX_SENTINELS)}"
        )
    limit = MAX_SENTINELS[sentinels]
    if count > limit:
        remedy = "remove fewer spans" + (", or use sentinels: extra_id" if sentinels == "descending" else "")
        raise UserError(
            f"found {count} spans, expected at most {limit}, the {sentinels} sentinels that no text contains; "
            f"{remedy}"
        )
    return (_FIRST[sentinels] + _STEP[sentinels] * np.arange(count)).astype(np.int16)


def render(ids: ArrayLike, sentinels: Sentinels) -> str:
    r"""Return one readable line, for tables of samples.

    Sentinels appear as ⟨0⟩, ⟨1⟩, ...; invalid UTF-8 as \xe3; line ends as ↵, tabs as ⇥, other control
    characters by their code; the unknown id as ⟨unk⟩ and ids without a meaning in this convention as
    ⟨id 300⟩. Padding and end of sequence are dropped. A text may itself contain these signs.
    """
    names = {UNK_ID: "⟨unk⟩", PAD_ID: "", EOS_ID: ""}
    names |= {
        int(id_): f"⟨{number}⟩"
        for number, id_ in enumerate(sentinel_ids(sentinels, MAX_SENTINELS[sentinels]))
    }
    pieces: list[str] = []
    pending = bytearray()
    for id_ in as_ids(ids).tolist():
        if id_ not in names and 0 <= id_ - BYTE_OFFSET < 256:
            pending.append(id_ - BYTE_OFFSET)
        elif name := names.get(id_, f"⟨id {id_}⟩"):
            pieces += [_make_visible(pending), name]
            pending.clear()
    return "".join(pieces) + _make_visible(pending)


def _make_visible(raw: bytearray) -> str:
    return raw.decode("utf-8", "backslashreplace").translate(_VISIBLE)
