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
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from text_classifier.text import HAN, has_chinese, normalise, simplify

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

# Chinese messages get a model of their own if at least this many of each class are trained on.
CHINESE_MESSAGES = 50

# Characters of a message that are read, in training and in use. More is not read, because the n-grams of a pasted book
# would fill the memory.
TFIDF_MAX_CHARACTERS = 10_000

WEIGHTS_FILE, VOCABULARY_FILE = "tfidf.safetensors", "tfidf_vocabulary.json"


def _as_read(normalised: Sequence[str]) -> list[str]:
    """Return n normalised messages as TF-IDF reads them: their beginnings, in simplified Chinese."""
    return [simplify(text[:TFIDF_MAX_CHARACTERS]) for text in normalised]


def _new_model() -> Pipeline:
    features = FeatureUnion([(name, TfidfVectorizer(**settings)) for name, settings in FEATURES.items()])
    regression = LogisticRegression(C=C, max_iter=1000, class_weight="balanced")
    return Pipeline([("features", features), ("regression", regression)])


@dataclass(frozen=True)
class TfidfModel:
    """One model for all messages, or one for those with Chinese characters and one for the others.

    Two languages share few n-grams, but numbers, links and marks mean something else in each: one model for both is
    worse in both.
    """

    models: dict[str, Pipeline]  # by the messages that they answer: `other`, and perhaps `chinese`

    def log_odds(self, texts: Sequence[str], normalised: bool = False) -> np.ndarray:
        """Return the log odds of class 1 of n messages, which may be normalised already, shape (n,)."""
        texts = _as_read(texts if normalised else list(map(normalise, texts)))
        log_odds = np.empty(len(texts))
        for name, indices in _parts(texts, "chinese" in self.models).items():
            if len(indices):
                log_odds[indices] = self.models[name].decision_function([texts[index] for index in indices])
        return log_odds


def _parts(texts: Sequence[str], two_models: bool) -> dict[str, np.ndarray]:
    """Return the indices of the messages that each model answers."""
    chinese = np.array([two_models and has_chinese(text) for text in texts], dtype=bool)
    parts = {"chinese": np.flatnonzero(chinese), "other": np.flatnonzero(~chinese)}
    return parts if two_models else {"other": parts["other"]}


def fit_tfidf(texts: Sequence[str], labels: Sequence[int], weights: Sequence[float] | None = None) -> TfidfModel:
    """Train on n messages, with equal weight for both classes. This takes seconds if the messages are short.

    Args:
        labels: 0 or 1, shape (n,).
        weights: weights of the messages beside those of their classes, shape (n,); all 1 if not given.

    Raises:
        ValueError: the messages hold no words, or only one class.
    """
    texts, labels = _as_read(list(map(normalise, texts))), np.asarray(labels)
    weights = np.ones(len(texts)) if weights is None else np.asarray(weights)
    parts = _parts(texts, two_models=True)
    enough = np.bincount(labels[parts["chinese"]], minlength=2).min() >= CHINESE_MESSAGES
    if not enough or len(np.unique(labels[parts["other"]])) < 2:
        parts = _parts(texts, two_models=False)
    models = {name: _new_model() for name in parts}
    for name, of in parts.items():
        models[name].fit([texts[index] for index in of], labels[of], regression__sample_weight=weights[of])
    return TfidfModel(models)


def save_tfidf(model: TfidfModel, folder: Path) -> None:
    """Save a model as two files in a folder: its weights, and the n-grams that the weights belong to."""
    tensors, vocabulary = {}, {}
    for part, pipeline in model.models.items():
        regression, vocabulary[part], start = pipeline["regression"], {}, 0
        tensors[f"{part}.intercept"] = regression.intercept_
        for name, vectorizer in pipeline["features"].transformer_list:
            coefficients = regression.coef_[0, start : start + len(vectorizer.idf_)]
            start += len(vectorizer.idf_)
            tensors |= {f"{part}.{name}.coefficients": coefficients, f"{part}.{name}.idf": vectorizer.idf_}
            vocabulary[part][name] = vectorizer.get_feature_names_out().tolist()
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / VOCABULARY_FILE).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")


def load_tfidf(folder: Path) -> TfidfModel:
    """Load the model that `save_tfidf` saved in a folder.

    Raises:
        OSError: a file is missing.
        ValueError: the files are damaged, or they do not belong together, or an earlier version wrote them.
    """
    weights_file, vocabulary_file = folder / WEIGHTS_FILE, folder / VOCABULARY_FILE
    try:
        tensors = load_file(weights_file)
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        return TfidfModel({part: _load_part(part, tensors, vocabulary[part]) for part in {"other", *vocabulary}})
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{weights_file} or {VOCABULARY_FILE} beside it is damaged, or of an earlier version: {error}"
        ) from error


def _load_part(part: str, tensors: dict[str, np.ndarray], vocabulary: dict[str, list[str]]) -> Pipeline:
    pipeline = _new_model()
    for name, vectorizer in pipeline["features"].transformer_list:
        vectorizer.vocabulary = vocabulary[name]
        # scikit-learn raises an error here if there are not as many weights as n-grams.
        vectorizer.idf_ = tensors[f"{part}.{name}.idf"]
    regression = pipeline["regression"]
    regression.classes_, regression.intercept_ = np.array([0, 1]), tensors[f"{part}.intercept"]
    regression.coef_ = np.hstack([tensors[f"{part}.{name}.coefficients"] for name in FEATURES])[np.newaxis]
    return pipeline
