"""Score predictions: the TF-IDF baseline, how both models are joined and compared, and decision thresholds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from torch.utils.data import Dataset
from transformers import Trainer

from text_classifier.classifier import Joint
from text_classifier.errors import ConfigurationError
from text_classifier.metrics import classification_metrics
from text_classifier.tfidf import TfidfModel, fit_tfidf
from text_classifier.training.config import DataArguments
from text_classifier.training.data import EXTRA_SPLITS, Predictions, splits_learned_from
from text_classifier.training.trainer import length_order

# How the two models' log odds are joined. The language model's count less, because it is overconfident.
JOINT = Joint(language_model=0.5)
# The same for the SMS Spam Collection and what is trained on beside it: near to 0.39, 0.76 and -0.35, which is
# likeliest for validation messages, kinds left out of training and sentences that are no messages, with three spam
# messages in ten (`python -m benchmarks.left_out_kinds`). With one in eight, as in the collection, the intercept is
# -1.4: ham is safer still, and more unforeseen spam passes.
SPAM_JOINT = Joint(language_model=0.45, tfidf=0.8, intercept=-0.4)

# Name of the TF-IDF model in tables and files.
BASELINE = "TF-IDF"

# Distance from the decision threshold, in log odds, at which TF-IDF may answer alone. Among 2,259 held-out messages of
# the collection and unlike it, some with typing errors, the language model changed no label beyond 2.0.
SURE_LOG_ODDS = 2.5
# A run's bound is at least this far beyond all its validation messages whose label the language model changed.
EXIT_MARGIN = 0.5


def at_natural_ratio(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities of the test and left-out test messages together, which have the natural ratio."""
    return tuple(np.concatenate(pair) for pair in zip(predictions["test"], predictions["left_out_test"], strict=True))


def evaluate(
    model: str, predictions: Predictions, false_positive_rate: float | None = None
) -> tuple[dict[str, dict[str, dict]], float]:
    """Choose the decision threshold of a model on the validation splits, and measure the model on the reported splits.

    Args:
        model: its name in the table of results.
        predictions: labels and probabilities of class 1 for every split in `HELD_OUT`, and perhaps for `train`.
        false_positive_rate: choose the decision threshold at which this share of class 0 is called class 1. It is 0.5
            if this is None, or if there are too few messages for it.

    Returns:
        `{model: {split: metrics}}` and the decision threshold. If that is not 0.5, there is one more entry with the
        metrics at 0.5. The split `natural` has the messages of `at_natural_ratio`.
    """
    validation = [predictions["validation"], predictions["left_out_validation"]]
    negatives = np.concatenate([probabilities[labels == 0] for labels, probabilities in validation])
    threshold = 0.5
    if false_positive_rate is not None and len(negatives) * false_positive_rate >= 1:
        # Keep away from 0 and 1, because their log odds are infinite.
        threshold = float(np.clip(round(np.quantile(negatives, 1 - false_positive_rate), 4), 0.0001, 0.9999))
    reported = {name: predictions[name] for name in ("train", "validation", "test") if name in predictions}
    reported |= {"left_out": predictions["left_out_test"], "natural": at_natural_ratio(predictions)}
    rows = {model: threshold} if threshold == 0.5 else {f"{model}, threshold 0.5": 0.5, model: threshold}
    return {
        row: {split: classification_metrics(*of_split, used) for split, of_split in reported.items()}
        for row, used in rows.items()
    }, threshold


def predict(trainer: Trainer, datasets: dict[str, Dataset]) -> Predictions:
    """Return labels and probabilities of class 1, each of shape (n,), for each dataset by its name."""
    predictions = {}
    for split, dataset in datasets.items():
        labels, probabilities = np.empty(len(dataset), dtype=int), np.empty(len(dataset))
        if len(dataset):
            output, order = trainer.predict(dataset), length_order(dataset)
            labels[order] = output.label_ids
            probabilities[order] = torch.tensor(output.predictions, dtype=torch.float64).softmax(dim=-1)[:, 1].numpy()
        predictions[split] = (labels, probabilities)
    return predictions


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Return the log odds of probabilities; a probability rounded to 0 or 1 gets large ones, not infinite ones."""
    # Beside infinite log odds another model's would not count.
    return logit(np.clip(probabilities, 1e-15, 1 - 1e-15))


def predictions_together(of_language_model: Predictions, of_tfidf: Predictions, joint: Joint) -> Predictions:
    """Return the joint predictions of both models."""
    return {
        split: (labels, expit(joint.log_odds(log_odds(of_language_model[split][1]), log_odds(probabilities))))
        for split, (labels, probabilities) in of_tfidf.items()
    }


def choose_early_exit(together: Predictions, of_tfidf: Predictions, threshold: float) -> dict:
    """Measure on the validation messages where TF-IDF may answer alone; see `Classifier.answer_early`.

    Returns:
        `bound`: the least distance of TF-IDF's log odds from the threshold. `usual_log_odds`: what the language model
        adds on average to the messages that are at least so far below the threshold, and to those above.
    """
    splits = ("validation", "left_out_validation")
    joint, alone = (
        np.concatenate([log_odds(predictions[split][1]) for split in splits]) for predictions in (together, of_tfidf)
    )
    beyond = alone - logit(threshold)
    turned = (joint >= logit(threshold)) != (beyond >= 0)
    bound = max(SURE_LOG_ODDS, np.abs(beyond[turned]).max(initial=0) + EXIT_MARGIN)
    sides = (beyond <= -bound, beyond >= bound)
    usual = [float(round((joint - alone)[side].mean(), 2)) if side.any() else 0.0 for side in sides]
    return {"bound": float(round(bound, 2)), "usual_log_odds": usual}


@dataclass(frozen=True)
class Comparison:
    """How good every model is on the held-out messages, and how the saved folder answers."""

    saved: str
    """The model that the saved folder answers with, by its name in `results`."""
    joint: Joint | None
    """How the models are joined; None if no TF-IDF model answers with the language model."""
    early_exit: dict | None
    """Where TF-IDF answers alone, see `choose_early_exit`; None if no TF-IDF model answers."""
    decision_threshold: float
    """That of the saved model."""
    results: dict[str, dict[str, dict]]
    """Metrics by model and split; see `evaluate`."""


def compare_models(
    before: Predictions,
    after: Predictions,
    baseline: Predictions,
    joint: Joint | None,
    false_positive_rate: float | None,
) -> tuple[Comparison, dict[str, Predictions]]:
    """Measure the language model before and after training, alone and with TF-IDF, and TF-IDF alone.

    Args:
        baseline: predictions of the TF-IDF model.
        joint: how TF-IDF answers together with the language model; None if it does not.
        false_positive_rate: see `evaluate`; the untrained model has the decision threshold 0.5.

    Returns:
        The comparison, and the predictions by model.
    """
    predictions, saved = {"before": before, "after": after}, "after"
    if joint:
        saved = f"after + {BASELINE}"
        predictions[saved] = predictions_together(after, baseline, joint)
    predictions[BASELINE] = baseline
    results, thresholds = {}, {}
    for name, of_model in predictions.items():
        rows, thresholds[name] = evaluate(name, of_model, None if name == "before" else false_positive_rate)
        results |= rows
    early_exit = choose_early_exit(predictions[saved], baseline, thresholds[saved]) if joint else None
    return Comparison(saved, joint, early_exit, thresholds[saved], results), predictions


# ---------------------------------------------------------------------------- the baseline


# Weight of the modern spam beside the other messages. With full weight, more ham of the collection and more
# wanted notices are called spam.
MODERN_SPAM_WEIGHT = 0.5


def train_baseline(splits: dict[str, pd.DataFrame], data_args: DataArguments) -> TfidfModel:
    """Train a TF-IDF model on every message that the language model can learn from, by its split."""
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
    """Return labels and probabilities of class 1 for every split."""
    return {
        name: (table["Label"].to_numpy(dtype=int), expit(model.log_odds(table["Text"].tolist())))
        for name, table in splits.items()
    }
