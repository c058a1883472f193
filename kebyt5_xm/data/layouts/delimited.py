"""Layouts of text files with one row per line: delimited fields (TSV, CSV), and parallel files aligned by line."""

import csv
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, read_lines, read_raw_lines
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES
from kebyt5_xm.errors import UserError


class Delimited(Layout):
    """Rows of delimited text; the first line names the columns.

    Published files: NSMC (`ratings_train.txt`: id, document, label), KorNLI (`snli_1.0_train.ko.tsv` and others:
    sentence1, sentence2, gold_label), KorSTS (`sts-train.tsv` and others: genre, ..., score, sentence1, sentence2).
    Quotation marks have no special meaning in them. An empty field is null (as in some NSMC reviews). If a line has
    more or fewer fields than there are columns, all its fields are null, so its row is skipped and counted. A column
    without a name, as pandas writes its index, is left out.

    Args:
        delimiter: the text between two fields.
        quoting: `minimal` if fields with a delimiter are put in double quotes, with inner double quotes doubled;
            `none` if quotation marks are ordinary characters.
        columns: the column names, if the first line is a row; refused if the first line names them itself.
        encoding: of the file, such as `cp949`, or `utf-16` for Excel's "Unicode text".
        root: the folder that media paths are relative to, given relative to the file's folder.

    Raises `UserError` if most lines have a wrong number of fields.
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
            return  # the caller reports "no rows" for every layout
        columns = self.columns or self._read_header(first[1], path)
        if self.columns is not None:
            self._check_first(first[1], path)
            records = chain([first], records)
        used = [number for number, name in enumerate(columns) if name]
        num_good, bad = 0, []
        for line, fields in records:
            if len(fields) == len(columns):
                num_good += 1
                yield {**{columns[number]: fields[number] or None for number in used}, LINE: line}
            else:
                bad.append((line, len(fields)))
                yield {**{columns[number]: None for number in used}, LINE: line}
        if len(bad) > num_good:
            line, found = bad[0]
            raise UserError(
                f"line {line} of {path} has {found} fields, expected {len(columns)} ({', '.join(columns)[:200]}); "
                f"the number is wrong in {len(bad)} of {len(bad) + num_good} lines: correct `delimiter` or `columns`"
            )

    def _read_header(self, fields: list[str], path: Path) -> list[str]:
        """Return the column names in line 1; some may be empty. Raise `UserError` if all are, or one is repeated."""
        names = [name for name in fields if name]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise UserError(
                f"line 1 of {path} names the columns {', '.join(names)[:200]} and repeats '{repeated}', expected "
                "each once; rename one, or give the names as `columns` if line 1 is a row"
            )
        if not names:
            raise UserError(
                f"line 1 of {path} names no column, expected column names; give them as `columns`"
            )
        return fields

    def _check_first(self, fields: list[str], path: Path) -> None:
        """Raise `UserError` if line 1 holds the names given as `columns`, since it would become a row."""
        filled = [(name, field) for name, field in zip(self.columns or (), fields, strict=False) if field]
        same = sum(name.casefold() == field.strip().casefold() for name, field in filled)
        if same and 2 * same >= len(filled):
            raise UserError(
                f"line 1 of {path} names the columns itself ({', '.join(fields)[:200]}), expected a row because "
                "`columns` is given; leave `columns` out"
            )

    def _read_records(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, fields) of every line that is not blank."""
        if self.quoting == "none":
            for number, text in read_lines(path, self.encoding):
                if text:
                    yield number, text.split(self.delimiter)
            return
        # The limit is per process. The default of 131,072 characters is too short for long articles.
        csv.field_size_limit(MAX_ROW_BYTES)
        lines = (text for _, text in read_raw_lines(path, self.encoding))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        first = 1
        try:
            for fields in reader:
                if fields:
                    yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"line {first} of {path} is not valid CSV ({error}), expected quotes in pairs; set `quoting: none` "
                "if quotation marks are ordinary characters"
            ) from None


class AlignedText(Layout):
    """Parallel files aligned by line: one column per file, one row per line. The data set's path is their folder.

    Published files: the Korean parallel corpora (`korean-english-park.train.ko`, `.en`), OPUS in Moses format
    (`TED2020.ja-ko.ja`, `TED2020.ja-ko.ko`), FLORES-200 (`kor_Hang.devtest`, `eng_Latn.devtest`). An empty line is
    null.

    Args:
        columns: column -> name of its file in the folder.
        encoding: of the files.
    """

    def __init__(self, columns: dict[str, str], encoding: str = "utf-8") -> None:
        if len(columns) < 2:
            raise UserError(
                f"found the columns {list(columns)}, expected two or more, each with its file name"
            )
        check_encoding(encoding)
        self.columns, self.encoding = columns, encoding

    def files(self, path: Path) -> list[Path]:
        return [path / name for name in self.columns.values()]

    def read(self, path: Path) -> Iterator[Row]:
        files = self.files(path)
        readers = [read_lines(file, self.encoding) for file in files]
        for number, lines in enumerate(zip_longest(*readers), 1):
            if None in lines:
                ended = files[lines.index(None)]
                raise UserError(
                    f"{ended} ends before line {number}, expected as many lines in each of "
                    f"{', '.join(self.columns.values())}; get them again"
                )
            texts = [text.strip() or None for _, text in lines]
            yield {**dict(zip(self.columns, texts, strict=True)), LINE: number}
