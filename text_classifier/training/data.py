"""Read and label the messages for training and testing, and drop duplicates.

`make_splits` in gpt_classification_model.py balances and splits them.
"""

import csv
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from text_classifier.errors import ConfigurationError
from text_classifier.feedback import read_feedback
from text_classifier.files import file_sha256
from text_classifier.reading.columns import texts_of
from text_classifier.reading.labels import Classes, find_classes, is_missing, without_case
from text_classifier.reading.messages import ReadOptions, read_messages
from text_classifier.reading.notes import TableError
from text_classifier.sources.datasets import read_background, read_sms_spam, resolve_imdb, resolve_sms_spam
from text_classifier.text import is_empty
from text_classifier.training.config import DataArguments

logger = logging.getLogger(__name__)

# Messages that were made up for this project, by the name of their split.
MADE_UP_MESSAGES = {
    name: Path(__file__).parents[2] / "dataset" / f"{name}_messages.tsv" for name in ("modern", "chinese")
}

# Splits that are only trained on.
EXTRA_SPLITS = ("modern", "chinese", "background", "feedback")

SPLITS = ("train", "validation", "test")
# Held-out splits: training does not learn from them. Decision thresholds are chosen on the two validation splits.
HELD_OUT = ("validation", "test", "left_out_validation", "left_out_test")

Predictions = dict[str, tuple[np.ndarray, np.ndarray]]
"""Split name -> labels (0 or 1) and probabilities of class 1, each of shape (n,)."""


def read_labelled(data_file: Path, options: ReadOptions | None = None) -> pd.DataFrame:
    """Read a file of people's messages into columns `Label` and `Text` (strings).

    Rows without a label or a text are dropped, and a warning says how many. What was guessed about the file is logged.

    Raises:
        ConfigurationError: the file cannot be used; the message says why.
    """
    try:
        messages = read_messages(data_file, options, labelled=True)
    except TableError as error:
        raise ConfigurationError(f"{data_file}: {error}") from error
    for note in messages.notes:
        logger.info("%s: %s", data_file, note)
    table = messages.table()
    texts = texts_of(table, messages.text_columns)
    table = pd.DataFrame({"Label": table[messages.label_column].str.strip(), "Text": texts})
    complete = ~is_missing(table["Label"]) & ~table["Text"].map(is_empty).astype(bool)
    if dropped := int((~complete).sum()):
        logger.warning("%s: %d rows without text or label are left out.", data_file, dropped)
    return table[complete].reset_index(drop=True)


def read_classes(labels: pd.Series, positive_label: Sequence[str] | None = None) -> Classes:
    """Return the two classes of the data (see `find_classes`); raise a ConfigurationError if there are not two."""
    try:
        classes = find_classes(labels, positive_label)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if described := classes.describe():
        logger.log(logging.INFO if classes.clear else logging.WARNING, described)
    if labels.nunique() > len(classes.ids):
        logger.info("Labels that differ only in case are one: %s.", ", ".join(map(repr, sorted(labels.unique())[:8])))
    return classes


def text_key(texts: pd.Series) -> pd.Series:
    """Return texts without case, extra white space and punctuation, so that duplicates are equal."""
    # A text with nothing but punctuation stays as it is.
    words = texts.str.casefold().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    return words.where(words.ne(""), texts.str.strip())


def drop_duplicates(df: pd.DataFrame, keep: Literal["first", "last"] = "first") -> pd.DataFrame:
    """Keep only the first (or last) of messages that differ only in case, white space and punctuation.

    Otherwise the test split contains copies of training messages, and these count as successes.
    """
    return df[~text_key(df["Text"]).duplicated(keep=keep)]


def in_conflict(df: pd.DataFrame) -> pd.Series:
    """Return for each row whether its message stands in the data with both labels."""
    return df.groupby(text_key(df["Text"]))["Label"].transform("nunique") > 1


def clean(df: pd.DataFrame) -> pd.DataFrame:
    """Leave out messages that have both labels, with a warning that says how many, and all but the first of equal ones.

    Nobody knows which of both labels is right.
    """
    both = in_conflict(df)
    if both.any():
        texts = df["Text"][both]
        count = text_key(texts).nunique()
        logger.warning("%d messages have both labels and are left out. The first: %.60r", count, texts.iloc[0])
    return drop_duplicates(df[~both])


def read_tsv(file: Path) -> pd.DataFrame:
    """Return the table in one of the project's own .tsv files, in which a quotation mark is text."""
    return pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False)


def read_made_up_messages(split: str, left_out_kinds: Sequence[str] = ()) -> pd.DataFrame:
    """Return messages that were made up for this project, columns `Label`, `Kind` and `Text`.

    In the files, made-up links end in `.example`, because nobody can own such an address. Here they get the endings of
    real links. Otherwise a model would learn that `example` means spam.

    Raises:
        ConfigurationError: no file has messages of one of the kinds to leave out.
    """
    if left_out_kinds:
        kinds = set(pd.concat(map(read_tsv, MADE_UP_MESSAGES.values()))["Kind"])
        if unknown := sorted(set(left_out_kinds) - kinds):
            raise ConfigurationError(f"--left_out_kinds {' '.join(unknown)}: the kinds are {', '.join(sorted(kinds))}.")
    messages = read_tsv(MADE_UP_MESSAGES[split])
    endings = itertools.cycle((".com", ".info", ".co", ".net", ".top", ".org", ".co.uk", ".online", ".io", ".xyz"))
    messages["Text"] = messages["Text"].str.replace(r"\.example\b", lambda _: next(endings), regex=True)
    return messages[~messages["Kind"].isin(left_out_kinds)].reset_index(drop=True)


def splits_learned_from(data_args: DataArguments) -> list[str]:
    """Return the names of the data's own splits that are trained on; `EXTRA_SPLITS` come on top of them."""
    return ["train", "left_out_train"] if data_args.minority_repeats else ["train"]


def read_again(labels: Sequence[int], minority_repeats: int) -> list[int]:
    """Return which of n messages an epoch takes again: those of the smaller class, until it took them often enough.

    They end where both classes have the same number, or the smaller class would be called too often.

    Args:
        labels: 0 or 1, shape (n,).
    """
    counts = Counter(labels)
    smaller = min(counts, key=counts.get)
    members = [index for index, label in enumerate(labels) if label == smaller]
    again = min((minority_repeats - 1) * len(members), max(counts.values()) - len(members))
    return (members * minority_repeats)[:again]


def add_training_messages(
    splits: dict[str, pd.DataFrame], name: str, messages: pd.DataFrame, label_names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the splits and one more split to train on.

    A new message that is also a held-out message is dropped, so that the figures stay honest. If it is also a training
    message, it replaces that one.

    Args:
        splits: see `make_splits` in gpt_classification_model.py.
        name: name of the new split, one of `EXTRA_SPLITS`.
        messages: the new messages, columns `Label` (names) and `Text`.

    Raises:
        ConfigurationError: the new messages have labels that the data does not have.
    """
    ids = {label.casefold(): number for number, label in enumerate(label_names)}
    if unknown := sorted(set(without_case(messages["Label"])) - set(ids)):
        raise ConfigurationError(
            f"The messages of {name} have labels that the data does not have: {', '.join(map(repr, unknown))}."
        )
    held_out = text_key(pd.concat([splits[split]["Text"] for split in HELD_OUT]))
    messages = messages[~text_key(messages["Text"]).isin(held_out)]
    keys = text_key(messages["Text"])
    # A held-out message equals none of the new ones by now, so this only drops training messages.
    replaced = {split: part[~text_key(part["Text"]).isin(keys)] for split, part in splits.items()}
    return replaced | {name: messages.assign(Label=without_case(messages["Label"]).map(ids).astype(int))}


# ---------------------------------------------------------------------------- finding the messages


@dataclass(frozen=True)
class FoundMessages:
    """The messages of a data set, and where they came from."""

    messages: pd.DataFrame
    """Columns `Label` (one of the two names of `classes`) and `Text`."""
    classes: Classes
    name: str
    source: str
    sha256: str
    test: pd.DataFrame | None
    """Messages to test on, if these have a file of their own; they are not among `messages`."""
    extra: dict[str, pd.DataFrame]
    """Extra messages, which are only trained on: split name -> messages, with the same columns."""


def find_messages(data_args: DataArguments) -> FoundMessages:
    """Find the data set and the extra messages to train on.

    Raises:
        ArtifactError, ConfigurationError, OSError: the data cannot be obtained, or it cannot be used.
    """
    own, tested = (Path(file) if file else None for file in (data_args.data_file, data_args.test_file))
    if own:
        messages, name, source, sha256 = read_labelled(own, data_args), own.name, "local file", file_sha256(own)
    elif data_args.dataset == "imdb":
        file = resolve_imdb(Path(data_args.dataset_dir))
        messages = read_labelled(file.path, ReadOptions(text_column=["text"], label_column="label"))
        name, source, sha256 = "IMDB reviews", file.source, file.sha256
    else:
        file = resolve_sms_spam(Path(data_args.dataset_dir), data_args.data_source)
        # The published recipe reads the file with pandas' default quoting.
        quoting = csv.QUOTE_MINIMAL if data_args.protocol == "original" else csv.QUOTE_NONE
        messages = read_sms_spam(file.path, quoting)
        name, source, sha256 = "SMS Spam Collection", file.source, file.sha256
    classes = read_classes(messages["Label"], data_args.positive_label)
    test = None
    if tested:
        # A run that resumes this one must have the same test file too.
        sha256 += file_sha256(tested)
        test = clean(name_labels(read_labelled(tested, data_args), classes, tested)).reset_index(drop=True)
        # A test on messages that were trained on shows nothing.
        both = text_key(messages["Text"]).isin(text_key(test["Text"]))
        if both.any():
            logger.warning("%d messages to train on stand in the test file too and are left out.", both.sum())
        messages = messages[~both].reset_index(drop=True)
    messages = name_labels(messages, classes, own)
    return FoundMessages(messages, classes, name, source, sha256, test, find_extra_messages(data_args))


def name_labels(messages: pd.DataFrame, classes: Classes, path: Path | None) -> pd.DataFrame:
    """Replace every label by the name of its class; raise a ConfigurationError if one is in neither."""
    ids = classes.ids_of(messages["Label"])
    if ids.isna().any():
        raise ConfigurationError(f"{path}: the label {messages['Label'][ids.isna()].iloc[0]!r} is in neither class.")
    return messages.assign(Label=ids.map(dict(enumerate(classes.names))))


def find_extra_messages(data_args: DataArguments) -> dict[str, pd.DataFrame]:
    """Return the extra messages, which are only trained on: split name -> messages, columns `Label` and `Text`.

    Raises:
        FileNotFoundError: the feedback file does not exist.
        ConfigurationError: the feedback file is not one, or nothing has a name in `extra_data`.
    """
    extra, wanted = {}, set(data_args.extra_data or ())
    if unknown := sorted(wanted - {*MADE_UP_MESSAGES, "background"}):
        raise ConfigurationError(f"--extra_data {' '.join(unknown)}: there are modern, chinese and background.")
    if data_args.dataset == "sms_spam":
        extra = {
            split: read_made_up_messages(split, data_args.left_out_kinds or ()).drop(columns="Kind")
            for split in MADE_UP_MESSAGES
            if split in wanted
        }
        if "background" in wanted:
            extra["background"] = read_background()[["Text"]].assign(Label="ham")
    if data_args.feedback_file:
        try:
            extra["feedback"] = drop_duplicates(read_feedback(Path(data_args.feedback_file)), keep="last")
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    return extra
