"""Parallel corpora: text files whose lines with one number belong together."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, numbered_lines
from kebyt5_xm.errors import UserError


class AlignedText(Layout):
    """One row a line number, with a column a file. The path of the data set is the folder of the files.

    As published: the Korean parallel corpora (`korean-english-park.train.ko`, `.en`), OPUS in the format of Moses
    (`TED2020.ja-ko.ja`, `TED2020.ja-ko.ko`), FLORES-200 (`kor_Hang.devtest`, `eng_Latn.devtest`). An empty line is
    null.

    Args:
        columns: column -> name of its file in the folder.
        encoding: of the files.
    """

    def __init__(self, columns: dict[str, str], encoding: str = "utf-8") -> None:
        if len(columns) < 2:
            raise UserError(f"found the columns {list(columns)}, expected two or more, each with its file")
        check_encoding(encoding)
        self.columns, self.encoding = columns, encoding

    def files(self, path: Path) -> list[Path]:
        return [path / name for name in self.columns.values()]

    def read(self, path: Path) -> Iterator[Row]:
        files = self.files(path)
        readers = [numbered_lines(file, self.encoding) for file in files]
        for number, lines in enumerate(zip_longest(*readers), 1):
            if None in lines:
                ended = files[lines.index(None)]
                raise UserError(
                    f"{ended} ends before line {number}, expected as many lines in each of "
                    f"{', '.join(self.columns.values())}; get them again"
                )
            texts = [text.strip() or None for _, text in lines]
            yield {**dict(zip(self.columns, texts, strict=True)), LINE: number}
