"""Read the tables of messages that people have."""

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd


def is_tab_separated(path: Path) -> bool:
    """Tell by its name whether a file separates columns by tabs."""
    return path.suffix.lower() in (".tsv", ".tab")


def read_table(path: Path, rows_at_a_time: int | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a .csv or .tsv as strings, all at once or some at a time; an empty cell is "".

    A .csv may quote its fields; a .tsv is read as the format is defined, one line a row, no quoting.

    Raises:
        ValueError: the file is missing, not UTF-8 or not a table; the message says what to do.
    """
    tab_separated = is_tab_separated(path)
    try:
        with warnings.catch_warnings():
            # Rows with more fields than the header: text with commas that nobody quoted.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if tab_separated else ",",
                quoting=csv.QUOTE_NONE if tab_separated else csv.QUOTE_MINIMAL,
                dtype=str,
                encoding="utf-8-sig",
                index_col=False,
                # "NA", "null" and "None" are things people write.
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
    """See to it that a file has the columns that are asked for.

    Args:
        columns: of the file.
        options: name of the command's option -> the column it names: `text_column="body"`.

    Raises:
        ValueError: one of them is missing.
    """
    for option, column in options.items():
        if column not in columns:
            raise ValueError(
                f"{source} has no column {column!r}, only {', '.join(map(repr, columns))}. "
                f"Name the right one with --{option}."
            )
