"""Make a small set of film reviews for machines that cannot reach the IMDB archive.

    python -m text_classifier.extras.review_snippets
    python gpt_classification_model.py recipes/imdb_distilbert.yaml --data_file dataset/review_snippets.csv

The source package vaderSentiment 0.5 on the Python package registry (MIT) contains 10,605 sentences from film reviews.
Some 20 people rated each sentence from -4 to +4 (Hutto and Gilbert, "VADER", ICWSM 2014). The first command writes
review_snippets.csv with the columns `text` and `label`, the second trains on it.
"""

import csv
import sys
from pathlib import Path

import pandas as pd

from text_classifier.errors import run_command
from text_classifier.files import atomic_path
from text_classifier.sources.datasets import read_rated

TARGET = Path(__file__).parents[2] / "dataset" / "review_snippets.csv"


def label_snippets(rated: pd.DataFrame) -> pd.DataFrame:
    """Return `text` and `label`: positive for a mean rating of +0.5 or more, negative for -0.5 or less; drop others."""
    clear = rated[rated["rating"].abs() >= 0.5]
    labels = clear["rating"].gt(0).map({True: "positive", False: "negative"})
    return pd.DataFrame({"text": clear["text"], "label": labels})


def write_snippets() -> None:
    """Fetch the sentences and write the table."""
    snippets = label_snippets(read_rated("movieReviewSnippets"))
    with atomic_path(TARGET) as scratch:
        snippets.to_csv(scratch, index=False, quoting=csv.QUOTE_ALL)
    counts = snippets["label"].value_counts()
    print(f"{TARGET.name}: {counts['positive']:,} positive and {counts['negative']:,} negative")


def main() -> int:
    """Write the table; return the exit code."""
    return run_command(write_snippets, str(TARGET))


if __name__ == "__main__":
    sys.exit(main())
