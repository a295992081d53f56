"""TF-IDF models: the rivals that the language model is measured against, and the partner that it answers with."""

from dataclasses import dataclass

import pandas as pd
from scipy.special import expit

from text_classifier.errors import ConfigurationError
from text_classifier.tfidf import TfidfModel, fit_tfidf
from text_classifier.training.data import HELD_OUT, Predictions

# Log odds from where TF-IDF is sure. Among 2,259 held-out messages of the collection and unlike it, some with typing
# errors, the farthest from the decision threshold whose label the language model turned stood at 2.0.
SURE_LOG_ODDS = 2.5

# Weight of the present-day spam beside the other messages. With full weight more ham is called spam, of the collection
# and of wanted notices.
PRESENT_DAY_SPAM_WEIGHT = 0.5


@dataclass(frozen=True)
class Rivals:
    """TF-IDF models that were trained on the messages that the language model can learn from, or on some of them."""

    predictions: dict[str, Predictions]
    """Predictions on held-out messages by the name of the model, which says what it was trained on."""
    partner_name: str
    """Name of the model that learned from all these messages."""
    partner: TfidfModel


def train_rivals(splits: dict[str, pd.DataFrame], with_left_out: bool) -> Rivals:
    """Train a TF-IDF model on the balanced messages and the corrections, and others on these and more messages.

    Args:
        splits: split name -> table with the columns `Label` (0/1) and `Text`.
        with_left_out: whether the left-out messages are trained on.

    Raises:
        ConfigurationError: the messages hold no words.
    """
    name, parts = "TF-IDF, train", ["train", *(["feedback"] if "feedback" in splits else [])]
    training_sets = {name: parts}
    if with_left_out and len(splits["left_out_train"]):
        name, parts = f"{name} + left out", [*parts, "left_out_train"]
        training_sets[name] = parts
    for split, named in (("present_day", "modern"), ("chinese", "Chinese"), ("background", "background")):
        if split in splits:
            name, parts = f"{name} + {named}", [*parts, split]
            training_sets[name] = parts
    held_out = {split: splits[split] for split in HELD_OUT}
    models = {rival: _train(splits, of_rival) for rival, of_rival in training_sets.items()}
    predictions = {rival: tfidf_predictions(model, held_out) for rival, model in models.items()}
    return Rivals(predictions, name, models[name])


def weight_of(split: str, label: int) -> float:
    """Return the weight for TF-IDF of a split's messages with a label, 0 or 1."""
    return PRESENT_DAY_SPAM_WEIGHT if (split, label) == ("present_day", 1) else 1.0


def _train(splits: dict[str, pd.DataFrame], parts: list[str]) -> TfidfModel:
    messages = pd.concat([splits[part] for part in parts])
    weights = [weight_of(part, label) for part in parts for label in splits[part]["Label"]]
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
