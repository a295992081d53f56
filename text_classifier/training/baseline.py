"""The baseline: TF-IDF on all messages of a run. The language model is compared with it, and they answer together."""

import pandas as pd
from scipy.special import expit

from text_classifier.errors import ConfigurationError
from text_classifier.tfidf import TfidfModel, fit_tfidf
from text_classifier.training.config import DataArguments
from text_classifier.training.data import EXTRA_SPLITS, Predictions, splits_learned_from

# Weight of the modern spam beside the other messages. With full weight more ham is called spam, of the collection and
# of wanted notices.
MODERN_SPAM_WEIGHT = 0.5


def train_baseline(splits: dict[str, pd.DataFrame], data_args: DataArguments) -> TfidfModel:
    """Train a TF-IDF model on every message that the language model can learn from.

    Args:
        splits: split name -> table with the columns `Label` (0/1) and `Text`.

    Raises:
        ConfigurationError: the messages hold no words.
    """
    names = [name for name in (*splits_learned_from(data_args), *EXTRA_SPLITS) if name in splits]
    messages = pd.concat([splits[name] for name in names])
    weights = [
        MODERN_SPAM_WEIGHT if (name, label) == ("modern", 1) else 1.0
        for name in names
        for label in splits[name]["Label"]
    ]
    try:
        return fit_tfidf(messages["Text"].tolist(), messages["Label"].tolist(), weights)
    except ValueError as error:
        raise ConfigurationError(f"The messages hold no words: {error}") from error


def tfidf_predictions(model: TfidfModel, splits: dict[str, pd.DataFrame]) -> Predictions:
    """Return labels and probabilities of class 1 for every split.

    Args:
        splits: split name -> table with the columns `Label` (0/1) and `Text`.
    """
    return {
        name: (table["Label"].to_numpy(dtype=int), expit(model.log_odds(table["Text"].tolist())))
        for name, table in splits.items()
    }
