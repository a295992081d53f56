"""Files of messages that people drop into the chat: read with care, written back with labels."""

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

import openpyxl
import pandas as pd
from charset_normalizer import from_bytes

from text_classifier import Classification

MAX_ROWS = 10_000
# An .xlsx is a zip archive: a small one can unpack to gigabytes.
MAX_UNPACKED_BYTES = 50 * 2**20

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")

_TEXT_COLUMN_NAMES = {
    *("text", "texts", "message", "messages", "msg", "sms", "body", "content", "review", "comment", "sentence"),
    *("文本", "短信", "消息", "信息", "内容", "正文", "评论", "短信内容", "消息内容"),
}

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection"), unless it is a number.
_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d\s.,]*\d%?")


class TableError(ValueError):
    """A file cannot be used. `key` names the reason in `chat.texts`, `values` what to fill in there."""

    def __init__(self, key: str, **values):
        super().__init__(key)
        self.key, self.values = key, values


def _decode(content: bytes) -> str:
    """Decode what Excel, editors and phones write: UTF-8, UTF-16 with its mark, or an older encoding."""
    for encoding, marks in (("utf-16", (b"\xff\xfe", b"\xfe\xff")), ("utf-8-sig", (b"",))):
        if content.startswith(marks):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                continue
    # Every byte is a character somewhere, also in an image: text has no zero bytes and few control characters.
    if b"\x00" in content:
        raise TableError("file_not_text")
    # The encodings of Excel on Chinese and Western Windows first: short texts do not tell them from rarer ones.
    guess = from_bytes(content, cp_isolation=["gb18030", "cp1252", "big5"]).best()
    if guess is None:
        raise TableError("file_not_text")
    return str(guess)


def _delimiter(text: str) -> str:
    first_line = text.split("\n", 1)[0]
    # Spreadsheets write semicolons where the comma is the decimal mark.
    return max(",;\t", key=first_line.count)


def _read_workbook(content: bytes) -> list[list[str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise TableError("file_unpacks_too_large")
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        rows = []
        for values in workbook.worksheets[0].iter_rows(values_only=True):
            row = ["" if value is None else str(value) for value in values]
            if any(row):
                rows.append(row)
            if len(rows) > MAX_ROWS + 1:
                raise TableError("file_too_many_rows", limit=f"{MAX_ROWS:,}")
        return rows
    # Whatever openpyxl meets in a file that is no workbook.
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError, OSError, ParseError, TypeError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError("file_not_workbook") from error


def _looks_like_a_message(name: str) -> bool:
    return len(name) > 60 or len(name.split()) > 6


def read_messages(path: Path, name: str) -> pd.DataFrame:
    """Read a .csv, .tsv, .txt (one message a line) or the first sheet of an .xlsx.

    Args:
        path: of the uploaded file.
        name: as the person calls it; its ending tells the format.

    Returns:
        A table of strings, rows in the file's order; columns without a name are numbered.

    Raises:
        TableError: the file is not what its ending says, empty, or too large.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise TableError("file_type", formats=" ".join(SUFFIXES))
    content = path.read_bytes()
    if suffix == ".xlsx":
        rows = _read_workbook(content)
    else:
        text = _decode(content)
        if suffix == ".txt":
            rows = [["text"], *([line] for line in text.splitlines() if line.strip())]
        else:
            # A .tsv is read as the format is defined: one line a row, quotes are text.
            dialect = (
                {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {"delimiter": _delimiter(text)}
            )
            try:
                rows = [row for row in csv.reader(io.StringIO(text, newline=""), **dialect) if any(row)]
            except csv.Error as error:
                raise TableError("file_not_table") from error
    if rows and any(map(_looks_like_a_message, rows[0])):
        rows.insert(0, [])
    if len(rows) < 2:
        raise TableError("file_empty")
    if len(rows) - 1 > MAX_ROWS:
        raise TableError("file_too_many_rows", limit=f"{MAX_ROWS:,}")
    width = max(map(len, rows))
    header, *body = ([*row, *[""] * (width - len(row))] for row in rows)
    columns = []
    for number, column in enumerate(header, 1):
        column = column.strip() or f"column {number}"
        columns.append(column if column not in columns else f"{column} ({number})")
    return pd.DataFrame(body, columns=columns, dtype=str)


def find_text_column(table: pd.DataFrame) -> str | None:
    """Return the column that holds the messages, or None where a person has to say."""
    named = [column for column in table.columns if column.strip().casefold() in _TEXT_COLUMN_NAMES]
    if len(named) == 1:
        return named[0]
    lengths = table.map(len).mean().sort_values(ascending=False)
    # Messages are several times longer than labels, dates and names.
    if len(lengths) == 1 or lengths.iloc[0] >= max(20, 3 * lengths.iloc[1]):
        return lengths.index[0]
    return None


def neutralise_formula(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula; numbers stay as they are."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def add_answers(
    table: pd.DataFrame, answers: Sequence[Classification | None], labels: Sequence[str | None], positive_label: str
) -> pd.DataFrame:
    """Return the table with columns for label, probability of `positive_label` and truncation.

    Args:
        table: n messages.
        answers: n answers, None for a message that was not classified.
        labels: n labels, at the threshold of the person who asked.
        positive_label: name of class 1.
    """
    added = {
        "predicted_label": [label or "" for label in labels],
        f"{positive_label}_probability": [f"{answer.positive_probability:.4f}" if answer else "" for answer in answers],
        "truncated": [str(answer.truncated).lower() if answer else "" for answer in answers],
    }
    result = table.copy()
    for name, values in added.items():
        while name in result.columns:
            name += "_2"
        result[name] = values
    return result


def to_csv(table: pd.DataFrame) -> bytes:
    """Write a table of strings as CSV that spreadsheets open in the right encoding, formulas neutralised."""
    safe = table.map(neutralise_formula).rename(columns=neutralise_formula)
    return safe.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig", "replace")
