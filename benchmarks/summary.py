"""Run every benchmark and put all figures into one table: `python -m benchmarks.summary`.

This takes an hour on two CPU cores, which should have nothing else to do. A finished benchmark is
not repeated, so the run can be stopped and started again. `make clean` removes the figures. The table is
printed and saved as BENCHMARKS.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.accuracy import OURS
from benchmarks.common import FIGURES, REPOSITORY, cpu_kind, spread
from text_classifier.files import atomic_path
from text_classifier.metrics import markdown_table
from text_classifier.training.evaluation import BASELINE

TABLE = Path("benchmarks/BENCHMARKS.md")
BENCHMARKS = {
    "accuracy": ["--jobs", "2"],
    "training_speed": ["--messages", "96"],
    "scoring": ["--ray"],
    "chat_load": [],
}


def accuracy_rows(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return the table rows for accuracy.json: what is measured, the goal, our figure, the figures of other models."""
    natural = figures["natural_ratio"]
    ours, seeds = natural[OURS], len(natural[OURS]["accuracy"])
    titles = {
        "accuracy": ("Accuracy at the natural ratio, %", "≥ 99.0"),
        "f1": ("F1 on spam, %", "≥ 96"),
        "false_positive_rate": ("False positives, %", "≤ 0.3"),
        "calibration_error": ("Calibration error, %", "≤ 2"),
    }
    rows = []
    for name, (title, goal) in titles.items():
        others = [f"{model} {spread(of[name])}" for model, of in natural.items() if model != OURS and of[name]]
        rows.append((f"{title} ({seeds} seeds)", goal, spread(ours[name]), "; ".join(others)))
    gains = natural[BASELINE]["gain"]
    above, points = sum(gain > 0 for gain in gains), f"{100 * np.mean(gains):+.2f} points"
    rows.append((f"Seeds more accurate than {BASELINE}", f"{seeds} of {seeds}", f"{above} of {seeds}", points))
    for kind, title in (("modern", "Present-day messages"), ("chinese", "Chinese messages")):
        measured = {
            "right": ("right", "≥ 95"),
            "found": ("spam found", "≥ 95"),
            "false_positive_rate": ("false positives", "≤ 4"),
        }
        for name, (what, goal) in measured.items():
            models = {model: f"{100 * of_model[name]:.1f}" for model, of_model in figures[kind].items()}
            ours = models.pop(OURS)
            rows.append((f"{title}, {what} %", goal, ours, "; ".join(map(" ".join, models.items()))))
    found, flagged = figures["languages"]["all ten other languages"], figures["languages"]["ham of the collection"]
    rows.append(("Messages in other languages, found %", "≥ 90", f"{100 * found:.1f}", ""))
    rows.append(("... ham of the collection taken for such, %", "≤ 1", f"{100 * flagged:.1f}", ""))
    return rows


def training_rows(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return the table rows for training_speed.json: what is measured, the goal, ours, a figure to compare with."""
    (_, slow), *_, (_, fast) = figures["steps"].items()
    ratio = fast["messages_per_second"] / slow["messages_per_second"]
    whole = figures["whole"]
    ours, two, published = (whole[name] for name in ("ours", "two_processes", "published"))
    steps, all_steps = published["steps"]
    return [
        (
            "Training GPT-2's architecture, messages/s",
            "",
            f"{fast['messages_per_second']:.1f} ({ratio:.1f}×)",
            f"padded to 120, float32: {slow['messages_per_second']:.1f}",
        ),
        ("... share of the float32 peak, %", "≥ 60", f"{100 * fast['share']:.0f}", f"{100 * slow['share']:.0f}"),
        (
            "Whole training on the fallback base, min",
            "≥ 8× faster",
            f"{ours['minutes']:.1f} ({published['minutes'] / ours['minutes']:.1f}×)",
            f"published recipe {published['minutes']:.0f} (from {steps} of {all_steps} steps)",
        ),
        ("... peak memory, GiB", "", f"{ours['gib']:.1f}", f"published recipe {published['gib']:.1f}"),
        (
            "... with all its evaluation, min",
            "≤ 4, without bfloat16 ≤ 8",
            f"{ours['from_start_to_end_minutes']:.1f}",
            "",
        ),
        (
            "... by two processes (`torchrun`), min",
            "",
            f"{two['minutes']:.1f}, accuracy {100 * two['natural_ratio']:.2f} %",
            f"one process {ours['minutes']:.1f}, {100 * ours['natural_ratio']:.2f} %",
        ),
    ]


def scoring_rows(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return the table rows for scoring.json: what is measured, the goal, our figure, a figure to compare with."""
    (small, of_small), (large, of_large), (_, exact), (_, ray) = figures["files"].items()
    speed = "messages_per_second"
    collection, *unlike = figures["cascade"].values()
    differ, compared = (sum(of_name[name] for of_name in unlike) for name in ("differ", "messages"))
    return [
        (
            "Start of a process to the first answer, s",
            "≤ 4, without bfloat16 ≤ 7",
            f"{figures['first_answer_seconds']:.1f}",
            "",
        ),
        (
            "One message, ms",
            "p50 ≤ 40",
            f"p50 {figures['one_message_p50_ms']:.0f}, p95 {figures['one_message_p95_ms']:.0f}",
            "",
        ),
        (
            f"File of {large}, messages/s with the start",
            "≥ 5× `--exact`",
            f"{of_large[speed]:.0f} ({of_large[speed] / exact[speed]:.1f}×)",
            f"`--exact` {exact[speed]:.0f}; {small} on two Ray workers {ray[speed]:.0f}",
        ),
        (
            "... its peak memory, MiB",
            "flat",
            f"{of_large['peak_mib']:,.0f}",
            f"{small} {of_small['peak_mib']:,.0f}, `--exact` {exact['peak_mib']:,.0f}",
        ),
        (
            "... labels as with `--exact`, whole collection, %",
            "≥ 99.95",
            f"{100 - 100 * collection['differ'] / collection['messages']:.2f}",
            f"messages unlike it, with letter tricks and Chinese ones too {100 - 100 * differ / compared:.2f}",
        ),
        (
            "Labels in the fast number format as in float32, %",
            "≥ 99.9",
            f"{100 * figures['fast_agreement']:.2f}",
            "",
        ),
    ]


def chat_rows(figures: dict) -> list[tuple[str, str, str, str]]:
    """Return the table rows for chat_load.json: what is measured, the goal, our figure, a figure to compare with."""
    _, alone, reloaded, person, served = [name for name in figures if name not in ("agreement", "errors")]
    speed = {name: figures[name]["messages_per_second"] for name in (alone, reloaded, served)}
    return [
        (
            f"Chat: {served}, messages/s",
            "≥ 3×",
            f"{speed[served]:.0f} ({speed[served] / speed[alone]:.1f}×)",
            f"{alone} {speed[alone]:.0f}; {reloaded} {speed[reloaded]:.1f}",
        ),
        ("... its labels as in float32, %", "≥ 99.9", f"{100 * figures['agreement']:.2f}", ""),
        (f"Chat: {person}, p50 ms", "", f"{figures[person]['p50_ms']:.0f}", f"{alone} {figures[alone]['p50_ms']:.0f}"),
    ]


def main() -> None:
    """Run the missing benchmarks, write the table and print it."""
    os.chdir(REPOSITORY)
    for name, flags in BENCHMARKS.items():
        if not (FIGURES / f"{name}.json").is_file():
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], check=True)
    makers = (accuracy_rows, training_rows, scoring_rows, chat_rows)
    rows = [
        row
        for name, maker in zip(BENCHMARKS, makers, strict=True)
        for row in maker(json.loads((FIGURES / f"{name}.json").read_text()))
    ]
    table = markdown_table([("", "Goal", "This project", "In comparison"), *rows], left=4)
    text = f"""# All figures in one table

Made by `make benchmark` on {os.cpu_count()} CPU cores {cpu_kind()}. Details: [accuracy](ACCURACY.md), and what the
scripts in this folder print.

{table}
"""
    with atomic_path(TABLE) as scratch:
        scratch.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
