"""The language of prompts and targets: text with `{column}`, `{column:modality}`, `{column:.1f}`, `{{` and `}}`.

    {image_path:image}\\n설명: {question}

`{column}` becomes the column's text; `{column:modality}` becomes the slots of one medium, and a list in the column
becomes one medium for each item. `{column:.1f}` is a number with one decimal (`.0f` to `.9f`), formatted as Python
does; no modality has a name with a dot. A column's name may hold anything but braces and colons.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.recordings.waveform import encode_wav, is_waveform
from kebyt5_xm.data.media.reference import FileSpan
from kebyt5_xm.errors import UserError, did_you_mean

Reference = str | bytes | FileSpan | Excerpt
"""A medium in a row: a path or URL as the row has it, a file's bytes, a stretch of an archive, or an `Excerpt`."""


@dataclass(frozen=True)
class MediaSegment:
    """One input of `modality`."""

    modality: str
    reference: Reference


Segment = str | bytes | MediaSegment
"""Text, a slot, or the bytes of a changed text, which need not be UTF-8 (only a `Change` makes bytes)."""

Change = Callable[[str, str], str | bytes]
"""(column, its text) -> the text to use instead."""


@dataclass(frozen=True)
class _Field:
    column: str
    modality: str | None
    decimals: int | None = None


_MAX_NUMBER_LENGTH = 40
"""The most characters of a number to round; a float has at most 24."""
_DECIMALS = re.compile(r"\.([0-9])f")

# An escaped brace, a field, or a brace that is neither.
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}:]+)(?::([^{}:]+))?\}|[{}]")


class Template:
    """A prompt or a target, parsed once; `render` fills it from a row."""

    def __init__(self, text: str):
        self.text = text
        self._parts = _parsed(text)
        fields = [part for part in self._parts if isinstance(part, _Field)]
        self.columns = tuple(dict.fromkeys(field.column for field in fields))
        """The columns used, each once, in order."""
        self.text_columns = tuple(dict.fromkeys(field.column for field in fields if field.modality is None))
        """The columns used as text."""
        self.modalities = tuple(
            dict.fromkeys(field.modality for field in fields if field.modality is not None)
        )
        """The modalities used, each once, in order."""

    @classmethod
    def if_valid(cls, text: Any) -> "Template | None":
        """Return the template of a recipe's value; None if a third-party source means something else by it."""
        try:
            return cls(text) if isinstance(text, str) else None
        except UserError:
            return None

    def pieces(self) -> list[str | tuple[str, str | None]]:
        """Return the literal texts and the fields (column, modality) of the template, in order."""
        return [part if isinstance(part, str) else (part.column, part.modality) for part in self._parts]

    def check(self, columns: Iterable[str], modalities: Iterable[str]) -> None:
        """Raise `UserError` if the template names an unknown column or modality."""
        for kind, used, known in (
            ("column", self.columns, sorted(columns)),
            ("modality", self.modalities, sorted(modalities)),
        ):
            for name in used:
                if name not in known:
                    raise UserError(
                        f"found the {kind} '{name}' in {self.text!r}, expected one of: "
                        f"{', '.join(known) or f'none, there is no {kind}'}{did_you_mean(name, known)}"
                    )

    def render(self, row: Mapping[str, Any], change: Change | None = None) -> list[Segment]:
        """Return the segments of a row: texts and slots in order, neighbouring texts joined, empty texts left out.

        `change` is applied to every text from a column, not to the template's literal text.

        Numbers and other scalars become their `str`. Raises `BadSample` if

        - a column is absent or null;
        - a column with decimals is not a number;
        - a text column is a list, a mapping, bytes that are not UTF-8, or holds a lone surrogate;
        - a slot's column is none of: a path, a file's bytes, a mapping with "bytes" or "path" (as in parquet files of
          Hugging Face datasets) or with "array" and "sampling_rate", or a non-empty list of these.
        """
        segments: list[Segment] = []
        for part in self._parts:
            if isinstance(part, str):
                added: list[Segment] = [part]
            elif part.modality is None:
                text = _text(part.column, _value(part.column, row))
                text = text if part.decimals is None else _rounded(part.column, text, part.decimals)
                added = [text if change is None else change(part.column, text)]
            else:
                value = _value(part.column, row)
                items = value if isinstance(value, list | tuple) else [value]
                if not items:
                    raise BadSample(f"column '{part.column}' is an empty list, expected at least one file")
                added = [MediaSegment(part.modality, _reference(part.column, item)) for item in items]
            for segment in added:
                before = segments[-1] if segments else None
                if isinstance(segment, MediaSegment) or before is None or isinstance(before, MediaSegment):
                    if segment:
                        segments.append(segment)
                else:
                    segments[-1] = _joined(before, segment)
        return segments


def _joined(first: str | bytes, second: str | bytes) -> str | bytes:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return as_bytes(first) + as_bytes(second)


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a text segment."""
    return text if isinstance(text, bytes) else text.encode()


def _parsed(text: str) -> list[str | _Field]:
    parts: list[str | _Field] = []
    position = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[position : token.start()])
        position = token.end()
        if token[1] is not None:
            decimals = _DECIMALS.fullmatch(token[2] or "")
            parts.append(_Field(token[1], None, int(decimals[1])) if decimals else _Field(token[1], token[2]))
        elif len(token[0]) == 2:
            parts.append(token[0][0])
        else:
            raise UserError(
                f"found '{token[0]}' at character {token.start()} of {text!r}, expected {{column}} or "
                "{column:modality}; write {{ or }} for the brace itself"
            )
    parts.append(text[position:])
    return [part for part in parts if part != ""]


def _value(column: str, row: Mapping[str, Any]) -> Any:
    if column not in row:
        raise BadSample(f"there is no column '{column}'{did_you_mean(column, row)}")
    if row[column] is None:
        raise BadSample(f"column '{column}' is null")
    return row[column]


def _text(column: str, value: Any) -> str:
    if isinstance(value, FileSpan):
        raise BadSample(f"column '{column}' is a file in a shard, expected text: .txt, .text, .cls or .json")
    if isinstance(value, bytes):  # of a binary column, in which many writers keep texts
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadSample(f"column '{column}' is bytes that are not UTF-8, expected text") from None
    if isinstance(value, list | tuple | Mapping):
        raise BadSample(f"column '{column}' is a {type(value).__name__}, expected text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadSample(f"column '{column}' is {value}, expected text or a finite number")
    return _whole(column, str(value))


def _rounded(column: str, text: str, decimals: int) -> str:
    """Return a number with so many decimals, half rounded to even, without a minus sign on zero."""
    try:
        number = Decimal(text.strip())
        rounded = round(number, decimals)
        if number.is_finite() and len(text) <= _MAX_NUMBER_LENGTH:
            return f"{abs(rounded) if rounded == 0 else rounded:.{decimals}f}"
    except (ArithmeticError, ValueError):
        pass
    raise BadSample(
        f"column '{column}' is {text[:40]!r}, expected a number to write with {decimals} decimals"
    )


def _whole(column: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSample(f"column '{column}' holds half a character (a lone surrogate)") from None
    return text


def _reference(column: str, value: Any) -> str | bytes | FileSpan:
    if isinstance(value, FileSpan):
        return value
    if isinstance(value, Mapping) and is_waveform(value):
        try:
            return encode_wav(value)
        except ValueError as error:
            raise BadSample(f"column '{column}' is a recording with {error}") from None
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if not isinstance(value, str | bytes) or not value:
        raise BadSample(f"column '{column}' is {str(value)[:40]!r}, expected the path of a file")
    return _whole(column, value) if isinstance(value, str) else value
