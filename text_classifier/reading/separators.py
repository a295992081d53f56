"""Find out what separates the columns of a text file, and whether its cells stand in quotation marks."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from text_classifier.reading.decoding import Source
from text_classifier.reading.labels import begin_with_labels
from text_classifier.reading.notes import Note, TableError

# What people's programs write, and what few of them do. The few are only believed where all rows agree.
_USUAL, _RARE = ",;\t|", "¤^~"
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}

# These also stand in messages, so a row with too many of them has a message that is not in quotation marks.
_PUNCTUATION = ",;"

# Characters and rows that the separator is found in.
_SAMPLE_CHARACTERS, _SAMPLE_ROWS = 1 << 18, 200


@dataclass(frozen=True)
class Layout:
    """How the lines of a text file make a table."""

    delimiter: str
    quoted: bool = True
    """Whether cells may stand in quotation marks."""
    expected: str = ","
    """The delimiter that the file's ending promises."""
    labelled: bool = False
    """Whether a line is no row of a table, but a label, the delimiter and a message."""
    skipped_lines: int = 0
    """Lines before the table: Excel names the delimiter in one."""
    line_end: str = ""
    """Delimiters of another kind that end every line, and mean nothing."""

    @property
    def joins(self) -> str | None:
        """The delimiter, if surplus cells of a row can be a message's own punctuation."""
        return self.delimiter if self.delimiter in _PUNCTUATION else None

    @property
    def tab_separated(self) -> bool:
        """Whether tabs separate the columns; then quotation marks usually are text."""
        return self.delimiter == "\t"

    @property
    def notes(self) -> list[Note]:
        """What is to be said of it, where it is not what the file's ending promises."""
        said = []
        if self.delimiter != self.expected:
            said.append(Note("note_delimiter", {"delimiter": _NAMES.get(self.delimiter, self.delimiter)}))
        if self.quoted == self.tab_separated:
            said.append(Note("note_quoted" if self.quoted else "note_unquoted"))
        return said

    def decide_quoting(self, rows: Callable[[bool], Iterator[tuple[int, list[str]]]]) -> bool:
        """Return whether the cells of the whole file stand in quotation marks where needed.

        Args:
            rows: returns the rows, read with or without quotation marks.

        Raises:
            TableError: neither way gives rows of a table.
        """
        problem, quoted, plain = None, _QuoteMarks(), _QuoteMarks()
        try:
            for _, cells in rows(True):
                quoted.see(cells)
            if not self.tab_separated:
                return True
        except TableError as error:
            problem = error
        for _, cells in rows(False):
            plain.see(cells)
        if problem is None:
            # Without regard to the marks, a tab inside them makes a row wider, and a line end makes narrow ones.
            torn = plain.widest > max(plain.first_width, quoted.widest) or plain.narrow > quoted.narrow
            return plain.are_quoting or torn
        if not self.tab_separated and (plain.wrapped or plain.narrow or plain.widest > plain.first_width):
            raise problem
        return False


class _QuoteMarks:
    """What quotation marks are for, seen in rows that were read without regard to them."""

    def __init__(self):
        self.first_width = self.widest = 0
        self.narrow = 0
        """Rows with fewer cells than the first."""
        self.doubled = False
        self.filled: dict[int, int] = {}
        self.wrapped: dict[int, int] = {}

    def see(self, cells: list[str]) -> None:
        if not cells:
            return
        self.widest = max(self.widest, len(cells))
        if not self.first_width:
            self.first_width = len(cells)
            return
        self.narrow += len(cells) < self.first_width
        for column, cell in enumerate(cells):
            if not cell:
                continue
            self.filled[column] = self.filled.get(column, 0) + 1
            if len(cell) > 1 and cell[0] == cell[-1] == '"':
                self.wrapped[column] = self.wrapped.get(column, 0) + 1
                self.doubled = self.doubled or '""' in cell[1:-1]

    @property
    def are_quoting(self) -> bool:
        """Whether a cell in quotation marks has doubled ones inside, or a whole column stands in them."""
        return self.doubled or any(count == self.filled[column] for column, count in self.wrapped.items())


def parse(lines: Iterator[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, each with the number of the line that it ends in.

    Args:
        lines: lines with their ends.

    Raises:
        TableError: quotation marks do not come in pairs.
    """
    for _ in range(layout.skipped_lines):
        next(lines, None)
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    # Be strict, because an unclosed quotation mark would swallow all rows up to the next one.
    reader = csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)
    try:
        for row in reader:
            if layout.line_end and row:
                row[-1] = row[-1].removesuffix(layout.line_end)
            yield reader.line_num + layout.skipped_lines, row
    except csv.Error as error:
        raise TableError("file_not_table", line=f"{reader.line_num + layout.skipped_lines:,}") from error


def find_layout(source: Source, encoding: str) -> Layout | None:
    """Find out what separates the columns; None means one message a line.

    The separator is the one that gives the first rows the same number of cells.

    Raises:
        TableError: no separator gives a table.
    """
    with source.open_text(encoding) as text:
        sample = text.read(_SAMPLE_CHARACTERS)
        whole = not text.read(1)
    # As a file is read: `splitlines` would also end a line at rare characters that stand in messages.
    lines = list(io.StringIO(sample, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()
    if begin_with_labels([line for line in lines if line.strip()]):
        return Layout(" ", labelled=True)
    usual = Layout("\t", expected="\t") if source.suffix in (".tsv", ".tab") else Layout(",")
    if lines and lines[0].startswith("sep="):
        return replace(usual, delimiter=lines[0][4:5].strip("\r\n ") or ",", skipped_lines=1)
    trials = [_Trial.of(lines, whole, replace(usual, delimiter=delimiter)) for delimiter in _USUAL + _RARE]
    tables = [trial for trial in trials if trial.is_table and (trial.all_even or trial.layout.delimiter in _USUAL)]
    if source.suffix == ".txt":
        # A message a line, unless every line has a tab, as in the SMS Spam Collection.
        tables = [trial for trial in tables if trial.all_even and trial.layout.delimiter == "\t"]
        if not tables:
            return None
    if tables:
        return max(tables, key=lambda trial: trial.rank).with_line_end()
    for trial in trials:
        # Every row has one cell more than the only name above: nobody knows what the name means.
        if trial.misses_names:
            raise TableError("file_above", cells=trial.widths[1])
    # Without a name above them, messages with commas are lines.
    return None if any(trial.is_punctuation and trial.widths[0] > 1 for trial in trials) else usual


@dataclass(frozen=True)
class _Trial:
    """The first rows of a file, separated in one way."""

    layout: Layout
    rows: list[list[str]]

    @classmethod
    def of(cls, lines: list[str], whole: bool, layout: Layout) -> "_Trial":
        """Separate the lines; quotation marks that do not come in pairs are taken for text."""
        for quoted in (True, False):
            rows, lines_read = [], 0
            try:
                for line, row in parse(iter(lines), replace(layout, quoted=quoted)):
                    rows.append(row)
                    lines_read = line
                    if len(rows) == _SAMPLE_ROWS:
                        break
            except TableError:
                # The sample may end within quotation marks.
                if whole or lines_read < len(lines) // 2:
                    continue
            return cls(layout, [row for row in rows if any(row)])
        return cls(layout, [])

    @property
    def widths(self) -> list[int]:
        """Numbers of cells of the rows, without blank ones at their ends."""
        return [max((number for number, cell in enumerate(row, 1) if cell), default=0) for row in self.rows]

    @property
    def all_even(self) -> bool:
        """Whether no row has more cells than the first, and most have as many."""
        first, *body = self.widths
        return first > 1 and all(w <= first for w in body) and 2 * sum(w == first for w in body) >= len(body)

    @property
    def is_table(self) -> bool:
        """Whether the rows can be those of a table, perhaps with messages that are not in quotation marks."""
        if not self.rows:
            return False
        first, *body = self.widths
        if self.is_punctuation:
            return False
        most_reach = 2 * sum(width >= first for width in body) >= len(body)
        uneven = self.layout.joins and (min(self.widths) > 1 or (first > 1 and most_reach))
        return self.all_even or bool(uneven)

    @property
    def is_punctuation(self) -> bool:
        """Whether these are the commas of messages: a space behind each, and more in some rows than in others."""
        cells = [cell for row in self.rows for cell in row[1:] if cell]
        spaced = bool(cells) and all(cell.startswith(" ") for cell in cells)
        return spaced and (len(self.rows) == 1 or len(set(self.widths)) > 1) and self.layout.joins is not None

    @property
    def misses_names(self) -> bool:
        """Whether all rows have the same number of cells below a single name."""
        first, *body = self.widths or [0]
        punctuation = all(cell.startswith(" ") for row in self.rows for cell in row[1:])
        return first == 1 and len(body) > 1 and min(body) == max(body) > 1 and not punctuation

    @property
    def rank(self) -> tuple:
        """Return what tells the better of two separations, most important first."""
        # Punctuation has a space behind it; separators have none.
        spaced = sum(cell.startswith(" ") for row in self.rows for cell in row[1:])
        return self.all_even, -spaced, self.layout.delimiter == self.layout.expected, self.widths[0]

    def with_line_end(self) -> Layout:
        """Return the layout; delimiters of another kind that end the header and all rows are not part of a cell."""
        first = self.rows[0][-1]
        line_end = first[len(first.rstrip(_USUAL)) :]
        same = line_end and all(row[-1].endswith(line_end) for row in self.rows)
        return replace(self.layout, line_end=line_end if same else "")
