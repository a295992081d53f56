"""Measure the default recipe on kinds of messages that it was not trained on: `python -m benchmarks.left_out_kinds`.

New spam is of kinds that nobody foresaw, so these figures tell more about new messages than those of messages whose
kinds were trained on. Every run is trained without a few kinds of the messages that were made up for this project, both
their spam and their ham, and in both languages; then it classifies them.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from benchmarks import accuracy
from benchmarks.accuracy import ALONE, MODELS, SEEDS
from benchmarks.common import publish
from text_classifier.classifier import Joint
from text_classifier.sources.datasets import read_background
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


def table_by_kind(answers: pd.DataFrame) -> str:
    """Return a table of which share of each kind each model calls spam, and of the means over the kinds.

    Args:
        answers: columns `Language`, `Kind`, `Label` (0 or 1) and the log odds of each model.
    """
    called = answers[["Language", "Kind", "Label"]].join(answers[MODELS] >= 0)
    shares, sizes = (table.sort_index() for table in accuracy.shares_by(["Language", "Kind"], called, least=10))
    means = shares.groupby("Language").mean()
    means.index = pd.MultiIndex.from_tuples(
        [(f"**{language}**", "**mean of the kinds**") for language in means.index], names=shares.index.names
    )
    shares = pd.concat([shares, means])
    sizes = sizes.astype(str).rename(columns={1: "Spam", 0: "Ham"})[["Spam", "Ham"]]
    return accuracy.table_by_group(shares, sizes.reindex(shares.index, fill_value=""))


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


def main() -> None:
    """Run the missing trainings, write the table to LEFT_OUT_KINDS.md and print it."""
    runs = {(SEEDS[0], f"-without-{kinds[0]}"): ("--left_out_kinds", *kinds) for kinds in GROUPS}
    folders = accuracy.finished_runs(runs, accuracy.parse_jobs(__doc__.splitlines()[0]))
    languages = {"modern": "English", "chinese": "Chinese"}
    made_up = [read_made_up_messages(split).assign(Language=language) for split, language in languages.items()]
    made_up = pd.concat(made_up).assign(Source="kinds")
    background = read_background("validation")[["Text"]].assign(Label="ham", Source="background")
    answers = []
    for kinds, folder in zip(GROUPS, folders, strict=True):
        messages = pd.concat([made_up[made_up["Kind"].isin(kinds)], background], ignore_index=True)
        messages["Label"] = messages["Label"].eq("spam").astype(int)
        validation = accuracy.held_out(folder, "validation")
        # Probabilities are saved with six digits, so 0 and 1 are rounded values.
        of_models = logit(validation[[ALONE, BASELINE]].clip(1e-6, 1 - 1e-6))
        answers.append(messages.join(accuracy.log_odds_of_run(folder, messages["Text"].tolist())))
        answers.append(of_models.assign(Label=validation["Label"], Source="collection"))
    answers = pd.concat(answers, ignore_index=True)
    joint = likeliest_joint(answers)
    text = f"""{len(GROUPS)} runs of the default recipe, each without three or four kinds of the messages written for
this project. Every row is measured by the run that has not seen this kind. A kind with fewer than ten messages of a
class has no figure there.

{table_by_kind(answers[answers["Source"].eq("kinds")])}

These messages, the runs' validation messages and sentences that are no messages tell how to join the two models. With
the same weight for each source, and three spam messages in ten, the labels are likeliest with
{joint.language_model:.2f} times the language model's log odds, {joint.tfidf:.2f} times those of TF-IDF, and
{joint.intercept:+.2f}. `SPAM_JOINT` in [evaluation.py](../text_classifier/training/evaluation.py) says what is used."""
    publish(__file__, "Kinds of messages left out of training", text)


if __name__ == "__main__":
    main()
