"""A TF-IDF model: logistic regression on TF-IDF features.

Every language model here is compared with it, and in the default recipe both answer together. N-grams remember the
wording of the training messages, the language model remembers their meaning. The two err on different messages, so
their joint answer is right more often than either answer alone.
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

from text_classifier.characters import HAN, has_chinese, simplify

# N-grams of 1 to 2 words, and of 1 to 5 characters within words. Chinese is written without spaces, so each of its
# characters counts as a word. `sublinear_tf` counts a repeated n-gram less. All other settings are scikit-learn's
# defaults.
FEATURES = {
    "words": {"ngram_range": (1, 2), "token_pattern": rf"(?u)[{HAN}]|\b[^\W{HAN}]{{2,}}\b", "sublinear_tf": True},
    "characters": {"analyzer": "char_wb", "ngram_range": (1, 5), "sublinear_tf": True},
}

# Inverse strength of regularisation. scikit-learn's default is 1; with it, probabilities stay close to 0.5, and more
# messages get the wrong label in cross-validation.
C = 30.0

# Characters of a message that are read, in training and in use. More is not read, because the n-grams of a pasted book
# would fill the memory.
TFIDF_MAX_CHARACTERS = 10_000

WEIGHTS_FILE, VOCABULARY_FILE = "tfidf.safetensors", "tfidf_vocabulary.json"


def as_read(texts: Sequence[str]) -> list[str]:
    """Return n messages as TF-IDF reads them: their beginnings, normalised and in simplified Chinese."""
    return [simplify(text[:TFIDF_MAX_CHARACTERS]) for text in texts]


@dataclass(frozen=True)
class TfidfModel:
    """A trained logistic regression on TF-IDF features."""

    vectorizers: dict[str, TfidfVectorizer]
    """Vectorizers by name, with the names of `FEATURES`."""
    coefficients: dict[str, np.ndarray]
    """Coefficients by the same names, each of shape (n_features,)."""
    intercept: float

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Return the log odds of class 1 of n messages, shape (n,)."""
        if not len(texts):
            return np.empty(0)
        texts = as_read(texts)
        features = {name: vectorizer.transform(texts) for name, vectorizer in self.vectorizers.items()}
        return self.intercept + sum(features[name] @ of_name for name, of_name in self.coefficients.items())


def fit_tfidf(texts: Sequence[str], labels: Sequence[int]) -> TfidfModel:
    """Train on n messages; in each language, both classes have equal weight. This takes seconds for short messages.

    Args:
        labels: 0 or 1, shape (n,).

    Raises:
        ValueError: the messages hold no words, or only one class.
    """
    vectorizers = {name: TfidfVectorizer(**settings) for name, settings in FEATURES.items()}
    texts = as_read(texts)
    features = [vectorizer.fit_transform(texts) for vectorizer in vectorizers.values()]
    regression = LogisticRegression(C=C, max_iter=1000)
    regression.fit(sparse.hstack(features), labels, balanced_weights(texts, labels))
    ends = np.cumsum([matrix.shape[1] for matrix in features])[:-1]
    coefficients = dict(zip(vectorizers, np.split(regression.coef_[0], ends), strict=True))
    return TfidfModel(vectorizers, coefficients, float(regression.intercept_[0]))


def balanced_weights(texts: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    """Return weights of n messages, shape (n,), with which both classes weigh the same, in Chinese and elsewhere.

    Otherwise the rare spam of the English messages, which weighs more, would make Chinese itself a sign of spam.
    """
    groups = 2 * np.array([has_chinese(text) for text in texts], dtype=int) + np.asarray(labels)
    counts = np.bincount(groups, minlength=4).reshape(2, 2)
    return (counts.sum(axis=1, keepdims=True) / (2 * np.maximum(counts, 1))).ravel()[groups]


def save_tfidf(model: TfidfModel, folder: Path) -> None:
    """Save a model as two files in a folder: its weights, and the n-grams that the weights belong to."""
    tensors = {"intercept": np.array([model.intercept])}
    for name, vectorizer in model.vectorizers.items():
        tensors |= {f"{name}.coefficients": model.coefficients[name], f"{name}.idf": vectorizer.idf_}
    save_file(tensors, folder / WEIGHTS_FILE)
    vocabulary = {name: vectorizer.get_feature_names_out().tolist() for name, vectorizer in model.vectorizers.items()}
    (folder / VOCABULARY_FILE).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")


def load_tfidf(folder: Path) -> TfidfModel:
    """Load the model that `save_tfidf` saved in a folder.

    Raises:
        OSError: a file is missing.
        ValueError: the files are damaged, or they do not belong together.
    """
    weights_file, vocabulary_file = folder / WEIGHTS_FILE, folder / VOCABULARY_FILE
    try:
        tensors = load_file(weights_file)
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        vectorizers = {}
        for name, settings in FEATURES.items():
            vectorizers[name] = TfidfVectorizer(vocabulary=vocabulary[name], **settings)
            # scikit-learn raises an error here if there are not as many weights as n-grams.
            vectorizers[name].idf_ = tensors[f"{name}.idf"]
        coefficients = {name: tensors[f"{name}.coefficients"] for name in FEATURES}
        return TfidfModel(vectorizers, coefficients, float(tensors["intercept"][0]))
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{weights_file} or {VOCABULARY_FILE} beside it is damaged: {error}") from error
