"""Measure the default recipe on kinds of messages that it was not trained on: `python -m benchmarks.left_out_kinds`.

New spam is of kinds that nobody foresaw, so these figures tell more about new messages than those of messages whose
kinds were trained on. Every run is trained without a few kinds of the messages that were made up for this project, both
their spam and their ham, and in both languages; then it classifies them.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from benchmarks.accuracy import ALONE, OURS, RUNS, SEEDS, log_odds_of_run, run
from benchmarks.common import FIGURES, REPOSITORY
from text_classifier.files import atomic_path, write_json
from text_classifier.metrics import markdown_table
from text_classifier.training.data import read_made_up_messages
from text_classifier.training.evaluation import BASELINE

TABLE = REPOSITORY / "benchmarks" / "LEFT_OUT_KINDS.md"
# The kinds that each run leaves out. They have little to do with each other, so each is left out as if alone.
GROUPS = (
    ("beauty", "parcels", "recruiting"),
    ("cars", "school", "prizes"),
    ("property", "health", "relatives"),
    ("decoration", "home_services", "authorities", "food"),
    ("shop_sale", "codes", "bank_products"),
    ("investing", "papers", "phones", "phones_and_tariffs"),
)
MODELS = [OURS, ALONE, BASELINE]
LANGUAGES = {"present_day": "English", "chinese": "Chinese"}


def messages_of(kinds: tuple[str, ...]) -> pd.DataFrame:
    """Return the made-up messages of some kinds, columns `Language`, `Kind`, `Label` (0 or 1) and `Text`."""
    tables = [read_made_up_messages(split).assign(Language=language) for split, language in LANGUAGES.items()]
    messages = pd.concat(tables, ignore_index=True)
    messages["Label"] = messages["Label"].eq("spam").astype(int)
    return messages[messages["Kind"].isin(kinds)].reset_index(drop=True)


def rates(answers: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    """Return the share of each kind that each model calls spam, and its means over the kinds.

    Args:
        answers: columns `Language`, `Kind`, `Label` and the log odds of each model.

    Returns:
        The shares: rows by language and kind, columns by label and model; NaN for fewer than 10 messages. For each
        language and model the mean and the least share of spam that is found, and the mean share of ham that is right.
    """
    called = answers.assign(**{model: answers[model] >= 0 for model in MODELS})
    by_kind = called.groupby(["Language", "Kind", "Label"])[MODELS]
    shares = by_kind.mean().where(by_kind.size().ge(10)).unstack("Label")
    figures = {}
    for language, of_language in shares.groupby(level="Language"):
        figures[language] = {
            model: {
                "found": of_language[model, 1].mean(),
                "least_found": of_language[model, 1].min(),
                "ham_right": 1 - of_language[model, 0].mean(),
            }
            for model in MODELS
        }
    return shares, figures


def table_of(shares: pd.DataFrame, answers: pd.DataFrame, figures: dict) -> str:
    """Write the shares of `rates` as a Markdown table, with the numbers of messages."""

    def cell(share: float) -> str:
        return "–" if np.isnan(share) else f"{100 * share:.0f}"

    heads = [f"{what}: {OURS}" for what in ("Spam found %", "Ham taken for spam %")]
    rows = [["Language", "Kind", heads[0], *MODELS[1:], heads[1], *MODELS[1:], "Spam", "Ham"]]
    sizes = answers.groupby(["Language", "Kind", "Label"]).size().unstack("Label", fill_value=0)
    for (language, kind), of_kind in shares.iterrows():
        cells = [cell(of_kind[model, label]) for label in (1, 0) for model in MODELS]
        rows.append([language, kind.replace("_", " "), *cells, *(str(sizes.loc[language, kind][n]) for n in (1, 0))])
    for language, of_models in figures.items():
        cells = [cell(of_models[model]["found"]) for model in MODELS]
        cells += [cell(1 - of_models[model]["ham_right"]) for model in MODELS]
        rows.append([f"**{language}**", "**mean of the kinds**", *cells, "", ""])
    return markdown_table(rows, left=2)


def main() -> None:
    """Run the missing trainings, write the table to LEFT_OUT_KINDS.md and print it."""
    os.chdir(REPOSITORY)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, sharing the cores")
    jobs = parser.parse_args().jobs
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            kinds: pool.submit(run, SEEDS[0], jobs, f"without-{kinds[0]}", ("--left_out_kinds", *kinds))
            for kinds in GROUPS
        }
    answers = []
    for kinds, future in futures.items():
        messages = messages_of(kinds)
        answers.append(messages.assign(**log_odds_of_run(future.result(), messages["Text"].tolist())))
    answers = pd.concat(answers, ignore_index=True)
    answers.to_csv(RUNS / "left_out_kinds.csv", index=False)
    shares, figures = rates(answers)
    text = f"""# Kinds of messages left out of training, measured

Made by `python -m benchmarks.left_out_kinds`: {len(GROUPS)} runs of the default recipe, each without three or four
kinds of the messages written for this project. Every row is measured by the run that has not seen this kind.
A kind with fewer than ten messages of a class has no figure there.

{table_of(shares, answers, figures)}
"""
    with atomic_path(TABLE) as scratch:
        scratch.write_text(text, encoding="utf-8")
    write_json(figures, FIGURES / "left_out_kinds.json")
    print(text)


if __name__ == "__main__":
    main()
