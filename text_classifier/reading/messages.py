"""Read people's files of messages, for training, file scoring and the chat alike.

It reads .csv and .tsv with any usual separator, .jsonl, .json, .xlsx, and .txt with one message a line; all but .xlsx
also compressed. Reading is by rows, so a file may be longer than memory; only a workbook is held whole. Every function
here and in the modules below raises a TableError, which says why, where a file cannot be used.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from text_classifier.reading.columns import (
    TEXT_COLUMN_NAMES,
    choose_label_column,
    choose_text_columns,
    has_known_name,
    may_be_header,
    name_columns,
    texts_of,
)
from text_classifier.reading.decoding import Limits, ReadOptions, Source, find_encoding
from text_classifier.reading.labels import begin_with_labels, split_label
from text_classifier.reading.notes import Note, TableError
from text_classifier.reading.separators import Rows, find_layout, read_rows
from text_classifier.reading.workbooks import read_workbook
from text_classifier.text import replace_half_surrogates

# Rows that decide which columns there are, and what they hold.
_SAMPLE_ROWS = 1000

_JSON = (".jsonl", ".ndjson", ".json")

# A row may have this many times more cells than columns are allowed, because an unquoted message's commas make cells.
_CELLS_PER_COLUMN = 100


@dataclass(frozen=True)
class Messages:
    """The messages of a file, which can be read again and again."""

    columns: list[str]
    text_columns: list[str]
    label_column: str | None
    rows: int
    notes: list[Note]  # how the file was read, where that is not plain
    _body: Callable[[], Iterator[list[str]]]  # returns the rows below the header, a cell for each column

    def chunks(self, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the file's rows in tables of strings with `rows` rows each; an empty cell is ""."""
        body = self._body()
        while chunk := list(itertools.islice(body, rows)):
            yield pd.DataFrame(chunk, columns=self.columns, dtype=str)

    def table(self) -> pd.DataFrame:
        """Return all rows as one table of strings; an empty cell is ""."""
        return next(self.chunks(self.rows))


def read_messages(
    path: Path,
    options: ReadOptions | None = None,
    name: str | None = None,
    *,
    labelled: bool = False,
    limits: Limits | None = None,
) -> Messages:
    """Find out how a file is to be read, and read it once, so that an error in its last row shows at once.

    Args:
        name: its name, where `path` has another; its ending tells the format.
        labelled: whether a column of labels is needed; without it, one is only looked for if `options` name it.
    """
    options = options or ReadOptions()
    source = Source(path, name or path.name, options, limits or Limits())
    rows, columns, delimiter = _open_rows(source)
    header_rows = 0
    if columns is None:
        columns, header_rows = _find_columns(source, rows, delimiter)
    columns = name_columns(columns)
    width = len(columns)
    count, joined = _check_rows(source, itertools.islice(rows(), header_rows, None), width, delimiter)

    def body() -> Iterator[list[str]]:
        for _, cells in itertools.islice(rows(), header_rows, None):
            if len(cells) > width:
                cells = [*cells[: width - 1], delimiter.join(cells[width - 1 :])]
            yield cells + [""] * (width - len(cells))

    sample = pd.DataFrame(list(itertools.islice(body(), _SAMPLE_ROWS)), columns=columns, dtype=str)
    text_columns, label_column = choose_text_columns(sample, options.text_column, source.notes), None
    if labelled or options.label_column:
        label_column = choose_label_column(sample, options.label_column, text_columns, source.notes)
    texts = [text for text in texts_of(sample, text_columns) if text]
    if source.suffix in _JSON and texts and all(map(_is_list, texts)):
        raise TableError("file_lists", column=", ".join(map(repr, text_columns)))
    if begin_with_labels(texts):
        source.note("note_labels_inside", label=repr(split_label(texts[0])[0]))
    # Joined cells are whole messages only in the last column. In another one, nobody knows which belong together.
    if joined and columns[-1] not in text_columns:
        raise TableError("file_uneven", **joined)
    return Messages(columns, text_columns, label_column, count, source.notes, body)


def _open_rows(source: Source) -> tuple[Callable[[], Rows], Sequence[str] | None, str | None]:
    """Return a function that begins to read the rows, the names of their columns, and what joins surplus cells.

    Not every format tells the names. Surplus cells are only joined if they can be a message's own punctuation.
    """
    if source.suffix == ".xlsx":
        sheet = read_workbook(source)
        return lambda: iter(sheet), None, None
    source.encoding = find_encoding(source)
    if source.suffix in _JSON:
        keys = list(dict.fromkeys(key for _, item in _objects(source) for key in item))
        return lambda: ((line, [item.get(key, "") for key in keys]) for line, item in _objects(source)), keys, None
    layout = find_layout(source)
    return lambda: read_rows(source, layout), layout.columns, layout.joins


def _check_rows(source: Source, rows: Rows, width: int, delimiter: str | None) -> tuple[int, dict | None]:
    """Return how many rows there are, and the line, cells and columns of the first one with surplus cells."""
    limits, count, joined, first = source.limits, 0, 0, None
    for count, (line, cells) in enumerate(rows, 1):
        if max(width, len(cells) / _CELLS_PER_COLUMN) > limits.columns:
            raise TableError("file_too_many_columns", limit=f"{limits.columns:,}")
        if limits.rows is not None and count > limits.rows:
            raise TableError("file_too_many_rows", limit=f"{limits.rows:,}")
        if len(cells) > width:
            joined += 1
            first = first or {"line": f"{line:,}", "cells": len(cells), "columns": width}
            if not delimiter:
                raise TableError("file_uneven", **first)
    if not count or not width:
        raise TableError("file_empty")
    if joined:
        source.note("note_joined", delimiter=delimiter, count=f"{joined:,}")
    return count, first


def _find_columns(source: Source, rows: Callable[[], Rows], delimiter: str | None) -> tuple[list[str], int]:
    """Return the names of the columns, and how many rows have them: the first one, or none.

    Without a header, a first column of labels shows that the rest of a row is the message, with all its commas.
    """
    sample = [cells for _, cells in itertools.islice(rows(), _SAMPLE_ROWS)]
    if not sample:
        raise TableError("file_empty")
    first, options = sample[0], source.options
    if not options.no_header:
        wanted = {*(options.text_column or ["Text"]), options.label_column or "Label", *TEXT_COLUMN_NAMES}
        known = has_known_name(first, wanted)
        if known or (len(sample) > 1 and may_be_header(first, sample[1:])):
            if not known and not any(first[1:]):
                # Nothing but its looks tells that it is no message.
                source.note("note_header", name=repr(first[0]))
            return first, 1
    widths = [len(cells) for cells in sample]
    width = max(widths)
    if delimiter and min(widths) < width:
        if min(widths) >= 2 and len({cells[0] for cells in sample}) <= max(2, len(sample) // 5):
            width = min(widths)
        # Punctuation has a space behind it.
        elif any(cell.startswith(" ") and cell.strip() for cells in sample for cell in cells[1:]):
            line, cells = next((n, w) for n, w in enumerate(widths, 1) if w > min(widths))
            raise TableError("file_uneven", line=f"{line:,}", cells=cells, columns=min(widths))
    columns = name_columns([""] * width)
    source.note("note_no_header", columns=", ".join(columns))
    return columns, 0


# ---------------------------------------------------------------------------- JSON


def _objects(source: Source) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the objects of a .jsonl, or of a .json that has one list of them, each with the line that it stands in."""
    number = 1
    with source.open_text() as text:
        beginning = text.readline()
        lines = itertools.chain([beginning], text)
        try:
            if source.suffix == ".json" or beginning.lstrip().startswith("["):
                content = "".join(lines)
                try:
                    yield from ((1, _flat(item)) for item in _items(json.loads(content)))
                    return
                except json.JSONDecodeError:
                    # It may have an object in each line all the same.
                    lines = content.split("\n")
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _flat(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise TableError("file_not_json", line=f"{number:,}") from error


def _items(value: object) -> list:
    """Return the items of a list, which may be the only one in an object, or of an object with a list per column."""
    if isinstance(value, dict):
        lists = [items for items in value.values() if isinstance(items, list)]
        if len(lists) == len(value) > 1 and len({*map(len, lists)}) == 1:
            return [dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)]
        value = lists[0] if len(lists) == 1 else value
    return value if isinstance(value, list) else [value]


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _flat(item: object, prefix: str = "") -> dict[str, str]:
    """Return the cells of an object without objects inside: `{"sms": {"body": …}}` becomes `{"sms.body": …}`."""
    if not isinstance(item, dict):
        raise ValueError("no object")
    cells = {}
    for key, value in item.items():
        if isinstance(value, dict):
            cells |= _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            cells[f"{prefix}{key}"] = "" if value is None else replace_half_surrogates(text)
    return cells
