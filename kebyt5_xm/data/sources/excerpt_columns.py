"""The columns that hold the start and the length of the excerpt that a row takes of its recording."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.excerpt import Excerpt, parse_seconds
from kebyt5_xm.data.sources.template import MediaSegment, Segment, Template
from kebyt5_xm.errors import UserError, did_you_mean

IsRecording = Callable[[str], bool]
"""Whether a modality of a prompt takes recordings."""

NEMO_PATH, NEMO_START = "audio_filepath", "offset"
"""Columns of NeMo's manifests: the path of a recording, and where the row begins in it."""


@dataclass(frozen=True)
class ExcerptColumns:
    """Names of columns with times in seconds; None for a time that no column holds.

    Without `offset`, or where it is null or empty, an excerpt begins with its recording; without `duration`, it ends
    with it.
    """

    offset: str | None = None
    duration: str | None = None

    @classmethod
    def of(cls, offset: str | None, duration: str | None, layout: Layout | None = None) -> Self | None:
        """Return the columns that a source names, else those of its layout; None if rows take whole recordings."""
        if offset is None and duration is None and layout is not None:
            offset, duration = layout.offset, layout.duration
        return None if offset is None and duration is None else cls(offset, duration)

    def named(self) -> dict[str, str]:
        """Return the columns that there are: key of the source -> column."""
        keys = {"offset": self.offset, "duration": self.duration}
        return {key: column for key, column in keys.items() if column is not None}

    def check(self, columns: Collection[str], prompt: Template) -> None:
        """Raise `UserError` for a column that is not among `columns`, and for a prompt without media."""
        for key, column in self.named().items():
            if column not in columns:
                raise UserError(
                    f"found `{key}: {column}`, expected a column of the table: {', '.join(sorted(columns))}"
                    f"{did_you_mean(column, columns)}"
                )
        if not prompt.modalities:
            raise UserError(
                f"found {self._keys()}, expected a recording in the prompt {prompt.text!r}; write "
                "'{COLUMN:MODALITY}' in it, or leave the keys out"
            )

    def check_recordings(self, prompt: Template, is_recording: IsRecording) -> None:
        """Raise `UserError` unless the prompt takes recordings from exactly one column."""
        found = dict.fromkeys(column for column, name in _media_fields(prompt) if is_recording(name))
        if len(found) == 1:
            return
        if not found:
            media = ", ".join(f"{{{column}:{name}}}" for column, name in _media_fields(prompt))
            raise UserError(
                f"found {self._keys()} for {media}, which is no recording, expected a recording: only these have a "
                "start and a length in seconds; leave the keys out"
            )
        raise UserError(
            f"found {self._keys()} and recordings from the columns {', '.join(found)}, expected one column, because "
            "the times are those of one recording; give each its own source, or cut the files beforehand"
        )

    def cut(
        self, prompt: Template, segments: Sequence[Segment], row: Mapping[str, Any], is_recording: IsRecording
    ) -> list[Segment]:
        """Return the segments of a row with excerpts for its recordings.

        Raises `BadSample` for a time that is not a number of seconds, for an empty length, and if a column holds a
        list of recordings.
        """
        start, seconds = self._times(row)
        cut = [
            replace(segment, reference=Excerpt(segment.reference, start, seconds))
            if isinstance(segment, MediaSegment) and is_recording(segment.modality)
            else segment
            for segment in segments
        ]
        num_found = sum(new is not old for new, old in zip(cut, segments, strict=True))
        num_expected = sum(is_recording(name) for _, name in _media_fields(prompt))
        if num_found > num_expected:
            raise BadSample(
                f"found a list of recordings, expected one, because the source has {self._keys()}; give each a row "
                "of its own"
            )
        return cut

    def _times(self, row: Mapping[str, Any]) -> tuple[float, float | None]:
        start = _read_time(self.offset, row)
        seconds = _read_time(self.duration, row)
        if seconds == 0:
            raise BadSample(f"column '{self.duration}' is a length of 0 seconds, expected more")
        return start or 0.0, seconds

    def _keys(self) -> str:
        return " and ".join(f"`{key}: {column}`" for key, column in self.named().items())


def check_whole(prompt: Template, row: Mapping[str, Any], columns: ExcerptColumns | None) -> None:
    """Raise `BadSample` if a row of NeMo covers a part of its recording, but its source takes the whole."""
    if columns is not None and columns.offset is not None:
        return
    if any(column == NEMO_PATH for column, _ in _media_fields(prompt)):
        start = row.get(NEMO_START)
        if start not in (None, "", 0, "0", "0.0"):
            raise BadSample(
                f"the row is a part of its recording, from the offset {str(start)[:20]} s on, expected a whole "
                "recording; give `offset: offset` and `duration: duration`, or NeMo as `format`"
            )


def _read_time(column: str | None, row: Mapping[str, Any]) -> float | None:
    value = None if column is None else row.get(column)
    if value is None or value == "":
        return None
    try:
        return parse_seconds(value)
    except ValueError as error:
        raise BadSample(f"column '{column}' is {str(value)[:40]!r}, {error}") from None


def _media_fields(prompt: Template) -> list[tuple[str, str]]:
    """Return (column, modality) of the media in a prompt, in order."""
    pieces = (piece for piece in prompt.pieces() if not isinstance(piece, str))
    return [(column, name) for column, name in pieces if name is not None]
