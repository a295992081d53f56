"""The one door for people's files of messages: training, file scoring and the chat read through it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from text_classifier.reading.columns import choose_label_column, choose_text_columns, texts_of
from text_classifier.reading.notes import Note
from text_classifier.reading.tables import Limits, Table, open_table

# Rows that the columns are found in.
_SAMPLE_ROWS = 1024


@dataclass
class ReadOptions:
    """Your own file: how it is read. What is not set is found."""

    text_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the message, or several, such as subject and body."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column with its right label."})
    positive_label: list[str] | None = field(
        default=None, metadata={"help": "Label to detect (class 1), or several; a known name such as spam if not set."}
    )
    encoding: str | None = field(default=None, metadata={"help": "Of a text file, such as gb18030."})
    no_header: bool = field(default=False, metadata={"help": "The first row is a message."})
    sheet: str | None = field(default=None, metadata={"help": "Of a workbook (.xlsx)."})

    def __post_init__(self):
        # A recipe may name one without writing a list.
        for name in ("text_column", "positive_label"):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, [value])


@dataclass(frozen=True)
class Messages:
    """The messages of a file, which can be read again and again."""

    table: Table
    text_columns: list[str]
    label_column: str | None
    notes: list[Note]
    """How the file was read, where that is not plain."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.table.rows

    def chunks(self, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the file's rows in tables of strings with `rows` rows each."""
        return self.table.chunks(rows)

    def texts(self, table: pd.DataFrame) -> pd.Series:
        """Return the messages of some of the file's rows."""
        return texts_of(table, self.text_columns)


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

    Raises:
        TableError: the file cannot be used; the message says why, and what to do.
    """
    options = options or ReadOptions()
    labels = [options.label_column or "Label"] if labelled or options.label_column else []
    table = open_table(
        path,
        name,
        encoding=options.encoding,
        header=False if options.no_header else None,
        sheet=options.sheet,
        wanted=[*(options.text_column or ["Text"]), *labels],
        limits=limits,
    )
    sample = next(table.chunks(_SAMPLE_ROWS))
    text_columns, of_texts = choose_text_columns(sample, options.text_column)
    label_column, of_labels = None, []
    if labels:
        label_column, of_labels = choose_label_column(sample, options.label_column, text_columns)
    table.check_surplus(text_columns)
    return Messages(table, text_columns, label_column, [*table.notes, *of_texts, *of_labels])
