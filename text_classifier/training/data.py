"""Read and label the messages for training and testing, and drop duplicates."""

import csv
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from text_classifier.characters import is_empty
from text_classifier.errors import ConfigurationError
from text_classifier.feedback import read_feedback
from text_classifier.files import file_sha256
from text_classifier.sources.datasets import read_sms_spam, resolve_imdb, resolve_sms_spam
from text_classifier.tables import check_columns, read_table
from text_classifier.training.config import DataArguments

logger = logging.getLogger(__name__)

PRESENT_DAY_MESSAGES = Path(__file__).parents[2] / "dataset" / "present_day_messages.tsv"

SPLITS = ("train", "validation", "test")
# Held-out splits: training does not learn from them. Decision thresholds are chosen on the two validation splits.
HELD_OUT = ("validation", "test", "left_out_validation", "left_out_test")

Predictions = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split name -> labels (0 or 1) and probabilities of class 1, each of shape (n,)."""


def read_messages(data_file: Path, text_column: str, label_column: str) -> pd.DataFrame:
    """Read a user's .csv or .tsv into columns `Label` and `Text` (strings).

    Rows without a label or a text are dropped, and a warning says how many.

    Raises:
        ConfigurationError: the file is missing, is not UTF-8, is not a table, or lacks a column.
    """
    try:
        (table,) = read_table(data_file)
        check_columns(data_file, table.columns, text_column=text_column, label_column=label_column)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    table = pd.DataFrame({"Label": table[label_column].str.strip(), "Text": table[text_column]})
    complete = table["Label"].ne("") & ~table["Text"].map(is_empty).astype(bool)
    if dropped := int((~complete).sum()):
        logger.warning("%s: %d rows without text or label are left out.", data_file, dropped)
    return table[complete].reset_index(drop=True)


def label_names_of(labels: pd.Series, positive_label: str | None = None) -> tuple[str, str]:
    """Return the names of class 0 and class 1, in alphabetical order unless `positive_label` names class 1.

    Raises:
        ConfigurationError: there are not exactly two labels, or `positive_label` is not one of them.
    """
    names = sorted(labels.unique())
    if len(names) != 2:
        shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ConfigurationError(f"The classifier needs exactly two labels; the data has {len(names)}: {shown}.")
    if positive_label is not None and positive_label not in names:
        raise ConfigurationError(
            f"--positive_label {positive_label!r} is none of the labels {', '.join(map(repr, names))}."
        )
    return tuple(reversed(names)) if positive_label == names[0] else tuple(names)


def text_key(texts: pd.Series) -> pd.Series:
    """Return texts without case, extra white space and punctuation, so that duplicates are equal.

    A text with nothing but punctuation stays as it is.
    """
    words = texts.str.casefold().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    return words.where(words.ne(""), texts.str.strip())


def drop_duplicates(df: pd.DataFrame, keep: Literal["first", "last"] = "first") -> pd.DataFrame:
    """Keep only the first (or last) of messages that differ only in case, white space and punctuation.

    Otherwise the test split contains copies of training messages, and these count as successes.
    """
    return df[~text_key(df["Text"]).duplicated(keep=keep)]


def read_present_day_messages() -> pd.DataFrame:
    """Return the present-day messages that were written for this project, columns `Label` and `Text`.

    In the file, the made-up links of spam end in `.example`, because nobody can own such an address. Here they get the
    endings of real links. Otherwise a model would learn that `example` means spam.
    """
    messages = read_messages(PRESENT_DAY_MESSAGES, "Text", "Label")
    endings = itertools.cycle((".com", ".info", ".co", ".net", ".top", ".org", ".co.uk", ".online", ".io", ".xyz"))
    return messages.assign(Text=messages["Text"].str.replace(r"\.example\b", lambda _: next(endings), regex=True))


def add_training_messages(
    splits: dict[str, pd.DataFrame], name: str, messages: pd.DataFrame, label_names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the splits and one more split to train on.

    A new message that is also a held-out message is dropped, so that the figures stay honest. If it is also a training
    message, it replaces that one.

    Args:
        splits: name -> messages, as `make_splits` in gpt_classification_model.py returns them.
        name: name of the new split, one of `batches.EXTRA_SPLITS`.
        messages: the new messages, columns `Label` (names) and `Text`.
        label_names: names of class 0 and class 1.

    Raises:
        ConfigurationError: the new messages have labels that the data does not have.
    """
    if unknown := sorted(set(messages["Label"]) - set(label_names)):
        raise ConfigurationError(
            f"The messages of {name} have labels that the data does not have: {', '.join(map(repr, unknown))}."
        )
    held_out = text_key(pd.concat([splits[split]["Text"] for split in HELD_OUT]))
    messages = messages[~text_key(messages["Text"]).isin(held_out)]
    keys = text_key(messages["Text"])
    ids = {label: number for number, label in enumerate(label_names)}
    replaced = {
        split: part if split in HELD_OUT else part[~text_key(part["Text"]).isin(keys)] for split, part in splits.items()
    }
    return replaced | {name: messages.assign(Label=messages["Label"].map(ids).astype(int))}


# ---------------------------------------------------------------------------- finding the messages


@dataclass(frozen=True)
class FoundMessages:
    """The messages of a run before the split, and where they came from."""

    messages: pd.DataFrame
    """Columns `Label` (names) and `Text`."""
    name: str
    source: str
    sha256: str
    """Checksum of the file."""
    extra: dict[str, pd.DataFrame]
    """Extra messages, which are only trained on: split name -> messages, with the same columns."""


def find_messages(data_args: DataArguments) -> FoundMessages:
    """Find the data set and the extra messages to train on.

    Raises:
        ArtifactError, ConfigurationError, OSError: the data cannot be obtained, or it cannot be used.
    """
    if data_args.data_file:
        path = Path(data_args.data_file)
        messages = read_messages(path, data_args.text_column, data_args.label_column)
        name, source, sha256 = path.name, "local file", file_sha256(path)
    elif data_args.dataset == "imdb":
        file = resolve_imdb(Path(data_args.dataset_dir))
        messages = read_messages(file.path, "text", "label")
        name, source, sha256 = "IMDB reviews", file.source, file.sha256
    else:
        file = resolve_sms_spam(Path(data_args.dataset_dir), data_args.data_source)
        # The published recipe reads the file with pandas' default quoting.
        quoting = csv.QUOTE_MINIMAL if data_args.protocol == "original" else csv.QUOTE_NONE
        messages = read_sms_spam(file.path, quoting)
        name, source, sha256 = "SMS Spam Collection", file.source, file.sha256
    return FoundMessages(messages, name, source, sha256, find_extra_messages(data_args))


def find_extra_messages(data_args: DataArguments) -> dict[str, pd.DataFrame]:
    """Return the extra messages, which are only trained on: split name -> messages, columns `Label` and `Text`.

    Raises:
        FileNotFoundError: the feedback file does not exist.
        ConfigurationError: the feedback file is not one.
    """
    extra = {}
    if data_args.present_day_messages and data_args.dataset == "sms_spam" and not data_args.data_file:
        extra["present_day"] = read_present_day_messages()
    if data_args.feedback_file:
        try:
            extra["feedback"] = drop_duplicates(read_feedback(Path(data_args.feedback_file)), keep="last")
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    return extra
