"""Measure what each choice of the default recipe is worth: `python -m benchmarks.design_choices`.

Every row is the default recipe with one thing changed by flags, trained once, on the same split. One run more or less
changes a figure too: compare the spread over the seeds in ACCURACY.md.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import argparse
from pathlib import Path

from benchmarks.accuracy import (
    ALONE,
    BASELINE,
    OURS,
    SEEDS,
    finished_runs,
    held_out,
    log_odds_of_run,
    read_test_messages,
)
from benchmarks.common import publish, read_report
from text_classifier.metrics import markdown_table, percent

# Name of a row -> the end of its run's folder, and its flags. For weights of the base itself, a learning rate of 1e-3
# is too much.
CHOICES = {
    "the default recipe": ("", ()),
    "balanced 1:1, the rest of the ham left out": ("-balanced", ("--minority_repeats", "0")),
    "the collection alone, no further messages": ("-collection", ("--extra_data", "none")),
    "only the new head is trained": ("-head", ("--tuning", "head")),
    "last block, final norm and head are trained": (
        "-last_block",
        ("--tuning", "last_block", "--learning_rate", "1e-4"),
    ),
}
KINDS = {"modern": "modern", "chinese": "Chinese", "background": "sentences"}


def rights(folder: Path) -> dict[str, list[float]]:
    """Return for each model of a run the shares of messages that it labels correctly.

    The shares are of the collection's held-out messages at the natural ratio, and of each of `KINDS`.
    """
    report, held, messages = read_report(folder), held_out(folder, "test"), read_test_messages()
    odds = log_odds_of_run(folder, messages["Text"].tolist())
    correct = (odds >= 0).eq(messages["Label"].astype(bool), axis=0).groupby(messages["Kind"]).mean()
    thresholds = {OURS: report["decision_threshold"], ALONE: 0.5, BASELINE: 0.5}
    of_collection = {model: ((held[model] >= thresholds[model]) == held["Label"]).mean() for model in odds}
    return {model: [of_collection[model], *correct.loc[list(KINDS), model]] for model in odds}


def main() -> None:
    """Run the missing trainings, write the table to DESIGN_CHOICES.md and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, sharing the cores")
    runs = {(SEEDS[0], suffix): flags for suffix, flags in CHOICES.values()}
    folders = finished_runs(runs, parser.parse_args().jobs)
    header = ["", *(f"{part}: collection / {' / '.join(KINDS.values())}" for part in ("Language model", "Both"))]
    rows = [[*header, "Trainable weights"]]
    for (choice, (_, flags)), folder in zip(CHOICES.items(), folders, strict=True):
        right = rights(folder)
        if choice == "the default recipe":
            tfidf = [f"{BASELINE} of the default recipe", _cell(right[BASELINE]), "", ""]
        # A run without TF-IDF has its language model alone.
        alone, both = (right[ALONE], _cell(right[OURS])) if ALONE in right else (right[OURS], "")
        told = f"{choice} (`{' '.join(flags)}`)" if flags else choice
        weights = f"{read_report(folder)['training']['trainable_parameters']:,}"
        rows.append([told, _cell(alone), both, weights])
    publish(__file__, "Choices of the recipe", f"Labels that are right, %.\n\n{markdown_table([*rows, tfidf])}")


def _cell(shares: list[float]) -> str:
    return " / ".join(percent(share, 1) for share in shares)


if __name__ == "__main__":
    main()
