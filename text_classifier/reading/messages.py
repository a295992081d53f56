"""The one door for people's files of messages: training, file scoring and the chat read through it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from text_classifier.reading.columns import choose_label_column, choose_text_columns, texts_of
from text_classifier.reading.notes import Note, TableError
from text_classifier.reading.options import Limits, ReadOptions
from text_classifier.reading.tables import Table, open_table

# Rows that the columns are found in.
_SAMPLE_ROWS = 1024


@dataclass(frozen=True)
class Messages:
    """The messages of a file, which can be read again and again."""

    table: Table
    text_columns: list[str]
    label_column: str | None
    notes: list[Note]
    """How the file was read, where that is not plain."""

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
    table = open_table(path, options, name, limits)
    sample = next(table.chunks(_SAMPLE_ROWS))
    text_columns = choose_text_columns(sample, options.text_column, table.notes)
    label_column = None
    if labelled or options.label_column:
        label_column = choose_label_column(sample, options.label_column, text_columns, table.notes)
    # Joined cells are whole messages only in the last column. In another one, nobody knows which belong together.
    if table.joined and table.columns[-1] not in text_columns:
        raise TableError("file_uneven", **table.joined)
    return Messages(table, text_columns, label_column, table.notes)
