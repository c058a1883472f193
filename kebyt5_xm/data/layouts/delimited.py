"""Text with one row a line and its fields between delimiters: TSV and CSV."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import check_encoding, numbered_lines
from kebyt5_xm.errors import UserError


class Delimited(Layout):
    """Rows of delimited text; the first line names the columns.

    As published: NSMC (`ratings_train.txt`: id, document, label), KorNLI (`snli_1.0_train.ko.tsv` and others:
    sentence1, sentence2, gold_label), KorSTS (`sts-train.tsv` and others: genre, ..., score, sentence1, sentence2);
    in none of them a quotation mark means anything. An empty field is null (some reviews of NSMC are), and so is
    every field of a line that has more or fewer than there are columns: such rows are skipped and counted.

    Args:
        delimiter: what stands between two fields.
        quoting: `minimal` where a field with a delimiter in it is put into double quotes, and a double quote in it
            is doubled; `none` where quotation marks are ordinary characters.
        columns: the names of the columns where the first line is a row already.
        encoding: of the file.
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
        records = self._records(path)
        columns = self.columns or next(records, (0, []))[1]
        if "" in columns or len(set(columns)) < len(columns):
            raise UserError(
                f"line 1 of {path} names the columns {columns}, expected each once and none empty; if it is a row "
                "already, give the names as `columns`"
            )
        good, odd = 0, []
        for line, fields in records:
            if len(fields) == len(columns):
                good += 1
                values = [field or None for field in fields]
                yield {**dict(zip(columns, values, strict=True)), LINE: line}
            else:
                odd.append((line, len(fields)))
                yield {**dict.fromkeys(columns), LINE: line}
        if len(odd) > good:
            line, found = odd[0]
            raise UserError(
                f"line {line} of {path} has {found} fields, expected {len(columns)} ({', '.join(columns)[:200]}), "
                f"and it is so in {len(odd)} of {len(odd) + good} lines; correct `delimiter` or `columns`"
            )

    def _records(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of every line that is not blank, with its number."""
        lines = numbered_lines(path, self.encoding)
        if self.quoting == "none":
            for number, text in lines:
                if text:
                    yield number, text.split(self.delimiter)
            return
        reader = csv.reader((f"{text}\n" for _, text in lines), delimiter=self.delimiter, strict=True)
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
