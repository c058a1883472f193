"""Layouts of text with a row a line: fields between delimiters (TSV, CSV), and files whose lines belong together."""

import csv
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, numbered_lines, raw_lines
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES
from kebyt5_xm.errors import UserError


class Delimited(Layout):
    """Rows of delimited text; the first line names the columns.

    As published: NSMC (`ratings_train.txt`: id, document, label), KorNLI (`snli_1.0_train.ko.tsv` and others:
    sentence1, sentence2, gold_label), KorSTS (`sts-train.tsv` and others: genre, ..., score, sentence1, sentence2);
    in none of them a quotation mark means anything. An empty field is null (some reviews of NSMC are), and so is
    every field of a line that has more or fewer than there are columns: such rows are skipped and counted. A column
    without a name, as pandas writes its index, is left out.

    Args:
        delimiter: what stands between two fields.
        quoting: `minimal` where a field with a delimiter in it is put into double quotes, and a double quote in it
            is doubled; `none` where quotation marks are ordinary characters.
        columns: the names of the columns where the first line is a row already; refused where it names them.
        encoding: of the file, such as `cp949`, or `utf-16` for what Excel calls Unicode text.
        root: the folder of media that a column names, from that of the file.

    Raises `UserError` where most lines do not have as many fields as there are columns.
    """

    def __init__(
        self,
        delimiter: str = "\t",
        quoting: Literal["none", "minimal"] = "none",
        columns: list[str] | None = None,
        encoding: str = "utf-8",
        root: str = ".",
    ) -> None:
        if not delimiter or (quoting == "minimal" and len(delimiter) > 1):
            raise UserError(f"found the delimiter {delimiter!r}, expected one character")
        check_encoding(encoding)
        self.delimiter, self.quoting, self.columns = delimiter, quoting, columns
        self.encoding, self.root = encoding, root

    def read(self, path: Path) -> Iterator[Row]:
        records = self._read_records(path)
        first = next(records, None)
        if first is None:
            return  # "no rows" is told for every layout
        columns = self.columns or self._read_header(first[1], path)
        if self.columns is not None:
            self._check_first(first[1], path)
            records = chain([first], records)
        used = [number for number, name in enumerate(columns) if name]
        good, odd = 0, []
        for line, fields in records:
            if len(fields) == len(columns):
                good += 1
                yield {**{columns[number]: fields[number] or None for number in used}, LINE: line}
            else:
                odd.append((line, len(fields)))
                yield {**{columns[number]: None for number in used}, LINE: line}
        if len(odd) > good:
            line, found = odd[0]
            raise UserError(
                f"line {line} of {path} has {found} fields, expected {len(columns)} ({', '.join(columns)[:200]}), "
                f"and it is so in {len(odd)} of {len(odd) + good} lines; correct `delimiter` or `columns`"
            )

    def _read_header(self, fields: list[str], path: Path) -> list[str]:
        """Return the columns that line 1 names; one without a name, as pandas writes its index, is in no row."""
        named = [name for name in fields if name]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"line 1 of {path} names the columns {', '.join(named)[:200]}, '{twice}' twice, expected each once; "
                "rename one, or, if line 1 is a row already, give the names as `columns`"
            )
        if not named:
            raise UserError(f"line 1 of {path} names no column, expected their names; give them as `columns`")
        return fields

    def _check_first(self, fields: list[str], path: Path) -> None:
        """Raise `UserError` if line 1 has the names that were given as `columns`: it would become a row."""
        filled = [(name, field) for name, field in zip(self.columns or (), fields, strict=False) if field]
        same = sum(name.casefold() == field.strip().casefold() for name, field in filled)
        if same and 2 * same >= len(filled):
            raise UserError(
                f"line 1 of {path} names the columns itself ({', '.join(fields)[:200]}), expected a row as "
                "`columns` is given; leave `columns` out"
            )

    def _read_records(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of every line that is not blank, with its number."""
        if self.quoting == "none":
            for number, text in numbered_lines(path, self.encoding):
                if text:
                    yield number, text.split(self.delimiter)
            return
        # Of this process; the library's own, 131,072 characters, is less than a long article has.
        csv.field_size_limit(MAX_ROW_BYTES)
        lines = (text for _, text in raw_lines(path, self.encoding))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        first = 1
        try:
            for fields in reader:
                if fields:
                    yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"line {first} of {path}: {error}; set `quoting: none` if quotation marks are ordinary characters"
            ) from None


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
