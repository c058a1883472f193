"""Layouts of recordings with transcripts: LibriSpeech, Zeroth-Korean and KsponSpeech."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, read_lines
from kebyt5_xm.errors import UserError

SEPARATOR = "::"
CHOICE = re.compile(r"\(([^()]*)\)\s*/\s*\(([^()]*)\)")
"""`(spelling)/(pronunciation)`."""
NOISE = re.compile(r"(?<![A-Za-z0-9])[blonu]/")
"""Marks of breath, laughter, overlapping speech, noise and unintelligible words."""
MARKS = re.compile(r"[+*/]")
"""Marks of a repeated word start, an unclear word, and an interjection (the slash after it)."""
PUNCTUATION = re.compile(r"[.,?!]")


class Transcripts(Layout):
    """One row per recording: `id`, `audio`, `text`. The data set's path is a folder, searched with its subfolders.

    Published files: LibriSpeech (`train-clean-100/103/1240/103-1240.trans.txt`, next to `103-1240-0000.flac` and
    others) and Zeroth-Korean (`train_data_01/003/106/106_003.trans.txt`, next to `106_003_0000.flac` and others). A
    line is the name of a recording, a space and its text.

    Args:
        extension: of the recordings.
        encoding: of the transcripts.
    """

    def __init__(self, extension: str = "flac", encoding: str = "utf-8") -> None:
        check_encoding(encoding)
        self.extension, self.encoding = extension.removeprefix("."), encoding

    def files(self, path: Path) -> list[Path]:
        return sorted(path.rglob("*.trans.txt"))

    def read(self, path: Path) -> Iterator[Row]:
        for file in self.files(path):
            folder = file.parent.relative_to(path.parent)
            for number, line in read_lines(file, self.encoding):
                name, _, text = line.strip().partition(" ")
                if name:
                    audio = (folder / f"{name}.{self.extension}").as_posix()
                    place = {FILE: str(file), LINE: number}
                    yield {"id": name, "audio": audio, "text": text.strip() or None, **place}


class KsponSpeech(Layout):
    """One row per recording: `audio` and `text`, from lines `PATH :: TEXT`.

    Published files: `KsponSpeech_scripts/train.trn`, `dev.trn`, `eval_clean.trn`, `eval_other.trn` (AI Hub).
    Recordings are headerless PCM (`.pcm`), see `kebyt5_xm.data.media.recordings.audio`. One side of each
    `(spelling)/(pronunciation)` is used. Noise marks (`b/`, `l/`, `o/`, `n/`, `u/`) are removed, and so are `+`, `*`
    and the slash after an interjection, except within a chosen spelling (`1/2`, `C++`). If nothing is left, or a
    parenthesis belongs to no such pair, `text` is null and the row is skipped.

    Args:
        spelling: the side to use: `spelling` (`70%`) or `pronunciation` (`칠 십 퍼센트`).
        punctuation: `kept` or `removed`: full stops, commas, question and exclamation marks.
        encoding: of the list.
        root: the folder that the paths in the list are relative to, given relative to the list's folder. The lists
            are published in a folder next to the folders of recordings.
    """

    def __init__(
        self,
        spelling: Literal["spelling", "pronunciation"] = "spelling",
        punctuation: Literal["kept", "removed"] = "kept",
        encoding: str = "utf-8",
        root: str = "..",
    ) -> None:
        check_encoding(encoding)
        self.spelling, self.punctuation, self.encoding, self.root = spelling, punctuation, encoding, root

    def read(self, path: Path) -> Iterator[Row]:
        for number, line in read_lines(path, self.encoding):
            if not line.strip():
                continue
            audio, separator, text = line.partition(SEPARATOR)
            if not separator or not audio.strip():
                raise UserError(
                    f"line {number} of {path} is {line[:60]!r}, expected 'PATH {SEPARATOR} TEXT'; give a list of "
                    "KsponSpeech, or correct `format`"
                )
            yield {"audio": audio.strip(), "text": self.plain(text), LINE: number}

    def plain(self, text: str) -> str | None:
        """Return a transcript without its marks, or None if it has no usable text."""
        pieces = CHOICE.split(text)  # text, spelling, pronunciation, text, ...
        if any(bracket in piece for piece in pieces[::3] for bracket in "()"):
            return None
        found = []
        pairs = zip(pieces[::3], [*pieces[1::3], ""], [*pieces[2::3], ""], strict=True)
        for between, spelling, pronunciation in pairs:
            found.append(MARKS.sub("", NOISE.sub(" ", between)))
            found.append(
                spelling if self.spelling == "spelling" else MARKS.sub("", NOISE.sub(" ", pronunciation))
            )
        joined = "".join(found)
        if self.punctuation == "removed":
            joined = PUNCTUATION.sub(" ", joined)
        return " ".join(joined.split()) or None
