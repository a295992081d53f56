"""The charts of training_metrics.pdf."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from text_classifier.files import atomic_path
from text_classifier.training.evaluation import calibration_bins, calibration_error


def plot_metrics(
    log_history: list[dict],
    pdf_file: str | Path = "training_metrics.pdf",
    title: str = "",
    best_step: int | None = None,
    over: Literal["step", "epoch"] = "step",
    per_step: tuple[str, int] | None = None,
    charts: dict[str, tuple[str, str]] | None = None,
    more_pages: Sequence[Figure] = (),
) -> None:
    """Draw accuracy and loss over training steps or epochs, train solid blue and validation dashed orange.

    Args:
        log_history: `trainer.state.log_history`; may hold one evaluation or none.
        pdf_file: where to save the charts.
        title: line above them.
        best_step: the checkpoint that was kept, marked in all.
        over: the horizontal axis.
        per_step: what a second axis, above, counts, and how many a step takes: `("Examples seen", 16)`.
        charts: name of each chart -> keys of its train and validation curves in the log.
        more_pages: drawn elsewhere, to come after this one.
    """
    # Where the run ended, in steps and on the axis that is drawn: they are proportional.
    last = max(log_history, key=lambda entry: entry["step"], default={"step": 0, "epoch": 0.0})
    steps_per_unit = last["step"] / last["epoch"] if over == "epoch" and last.get("epoch") else 1
    charts = charts or {"Accuracy": ("train_accuracy", "eval_accuracy"), "Loss": ("loss", "eval_loss")}
    styles = {"Train": ("tab:blue", "-", "o"), "Validation": ("tab:orange", "--", "s")}
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (name, keys) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        for key, (label, (colour, line, marker)) in zip(keys, styles.items(), strict=True):
            points = [(entry["step"] / steps_per_unit, entry[key]) for entry in log_history if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, marker=marker, label=label)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color="gray")
        elif best_step is not None:
            axes.axvline(
                best_step / steps_per_unit, color="gray", linestyle=":", label=f"Best checkpoint (step {best_step})"
            )
        axes.set(title=name, xlabel={"step": "Training step", "epoch": "Epoch"}[over], ylabel=name)
        if per_step:
            counted, number = per_step
            per_unit = number * steps_per_unit
            # The default arguments keep this chart's own scale.
            above = axes.secondary_xaxis("top", functions=(lambda x, k=per_unit: x * k, lambda x, k=per_unit: x / k))
            above.set_xlabel(counted)
            above.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
            axes.set_xlim(left=0)
        if name == "Accuracy":
            axes.set_ylim(0, 1.03)
        elif name == "Perplexity" and axes.lines:
            # It falls by orders of magnitude.
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    figure.suptitle(title)
    # Type 42 embeds fonts as outlines that stay text: searchable, sharp at any size.
    metadata = {"Title": title, "CreationDate": None}
    with (
        matplotlib.rc_context({"pdf.fonttype": 42}),
        atomic_path(Path(pdf_file)) as scratch,
        PdfPages(scratch, metadata=metadata) as pages,
    ):
        for page in (figure, *more_pages):
            pages.savefig(page)


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
