"""Store corrections in one SQLite file: the chat writes the answers that people correct, training reads them."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from text_classifier.files import is_stream
from text_classifier.text import replace_half_surrogates


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        yield connection


def _write(path: Path, command: str, *values: str | int) -> int:
    """Run a command that changes the corrections, and return the id of the last new row; OSError if it fails."""
    try:
        with _connection(path) as connection:
            return connection.execute(command, values).lastrowid
    # SQLite's error for a full disk, a folder that is gone, a file that may not be written.
    except sqlite3.OperationalError as error:
        raise OSError(f"{path} cannot be written: {error}. Earlier corrections are safe.") from error


def open_feedback(path: Path) -> None:
    """Create the file if it does not exist. Only its owner may read it, because it holds people's messages.

    Raises:
        OSError, sqlite3.Error: the file cannot be created, or it is not an SQLite file.
    """
    if is_stream(path):
        raise FileExistsError(f"{path} is a device or a pipe, not a file.")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with _connection(path) as connection:
        connection.execute("""
            CREATE TABLE IF NOT EXISTS feedback (
                id INTEGER PRIMARY KEY,
                created_at TEXT NOT NULL,
                text TEXT NOT NULL,
                given_label TEXT NOT NULL,
                right_label TEXT NOT NULL
            )
        """)


def save_feedback(path: Path, text: str, given_label: str, right_label: str) -> int:
    """Store one correction and return its id; OSError if it cannot be stored."""
    insertion = "INSERT INTO feedback (created_at, text, given_label, right_label) VALUES (?, ?, ?, ?)"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return _write(path, insertion, now, replace_half_surrogates(text), given_label, right_label)


def delete_feedback(path: Path, feedback_id: int) -> None:
    """Delete a correction; OSError if it cannot be deleted."""
    _write(path, "DELETE FROM feedback WHERE id = ?", feedback_id)


def read_feedback(path: Path) -> pd.DataFrame:
    """Return the corrections as columns `Label` (the right label) and `Text`; for each text only the latest one.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a feedback file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no feedback file {path}.")
    try:
        with _connection(path) as connection:
            rows = connection.execute("SELECT right_label, text FROM feedback ORDER BY id").fetchall()
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is not a feedback file of the chat: {error}") from error
    return pd.DataFrame(rows, columns=["Label", "Text"], dtype=str).drop_duplicates("Text", keep="last")
