"""Draw the charts of training_metrics.pdf."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from transformers import Trainer

from text_classifier.files import atomic_path
from text_classifier.metrics import calibration_bins, calibration_error

SIZE = (11, 4.8)
"""Width and height of a page in inches."""

# Name of each chart -> keys of its train and validation curves in the log.
CHARTS = {"Accuracy": ("train_accuracy", "eval_accuracy"), "Loss": ("loss", "eval_loss")}
STYLES = {
    "Train": {"color": "tab:blue", "linestyle": "-", "marker": "o"},
    "Validation": {"color": "tab:orange", "linestyle": "--", "marker": "s"},
}


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
    """Draw accuracy and loss over training steps or epochs: train solid blue, validation dashed orange.

    Args:
        log_history: `trainer.state.log_history`; it may hold one evaluation or none.
        pdf_file: file to save the charts to.
        title: line above the charts.
        best_step: step of the checkpoint that was kept; it is marked in every chart.
        over: unit of the horizontal axis.
        per_step: for a second horizontal axis above: what it counts, and how many of these a step takes, such as
            `("Examples seen", 16)`.
        charts: charts to draw instead of `CHARTS`.
        more_pages: finished pages that come after this one.
    """
    # Steps and epochs are proportional, so the last log entry tells how many steps an epoch has.
    last = max(log_history, key=lambda entry: entry["step"], default={"step": 0, "epoch": 0.0})
    steps_per_unit = last["step"] / last["epoch"] if over == "epoch" and last.get("epoch") else 1
    charts = charts or CHARTS
    figure = Figure(figsize=SIZE, layout="constrained")
    for axes, (name, keys) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        _draw_curves(axes, log_history, keys, steps_per_unit)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color="gray")
        elif best_step is not None:
            axes.axvline(
                best_step / steps_per_unit, color="gray", linestyle=":", label=f"Best checkpoint (step {best_step})"
            )
        axes.set(title=name, xlabel={"step": "Training step", "epoch": "Epoch"}[over], ylabel=name)
        axes.grid(alpha=0.3)
        _set_scales(axes, name)
        if per_step:
            _add_axis_above(axes, *per_step, steps_per_unit)
        if name == "Accuracy":
            _enlarge_above(axes, 0.9, log_history, keys, steps_per_unit)
    _add_legend_below(figure)
    figure.suptitle(title)
    _save_pages((figure, *more_pages), Path(pdf_file), title)


def _draw_curves(axes: Axes, log_history: list[dict], keys: Sequence[str], steps_per_unit: float, **style) -> None:
    for key, (label, usual_style) in zip(keys, STYLES.items(), strict=True):
        points = [(entry["step"] / steps_per_unit, entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **usual_style | style)


def _set_scales(axes: Axes, name: str) -> None:
    if axes.lines:
        axes.set_xlim(left=0)
    if name == "Accuracy":
        axes.set_ylim(0, 1.03)
    elif name == "Perplexity" and axes.lines:
        # Perplexity falls by orders of magnitude.
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _add_axis_above(axes: Axes, counted: str, per_step: int, steps_per_unit: float) -> None:
    per_unit = per_step * steps_per_unit
    above = axes.secondary_xaxis("top", functions=(lambda x: x * per_unit, lambda x: x / per_unit))
    above.set_xlabel(counted)
    above.xaxis.set_major_formatter(EngFormatter(sep=""))


def _enlarge_above(
    axes: Axes, level: float, log_history: list[dict], keys: Sequence[str], steps_per_unit: float
) -> None:
    """Enlarge the top of an accuracy chart in its empty lower half, because accuracy soon gets there and stays."""
    high = [entry["step"] / steps_per_unit for entry in log_history for key in keys if entry.get(key, 0) >= level]
    if len(set(high)) < 2:
        return
    inset = axes.inset_axes((0.27, 0.11, 0.7, 0.55))
    _draw_curves(inset, log_history, keys, steps_per_unit, markersize=3)
    margin = 0.03 * (max(high) - min(high))
    inset.set(xlim=(min(high) - margin, max(high) + margin), ylim=(level, 1.004))
    inset.set_title(f"The same above {level:g}", fontsize="small")
    inset.tick_params(labelsize="small")
    inset.grid(alpha=0.3)


def _add_legend_below(figure: Figure) -> None:
    """Add one legend for all charts of a page. Below them it covers nothing; what several charts have stands once."""
    handles = {
        label: drawn for axes in figure.axes for drawn, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles) or 1)


def _save_pages(figures: Sequence[Figure], pdf_file: Path, title: str) -> None:
    # Font type 42 keeps text as outlined text, which is searchable and sharp at any size.
    metadata = {"Title": title, "CreationDate": None}
    with (
        matplotlib.rc_context({"pdf.fonttype": 42}),
        atomic_path(pdf_file) as scratch,
        PdfPages(scratch, metadata=metadata) as pages,
    ):
        for figure in figures:
            pages.savefig(figure)


def run_labels(report: dict, trainer: Trainer) -> dict:
    """Return the arguments of `plot_metrics` that set title, axes and marks for a fine-tuning run."""
    args, training = trainer.args, report["training"]
    return {
        "title": f"{report['base_model']['name']} + {training['trained_part']} on {report['data']['name']}",
        "best_step": training["best_step"] if training["best_checkpoint"] else None,
        "over": args.plot_over,
        "per_step": (
            "Examples seen",
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        ),
    }


def reliability_page(report: dict, labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Draw how reliable the saved model's probabilities of n held-out messages are; see `plot_reliability`."""
    model = f"{report['base_model']['name']} + {report['training']['trained_part']}"
    model += " + TF-IDF" if report["language_model_weight"] is not None else ""
    title = f"Held-out messages, {model} on {report['data']['name']}"
    return plot_reliability(labels, probabilities, report["label_names"][1], title)


def plot_reliability(labels: np.ndarray, probabilities: np.ndarray, positive_label: str, title: str) -> Figure:
    """Draw the share of class 1 over its predicted probability, and a histogram of the probabilities.

    The share equals the probability if the model is perfectly calibrated.

    Args:
        labels, probabilities: labels and probabilities of class 1 of n held-out messages, shape (n,); see
            `calibration_bins`.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    reliability, histogram = figure.subplots(1, 2)
    _draw_reliability(reliability, labels, probabilities, positive_label)
    _draw_histogram(histogram, labels, probabilities, positive_label)
    _add_legend_below(figure)
    figure.suptitle(title)
    return figure


def _draw_reliability(axes: Axes, labels: np.ndarray, probabilities: np.ndarray, positive_label: str) -> None:
    means, shares, counts = calibration_bins(labels, probabilities)
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", label="Perfectly calibrated")
    axes.plot(means, shares, color="tab:blue", marker="o", label="Measured, by bins")
    for mean, share, count in zip(means, shares, counts, strict=True):
        # The number stands on the side towards the middle of the chart, because there is room.
        right, up = mean < 0.5, share < 0.5
        axes.annotate(
            f"{count:,}",
            (mean, share),
            (6 if right else -6, 4 if up else -4),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom" if up else "top",
            fontsize=8,
            color="gray",
        )
    axes.set(
        title=f"Reliability (expected calibration error {100 * calibration_error(labels, probabilities):.2f} %)",
        xlabel=f"Probability of {positive_label}, mean of the bin",
        ylabel=f"Share of {positive_label} (number of messages)",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    axes.grid(alpha=0.3)


def _draw_histogram(axes: Axes, labels: np.ndarray, probabilities: np.ndarray, positive_label: str) -> None:
    names = {1: (positive_label, "tab:red"), 0: (f"not {positive_label}", "tab:green")}
    for label, (name, colour) in names.items():
        axes.hist(probabilities[labels == label], bins=30, range=(0, 1), color=colour, alpha=0.6, label=name)
    axes.set(title="How sure the model is", xlabel=f"Probability of {positive_label}", ylabel="Messages", yscale="log")
    axes.grid(alpha=0.3)
