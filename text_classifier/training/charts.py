"""Draw the charts of training_metrics.pdf."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, PercentFormatter
from scipy.stats import binomtest
from transformers import Trainer

from text_classifier.files import atomic_path
from text_classifier.metrics import calibration_error, percent
from text_classifier.training.data import Predictions
from text_classifier.training.evaluation import at_natural_ratio
from text_classifier.training.report import Report
from text_classifier.training.runs import messages_per_step

SIZE = (11, 4.8)
"""Width and height of a page in inches."""

# Name of each chart -> keys of its train and validation curves in the log; `AccuracyCallback` logs `train_accuracy`.
CHARTS = {"Accuracy": ("train_accuracy", "eval_accuracy"), "Loss": ("train_loss", "eval_loss")}
STYLES = {
    "Train": {"color": "tab:blue", "linestyle": "-", "marker": "o"},
    "Validation": {"color": "tab:orange", "linestyle": "--", "marker": "s"},
}

# Most probabilities are near 0 or 1, so the bins of the reliability chart are narrow there.
EDGES = (0, 0.01, 0.1, 0.5, 0.9, 0.99, 1)


def plot_metrics(
    log_history: list[dict],
    pdf_file: str | Path = "training_metrics.pdf",
    title: str = "",
    best_step: int | None = None,
    over: Literal["step", "epoch"] = "step",
    per_step: tuple[str, int] | None = None,
    charts: dict[str, tuple[str, str]] = CHARTS,
    more_pages: Sequence[Figure] = (),
) -> None:
    """Draw accuracy and loss over training steps or epochs: train solid blue, validation dashed orange.

    Args:
        log_history: `trainer.state.log_history`; it may hold one evaluation or none.
        best_step: step of the checkpoint that was kept; it is marked in every chart.
        per_step: for a second horizontal axis above: what it counts, and how many of these a step takes, such as
            `("Examples seen", 16)`.
        charts: the charts to draw.
    """
    # Steps and epochs are proportional, so the last log entry tells how many steps an epoch has.
    last = max(log_history, key=lambda entry: entry["step"], default={"step": 0, "epoch": 0.0})
    steps_per_unit = last["step"] / last["epoch"] if over == "epoch" and last.get("epoch") else 1
    counted, per_unit = (per_step[0], per_step[1] * steps_per_unit) if per_step else ("", 1)
    figure = Figure(figsize=SIZE, layout="constrained")
    for axes, (name, keys) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        _draw_curves(axes, log_history, keys, steps_per_unit)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color="gray")
        elif name == "Accuracy":
            _enlarge_above(axes, 0.9)
        if axes.lines and best_step is not None:
            mark = {"color": "gray", "linestyle": ":", "label": f"Best checkpoint (step {best_step})"}
            for part in (axes, *axes.child_axes):
                # The line ends above an enlargement, whose title and numbers it would strike through.
                part.axvline(best_step / steps_per_unit, ymin=0.75 if part.child_axes else 0, **mark)
        axes.set(title=name, xlabel={"step": "Training step", "epoch": "Epoch"}[over], ylabel=name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.set_xlim(left=0)
        if name == "Perplexity" and axes.lines:
            axes.set_yscale("log")  # it falls by orders of magnitude
        else:
            axes.set_ylim(0, 1.03 if name == "Accuracy" else None)
        if per_step:
            above = axes.secondary_xaxis("top", functions=(lambda x: x * per_unit, lambda x: x / per_unit))
            above.set_xlabel(counted)
            above.xaxis.set_major_formatter(EngFormatter(sep=""))
    _add_legend_below(figure)
    figure.suptitle(title)
    metadata = {"Title": title, "CreationDate": None}
    with atomic_path(Path(pdf_file)) as scratch, PdfPages(scratch, metadata=metadata) as pages:
        for page in (figure, *more_pages):
            choose_fonts(page)
            pages.savefig(page)


def _draw_curves(axes: Axes, log_history: list[dict], keys: Sequence[str], steps_per_unit: float) -> None:
    for key, (label, style) in zip(keys, STYLES.items(), strict=True):
        # Pretraining measures no train_loss; there Trainer's running loss stands in.
        points = _points(log_history, key) or _points(log_history, key.removeprefix("train_"))
        if points:
            x, y = np.transpose(points)
            # Many markers would run into each other.
            axes.plot(x / steps_per_unit, y, label=label, **style, markersize=4 if len(points) <= 12 else 0)


def _points(log_history: list[dict], key: str) -> list[tuple[int, float]]:
    """Return what was logged, one value per step: the first, because the best checkpoint may be measured later."""
    # The summary of a training has a train_loss too, but that is the mean over the training.
    entries = [entry for entry in log_history if key in entry and "train_runtime" not in entry]
    return sorted({entry["step"]: entry[key] for entry in reversed(entries)}.items())


def _enlarge_above(axes: Axes, level: float) -> None:
    """Enlarge the top of an accuracy chart in its lower half, if all curves soon get there and leave that empty."""
    curves = list(axes.lines)
    x, y = np.concatenate([curve.get_xydata() for curve in curves]).T
    high = x[y >= level]
    reached = [sum(curve.get_ydata() >= level) for curve in curves]
    if min(reached) < 2 or (y[x > 0.2 * x.max()] < 0.75).any():
        return
    inset = axes.inset_axes((0.27, 0.11, 0.7, 0.55))
    for curve in curves:
        inset.plot(*curve.get_data(), **STYLES[curve.get_label()], markersize=0.75 * curve.get_markersize())
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
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))


def run_labels(report: Report, trainer: Trainer) -> dict:
    """Return the arguments of `plot_metrics` that set title, axes and marks for a fine-tuning run."""
    args, training = trainer.args, report.training
    return {
        "title": f"{report.title} on {report.data.name}",
        "best_step": training.best_step if training.best_checkpoint else None,
        # The published curves of LoRA are over steps, those of the last block over epochs.
        "over": "step" if training.tuning == "lora" else "epoch",
        "per_step": ("Examples seen", messages_per_step(args)),
    }


def reliability_page(report: Report, predictions: Predictions) -> Figure:
    """Draw how reliable the saved model's probabilities of held-out messages are; see `plot_reliability`."""
    model = f"{report.title}{' + TF-IDF' if report.joint else ''}"
    title = f"Held-out messages, {model} on {report.data.name}"
    return plot_reliability(*at_natural_ratio(predictions), report.label_names[1], title)


def plot_reliability(labels: np.ndarray, probabilities: np.ndarray, positive_label: str, title: str) -> Figure:
    """Draw the share of class 1 among messages of similar probability, and a histogram of the probabilities.

    The share equals the mean probability if the model is perfectly calibrated.

    Args:
        labels, probabilities: labels and probabilities of class 1 of n held-out messages, shape (n,).
    """
    positive_label = "class 1" if lacking(positive_label) else positive_label
    figure = Figure(figsize=SIZE, layout="constrained")
    reliability, histogram = figure.subplots(1, 2)

    ticks, members = [], np.digitize(probabilities, EDGES[1:-1])
    for place, number in enumerate(np.unique(members)):
        inside = members == number
        n, share, mean = int(inside.sum()), labels[inside].mean(), probabilities[inside].mean()
        low, high = binomtest(int(labels[inside].sum()), n).proportion_ci(method="wilson")
        reliability.hlines(mean, place - 0.3, place + 0.3, color="gray", label="Mean probability that the model gave")
        style = {"fmt": "o", "color": "tab:blue", "capsize": 4, "label": "Measured share, 95 % interval"}
        reliability.errorbar(place, share, [[share - low], [high - share]], **style)
        ticks.append(f"{100 * EDGES[number]:.0f}–{100 * EDGES[number + 1]:.0f} %\n({n:,})")
    reliability.set_xticks(range(len(ticks)), ticks, fontsize="small")
    reliability.set(
        title=f"Reliability (expected calibration error {percent(calibration_error(labels, probabilities))} %)",
        xlabel=f"Probability of {positive_label} (number of messages)",
        ylabel=f"Share of {positive_label}",
        xlim=(-0.6, max(len(ticks), 1) - 0.4),
        ylim=(-0.03, 1.03),
    )
    reliability.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    reliability.grid(axis="y", alpha=0.3)

    by_label = [probabilities[labels == label] for label in (1, 0)]
    names = [positive_label, f"not {positive_label}"]
    histogram.hist(by_label, bins=20, range=(0, 1), color=["tab:red", "tab:green"], label=names)
    histogram.set(title="How sure the model is", xlabel=f"Probability of {positive_label}", ylabel="Messages")
    if len(labels):
        histogram.set(yscale="log", ylim=(0.5, None))
    histogram.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    histogram.grid(alpha=0.3)
    _add_legend_below(figure)
    figure.suptitle(title)
    return figure


# ---------------------------------------------------------------------------- fonts for names in any language


# Linux, Windows and macOS bring these along.
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Heiti SC", "Heiti TC"),
    *("STHeiti", "Arial Unicode MS"),
)


def choose_fonts(figure: Figure) -> None:
    """Draw texts with a Chinese font too, and escape what no font has; a dollar sign starts no formula."""
    families = _font_families()
    for text in figure.findobj(Text):
        drawn = text.get_text().replace("$", r"\$")
        for character in lacking(drawn, families):
            drawn = drawn.replace(character, character.encode("unicode_escape").decode())
        text.set(text=drawn, fontfamily=families)


def lacking(text: str, families: list[str] | None = None) -> set[str]:
    """Return the characters of a text that no font has; by default, the fonts are those that are chosen here."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families or _font_families()]
    return {character for character in text if not any(font.get_char_index(ord(character)) for font in fonts)} - {"\n"}


def _font_families() -> list[str]:
    """Return the usual font families, and after them the first Chinese one that is installed."""
    # Matplotlib keeps its list of fonts for good, so those that were installed later are missing there.
    for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):
            fontManager.addfont(path)
    installed = fontManager.get_font_names()
    return [*rcParams["font.family"], *[name for name in CHINESE_FONTS if name in installed][:1]]
