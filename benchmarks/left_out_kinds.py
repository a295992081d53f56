"""Measure the default recipe on kinds of messages that it was not trained on: `python -m benchmarks.left_out_kinds`.

New spam is of kinds that nobody foresaw, so these figures tell more about new messages than those of messages whose
kinds were trained on. Every run is trained without a few kinds of the messages that were made up for this project, both
their spam and their ham, and in both languages; then it classifies them.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from benchmarks.accuracy import ALONE, OURS, RUNS, SEEDS, log_odds_of_run, run
from benchmarks.common import REPOSITORY, publish
from text_classifier.classifier import Joint
from text_classifier.metrics import markdown_table
from text_classifier.sources.background import read_background
from text_classifier.training.data import read_made_up_messages
from text_classifier.training.evaluation import BASELINE

# The kinds that each run leaves out. They have little to do with each other, so each is left out as if alone.
GROUPS = (
    ("beauty", "parcels", "recruiting"),
    ("cars", "school", "prizes"),
    ("property", "health", "relatives"),
    ("decoration", "home_services", "authorities", "food"),
    ("shop_sale", "codes", "bank_products"),
    ("investing", "papers", "phones", "phones_and_tariffs"),
)
# Share of spam that the two models are joined for: more than among the messages of the SMS Spam Collection, where it is
# one in eight, because a filter is also used where spam is frequent.
SPAM_RATIO = 0.3
MODELS = [OURS, ALONE, BASELINE]
LANGUAGES = {"modern": "English", "chinese": "Chinese"}


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


def table_of(shares: pd.DataFrame, figures: dict, answers: pd.DataFrame) -> str:
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


def likeliest_joint(answers: pd.DataFrame) -> Joint:
    """Return the weights and the intercept under which the labels of messages are likeliest, at `SPAM_RATIO`.

    Args:
        answers: columns `Source`, `Label` (0 or 1) and the log odds of each model alone. All sources that have messages
            of a class weigh the same in it, however many there are.
    """
    number = answers.groupby(["Source", "Label"])["Label"].transform("size")
    sources = answers.groupby("Label")["Source"].transform("nunique")
    weights = answers["Label"].map({0: 1 - SPAM_RATIO, 1: SPAM_RATIO}) / (number * sources) * len(answers)
    fit = LogisticRegression(C=np.inf).fit(answers[[ALONE, BASELINE]], answers["Label"], weights)
    return Joint(*fit.coef_[0].tolist(), float(fit.intercept_[0]))


def validation_messages(folder: Path) -> pd.DataFrame:
    """Return a run's validation messages, columns `Source`, `Label` and the log odds of each model alone."""
    predictions = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    validation = predictions[predictions["Split"].isin(["validation", "left_out_validation"])]
    # Probabilities are saved with six digits, so 0 and 1 are rounded values.
    of_models = logit(validation[["after", BASELINE]].clip(1e-6, 1 - 1e-6)).set_axis([ALONE, BASELINE], axis=1)
    return of_models.assign(Label=validation["Label"], Source="collection")


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
    background = read_background("validation")[["Text"]].assign(Label=0, Source="background")
    answers = []
    for kinds, future in futures.items():
        messages = pd.concat([messages_of(kinds).assign(Source="kinds"), background], ignore_index=True)
        of_models = pd.DataFrame(log_odds_of_run(future.result(), messages["Text"].tolist()))
        answers += [messages.join(of_models), validation_messages(future.result())]
    answers = pd.concat(answers, ignore_index=True)
    answers.to_csv(RUNS / "left_out_kinds.csv", index=False)
    joint, answers = likeliest_joint(answers), answers[answers["Source"].eq("kinds")]
    text = f"""{len(GROUPS)} runs of the default recipe, each without three or four kinds of the messages written for
this project. Every row is measured by the run that has not seen this kind. A kind with fewer than ten messages of a
class has no figure there.

{table_of(*rates(answers), answers)}

These messages, the runs' validation messages and sentences that are no messages tell how to join the two models. With
the same weight for each source, and three spam messages in ten, the labels are likeliest with
{joint.language_model:.2f} times the language model's log odds, {joint.tfidf:.2f} times those of TF-IDF, and
{joint.intercept:+.2f}. `SPAM_JOINT` in [evaluation.py](../text_classifier/training/evaluation.py) says what is used."""
    publish(__file__, "Kinds of messages left out of training", text)


if __name__ == "__main__":
    main()
