"""Measure how good answers are, and lay the figures out as tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, precision_recall_fscore_support, roc_auc_score


def calibration_error(labels: Sequence[int], probabilities: Sequence[float]) -> float | None:
    """Return the expected calibration error, the mean gap between probability and share of class 1 in 15 bins.

    A bin counts by its number of messages (Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015). Without messages the result is None.
    """
    if not len(labels):
        return None
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    members = np.minimum((probabilities * 15).astype(int), 14)
    return float(np.abs(np.bincount(members, probabilities - labels)).sum() / len(labels))


def classification_metrics(labels: Sequence[int], probabilities: Sequence[float], threshold: float = 0.5) -> dict:
    """Score the probabilities of class 1 against the true labels.

    Args:
        labels: 0 or 1, shape (n,).
        probabilities: probabilities of class 1, shape (n,).
        threshold: decision threshold; a message is called class 1 if its probability reaches it.

    Returns:
        `n` is the number of messages, `loss` the mean cross-entropy in nats, and `confusion_matrix` is
        `[[TN, FP], [FN, TP]]`; the others are fractions. A figure that cannot be computed is None: ROC-AUC, precision,
        recall and F1 need both classes, the false-positive rate needs class 0, and loss, accuracy and calibration error
        need a message.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    predictions = (probabilities >= threshold).astype(int)
    matrix = [[int(np.sum((labels == truth) & (predictions == said))) for said in (0, 1)] for truth in (0, 1)]
    (true_negatives, false_positives), _ = matrix
    negatives = true_negatives + false_positives
    figures: dict[str, float | None] = dict.fromkeys(("loss", "accuracy", "precision", "recall", "f1", "roc_auc"))
    if len(labels):
        figures |= {"loss": log_loss(labels, probabilities, labels=[0, 1]), "accuracy": (predictions == labels).mean()}
    if len(set(labels.tolist())) == 2:
        scores = precision_recall_fscore_support(labels, predictions, average="binary", zero_division=0)
        figures |= zip(("precision", "recall", "f1"), scores[:3], strict=True)
        figures["roc_auc"] = roc_auc_score(labels, probabilities)
    figures["false_positive_rate"] = false_positives / negatives if negatives else None
    figures["calibration_error"] = calibration_error(labels, probabilities)
    figures = {name: value if value is None else float(value) for name, value in figures.items()}
    return {"n": len(labels), "threshold": float(threshold), **figures, "confusion_matrix": matrix}


# ---------------------------------------------------------------------------- tables


def percent(value: float | None, digits: int = 2) -> str:
    """Return a fraction as text in per cent, without the sign; None and NaN become a dash."""
    return "–" if pd.isna(value) else f"{100 * value:.{digits}f}"


def markdown_table(rows: Sequence[Sequence[str]], left: int = 1, pad: bool = False) -> str:
    """Lay out rows as a Markdown table; the first row is the header.

    Args:
        left: number of columns that are aligned left; the others are aligned right.
        pad: whether to pad the cells with blanks, so that the table is readable on the console.
    """
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width, is_left = max(map(len, column)) if pad else 0, number < left
        dashes = "-" * max(width, 3)
        ruler = dashes if is_left else f"{dashes[1:] if pad else dashes}:"
        header, *body = (cell.ljust(width) if is_left else cell.rjust(width) for cell in column)
        columns.append([header, ruler, *body])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def results_table(results: dict[str, dict[str, dict]]) -> str:
    """Lay out `{model: {split: metrics}}` as a Markdown table, one row per split and model.

    FPR is the false-positive rate, ECE is the expected calibration error. The last column is the confusion matrix.
    """
    rows = [["Model", "Split", "n", "Loss", "Acc %", "Prec %", "Rec %", "F1 %", "AUC", "FPR %", "ECE %", "TN/FP/FN/TP"]]
    # Every split once, in the order of the model with most of them.
    for split in max(results.values(), key=len):
        for model, metrics_of in results.items():
            metrics = metrics_of.get(split)
            if not metrics or not metrics["n"]:
                continue
            row = [model, split.replace("left_out", "left out"), str(metrics["n"]), f"{metrics['loss']:.3f}"]
            row += [percent(metrics[name]) for name in ("accuracy", "precision", "recall", "f1")]
            row += ["–" if metrics["roc_auc"] is None else f"{metrics['roc_auc']:.4f}"]
            row += [percent(metrics[name]) for name in ("false_positive_rate", "calibration_error")]
            row += ["/".join(str(count) for counts in metrics["confusion_matrix"] for count in counts)]
            rows.append(row)
    return markdown_table(rows, left=2, pad=True)
