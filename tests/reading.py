"""Make a workbook, and read a file of given content, as the chat does."""

import io

import openpyxl
import pandas as pd

from chat.settings import FILE_LIMITS
from text_classifier.reading.messages import Messages, ReadOptions, read_messages
from text_classifier.reading.notes import TableError


def read(tmp_path, name, content, **options) -> pd.DataFrame:
    return opened(tmp_path, name, content, **options).table()


def opened(tmp_path, name, content, limits=FILE_LIMITS, **options) -> Messages:
    """Read a file; where it is not clear which column has the messages, take the one that is likeliest."""
    path = tmp_path / "upload"
    path.write_bytes(content)
    try:
        return read_messages(path, ReadOptions(**options), name, limits=limits)
    except TableError as error:
        if error.key != "file_which_text_column":
            raise
        options["text_column"] = error.values["choices"][:1]
        return read_messages(path, ReadOptions(**options), name, limits=limits)


def said(messages: Messages) -> list[str]:
    """Return the keys of the notes on how the file was read, without the column that was found."""
    return [note.key for note in messages.notes if note.key != "note_text_column"]


def workbook(**sheets: list[list]) -> bytes:
    """Return a workbook of these sheets; the name of a hidden one begins with `hidden`."""
    book, content = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        sheet.sheet_state = "hidden" if title.startswith("hidden") else "visible"
        for row in rows:
            sheet.append(row)
    book.save(content)
    return content.getvalue()
