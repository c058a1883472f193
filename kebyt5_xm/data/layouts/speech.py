"""Layouts of recordings and what is said in them: LibriSpeech and sets made like it, and KsponSpeech."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, numbered_lines
from kebyt5_xm.errors import UserError

SEPARATOR = "::"
CHOICE = re.compile(r"\(([^()]*)\)\s*/\s*\(([^()]*)\)")
"""`(spelling)/(pronunciation)`."""
NOISE = re.compile(r"(?<![A-Za-z0-9])[blonu]/")
"""Breath, laughter, a mixture of speakers or other speech, noise, words that cannot be understood."""
MARKS = re.compile(r"[+*/]")
"""A word begun again, a word hard to understand, and the slash behind an interjection."""
PUNCTUATION = re.compile(r"[.,?!]")


class Transcripts(Layout):
    """One row a recording: `id`, `audio`, `text`. The path of the data set is a folder, with folders in it.

    As published: LibriSpeech (`train-clean-100/103/1240/103-1240.trans.txt`, beside `103-1240-0000.flac` and others)
    and Zeroth-Korean (`train_data_01/003/106/106_003.trans.txt`, beside `106_003_0000.flac` and others). A line is a
    recording's name, a space and its text.

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
            for number, line in numbered_lines(file, self.encoding):
                name, _, text = line.strip().partition(" ")
                if name:
                    audio = (folder / f"{name}.{self.extension}").as_posix()
                    place = {FILE: str(file), LINE: number}
                    yield {"id": name, "audio": audio, "text": text.strip() or None, **place}


class KsponSpeech(Layout):
    """One row a recording: `audio` and `text`, from lines `PATH :: TEXT`.

    As published (`KsponSpeech_scripts/train.trn`, `dev.trn`, `eval_clean.trn`, `eval_other.trn`; AI Hub). Recordings
    are headerless PCM (`.pcm`), see `kebyt5_xm.data.media.recordings.audio`. Of each `(spelling)/(pronunciation)` one
    is taken. Noise
    marks (`b/`, `l/`, `o/`, `n/`, `u/`) are left out; `+`, `*` and the slash behind an interjection are taken off
    their words, outside of a chosen spelling (`1/2`, `C++`). `text` is null, so that the row is skipped, where
    nothing is left, or a parenthesis that belongs to no choice.

    Args:
        spelling: which side of a choice: `spelling` (`70%`) or `pronunciation` (`칠 십 퍼센트`).
        punctuation: `kept` or `removed`: full stops, commas, question and exclamation marks.
        encoding: of the list.
        root: the folder that the paths in the list start from, from that of the list: the lists lie in a folder of
            their own beside the recordings' folders.
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
        for number, line in numbered_lines(path, self.encoding):
            if not line.strip():
                continue
            audio, separator, text = line.partition(SEPARATOR)
            if not separator or not audio.strip():
                raise UserError(
                    f"line {number} of {path} is {line[:60]!r}, expected 'PATH {SEPARATOR} TEXT'; is it another file?"
                )
            yield {"audio": audio.strip(), "text": self.plain(text), LINE: number}

    def plain(self, text: str) -> str | None:
        """Return a transcript without its marks, or None if nothing can be made of it."""
        pieces = CHOICE.split(text)  # text, spelling, pronunciation, text, ...
        if any(bracket in piece for piece in pieces[::3] for bracket in "()"):
            return None
        found = []
        for between, spelled, said in zip(pieces[::3], [*pieces[1::3], ""], [*pieces[2::3], ""], strict=True):
            found.append(MARKS.sub("", NOISE.sub(" ", between)))
            found.append(spelled if self.spelling == "spelling" else MARKS.sub("", NOISE.sub(" ", said)))
        joined = "".join(found)
        if self.punctuation == "removed":
            joined = PUNCTUATION.sub(" ", joined)
        return " ".join(joined.split()) or None
