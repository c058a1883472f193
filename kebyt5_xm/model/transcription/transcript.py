"""A transcript: words with their times in a recording, as text, JSON, SRT and WebVTT."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unicodedata import east_asian_width

Format = Literal["text", "json", "srt", "vtt"]
PAUSE_SECONDS = 0.8
"""A pause between words that ends a subtitle. Our own choice."""
MAX_CUE_SECONDS = 7.0
"""Longest subtitle: six to seven seconds (Karamitroglou 1998, "A proposed set of subtitling standards in Europe")."""
LINE_COLUMNS, MAX_LINES = 42, 2
"""Most columns of a line and lines of a subtitle, as there; a Korean syllable has two columns."""


@dataclass(frozen=True)
class TimedWord:
    """A word, between white space, and when it is said, in seconds of the recording.

    `confidence` is the probability that the model writes it after what stands before it.
    """

    text: str
    start: float
    stop: float
    confidence: float


@dataclass(frozen=True)
class Cue:
    """The words of one subtitle."""

    words: tuple[TimedWord, ...]

    @property
    def text(self) -> str:
        """The words, with spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        """When its first word begins, in seconds."""
        return self.words[0].start

    @property
    def stop(self) -> float:
        """When its last word ends, in seconds."""
        return self.words[-1].stop

    def lines(self) -> list[str]:
        """Return its text in lines of `LINE_COLUMNS`; a longer word is not cut."""
        lines = [""]
        for word in self.words:
            joined = f"{lines[-1]} {word.text}" if lines[-1] else word.text
            if lines[-1] and columns(joined) > LINE_COLUMNS:
                lines.append(word.text)
            else:
                lines[-1] = joined
        return lines


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording.

    Args:
        words: in order.
        seconds: length of the recording.
    """

    words: tuple[TimedWord, ...]
    seconds: float

    @property
    def text(self) -> str:
        """All words, with spaces."""
        return " ".join(word.text for word in self.words)

    def cues(self) -> list[Cue]:
        """Return the words in subtitles: one ends at a pause, after `MAX_CUE_SECONDS` and after `MAX_LINES`."""
        return [Cue(tuple(words)) for words in _group(self.words)]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; times are in seconds, to the millisecond."""
        words = [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.stop, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in self.words
        ]
        return {"text": self.text, "seconds": round(self.seconds, 3), "words": words}

    def format(self, name: Format) -> str:
        """Return the whole in a format, with a line end."""
        if name == "json":
            return json.dumps(self.as_dict(), ensure_ascii=False) + "\n"
        if name == "text":
            return self.text + "\n"
        return self.srt() if name == "srt" else self.vtt()

    def srt(self) -> str:
        """Return SubRip subtitles."""
        return "\n".join(
            f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.stop, ',')}\n{_plain(cue)}\n"
            for number, cue in enumerate(self.cues(), 1)
        )

    def vtt(self) -> str:
        """Return WebVTT subtitles (w3.org/TR/webvtt1)."""
        cues = (
            f"{_clock(cue.start, '.')} --> {_clock(cue.stop, '.')}\n{_escape(_plain(cue))}\n"
            for cue in self.cues()
        )
        return "\n".join(("WEBVTT\n", *cues))


def columns(text: str) -> int:
    """Return the columns of a text: two for a wide character."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _group(words: Sequence[TimedWord]) -> Iterator[list[TimedWord]]:
    group: list[TimedWord] = []
    for word in words:
        if group and (
            word.start - group[-1].stop >= PAUSE_SECONDS
            or word.stop - group[0].start > MAX_CUE_SECONDS
            or len(Cue((*group, word)).lines()) > MAX_LINES
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}"
        f"{point}{milliseconds % 1000:03}"
    )


def _plain(cue: Cue) -> str:
    return "\n".join(cue.lines()).replace("-->", "→")  # the arrow of a cue's times


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
