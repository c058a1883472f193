"""Recordings in folders, with a file of transcripts in each: LibriSpeech and sets made like it."""

from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, numbered_lines


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
