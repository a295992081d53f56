"""The messages that are trained and tested on: read, labelled, without duplicates."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from text_classifier.errors import ConfigurationError
from text_classifier.tables import read_table

logger = logging.getLogger(__name__)


PRESENT_DAY_MESSAGES = Path(__file__).parents[2] / "dataset" / "present_day_messages.tsv"


# Splits that training never sees; thresholds are chosen on the two validation splits.
HELD_OUT = ("validation", "test", "left_out_validation", "left_out_test")


def read_messages(data_file: Path, text_column: str, label_column: str) -> pd.DataFrame:
    """Read a user's .csv or .tsv into columns `Label` and `Text` (strings).

    Rows without a label or a text are left out, and their number is said.

    Raises:
        ConfigurationError: the file is missing, not UTF-8, not a table, or lacks a column.
    """
    try:
        (table,) = read_table(data_file)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    for column, option in ((text_column, "--text_column"), (label_column, "--label_column")):
        if column not in table.columns:
            raise ConfigurationError(
                f"{data_file} has no column {column!r}, only {', '.join(map(repr, table.columns))}. "
                f"Name the right one with {option}."
            )
    table = pd.DataFrame({"Label": table[label_column].str.strip(), "Text": table[text_column]})
    complete = table["Label"].ne("") & table["Text"].str.strip().ne("")
    if dropped := int((~complete).sum()):
        logger.warning("%s: %d rows without text or label are left out.", data_file, dropped)
    return table[complete].reset_index(drop=True)


def label_names_of(labels: pd.Series, positive_label: str | None = None) -> tuple[str, str]:
    """Return the names of class 0 and class 1: alphabetical, unless `positive_label` names class 1.

    Raises:
        ConfigurationError: there are not exactly two labels, or `positive_label` is none of them.
    """
    names = sorted(labels.unique())
    if len(names) != 2:
        shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ConfigurationError(f"The classifier needs exactly two labels; the data has {len(names)}: {shown}.")
    if positive_label is not None and positive_label not in names:
        raise ConfigurationError(f"--positive_label {positive_label!r} is none of the labels {names}.")
    return tuple(reversed(names)) if positive_label == names[0] else tuple(names)


def text_key(texts: pd.Series) -> pd.Series:
    """Return what is left of texts without case, white space and punctuation: the same for duplicates."""
    words = texts.str.casefold().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    return words.where(words.ne(""), texts.str.strip())


def drop_duplicates(df: pd.DataFrame, keep: Literal["first", "last"] = "first") -> pd.DataFrame:
    """Keep the first (or last) of the messages that differ only in case, white space and punctuation.

    Otherwise copies of a training message stand in the test split and are counted as successes.
    """
    return df[~text_key(df["Text"]).duplicated(keep=keep)]


def read_present_day_messages() -> pd.DataFrame:
    """Return the messages of today that were written for this project, columns `Label` and `Text`.

    Spam's made-up links are kept under `.example`, which belongs to nobody; here they get endings that links have, or
    a model would learn the word.
    """
    messages = read_messages(PRESENT_DAY_MESSAGES, "Text", "Label")
    endings = itertools.cycle((".com", ".info", ".co", ".net", ".top", ".org", ".co.uk", ".online", ".io", ".xyz"))
    return messages.assign(Text=messages["Text"].str.replace(r"\.example\b", lambda _: next(endings), regex=True))


def add_training_messages(
    splits: dict[str, pd.DataFrame], name: str, messages: pd.DataFrame, label_names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the splits with another to train on.

    A message that stands in a split that is held out is left out, so that figures stay honest; one that
    stands among the training messages replaces it.

    Args:
        splits: see `make_splits`.
        name: of the new split, one of `EXTRA_SPLITS`.
        messages: columns `Label` (names) and `Text`.
        label_names: of class 0 and class 1.

    Raises:
        ConfigurationError: the messages have other labels.
    """
    if unknown := sorted(set(messages["Label"]) - set(label_names)):
        raise ConfigurationError(f"The {name} has labels that the data has not: {', '.join(map(repr, unknown))}.")
    held_out = text_key(pd.concat([splits[split]["Text"] for split in HELD_OUT]))
    messages = messages[~text_key(messages["Text"]).isin(held_out)]
    keys = text_key(messages["Text"])
    ids = {label: number for number, label in enumerate(label_names)}
    replaced = {
        split: part if split in HELD_OUT else part[~text_key(part["Text"]).isin(keys)] for split, part in splits.items()
    }
    return replaced | {name: messages.assign(Label=messages["Label"].map(ids).astype(int))}
