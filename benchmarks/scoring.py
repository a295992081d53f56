"""Measure how fast the shipped adapter starts, answers a message and scores a file: `python -m benchmarks.scoring`.

Every command runs in a process of its own, as a person would start it, and its time includes the start:

- one message, with the base weights in the cache;
- a file of `--messages`, where TF-IDF answers first, and with `--exact`, where the language model reads every message;
- a file of a tenth of them, to see whether memory grows;
- with `--ray`, the smaller file on two Ray workers.

The files hold messages of the collection, drawn with repetition. Then single messages are timed in a loaded model.
Last, labels are compared: those of TF-IDF first with those of both models, on the collection and on text that nothing
was trained on; and those of bfloat16 with those of float32.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.accuracy import read_test_messages
from benchmarks.common import ADAPTER, REPOSITORY, number_format, publish
from text_classifier.classifier import Answer, Classifier
from text_classifier.metrics import markdown_table
from text_classifier.runtime import fast_dtype
from text_classifier.sources.datasets import read_sms_spam, resolve_sms_spam

FIRST_ANSWER = f"""
from text_classifier import Classifier
from text_classifier.runtime import fast_dtype
print(Classifier.load({str(ADAPTER)!r}, fast_dtype()).answer(["Win a prize"]))
"""


def run(*command: str | Path) -> tuple[float, float]:
    """Run a Python command; return its seconds and the peak memory of its process in MiB.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, *map(str, command)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Unlike `process.wait`, this also returns the resources that this one process used.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, usage.ru_maxrss / 2**10


def score_files(folder: Path, texts: pd.Series, messages: int, ray: bool) -> list[tuple[str, str, str]]:
    """Score files with the command that people use; return rows with messages per second and peak memory."""
    small, large = messages // 10, messages
    for count in (small, large):
        drawn = texts.sample(count, replace=True, random_state=0)
        pd.DataFrame({"Text": drawn}).to_csv(folder / f"{count}.csv", index=False)
    runs = [(small, []), (large, []), (large, ["--exact"]), *([(small, ["--workers", "2"])] if ray else [])]
    rows = []
    for count, flags in runs:
        took, peak = run("-m", "text_classifier", folder / f"{count}.csv", "--output", folder / "scored.csv", *flags)
        name = " ".join([f"File of {count:,} messages", *flags])
        rows.append((name, f"{count / took:.0f} messages/s", f"{peak:,.0f} MiB"))
    return rows


def count_differing(answers: list[Answer], others: list[Answer]) -> int:
    """Return how many messages get another label from the other answers."""
    return sum(one.label != other.label for one, other in zip(answers, others, strict=True))


def main() -> None:
    """Measure, write the tables to SCORING.md and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000, help="rows of the larger file")
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two workers on this machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        collection = read_sms_spam(resolve_sms_spam(Path(name)).path)["Text"]
        # The first run fills the cache, so it is not timed.
        run("-c", FIRST_ANSWER)
        start_up = min(run("-c", FIRST_ANSWER)[0] for _ in range(3))
        # Score the files before this process loads a model, because a child's peak memory is never below the memory
        # of its parent.
        files = score_files(Path(name), collection, options.messages, options.ray)
    classifier = Classifier.load(ADAPTER, fast_dtype())
    seconds = []
    for text in collection.sample(220, random_state=0):
        started = time.perf_counter()
        classifier.answer([text])
        seconds.append(time.perf_counter() - started)
    # The first ones prepare matrix products.
    p50, p95 = 1000 * np.quantile(seconds[20:], [0.5, 0.95])
    texts = {"collection": collection.tolist()}
    texts |= read_test_messages().groupby("Kind", sort=False)["Text"].agg(list)
    exact = {name: classifier.answer(of_name) for name, of_name in texts.items()}
    early_exit = [("TF-IDF first", "Messages", "Read by the language model", "Other labels than both models give")]
    for name, both in exact.items():
        early = classifier.answer(texts[name], exact=False)
        read = np.mean([answer.answered_by != "TF-IDF" for answer in early])
        early_exit.append((name, f"{len(both):,}", f"{100 * read:.0f} %", str(count_differing(both, early))))
    in_float32 = Classifier.load(ADAPTER, torch.float32).answer(texts["collection"])
    alike = 1 - count_differing(exact["collection"], in_float32) / len(in_float32)
    rows = [
        ("", f"In {number_format()}", "Peak memory"),
        ("Start of the process to the first answer", f"{start_up:.1f} s", ""),
        ("One message", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""),
        *files,
    ]
    agree = f"Labels of the collection in {number_format()} as in float32: {100 * alike:.2f} %."
    publish(__file__, "Scoring", f"{markdown_table(rows)}\n\n{markdown_table(early_exit)}\n\n{agree}")


if __name__ == "__main__":
    main()
