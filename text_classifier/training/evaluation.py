"""Score predictions honestly: metrics, thresholds, and TF-IDF beside the language model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from sklearn.metrics import log_loss, precision_recall_fscore_support, roc_auc_score
from torch.utils.data import Dataset
from transformers import (
    Trainer,
)

from text_classifier.errors import ConfigurationError
from text_classifier.inference import joint_log_odds
from text_classifier.tfidf import TfidfModel, fit_tfidf
from text_classifier.training.batches import length_order
from text_classifier.training.data import (
    HELD_OUT,
)

# Of the language model's log odds, where TF-IDF's are added. It is too sure of itself: on the validation messages of
# five splits together the likelihood is highest with 0.49 and 0.96 times (`python -m benchmarks.accuracy`).
LANGUAGE_MODEL_WEIGHT = 0.5

Predictions = dict[str, tuple[np.ndarray, np.ndarray]]
"""By split: labels (0 or 1) and probabilities of class 1, each of shape (n,)."""


def calibration_bins(
    labels: Sequence[int], probabilities: Sequence[float], bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort messages by their probability of class 1 into bins of equal width.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: of class 1, shape (n,).

    Returns:
        Of every bin that is not empty: the mean probability, the share of class 1, the number of messages.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    members = np.minimum((probabilities * bins).astype(int), bins - 1)
    counts = np.bincount(members, minlength=bins)
    filled = counts > 0
    means, shares = (np.bincount(members, values, bins)[filled] / counts[filled] for values in (probabilities, labels))
    return means, shares, counts[filled]


def calibration_error(labels: Sequence[int], probabilities: Sequence[float]) -> float | None:
    """Return the expected calibration error: by how much probabilities miss the share of class 1, on average.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; 15 bins.
    None without messages.
    """
    if not len(labels):
        return None
    means, shares, counts = calibration_bins(labels, probabilities)
    return float(np.average(np.abs(means - shares), weights=counts))


def classification_metrics(labels: Sequence[int], probabilities: Sequence[float], threshold: float = 0.5) -> dict:
    """Score the probabilities of class 1 against the true labels.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: of class 1, shape (n,).
        threshold: a message is called class 1 when its probability reaches this.

    Returns:
        `loss` is the mean cross-entropy in nats; the others are fractions. A figure that the labels do
        not define is None: ROC-AUC, precision, recall and F1 without both classes, the false-positive
        rate without class 0. `confusion_matrix` is `[[TN, FP], [FN, TP]]`.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    predictions = (probabilities >= threshold).astype(int)
    matrix = [[int(np.sum((labels == truth) & (predictions == said))) for said in (0, 1)] for truth in (0, 1)]
    (true_negatives, false_positives), _ = matrix
    precision = recall = f1 = roc_auc = None
    if len(set(labels.tolist())) == 2:
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predictions, average="binary", zero_division=0
        )
        roc_auc = roc_auc_score(labels, probabilities)
    negatives = true_negatives + false_positives
    metrics = {
        "n": len(labels),
        "threshold": threshold,
        "loss": log_loss(labels, probabilities, labels=[0, 1]) if len(labels) else None,
        "accuracy": (predictions == labels).mean() if len(labels) else None,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": roc_auc,
        "false_positive_rate": false_positives / negatives if negatives else None,
        "calibration_error": calibration_error(labels, probabilities),
    }
    return {
        **{name: value if value is None or name == "n" else float(value) for name, value in metrics.items()},
        "confusion_matrix": matrix,
    }


def choose_threshold(probabilities: np.ndarray, false_positive_rate: float | None) -> float:
    """Return the decision threshold at which a given share of class 0 is called class 1.

    Args:
        probabilities: of class 1, for held-out messages of class 0, shape (n,).
        false_positive_rate: the share; without one, or with too few messages to tell, 0.5 is returned.
    """
    if false_positive_rate is None or len(probabilities) * false_positive_rate < 1:
        return 0.5
    # Away from 0 and 1, where log-odds end.
    return float(np.clip(round(np.quantile(probabilities, 1 - false_positive_rate), 4), 0.0001, 0.9999))


def at_natural_ratio(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities of test and left-out messages together: classes as frequent as in the data."""
    return tuple(np.concatenate(pair) for pair in zip(predictions["test"], predictions["left_out_test"], strict=True))


def score(
    name: str, predictions: Predictions, false_positive_rate: float | None = None
) -> tuple[dict[str, dict[str, dict]], float]:
    """Score a model on the splits that are reported.

    Args:
        name: of the model, as the table shall show it.
        predictions: labels and probabilities of class 1 for every split in `HELD_OUT`.
        false_positive_rate: choose the threshold for this share of false positives on the validation
            splits, so that test and left-out figures stay untouched by the choice.

    Returns:
        `{name: {split: metrics}}`, with an entry more for the threshold 0.5 where another was chosen,
        and the threshold. `natural` are those of `at_natural_ratio`.
    """
    validation = [predictions["validation"], predictions["left_out_validation"]]
    negatives = np.concatenate([probabilities[labels == 0] for labels, probabilities in validation])
    reported = {name: predictions[name] for name in ("validation", "test", "left_out_test")}
    reported["natural"] = at_natural_ratio(predictions)
    threshold = choose_threshold(negatives, false_positive_rate)
    thresholds = {name: threshold} if threshold == 0.5 else {f"{name}, threshold 0.5": 0.5, name: threshold}
    rows = {
        row: {
            split.removesuffix("_test"): classification_metrics(*of_split, used) for split, of_split in reported.items()
        }
        for row, used in thresholds.items()
    }
    return rows, threshold


def predict(trainer: Trainer, datasets: dict[str, Dataset]) -> Predictions:
    """Return labels and probabilities of class 1, each of shape (n,), for each split that is held out."""
    predictions = {}
    for split in HELD_OUT:
        labels, probabilities = np.array(datasets[split].labels, dtype=int), np.empty(len(datasets[split]))
        if len(labels):
            logits = torch.tensor(trainer.predict(datasets[split]).predictions, dtype=torch.float64)
            probabilities[length_order(datasets[split])] = logits.softmax(dim=-1)[:, 1].numpy()
        predictions[split] = (labels, probabilities)
    return predictions


def tfidf_predictions(model: TfidfModel, splits: dict[str, pd.DataFrame]) -> Predictions:
    """Return labels and probabilities of class 1 for every split.

    Args:
        splits: name -> table with the columns `Label` (0/1) and `Text`.
    """
    return {
        name: (table["Label"].to_numpy(dtype=int), expit(model.log_odds(table["Text"].tolist())))
        for name, table in splits.items()
    }


def predictions_together(of_language_model: Predictions, of_tfidf: Predictions, weight: float) -> Predictions:
    """Return what both models say together; see `text_classifier.inference.joint_log_odds`.

    Args:
        weight: of the language model's log odds.
    """

    def log_odds(probabilities: np.ndarray) -> np.ndarray:
        # One that is rounded to certainty would leave the other model no say.
        return logit(np.clip(probabilities, 1e-15, 1 - 1e-15))

    return {
        split: (labels, expit(joint_log_odds(log_odds(probabilities), log_odds(of_tfidf[split][1]), weight)))
        for split, (labels, probabilities) in of_language_model.items()
    }


def predict_with_tfidf(splits: dict[str, pd.DataFrame], majority: str) -> tuple[dict[str, Predictions], TfidfModel]:
    """Train TF-IDF and logistic regression, once per set of messages the language model could learn from.

    Returns:
        The predictions of each, and the last model, which learned from all that the language model learns from.
    """
    name, parts = "TF-IDF, train", ["train", *(["feedback"] if "feedback" in splits else [])]
    training_sets = {name: parts}
    if majority != "same" and len(splits["left_out_train"]):
        name, parts = f"{name} + left out", [*parts, "left_out_train"]
        training_sets[name] = parts
    if "present_day" in splits:
        training_sets[f"{name} + today"] = [*parts, "present_day"]
    predictions = {}
    for name, parts in training_sets.items():
        messages = pd.concat([splits[part] for part in parts])
        try:
            model = fit_tfidf(messages["Text"].tolist(), messages["Label"].tolist())
        except ValueError as error:
            raise ConfigurationError(f"The messages hold no words: {error}") from error
        predictions[name] = tfidf_predictions(model, {split: splits[split] for split in HELD_OUT})
    return predictions, model


@dataclass(frozen=True)
class Comparison:
    """What every model said of the held-out messages, and how good that was."""

    predictions: dict[str, Predictions]
    """By model, named as in the table of results."""
    results: dict[str, dict[str, dict]]
    """By model and split; see `score`."""
    saved: str
    """Which of the models the saved folder answers with."""
    language_model_weight: float | None
    """Of its log odds, where TF-IDF's are added to them."""
    threshold: float
    """At which the saved model calls a message class 1."""


def compare_models(
    before: Predictions,
    after: Predictions,
    rivals: dict[str, Predictions],
    with_partner: bool,
    false_positive_rate: float | None,
) -> Comparison:
    """Score the language model before and after training, alone and with TF-IDF, and TF-IDF alone.

    Args:
        rivals: what TF-IDF models say; the last one is the partner.
        with_partner: whether the partner answers together with the language model.
        false_positive_rate: see `score`; the untrained model has the threshold 0.5.
    """
    predictions, saved, weight = {"before": before, "after": after}, "after", None
    if with_partner:
        saved, weight = "after + TF-IDF", LANGUAGE_MODEL_WEIGHT
        *_, of_partner = rivals.values()
        predictions[saved] = predictions_together(after, of_partner, weight)
    predictions |= rivals
    results, thresholds = {}, {}
    for name, of_model in predictions.items():
        rows, thresholds[name] = score(name, of_model, None if name == "before" else false_positive_rate)
        results |= rows
    return Comparison(predictions, results, saved, weight, thresholds[saved])
