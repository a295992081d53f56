"""Read a file of given content, as the chat does."""

import pandas as pd

from chat.dropped_files import LIMITS
from text_classifier.reading.messages import Table, open_table
from text_classifier.reading.options import ReadOptions


def read(tmp_path, name, content, **options) -> pd.DataFrame:
    return opened(tmp_path, name, content, **options).frame()


def opened(tmp_path, name, content, limits=LIMITS, **options) -> Table:
    path = tmp_path / "upload"
    path.write_bytes(content)
    return open_table(path, ReadOptions(**options), name, limits)


def said(table: Table) -> list[str]:
    return [note.key for note in table.notes]
