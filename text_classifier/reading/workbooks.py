"""Read Excel workbooks (.xlsx): the sheet with the messages, and its cells as text."""

import zipfile
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import openpyxl
from openpyxl.utils.escape import unescape
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from text_classifier.reading.columns import TEXT_COLUMN_NAMES
from text_classifier.reading.notes import Note, TableError

# Rows of a sheet that tell whether it has messages.
_SAMPLE_ROWS = 50

# Excel's own limit. openpyxl adds a blank row for each one that the file leaves out, so a false number is a trap.
_MOST_ROWS = 1 << 20


def read_workbook(
    file: BinaryIO, sheet: str | None, max_rows: int | None, max_columns: int, max_unpacked_bytes: int | None
) -> tuple[list[list[str]], list[Note]]:
    """Return the rows of the sheet with the messages, and which sheet that is if there are others.

    Args:
        sheet: its name; found if not given. Hidden sheets are only read if they are named.
        max_rows, max_columns: more are read only to notice that there are too many.

    Raises:
        TableError: it is no workbook, it is too large, or several sheets may have the messages.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if max_unpacked_bytes and sum(entry.file_size for entry in archive.infolist()) > max_unpacked_bytes:
                raise TableError("file_unpacks_too_large")
        workbook = openpyxl.load_workbook(file, read_only=True, data_only=True)
        # Read twice the allowed rows, because of the blank ones.
        last_row = min(_MOST_ROWS, 2 * max_rows) if max_rows else _MOST_ROWS
        chosen = _choose_sheet(workbook.worksheets, sheet, max_columns)
        rows = [_as_text(row) for row in _cells(chosen, last_row, max_columns)]
    except TableError:
        raise
    # On a file that is no workbook, zipfile, zlib, the XML parser and openpyxl raise errors of a dozen kinds.
    except Exception as error:
        raise TableError("file_not_workbook") from error
    others = ", ".join(one.title for one in workbook.worksheets if one is not chosen)
    return rows, [Note("note_sheet", {"sheet": chosen.title, "others": others})] if others else []


def _cells(sheet: ReadOnlyWorksheet, last_row: int, max_columns: int) -> Iterable[Sequence]:
    # Ignore the size that the file states: it may be wrong, or a trap.
    sheet.reset_dimensions()
    return sheet.iter_rows(max_row=last_row, max_col=max_columns + 1, values_only=True)


def _as_text(row: Sequence) -> list[str]:
    # Excel writes characters that XML cannot have as _x000D_ and the like.
    return ["" if value is None else unescape(value) if isinstance(value, str) else str(value) for value in row]


def _choose_sheet(sheets: Sequence[ReadOnlyWorksheet], named: str | None, max_columns: int) -> ReadOnlyWorksheet:
    """Return the sheet with the messages.

    Raises:
        TableError: no sheet has that name, or has rows, or several may have the messages.
    """
    titles = ", ".join(sheet.title for sheet in sheets)
    if named is not None:
        for sheet in sheets:
            if sheet.title.strip().casefold() == named.strip().casefold():
                return sheet
        raise TableError("file_no_sheet", sheet=named, sheets=titles)
    samples = {}
    for sheet in sheets:
        rows = [_as_text(row) for row in _cells(sheet, _SAMPLE_ROWS, max_columns)]
        rows = [row for row in rows if any(row)]
        if sheet.sheet_state == "visible" and rows:
            samples[sheet] = rows
    if not samples:
        raise TableError("file_empty")
    tests = (
        lambda rows: True,
        lambda rows: len(rows) > 1,
        # A cover has its title and notes in one column.
        lambda rows: max(sum(map(bool, row)) for row in rows) > 1,
        lambda rows: any(cell.strip().casefold() in TEXT_COLUMN_NAMES for cell in rows[0]),
    )
    for test in tests:
        kept = {sheet: rows for sheet, rows in samples.items() if test(rows)}
        if len(kept) == 1:
            return next(iter(kept))
        samples = kept or samples
    titles = [sheet.title for sheet in samples]
    raise TableError("file_several_sheets", sheets=", ".join(titles), choices=titles)
