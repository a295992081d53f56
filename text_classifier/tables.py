"""Read people's tables of messages, .csv or .tsv."""

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd


def is_tab_separated(path: Path) -> bool:
    """Return whether the file's suffix says that tabs separate its columns."""
    return path.suffix.lower() in (".tsv", ".tab")


def read_table(path: Path, rows_at_a_time: int | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a .csv or .tsv as tables of strings; an empty cell is "".

    A .csv may quote its fields. A .tsv has no quoting, because its format defines each line as one row.

    Args:
        rows_at_a_time: rows of each table; None yields one table with all rows.

    Raises:
        ValueError: the file is missing, not UTF-8 or not a table; the message says what to do.
    """
    tab_separated = is_tab_separated(path)
    try:
        with warnings.catch_warnings():
            # pandas only warns if a row has more fields than the header. Here this is an error, because the row's
            # text has commas and is not quoted.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if tab_separated else ",",
                quoting=csv.QUOTE_NONE if tab_separated else csv.QUOTE_MINIMAL,
                dtype=str,
                encoding="utf-8-sig",
                index_col=False,
                # People write "NA", "null" and "None", so these are text and not empty cells.
                keep_default_na=False,
                chunksize=rows_at_a_time,
            )
            yield from [table] if rows_at_a_time is None else table
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}). Convert it first, with its own encoding "
            f"(cp1252, gb18030, utf-16 …) for ENCODING: iconv -f ENCODING -t utf-8 {path} > converted{path.suffix}"
        ) from error
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(f"Cannot read {path} as a table: {str(error).strip()}") from error


def check_columns(source: Path, columns: Sequence[str], **options: str) -> None:
    """Check that a file has the columns that the command's options name.

    Args:
        source: the file, named in the error message.
        columns: names of the file's columns.
        options: option -> name of its column, such as `text_column="body"`.

    Raises:
        ValueError: a column is missing.
    """
    for option, column in options.items():
        if column not in columns:
            raise ValueError(
                f"{source} has no column {column!r}, only {', '.join(map(repr, columns))}. "
                f"Name the right one with --{option}."
            )
