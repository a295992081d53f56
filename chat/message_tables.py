"""Read the files of messages that people drop into the chat, and write them back with labels."""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

import openpyxl
import pandas as pd
from charset_normalizer import from_bytes

from chat.limits import MAX_FILE_COLUMNS, MAX_FILE_ROWS, MAX_UNPACKED_BYTES
from text_classifier.characters import replace_half_surrogates

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")

_TEXT_COLUMN_NAMES = {
    *("text", "texts", "message", "messages", "msg", "sms", "body", "content", "review", "comment", "sentence"),
    *("文本", "短信", "消息", "信息", "内容", "正文", "评论", "短信内容", "消息内容"),
}

# A spreadsheet takes a cell that begins like this for a formula (OWASP, "CSV Injection"), unless it is a number.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d\s.,]*\d%?")


class TableError(ValueError):
    """A file cannot be used. `key` names the text in `chat.texts` that gives the reason; `values` fill its blanks."""

    def __init__(self, key: str, **values):
        super().__init__(key)
        self.key, self.values = key, values


def _decode(content: bytes) -> str:
    """Decode a file from Excel, an editor or a phone: UTF-8, UTF-16 with a byte order mark, or an older encoding.

    Raises:
        TableError: the file is no text.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise TableError("file_not_text") from error
    # Some encoding has a character for every byte, even for those of an image. But text has no zero bytes.
    if b"\x00" in content:
        raise TableError("file_not_text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Try only what Excel writes on Chinese and Western Windows, because a short text also fits rarer encodings.
        guess = from_bytes(content, cp_isolation=["gb18030", "cp1252", "big5"]).best()
    if guess is None:
        raise TableError("file_not_text")
    return str(guess)


def _keep(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the rows that are not blank, without blank cells at their ends.

    Raises:
        TableError: there are too many rows or columns; it is raised before all of them are in memory.
    """
    kept = []
    for row in rows:
        row = list(row)
        while row and not row[-1]:
            row.pop()
        if not row:
            continue
        if len(row) > MAX_FILE_COLUMNS:
            raise TableError("file_too_many_columns", limit=MAX_FILE_COLUMNS)
        kept.append(row)
        if len(kept) > MAX_FILE_ROWS + 1:
            raise TableError("file_too_many_rows", limit=f"{MAX_FILE_ROWS:,}")
    return kept


def _read_workbook(content: bytes) -> list[list[str]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise TableError("file_unpacks_too_large")
        workbook = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = workbook.worksheets[0]
        # Ignore the size that the file states: it may be wrong, or a trap.
        sheet.reset_dimensions()
        # Read one column more than allowed, to notice a table that is too wide. Read twice the allowed rows, because
        # openpyxl adds a blank row for each one that the file leaves out.
        cells = sheet.iter_rows(max_row=2 * MAX_FILE_ROWS, max_col=MAX_FILE_COLUMNS + 1, values_only=True)
        return _keep(["" if value is None else str(value) for value in row] for row in cells)
    except TableError:
        raise
    # openpyxl raises any of these on a file that is no workbook.
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, IndexError, OSError, ParseError, TypeError) as error:
        raise TableError("file_not_workbook") from error


def _read_separated(text: str, tab_separated: bool) -> list[list[str]]:
    if tab_separated:
        # By definition, a .tsv has one row per line, and its quotation marks are text.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        first_line, _, rest = text.partition("\n")
        if first_line.startswith("sep="):
            # Excel names the delimiter in such a first line.
            delimiter, text = first_line[4:5].strip() or ",", rest
        else:
            # Take the most frequent one: spreadsheets write semicolons where the comma is the decimal mark.
            delimiter = max(",;\t", key=first_line.count)
        # Be strict, because an unclosed quotation mark would swallow all rows up to the next one.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return _keep(reader)
    except csv.Error as error:
        raise TableError("file_not_table", line=f"{reader.line_num:,}") from error


def _is_header(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row has the names of columns; in a file without a header it is a message."""
    for column, cell in enumerate(first):
        chinese = sum("\u3400" <= character <= "\u9fff" for character in cell)
        if len(cell) > 80 or len(cell.split()) > 10 or chinese > 20:
            return False
        # A cell that comes back below is a label: the name of a column does not come back.
        if cell and any(row[column] == cell for row in body if len(row) > column):
            return False
    return True


def read_dropped_file(path: Path, name: str) -> pd.DataFrame:
    """Read a .csv, .tsv, .txt (one message a line) or the first sheet of an .xlsx.

    Args:
        path: path of the uploaded file.
        name: name of the file on the visitor's machine; its ending tells the format.

    Returns:
        A table of strings with the rows in the file's order; columns without a name are numbered.

    Raises:
        TableError: the file is not what its ending says, empty, or too large.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise TableError("file_type", formats=" ".join(SUFFIXES))
    content = path.read_bytes()
    if suffix == ".xlsx":
        rows = _read_workbook(content)
    elif suffix == ".txt":
        rows = _keep([["text"], *([line] for line in _decode(content).splitlines() if line.strip())])
    else:
        rows = _read_separated(_decode(content), suffix == ".tsv")
    if rows and suffix != ".txt" and not _is_header(rows[0], rows[1:]):
        rows.insert(0, [])
    if len(rows) < 2:
        raise TableError("file_empty")
    if len(rows) - 1 > MAX_FILE_ROWS:
        raise TableError("file_too_many_rows", limit=f"{MAX_FILE_ROWS:,}")
    width = max(map(len, rows))
    header, *body = ([*row, *[""] * (width - len(row))] for row in rows)
    columns = []
    for number, column in enumerate(header, 1):
        column = column.strip() or f"column {number}"
        columns.append(column if column not in columns else f"{column} ({number})")
    return pd.DataFrame(body, columns=columns, dtype=str)


def mean_lengths(table: pd.DataFrame) -> pd.Series:
    """Return the mean number of characters in each column, the longest first."""
    return table.map(len).mean().sort_values(ascending=False)


def find_text_column(table: pd.DataFrame) -> str | None:
    """Return the name of the column with the messages, or None if it is not clear."""
    named = [column for column in table.columns if column.strip().casefold() in _TEXT_COLUMN_NAMES]
    if len(named) == 1:
        return named[0]
    lengths = mean_lengths(table)
    # Messages are several times longer than labels, dates and names.
    if len(lengths) == 1 or lengths.iloc[0] >= max(20, 3 * lengths.iloc[1]):
        return lengths.index[0]
    return None


def neutralise_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula; numbers stay as they are."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def to_csv(table: pd.DataFrame) -> bytes:
    """Return a table of strings as a CSV with neutralised formulas; its first bytes tell spreadsheets the encoding."""
    safe = table.map(neutralise_formula).rename(columns=neutralise_formula)
    return replace_half_surrogates(safe.to_csv(index=False, lineterminator="\r\n")).encode("utf-8-sig")
