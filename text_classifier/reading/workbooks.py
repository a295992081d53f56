"""Read Excel workbooks (.xlsx): the sheet with the messages, and its cells as text."""

import io
import zipfile
from collections.abc import Sequence

import openpyxl
from openpyxl.utils.escape import unescape
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from text_classifier.reading.columns import TEXT_COLUMN_NAMES, has_known_name, without_blank_end
from text_classifier.reading.decoding import Limits, Source
from text_classifier.reading.notes import TableError

# Rows of a sheet that tell whether it has messages.
_SAMPLE_ROWS = 50

# Excel's own limit. openpyxl adds a blank row for each one that the file leaves out, and a false number would fill the
# memory.
_MOST_ROWS = 1 << 20


def read_workbook(source: Source) -> list[tuple[int, list[str]]]:
    """Return the rows of the sheet with the messages, and note which sheet that is if there are others.

    Each row has its number and as many cells as the others. Rows or columns beyond the limits are read only to notice
    that there are too many.
    """
    with source.open() as file:
        content = io.BytesIO(file.read())
    limits = source.limits
    try:
        with zipfile.ZipFile(content) as archive:
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if limits.unpacked_bytes and unpacked_bytes > limits.unpacked_bytes:
            raise TableError("file_unpacks_too_large")
        workbook = openpyxl.load_workbook(content, read_only=True, data_only=True)
        sheet = _choose_sheet(workbook.worksheets, source.options.sheet, limits.columns)
        # Read twice the allowed rows, because blank ones do not count.
        rows = _read_sheet(sheet, min(_MOST_ROWS, 2 * limits.rows) if limits.rows else _MOST_ROWS, limits.columns)
    except TableError:
        raise
    # On a file that is no workbook, zipfile, zlib, the XML parser and openpyxl raise errors of a dozen kinds.
    except Exception as error:
        raise TableError("file_not_workbook") from error
    if others := [other.title for other in workbook.worksheets if other is not sheet]:
        source.note("note_sheet", sheet=sheet.title, others=", ".join(others))
    width = max((len(cells) for _, cells in rows), default=0)
    return [(number, cells + [""] * (width - len(cells))) for number, cells in rows]


def _read_sheet(sheet: ReadOnlyWorksheet, last_row: int, max_columns: int) -> list[tuple[int, list[str]]]:
    """Return the rows that have cells, each with its number and without blank cells at its end."""
    # Ignore the size that the file states: it may be wrong.
    sheet.reset_dimensions()
    rows = []
    # openpyxl fills every row up to the last column, so Excel's own limit, which no row exceeds, is not named.
    last_column = max_columns + 1 if max_columns < Limits.columns else None
    for number, values in enumerate(sheet.iter_rows(max_row=last_row, max_col=last_column, values_only=True), 1):
        # Excel writes characters that XML cannot have as _x000D_ and the like.
        cells = ["" if value is None else unescape(value) if isinstance(value, str) else str(value) for value in values]
        if cells := without_blank_end(cells):
            rows.append((number, cells))
    return rows


def _choose_sheet(sheets: Sequence[ReadOnlyWorksheet], named: str | None, max_columns: int) -> ReadOnlyWorksheet:
    """Return the sheet with the messages. Hidden sheets are only read if they are named."""
    if named is not None:
        for sheet in sheets:
            if sheet.title.strip().casefold() == named.strip().casefold():
                return sheet
        raise TableError("file_no_sheet", sheet=named, sheets=", ".join(sheet.title for sheet in sheets))
    shown = [sheet for sheet in sheets if sheet.sheet_state == "visible"]
    samples = {sheet: [cells for _, cells in _read_sheet(sheet, _SAMPLE_ROWS, max_columns)] for sheet in shown}
    samples = {sheet: rows for sheet, rows in samples.items() if rows}
    if not samples:
        raise TableError("file_empty")
    for test in (
        lambda rows: len(rows) > 1,
        # A cover has its title and notes in one column.
        lambda rows: max(sum(map(bool, row)) for row in rows) > 1,
        lambda rows: has_known_name(rows[0], TEXT_COLUMN_NAMES),
    ):
        samples = {sheet: rows for sheet, rows in samples.items() if test(rows)} or samples
    if len(samples) > 1:
        titles = [sheet.title for sheet in samples]
        raise TableError("file_several_sheets", sheets=", ".join(titles), choices=titles)
    return next(iter(samples))
