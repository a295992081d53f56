"""Measure what each choice of the default recipe is worth: `python -m benchmarks.design_choices`.

Every row is the default recipe with one thing changed by flags, trained once, on the same split. One run more or less
changes a figure too: compare the spread over the seeds in ACCURACY.md.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

from pathlib import Path

import pandas as pd

from benchmarks import accuracy
from benchmarks.accuracy import ALONE, BASELINE, MODELS, OURS, SEEDS
from benchmarks.common import publish
from text_classifier.metrics import markdown_table, percent

# Name of a row -> the end of its run's folder, and its flags.
CHOICES = {
    "the default recipe": ("", ()),
    "LoRA on the queries and values of attention alone": ("-qv", ("--target_modules", "q_proj", "v_proj")),
    "LoRA in all 12 layers": ("-layers", ("--lora_layers", "12")),
    "all weights are trained": ("-full", ("--tuning", "full", "--learning_rate", "1e-4")),
    "last block, final norm and head are trained": (
        "-last_block",
        ("--tuning", "last_block", "--learning_rate", "1e-4"),  # for weights of the base itself, 1e-3 is too much
    ),
    "only the new head is trained": ("-head", ("--tuning", "head")),
    "letter tricks are not undone": ("-tricks", ("--normalize_text", "false")),
    "messages are cut after 120 tokens": ("-short", ("--max_length", "120")),
    "balanced 1:1, the rest of the ham left out": ("-balanced", ("--minority_repeats", "0")),
    "the collection alone, no further messages": ("-collection", ("--extra_data", "none")),
}
KINDS = {"modern": "modern", "chinese": "Chinese", "background": "sentences"}


def rights(folder: Path, messages: pd.DataFrame) -> dict[str, list[float]]:
    """Return for each model of a run the shares of messages that it labels correctly.

    The shares are of the collection's held-out messages at the natural ratio, and of each of `KINDS`.

    Args:
        messages: see `accuracy.read_test_messages`.
    """
    report, held = accuracy.read_report(folder), accuracy.held_out(folder, "test")
    by_kind = accuracy.right_by_kind(messages, accuracy.log_odds_of_run(folder, messages["Text"].tolist()) >= 0)
    called = {model: held[model] >= accuracy.threshold_of(model, report) for model in MODELS}
    return {model: [called[model].eq(held["Label"]).mean(), *by_kind.loc[list(KINDS), model]] for model in MODELS}


def main() -> None:
    """Run the missing trainings, write the table to DESIGN_CHOICES.md and print it."""
    runs = {(SEEDS[0], suffix): flags for suffix, flags in CHOICES.values()}
    folders = accuracy.finished_runs(runs, accuracy.parse_jobs(__doc__.splitlines()[0]))
    messages = accuracy.read_test_messages()
    measured = [rights(folder, messages) for folder in folders]
    header = ["", *(f"{part}: collection / {' / '.join(KINDS.values())}" for part in ("Language model", "Both"))]
    rows = [[*header, "Trainable weights"]]
    for (choice, (_, flags)), folder, right in zip(CHOICES.items(), folders, measured, strict=True):
        told = f"{choice} (`{' '.join(flags)}`)" if flags else choice
        weights = f"{accuracy.read_report(folder)['training']['trainable_parameters']:,}"
        rows.append([told, _cell(right[ALONE]), _cell(right[OURS]), weights])
    rows.append([f"{BASELINE} of the default recipe", _cell(measured[0][BASELINE]), "", ""])
    publish(__file__, "Choices of the recipe", f"Labels that are right, %.\n\n{markdown_table(rows)}")


def _cell(shares: list[float]) -> str:
    return " / ".join(percent(share, 1) for share in shares)


if __name__ == "__main__":
    main()
