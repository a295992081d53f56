"""Read people's tables of messages: the one reader for training, file scoring and the chat.

It reads .csv and .tsv with any usual separator, .jsonl, .json, .xlsx, and .txt with one message a line; all but .xlsx
also compressed. Reading is by rows, so a file may be longer than memory; only a workbook is held whole.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from text_classifier.characters import replace_half_surrogates
from text_classifier.reading.columns import TEXT_COLUMN_NAMES, has_known_name, may_be_header, name_columns
from text_classifier.reading.decoding import Source, find_encoding, open_source
from text_classifier.reading.labels import FASTTEXT_LABEL
from text_classifier.reading.notes import Note, TableError
from text_classifier.reading.separators import Layout, find_layout, parse
from text_classifier.reading.workbooks import read_workbook

Rows = Iterator[tuple[int, list[str]]]
"""Rows with the number of the line that each one ends in; blank cells at their ends are left out."""

# Rows that decide whether the first one has the names of columns.
_SAMPLE_ROWS = 1000

# A message that was not put in quotation marks has this many cells at most, times the limit of columns.
_CELLS_PER_COLUMN = 100

# The csv module refuses longer cells. Its own limit of 131,072 characters is less than people paste.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Limits:
    """What is read at most. By default it is what Excel takes, so that a workbook that states more is no trap."""

    rows: int | None = None
    columns: int = 16_384
    unpacked_bytes: int | None = None
    """Of a workbook, which is a zip archive."""


@dataclass(frozen=True)
class Table:
    """A file of messages whose rows can be read again and again."""

    columns: list[str]
    rows: int
    notes: list[Note]
    """How it was read, where that is not plain."""
    _body: Callable[[], Iterator[list[str]]] = field(repr=False)
    """Returns the rows below the header, each with as many cells as there are columns."""
    _joined: dict | None = None
    """The first row whose surplus cells were joined, for the error if that was wrong."""

    def chunks(self, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the rows in tables of strings with `rows` rows each; an empty cell is ""."""
        body = self._body()
        while chunk := list(itertools.islice(body, rows)):
            yield pd.DataFrame(chunk, columns=self.columns, dtype=str)

    def frame(self) -> pd.DataFrame:
        """Return all rows as one table of strings; an empty cell is ""."""
        return pd.DataFrame(list(self._body()), columns=self.columns, dtype=str)

    def check_surplus(self, text_columns: Sequence[str]) -> None:
        """Check that cells were only joined where that gives whole messages: in the last column, if it is the text.

        Raises:
            TableError: rows have more cells than there are columns, and nobody knows which belong together.
        """
        if self._joined and self.columns[-1] not in text_columns:
            raise TableError("file_uneven", **self._joined)


def open_table(
    path: Path,
    name: str | None = None,
    *,
    encoding: str | None = None,
    header: bool | None = None,
    sheet: str | None = None,
    wanted: Sequence[str] = (),
    limits: Limits | None = None,
) -> Table:
    """Find out how a file is to be read, and read it once, so that an error in its last row shows at once.

    Args:
        name: its name, where `path` has another; its ending tells the format.
        encoding: of a text file; found if not given.
        header: whether the first row has the names of columns; found if not given.
        sheet: of a workbook; found if not given.
        wanted: names of columns that the caller will ask for. A first row with one of them is a header.

    Raises:
        TableError: the file cannot be used; the message says why, and what to do.
    """
    source, limits = open_source(path, name or path.name), limits or Limits()
    notes: list[Note] = []
    if source.suffix == ".xlsx":
        rows, notes = _workbook_rows(source, sheet, limits)
        return _make_table(rows, None, header, wanted, limits, notes)
    encoding, notes = find_encoding(source, encoding)
    if source.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_table(source, encoding, limits, notes)
    layout = find_layout(source, encoding)
    if layout is None:
        notes = notes if source.suffix == ".txt" else [*notes, Note("note_lines")]
        return _make_table(lambda: _lines(source, encoding), None, False, wanted, limits, notes, ["text"])
    if layout.labelled:
        notes = [*notes, Note("note_leading_labels")]
        columns = ["label", "text"]
        return _make_table(lambda: _labelled_lines(source, encoding), None, False, wanted, limits, notes, columns)
    rows, layout = _separated_rows(source, encoding, layout)
    return _make_table(rows, layout, header, wanted, limits, notes + layout.notes)


# ---------------------------------------------------------------------------- formats


def _without_blank_end(cells: Sequence[str]) -> list[str]:
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return list(cells[:end])


def _workbook_rows(source: Source, sheet: str | None, limits: Limits) -> tuple[Callable[[], Rows], list[Note]]:
    with source.open() as file:
        content = io.BytesIO(file.read())
    table, notes = read_workbook(content, sheet, limits.rows, limits.columns, limits.unpacked_bytes)
    return lambda: ((number, _without_blank_end(cells)) for number, cells in enumerate(table, 1)), notes


def _lines(source: Source, encoding: str) -> Rows:
    with source.open_text(encoding) as text:
        for number, line in enumerate(text, 1):
            yield number, [line.rstrip("\r\n")] if line.strip() else []


def _labelled_lines(source: Source, encoding: str) -> Rows:
    for number, cells in _lines(source, encoding):
        label, _, text = "".join(cells).partition(" ")
        yield number, _without_blank_end([label.removeprefix(FASTTEXT_LABEL), text.strip()])


def _separated_rows(source: Source, encoding: str, layout: Layout) -> tuple[Callable[[], Rows], Layout]:
    """Return the rows, and the layout with its quoting decided on the whole file.

    Raises:
        TableError: quotation marks do not come in pairs, and without them the rows are not even.
    """

    def rows(quoted: bool) -> Rows:
        with source.open_text(encoding) as text:
            for number, cells in parse(text, replace(layout, quoted=quoted)):
                yield number, _without_blank_end(cells)

    quoted = layout.decide_quoting(rows)
    return lambda: rows(quoted), replace(layout, quoted=quoted)


def _json_table(source: Source, encoding: str, limits: Limits, notes: list[Note]) -> Table:
    """Read objects of a .jsonl, or of a .json that has one list of them; their keys are the columns."""

    def objects() -> Iterator[dict]:
        with source.open_text(encoding) as text:
            beginning = text.readline()
            if source.suffix == ".json" or beginning.lstrip().startswith("["):
                numbered = _json_items(beginning + text.read())
            else:
                numbered = _json_lines(itertools.chain([beginning], text))
            for number, item in numbered:
                if not isinstance(item, dict):
                    raise TableError("file_not_json", line=f"{number:,}")
                try:
                    yield _flat(item)
                except RecursionError as error:
                    raise TableError("file_not_json", line=f"{number:,}") from error

    columns, count = {}, 0
    for count, item in enumerate(objects(), 1):
        columns |= dict.fromkeys(item)
        _check_limits(count, len(columns), limits)
    if not count:
        raise TableError("file_empty")
    keys = list(columns)
    return Table(
        name_columns(keys), count, notes, lambda: ([_json_cell(item.get(key)) for key in keys] for item in objects())
    )


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TableError("file_not_json", line=f"{number:,}") from error


def _json_items(text: str) -> Iterable[tuple[int, object]]:
    """Return the items of a list, which may be the only one in an object; other text is taken for lines."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _json_lines(text.split("\n"))
    if isinstance(value, dict):
        lists = [items for items in value.values() if isinstance(items, list)]
        value = lists[0] if len(lists) == 1 else [value]
    return ((1, item) for item in (value if isinstance(value, list) else [value]))


def _flat(item: dict, prefix: str = "") -> dict:
    """Return an object without objects inside: `{"sms": {"body": …}}` becomes `{"sms.body": …}`."""
    flat = {}
    for key, value in item.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _json_cell(value: object) -> str:
    if value is None:
        return ""
    return replace_half_surrogates(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


# ---------------------------------------------------------------------------- rows


def _check_limits(rows: int, columns: int, limits: Limits) -> None:
    if columns > limits.columns:
        raise TableError("file_too_many_columns", limit=f"{limits.columns:,}")
    if limits.rows is not None and rows > limits.rows:
        raise TableError("file_too_many_rows", limit=f"{limits.rows:,}")


def _make_table(
    rows: Callable[[], Rows],
    layout: Layout | None,
    header: bool | None,
    wanted: Sequence[str],
    limits: Limits,
    notes: list[Note],
    columns: list[str] | None = None,
) -> Table:
    """Find the header, and read all rows once to check and count them.

    Args:
        columns: names of the columns, if the format tells them.
    """
    sample = [cells for _, cells in itertools.islice((row for row in rows() if row[1]), _SAMPLE_ROWS)]
    if not sample:
        raise TableError("file_empty")
    if header is None and columns is None:
        known = has_known_name(sample[0], {*wanted, *TEXT_COLUMN_NAMES})
        header = known or (len(sample) > 1 and may_be_header(sample[0], sample[1:]))
        if header and not known and len(sample[0]) == 1:
            # Nothing but its looks tells that it is no message.
            notes = [*notes, Note("note_header", {"name": repr(sample[0][0])})]
    delimiter = layout and layout.joins
    # Cells of a workbook stand in their columns, whatever other rows have.
    width = _width(sample, bool(header), delimiter) if layout else max(len(cells) for _, cells in rows())
    if width > limits.columns:
        raise TableError("file_too_many_columns", limit=f"{limits.columns:,}")

    def body() -> Rows:
        filled = (row for row in rows() if row[1])
        return itertools.islice(filled, 1 if header else 0, None)

    count = joined = 0
    first_joined = None
    for count, (line, cells) in enumerate(body(), 1):
        _check_limits(count, -(-len(cells) // _CELLS_PER_COLUMN), limits)
        if len(cells) > width:
            first_joined = first_joined or {"line": f"{line:,}", "cells": len(cells), "columns": width}
            if not delimiter:
                raise TableError("file_uneven", **first_joined)
            joined += 1
    if not count:
        raise TableError("file_empty")
    if columns is None:
        first = sample[0] if header else []
        columns = name_columns([*first, *[""] * (width - len(first))])
        if not header:
            notes = [*notes, Note("note_no_header", {"columns": ", ".join(columns)})]
    if joined:
        notes = [*notes, Note("note_joined", {"delimiter": delimiter, "count": f"{joined:,}"})]

    def even() -> Iterator[list[str]]:
        for _, cells in body():
            if len(cells) > width:
                cells = [*cells[: width - 1], delimiter.join(cells[width - 1 :])]
            yield cells + [""] * (width - len(cells))

    return Table(columns, count, notes, even, first_joined)


def _width(sample: Sequence[Sequence[str]], header: bool, delimiter: str | None) -> int:
    """Return how many columns there are: those of the header, or else those that all rows have.

    Without a header, a first column of labels shows that the rest of a row is the message, with all its commas.

    Raises:
        TableError: commas of messages cannot be told from those between columns.
    """
    if header:
        return len(sample[0])
    widths = [len(cells) for cells in sample]
    labels = {cells[0] for cells in sample}
    if delimiter and min(widths) >= 2 and len(labels) <= max(2, len(sample) // 5):
        return min(widths)
    # Punctuation has a space behind it.
    spaced = any(cell.startswith(" ") and cell.strip() for cells in sample for cell in cells[1:])
    if delimiter and spaced and min(widths) != max(widths):
        line, cells = next((n, w) for n, w in enumerate(widths, 1) if w > min(widths))
        raise TableError("file_uneven", line=f"{line:,}", cells=cells, columns=min(widths))
    return max(widths)
