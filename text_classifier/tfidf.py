"""TF-IDF and logistic regression: the rival of every language model here, and in the default recipe its partner.

N-grams remember what the training messages say word for word, a language model what they mean. Both err, and on
different messages, so that what they say together is right more often than what either says.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

# Words (1-2), and characters within words (1-5), otherwise with scikit-learn's defaults.
FEATURES = {"words": {"ngram_range": (1, 2)}, "characters": {"analyzer": "char_wb", "ngram_range": (1, 5)}}

# Inverse strength of regularisation. With scikit-learn's default, 1, probabilities stay close to a half, and more
# validation messages are misjudged.
C = 10.0

# What follows is not looked at, in training and in use: the n-grams of a pasted book would fill the memory.
TFIDF_MAX_CHARACTERS = 10_000

WEIGHTS_FILE, VOCABULARY_FILE = "tfidf.safetensors", "tfidf_vocabulary.json"


def beginnings(texts: Sequence[str]) -> list[str]:
    """Return what is read of each message."""
    return [text[:TFIDF_MAX_CHARACTERS] for text in texts]


@dataclass(frozen=True)
class TfidfModel:
    """A trained logistic regression on TF-IDF features."""

    vectorizers: dict[str, TfidfVectorizer]
    """By name, as in `FEATURES`."""
    coefficients: dict[str, np.ndarray]
    """By the same names, shape (n_features,)."""
    intercept: float

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Return the log odds of class 1 of n messages, shape (n,)."""
        if not len(texts):
            return np.empty(0)
        texts = beginnings(texts)
        features = {name: vectorizer.transform(texts) for name, vectorizer in self.vectorizers.items()}
        return self.intercept + sum(features[name] @ of_name for name, of_name in self.coefficients.items())


def fit_tfidf(texts: Sequence[str], labels: Sequence[int]) -> TfidfModel:
    """Train on n messages, classes weighted equally: seconds on short messages.

    Args:
        labels: 0 or 1, shape (n,).

    Raises:
        ValueError: the messages hold no words, or one class only.
    """
    vectorizers = {name: TfidfVectorizer(**settings) for name, settings in FEATURES.items()}
    texts = beginnings(texts)
    features = [vectorizer.fit_transform(texts) for vectorizer in vectorizers.values()]
    regression = LogisticRegression(C=C, max_iter=1000, class_weight="balanced")
    regression.fit(sparse.hstack(features), labels)
    ends = np.cumsum([matrix.shape[1] for matrix in features])[:-1]
    coefficients = dict(zip(vectorizers, np.split(regression.coef_[0], ends), strict=True))
    return TfidfModel(vectorizers, coefficients, float(regression.intercept_[0]))


def save_tfidf(model: TfidfModel, folder: Path) -> None:
    """Save a model as two files of a folder: weights, and the n-grams they belong to."""
    tensors = {"intercept": np.array([model.intercept])}
    for name, vectorizer in model.vectorizers.items():
        tensors |= {f"{name}.coefficients": model.coefficients[name], f"{name}.idf": vectorizer.idf_}
    save_file(tensors, folder / WEIGHTS_FILE)
    vocabulary = {name: vectorizer.get_feature_names_out().tolist() for name, vectorizer in model.vectorizers.items()}
    (folder / VOCABULARY_FILE).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")


def load_tfidf(folder: Path) -> TfidfModel:
    """Load the model of a folder.

    Raises:
        OSError: one of its files is missing.
        ValueError: they are damaged, or do not belong together.
    """
    weights_file, vocabulary_file = folder / WEIGHTS_FILE, folder / VOCABULARY_FILE
    try:
        tensors = load_file(weights_file)
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        vectorizers = {}
        for name, settings in FEATURES.items():
            vectorizers[name] = TfidfVectorizer(vocabulary=vocabulary[name], **settings)
            # Refuses another number than that of the n-grams.
            vectorizers[name].idf_ = tensors[f"{name}.idf"]
        coefficients = {name: tensors[f"{name}.coefficients"] for name in FEATURES}
        return TfidfModel(vectorizers, coefficients, float(tensors["intercept"][0]))
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{weights_file} or {VOCABULARY_FILE} beside it is damaged: {error}") from error
