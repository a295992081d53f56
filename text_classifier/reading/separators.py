"""Find out what separates the columns of a text file, and whether its cells stand in quotation marks."""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from text_classifier.reading.columns import LABEL_COLUMN_NAMES, TEXT_COLUMN_NAMES, has_known_name, without_blank_end
from text_classifier.reading.decoding import Source
from text_classifier.reading.labels import MARKS, begin_with_labels, split_label
from text_classifier.reading.notes import TableError

# Rows with the number of the line that each one ends in; blank cells at their ends and blank rows are left out.
Rows = Iterator[tuple[int, list[str]]]

# Usual separators, and rare ones, which lose a tie.
_USUAL, _RARE = ",;\t|", "¤^~"
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}

# These also stand in messages, so a row with too many of them has a message that is not in quotation marks.
_PUNCTUATION = ",;"

# Characters, rounded up to whole lines, and rows that the separator is found in.
_SAMPLE_CHARACTERS, _SAMPLE_ROWS = 1 << 18, 200

# What is downloaded by mistake begins so: web pages, and pointers of Git LFS.
_NO_DATA = ("<!doctype html", "<html", "<?xml", "version https://git-lfs")

# The csv module refuses longer cells. Its own limit of 131,072 characters is less than people paste.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Layout:
    """How the lines of a text file make rows."""

    delimiter: str = ""
    quoted: bool = True  # cells may stand in quotation marks
    columns: Sequence[str] | None = None  # if the lines are no table, but messages, perhaps behind their labels
    skipped_lines: int = 0  # before the table: Excel names the delimiter in one
    line_end: str = ""  # delimiters of another kind that end every line, and mean nothing

    @property
    def joins(self) -> str | None:
        """The delimiter, if surplus cells of a row can be a message's own punctuation."""
        return self.delimiter if self.delimiter and self.delimiter in _PUNCTUATION else None


def read_rows(source: Source, layout: Layout) -> Rows:
    """Yield the rows of a text file."""
    with source.open_text() as text:
        yield from _parse(text, layout)


def _parse(lines: Iterable[str], layout: Layout) -> Rows:
    lines = itertools.islice(lines, layout.skipped_lines, None)
    if layout.columns:
        for number, line in enumerate(lines, 1):
            cells = [line.rstrip("\r\n")]
            if len(layout.columns) == 2:
                label, _, text = split_label(line)
                cells = [label, text.strip()]
            if line.strip():
                yield number, without_blank_end(cells)
        return
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    # Be strict, because an unclosed quotation mark would swallow all rows up to the next one.
    reader = csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)
    try:
        for row in reader:
            if row:
                row[-1] = row[-1].removesuffix(layout.line_end)
            if cells := without_blank_end(row):
                yield reader.line_num + layout.skipped_lines, cells
    except csv.Error as error:
        raise TableError("file_not_table", line=f"{reader.line_num + layout.skipped_lines:,}") from error


def find_layout(source: Source) -> Layout:
    """Find out how the lines of a file make rows, and note it if its ending does not promise it.

    The separator is the one that gives the first rows the same number of cells.
    """
    with source.open_text() as text:
        lines, whole = text.readlines(_SAMPLE_CHARACTERS), not text.read(1)
    if lines and lines[0].lstrip().casefold().startswith(_NO_DATA):
        raise TableError("file_no_data")
    # In a .csv, a comma behind a label separates columns.
    if begin_with_labels([line for line in lines if line.strip()], MARKS if source.suffix == ".txt" else ":：，"):
        source.note("note_leading_labels")
        return Layout(columns=("label", "text"))
    expected = "\t" if source.suffix in (".tsv", ".tab") else ","
    if lines and lines[0].startswith("sep="):
        layout = Layout(lines[0][4:5].strip("\r\n ") or ",", skipped_lines=1)
    elif (layout := _choose_layout(lines, whole, expected, source.suffix)).columns:
        if source.suffix != ".txt":
            source.note("note_lines")
        return layout
    layout = replace(layout, quoted=_is_quoted(source, layout))
    if layout.delimiter != expected:
        source.note("note_delimiter", delimiter=_NAMES.get(layout.delimiter, layout.delimiter))
    # Where tabs separate the columns, quotation marks usually are text.
    if layout.quoted == (layout.delimiter == "\t"):
        source.note("note_quoted" if layout.quoted else "note_unquoted")
    return layout


def _choose_layout(lines: Sequence[str], whole: bool, expected: str, suffix: str) -> Layout:
    """Choose the delimiter by the first lines of a file, of which they may be the `whole`."""
    names = [lines[0].strip().split(delimiter) for delimiter in _USUAL] if lines else []
    if suffix == ".txt" and not any(
        has_known_name(cells, TEXT_COLUMN_NAMES) and has_known_name(cells, LABEL_COLUMN_NAMES) for cells in names
    ):
        # A message a line, unless it names columns, or every line has a tab, as in the SMS Spam Collection.
        tabs = _Trial(lines, whole, "\t")
        return Layout("\t", line_end=tabs.line_end) if tabs.even else Layout(columns=("text",))
    trials = [_Trial(lines, whole, delimiter) for delimiter in _USUAL + _RARE]
    if tables := [trial for trial in trials if trial.is_table]:
        # What tells the best separation, most important first. Separators have no space behind them.
        best = max(tables, key=lambda one: (one.even, -one.spaced, one.delimiter == expected, one.widths[0]))
        return Layout(best.delimiter, line_end=best.line_end)
    if above := [trial for trial in trials if trial.misses_names]:
        raise TableError("file_above", cells=above[0].widths[1])
    # Without a name above them, messages with commas are lines.
    prose = any(trial.punctuation and trial.widths[0] > 1 for trial in trials)
    return Layout(columns=("text",)) if prose else Layout(expected)


class _Trial:
    """The first rows of a file, separated in one way."""

    def __init__(self, lines: Sequence[str], whole: bool, delimiter: str):
        self.delimiter = delimiter
        self.rows = self._separate(lines, whole)
        self.widths = [len(row) for row in self.rows] or [0]
        first, *body = self.widths
        cells = [cell for row in self.rows for cell in row[1:] if cell]
        self.spaced = sum(cell.startswith(" ") for cell in cells)
        joins = delimiter in _PUNCTUATION
        # No row has more cells than the first, and most have as many.
        self.even = first > 1 and max(self.widths) == first and 2 * body.count(first) >= len(body)
        # The commas of messages: a space behind each, and more in some rows than in others.
        uneven = not body or len(set(self.widths)) > 1
        self.punctuation = joins and uneven and 0 < self.spaced == len(cells)
        # Perhaps there are messages that are not in quotation marks.
        reached = first > 1 and 2 * sum(width >= first for width in body) >= len(body)
        self.is_table = not self.punctuation and (self.even or (joins and (min(self.widths) > 1 or reached)))
        # All rows have the same number of cells below a single name: nobody knows what the name means.
        self.misses_names = first == 1 and len(body) > 1 and {*body} == {max(body)} != {1} and self.spaced < len(cells)

    def _separate(self, lines: Sequence[str], whole: bool) -> list[list[str]]:
        """Return the rows; quotation marks that do not come in pairs are taken for text."""
        for quoted in (True, False):
            rows = []
            try:
                rows.extend(itertools.islice(_parse(lines, Layout(self.delimiter, quoted)), _SAMPLE_ROWS))
            except TableError:
                # The sample may end within quotation marks.
                if whole or not rows or rows[-1][0] < len(lines) // 2:
                    continue
            return [cells for _, cells in rows]
        return []

    @property
    def line_end(self) -> str:
        """Delimiters of another kind that end the header and all rows."""
        first = self.rows[0][-1]
        end = first[len(first.rstrip(_USUAL)) :]
        return end if all(row[-1].endswith(end) for row in self.rows) else ""


def _is_quoted(source: Source, layout: Layout) -> bool:
    """Return whether the cells of the whole file stand in quotation marks where needed."""
    tabs = layout.delimiter == "\t"
    plain = read_rows(source, replace(layout, quoted=False))
    # The header may stand in marks alone.
    _, header = next(plain, (0, []))
    try:
        widths = (len(cells) for _, cells in read_rows(source, layout))
        first = next(widths, 0)
        uneven = sum(width != first for width in widths)
        if not tabs:
            return True
    except TableError:
        # Marks that do not come in pairs are text, if all rows are even without them and no cell stands in marks.
        if not tabs and any(len(cells) != len(header) or any(map(_in_marks, cells)) for _, cells in plain):
            raise
        return False
    filled, wrapped, uneven_plain = Counter(), Counter(), 0
    for _, cells in plain:
        uneven_plain += len(cells) != len(header)
        for column, cell in enumerate(cells):
            filled[column] += bool(cell)
            if _in_marks(cell):
                wrapped[column] += 1
                # Within marks, a mark that is text is written twice.
                if '""' in cell[1:-1]:
                    return True
    # Marks around a whole column are no text. Nor are they where a tab or line end between them would tear rows.
    return any(count == filled[column] for column, count in wrapped.items()) or uneven_plain > uneven


def _in_marks(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'
