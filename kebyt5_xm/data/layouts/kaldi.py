"""The layout of Kaldi's data directories. Commands in a `wav.scp` are refused, never run."""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import read_lines
from kebyt5_xm.data.media.bad_sample import shorten
from kebyt5_xm.errors import UserError, did_you_mean

RECORDINGS, SEGMENTS, TEXT, SPEAKERS = "wav.scp", "segments", "text", "utt2spk"
BLANKS = " \t\r"
IN_ARCHIVE = re.compile(r"(ark|scp)(,\w+)*:|.*:\d+(\[[^]]*\])?$")
"""A place in one of Kaldi's archives: `FILE:BYTE`, with a range of rows behind, or a whole archive."""
TO_THE_END = -1
"""The end of a segment that goes on to the end of its recording."""


class Kaldi(Layout):
    """One row per utterance: `id`, `audio`, `offset` and `duration` in seconds, `text` and `speaker`.

    The data set's path is the directory (kaldi-asr.org/doc/data_prep.html). `wav.scp` names the recordings, a path
    behind an id, which may contain blanks. `segments` cuts them into utterances: id, recording, start, end, where an
    end of -1 is the end of the recording. Without it every recording is an utterance. `text` and `utt2spk` may be
    missing, and so may single utterances in them; their `text` or `speaker` is then null.

    Args:
        root: the folder that paths are relative to, given relative to the folder that the directory is in. Kaldi's
            scripts run in `egs/NAME/s5`, and the directory is `egs/NAME/s5/data/train`.

    Raises `UserError` with file and line for a command or an archive instead of a path, an id that comes twice or is
    unknown, a channel in `segments`, and a time that is no number.
    """

    offset, duration = "offset", "duration"

    def __init__(self, root: str = "..") -> None:
        self.root = root

    def files(self, path: Path) -> list[Path]:
        optional = [path / name for name in (SEGMENTS, TEXT, SPEAKERS)]
        return [path / RECORDINGS, *(file for file in optional if file.is_file())]

    def read(self, path: Path) -> Iterator[Row]:
        recordings = {}
        for name, (number, entry) in _read_table(path / RECORDINGS).items():
            recordings[name] = number, _check_path(entry, f"line {number} of {path / RECORDINGS}")
        texts, speakers = _read_table(path / TEXT), _read_table(path / SPEAKERS)
        if (path / SEGMENTS).is_file():
            utterances = _read_table(path / SEGMENTS)
            listing = path / SEGMENTS
        else:
            utterances, listing = recordings, path / RECORDINGS
        for name, (number, _) in texts.items():
            if name not in utterances:
                raise UserError(
                    f"line {number} of {path / TEXT} has the utterance '{name}', expected one of {listing}"
                    f"{did_you_mean(name, utterances)}; utils/fix_data_dir.sh mends the directory"
                )
        for name, (number, entry) in utterances.items():
            recording, start, seconds = name, None, None
            if listing.name == SEGMENTS:
                recording, start, seconds = _parse_segment(entry, f"line {number} of {listing}")
                if recording not in recordings:
                    raise UserError(
                        f"line {number} of {listing} has the recording '{recording}', expected one of "
                        f"{path / RECORDINGS}{did_you_mean(recording, recordings)}; utils/fix_data_dir.sh mends the "
                        "directory"
                    )
            yield {
                "id": name,
                "audio": recordings[recording][1],
                "offset": start,
                "duration": seconds,
                "text": texts.get(name, (0, ""))[1] or None,
                "speaker": speakers.get(name, (0, ""))[1] or None,
                LINE: number,
                FILE: str(listing),
            }


def _read_table(path: Path) -> dict[str, tuple[int, str]]:
    """Return id -> (line, the rest of it), in order; nothing if there is no such file."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(path) if path.is_file() else ():
        name, *rest = re.split(f"[{BLANKS}]+", line.strip(BLANKS), maxsplit=1)
        if name in found:
            raise UserError(
                f"line {number} of {path} has the id '{name}' of line {found[name][0]}, expected each once"
            )
        if name:
            found[name] = number, rest[0] if rest else ""
    return found


def _check_path(entry: str, place: str) -> str:
    """Return a path in `wav.scp`; raise `UserError` for what Kaldi would run or read from elsewhere."""
    shown = shorten(entry, 100)
    if entry.endswith("|") or entry.startswith("|"):
        raise UserError(
            f"{place} is the command '{shown}', expected the path of a recording: commands are never run; write its "
            "output to a file once, COMMAND > FILE.wav, and name the file"
        )
    if entry == "-" or IN_ARCHIVE.match(entry):
        found = "standard input" if entry == "-" else f"a place in an archive, '{shown}'"
        raise UserError(
            f"{place} is {found}, expected the path of a recording; write it to a file (wav-copy) and name the file"
        )
    if not entry:
        raise UserError(f"{place} has an id alone, expected a path behind it; correct the line")
    return entry


def _parse_segment(entry: str, place: str) -> tuple[str, float, float | None]:
    """Return the recording, start and length of a segment, None for a length to its end.

    A length that is not above 0 stays, and is refused with its row.
    """
    fields = re.split(f"[{BLANKS}]+", entry)
    if len(fields) == 4:
        raise UserError(
            f"{place} has the channel '{shorten(fields[3], 40)}', expected none, because channels are averaged; "
            "write each to a recording of its own"
        )
    times: list[Decimal] = []
    for field in fields[1:]:
        try:
            times += [Decimal(field)] if math.isfinite(float(field)) else []
        except (ValueError, ArithmeticError):
            break
    if len(fields) != 3 or len(times) != 2:
        raise UserError(
            f"{place} has '{shorten(entry, 100)}' behind its id, expected a recording and its start and end in "
            "seconds; correct the line"
        )
    start, end = times
    return fields[0], float(start), None if end == TO_THE_END else float(end - start)
