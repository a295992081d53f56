"""Score predictions honestly: metrics, a TF-IDF baseline beside them, a table and a model card."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.figure import Figure
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.metrics import log_loss, precision_recall_fscore_support, roc_auc_score

from text_classifier.tfidf import MAX_CHARACTERS, TfidfModel

# Splits that training never sees; thresholds are chosen on the two validation splits.
HELD_OUT = ("validation", "test", "left_out_validation", "left_out_test")

# What a model card says of the data sets that are known.
SEEN = {
    "sms_spam": (
        "The collection's messages are in English and date from before 2012, many from Singapore: other languages and "
        "present-day phishing are not in it."
    ),
    "imdb": (
        "The reviews are in English, from before 2011, and clearly for or against a film: lukewarm ones are not in "
        "the data. Reviews of one film stand in several splits."
    ),
}
DATA_LICENCES = {
    "sms_spam": (
        " The SMS Spam Collection (Almeida and Gómez Hidalgo, 2011) is published by the UCI Machine Learning "
        "Repository under CC BY 4.0."
    ),
    "imdb": (
        " The IMDB reviews (Maas et al., 2011) are published by Stanford for research, without a licence; their "
        "authors' rights remain."
    ),
}


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


def score(
    name: str, predictions: dict[str, tuple[np.ndarray, np.ndarray]], false_positive_rate: float | None = None
) -> tuple[dict[str, dict[str, dict]], float]:
    """Score a model on the splits that are reported.

    Args:
        name: of the model, as the table shall show it.
        predictions: labels and probabilities of class 1 for every split in `HELD_OUT`.
        false_positive_rate: choose the threshold for this share of false positives on the validation
            splits, so that test and left-out figures stay untouched by the choice.

    Returns:
        `{name: {split: metrics}}`, with an entry more for the threshold 0.5 where another was chosen,
        and the threshold. `natural` is test and left-out messages together: classes as frequent as in the data.
    """
    validation = [predictions["validation"], predictions["left_out_validation"]]
    negatives = np.concatenate([probabilities[labels == 0] for labels, probabilities in validation])
    reported = {name: predictions[name] for name in ("validation", "test", "left_out_test")}
    reported["natural"] = tuple(np.concatenate(parts) for parts in zip(*list(reported.values())[1:], strict=True))
    threshold = choose_threshold(negatives, false_positive_rate)
    thresholds = {name: threshold} if threshold == 0.5 else {f"{name}, threshold 0.5": 0.5, name: threshold}
    rows = {
        row: {
            split.removesuffix("_test"): classification_metrics(*of_split, used) for split, of_split in reported.items()
        }
        for row, used in thresholds.items()
    }
    return rows, threshold


def tfidf_predictions(model: TfidfModel, splits: dict[str, pd.DataFrame]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return labels and probabilities of class 1 for every split.

    Args:
        splits: name -> table with the columns `Label` (0/1) and `Text`.
    """
    return {
        name: (table["Label"].to_numpy(dtype=int), expit(model.log_odds(table["Text"].tolist())))
        for name, table in splits.items()
    }


def predictions_together(
    of_language_model: dict[str, tuple[np.ndarray, np.ndarray]],
    of_tfidf: dict[str, tuple[np.ndarray, np.ndarray]],
    weight: float,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return labels and probabilities of class 1 for every split, according to both models.

    Args:
        weight: of the language model's log odds, to which TF-IDF's are added.
    """

    def log_odds(probabilities: np.ndarray) -> np.ndarray:
        # One that is rounded to certainty would leave the other model no say.
        return logit(np.clip(probabilities, 1e-15, 1 - 1e-15))

    return {
        split: (labels, expit(weight * log_odds(probabilities) + log_odds(of_tfidf[split][1])))
        for split, (labels, probabilities) in of_language_model.items()
    }


def results_table(results: dict[str, dict[str, dict]]) -> str:
    """Lay out `{model: {split: metrics}}` as a Markdown table, one row per model and split.

    FPR is the false-positive rate, ECE the expected calibration error, the last column the confusion matrix.
    """
    header = ["Model", "Split", "n", "Loss", "Acc %", "Prec %", "Rec %", "F1 %", "AUC", "FPR %", "ECE %", "TN/FP/FN/TP"]

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f}"

    rows = []
    for split in next(iter(results.values())):
        for model, metrics_of in results.items():
            metrics = metrics_of[split]
            if not metrics["n"]:
                continue
            row = [model, split.replace("_", " "), str(metrics["n"]), f"{metrics['loss']:.3f}"]
            row += [percent(metrics[name]) for name in ("accuracy", "precision", "recall", "f1")]
            row += ["–" if metrics["roc_auc"] is None else f"{metrics['roc_auc']:.4f}"]
            row += [percent(metrics["false_positive_rate"]), percent(metrics["calibration_error"])]
            row += ["/".join(str(count) for counts in metrics["confusion_matrix"] for count in counts)]
            rows.append(row)
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    ruler = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(line(row) for row in [header, ruler, *rows])


def plot_reliability(labels: np.ndarray, probabilities: np.ndarray, positive_label: str, title: str) -> Figure:
    """Draw whether probabilities mean what they say: the share of class 1 over the probability given to it.

    Args:
        labels, probabilities: of n held-out messages, shape (n,); see `calibration_bins`.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    reliability, histogram = figure.subplots(1, 2)
    means, shares, counts = calibration_bins(labels, probabilities)
    reliability.plot([0, 1], [0, 1], color="gray", linestyle=":", label="Perfectly calibrated")
    reliability.plot(means, shares, color="tab:blue", marker="o", label="Measured, by bins")
    for mean, share, count in zip(means, shares, counts, strict=True):
        # Towards the middle of the chart, where there is room.
        right, up = mean < 0.5, share < 0.5
        reliability.annotate(
            f"{count:,}",
            (mean, share),
            (6 if right else -6, 4 if up else -4),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom" if up else "top",
            fontsize=8,
            color="gray",
        )
    reliability.set(
        title=f"Reliability (expected calibration error {100 * calibration_error(labels, probabilities):.2f} %)",
        xlabel=f"Probability of {positive_label}, mean of the bin",
        ylabel=f"Share of {positive_label} (number of messages)",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    reliability.legend()
    names = {1: (positive_label, "tab:red"), 0: (f"not {positive_label}", "tab:green")}
    for label, (name, colour) in names.items():
        histogram.hist(probabilities[labels == label], bins=30, range=(0, 1), color=colour, alpha=0.6, label=name)
    histogram.set(
        title="How sure the model is", xlabel=f"Probability of {positive_label}", ylabel="Messages", yscale="log"
    )
    histogram.legend()
    for axes in (reliability, histogram):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    return figure


def model_card(report: dict) -> str:
    """Write the README.md of an adapter folder from the report of the run that made it."""
    base, data, training = report["base_model"], report["data"], report["training"]
    lora, trained_part = training["tuning"] == "lora", training["trained_part"]
    negative, positive = report["label_names"]
    test = report["results"][report["saved"]]["test"]
    low, high = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    card_data = ModelCardData(
        base_model=base["name"],
        library_name="peft" if lora else "transformers",
        pipeline_tag="text-classification",
        language=None if data["dataset"] == "custom" else "en",
        license=base["license"],
        tags=["text-classification", *(["lora"] if lora else [])],
        model_name=f"{base['name'].split('/')[-1]}-{training['tuning']}-{positive}",
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_name=data["name"],
                dataset_type=data["dataset"],
                dataset_split="test",
                metric_type=metric,
                metric_value=round(test[metric], 4),
            )
            for metric in ("accuracy", "f1", "roc_auc")
            if test[metric] is not None
        ],
    )
    fallback_note = (
        f"\n\n> The recipe asked for `{base['requested']}`, which this machine could not reach; "
        f"the fallback base `{base['name']}` was used instead."
        if base["fallback_used"]
        else ""
    )
    kind = "film reviews" if data["dataset"] == "imdb" else "short messages"
    guard = ", and not the only guard against fraud" if data["dataset"] == "sms_spam" else ""
    layers_note = f"; its first {base['layers']} layers" if base["layers"] else ""
    explanation = (
        "*left out* are messages of the larger class that balancing set aside, *natural* those and the test split "
        "together; FPR is the false-positive rate, ECE the expected calibration error of the probabilities. "
        "TF-IDF rows are a logistic regression on TF-IDF features, trained on the messages named in the row. "
    )
    together = report["saved"] != "after"
    if together:
        explanation += (
            "*after* is the language model alone, which is what plain PEFT and transformers load; *after + TF-IDF* "
            f"adds {report['language_model_weight']:g} times its log odds to those of the TF-IDF model in the last "
            "row, which is saved beside it, and is what `text_classifier.py` and the chat answer with. "
        )
    kept = "the last step's weights"
    if training["best_checkpoint"]:
        explanation += "The checkpoint was chosen on validation messages, so judge by the other two splits. "
        kept = f"best checkpoint at step {training['best_step']}"
    if data["protocol"] == "deduplicated":
        explanation += "Training saw none of the messages counted here."
    else:
        explanation += "Duplicates were left in: copies of some messages counted here were trained on."
    if (threshold := report["decision_threshold"]) != 0.5:
        explanation += (
            f"\n\nA message is called {positive} when its probability reaches {threshold:g}, chosen for few false "
            "positives on validation messages and stored as `decision_threshold` in config.json; the other models in "
            "the table have theirs. "
        )
        explanation += (
            "It holds for what both models say together, not for the language model that plain PEFT loads."
            if together
            else "Plain PEFT does not apply it: compare the softmax probability of class 1 with it."
        )
    limits = [
        f"The test split has {test['n']} messages: its accuracy is known to lie between {100 * low:.1f} and "
        f"{100 * high:.1f} % (Wilson's 95 % interval).",
        f"The language model reads {data['max_length']} tokens of a message"
        + (f", the TF-IDF model {MAX_CHARACTERS:,} characters." if together else "; what follows is not looked at."),
    ]
    if lora:
        limits.append(
            "An adapter belongs to the exact base weights it was trained on (source and SHA-256 above); on other "
            "copies of the same model the probabilities differ a little."
        )
    if data["dataset"] in SEEN:
        limits.insert(0, SEEN[data["dataset"]])
    if today := data["split_sizes"].get("present_day"):
        limits.insert(
            1,
            f"The messages of today are {today:,} that were made up for this project: one idea of how banks, carriers "
            "and swindlers write.",
        )
    if lora and base["layers"]:
        limits.append(
            f"It uses only the first {base['layers']} layers of its base. Plain PEFT has to be told so "
            f"(`from_pretrained(..., num_hidden_layers={base['layers']})`), or it answers with all of them."
        )
    if together:
        limits.append(
            "`tfidf_vocabulary.json` holds the words, pairs of words and groups of letters of the training messages in "
            "plain: do not publish it where those are private."
        )
    product = "adapter" if lora else "model"
    licences = f"The {product} follows its base model's licence ({base['license'] or 'see the base model'})."
    licences += DATA_LICENCES.get(data["dataset"], "")
    return f"""---
{card_data.to_yaml()}
---
# {base["name"]} + {trained_part}{" + TF-IDF" if together else ""}: {negative} or {positive}

{"A LoRA adapter (PEFT) that makes" if lora else f"A whole model, {trained_part} trained:"} `{base["name"]}` \
{"tell" if lora else "tells"} **{positive}** (1) from **{negative}** (0)\
{", and a TF-IDF model that answers with it" if together else ""}.{fallback_note}

## Intended use

Labelling {kind} as {positive} or {negative}, with a person able to correct it. Not for deciding anything about a
person{guard}.

## Figures

{report["table"]}

{explanation}

## Training data

{data["name"]}, from: {data["source"]} (SHA-256 of the file `{data["sha256"]}`). {data["description"]}

## Training

`{report["command"]}`

- Base weights: `{base["name"]}` from {base["source"]}, SHA-256 `{base["sha256"]}`{layers_note}
- Trainable parameters: {training["trainable_parameters"]:,} of {training["total_parameters"]:,}
- {training["epochs"]:g} epochs, {training["steps"]} steps, {kept}, seed {report["seed"]}
- {training["train_seconds"]:.0f} s of training, {report["total_seconds"]:.0f} s in all, peak memory \
{report["peak_memory_gib"]:.1f} GiB, on {report["hardware"]}
- {", ".join(f"{name} {version}" for name, version in report["versions"].items())}

## Limits

{chr(10).join(f"- {limit}" for limit in limits)}

## Licences

{licences}
"""
