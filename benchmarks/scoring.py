"""Measure how fast the shipped adapter starts, answers a message and scores a file: `python -m benchmarks.scoring`.

Every command runs in a process of its own, as a person would start it, and its time includes the start:

- one message, with the base weights in the cache;
- a file of `--messages`, where TF-IDF answers first, and with `--exact`, where the language model reads every message;
- a file of a tenth of them, to see whether memory grows;
- with `--ray`, the smaller file on two Ray workers.

The files hold messages of the collection, drawn with repetition. Then single messages are timed in a loaded model.
Last, labels are compared: those of TF-IDF first with those of both models, on the collection, on messages unlike it,
plain and with letter tricks, on Chinese ones and on sentences that are no messages; and those of bfloat16 with those
of float32.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.common import ADAPTER, CHINESE_MESSAGES, MODERN_MESSAGES, REPOSITORY, publish, run_measured
from text_classifier.classifier import Classifier
from text_classifier.metrics import markdown_table
from text_classifier.reading.messages import read_messages
from text_classifier.runtime import fast_dtype
from text_classifier.sources.background import read_background
from text_classifier.sources.datasets import read_sms_spam, resolve_sms_spam

FIRST_ANSWER = f"""
from text_classifier import Classifier
from text_classifier.runtime import fast_dtype
print(Classifier.load({str(ADAPTER)!r}, fast_dtype()).answer(["Win a prize"]))
"""


def run(*command: str | Path) -> tuple[float, float]:
    """Run a Python command; return its seconds and the peak memory of its process in MiB."""
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    seconds, usage = run_measured([sys.executable, *command], cwd=REPOSITORY, **nowhere)
    return seconds, usage.ru_maxrss / 2**10


# Each Latin letter, and a Cyrillic one that looks like it.
LOOK_ALIKE = str.maketrans("aceiopsxy", "асеіорѕху")


def mistype(word: str, draw: random.Random) -> str:
    """Return the word with two letters swapped, or with one letter dropped or doubled; a short word stays as it is."""
    if len(word) < 3:
        return word
    at = draw.randrange(len(word) - 1)
    changed = draw.choice([word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]])
    return word[:at] + changed + word[at + 2 :]


def with_typing_errors(text: str, draw: random.Random) -> str:
    """Return the text with errors in two words of five."""
    return " ".join(mistype(word, draw) if draw.random() < 0.4 else word for word in text.split(" "))


def with_spaced_letters(text: str, draw: random.Random) -> str:
    """Return the text with two of five longer words set apart, l i k e this."""
    return " ".join(" ".join(word) if len(word) > 3 and draw.random() < 0.4 else word for word in text.split(" "))


def with_look_alikes(text: str, draw: random.Random) -> str:
    """Return the text with every second letter that has a Cyrillic look-alike replaced by it."""
    return "".join(letter.translate(LOOK_ALIKE) if draw.random() < 0.5 else letter for letter in text)


ADVERSARIAL: dict[str, Callable[[str, random.Random], str]] = {
    "with typing errors": with_typing_errors,
    "with spaced letters": with_spaced_letters,
    "with look-alike letters": with_look_alikes,
}


def score_files(folder: Path, texts: pd.Series, messages: int, ray: bool) -> dict[str, dict[str, float]]:
    """Score files with the command that people use; return messages per second and peak memory in MiB by file."""
    small, large = messages // 10, messages
    for count in (small, large):
        drawn = texts.sample(count, replace=True, random_state=0)
        pd.DataFrame({"Text": drawn}).to_csv(folder / f"{count}.csv", index=False)
    runs = [(small, []), (large, []), (large, ["--exact"]), *([(small, ["--workers", "2"])] if ray else [])]
    figures = {}
    for count, flags in runs:
        took, peak = run("-m", "text_classifier", folder / f"{count}.csv", "--output", folder / "scored.csv", *flags)
        figures[" ".join([f"{count:,} messages", *flags])] = {"messages_per_second": count / took, "peak_mib": peak}
    return figures


def compare_early_exit(texts: dict[str, list[str]], classifier: Classifier) -> dict[str, dict[str, float]]:
    """Classify texts with TF-IDF first and with both models; return by name of the texts what differs.

    Returns:
        Number of texts, number of labels that differ, and share of texts that the language model had to read.
    """
    figures = {}
    for name, of_name in texts.items():
        exact, early = (classifier.answer(of_name, exact=exact) for exact in (True, False))
        differ = sum(one.label != other.label for one, other in zip(exact, early, strict=True))
        read = np.mean([answer.answered_by != "TF-IDF" for answer in early])
        figures[name] = {"messages": len(of_name), "differ": differ, "read": float(read)}
    return figures


def time_single_messages(texts: list[str], classifier: Classifier) -> np.ndarray:
    """Classify one message after the other; return the median and the 95th percentile of the milliseconds."""
    seconds = []
    for text in texts:
        started = time.perf_counter()
        classifier.answer([text])
        seconds.append(time.perf_counter() - started)
    # The first ones prepare matrix products.
    return 1000 * np.quantile(seconds[20:], [0.5, 0.95])


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
    p50, p95 = time_single_messages(collection.sample(220, random_state=0).tolist(), classifier)
    unlike = read_messages(MODERN_MESSAGES).table()["Text"].tolist()
    texts = {"the collection": collection.tolist(), "messages unlike it": unlike}
    for trick, change in ADVERSARIAL.items():
        draw = random.Random(0)
        texts[f"messages unlike it {trick}"] = [change(text, draw) for text in unlike]
    texts["sentences that are no messages"] = read_background("test")["Text"].tolist()
    texts["Chinese messages"] = read_messages(CHINESE_MESSAGES).table()["Text"].tolist()
    early_exit = compare_early_exit(texts, classifier)
    exact = Classifier.load(ADAPTER, torch.float32).answer(texts["the collection"])
    fast = classifier.answer(texts["the collection"])
    agreement = np.mean([one.label == other.label for one, other in zip(exact, fast, strict=True)])

    number_format = str(fast_dtype()).removeprefix("torch.")
    rows = [("", f"In {number_format}", "Peak memory")]
    rows.append(("Start of the process to the first answer", f"{start_up:.1f} s", ""))
    rows.append(("One message", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""))
    rows += [
        (f"File of {name}", f"{of_file['messages_per_second']:.0f} messages/s", f"{of_file['peak_mib']:,.0f} MiB")
        for name, of_file in files.items()
    ]
    labels = [("TF-IDF first", "Messages", "Read by the language model", "Other labels than both models give")]
    labels += [
        (name, f"{of_name['messages']:,}", f"{100 * of_name['read']:.0f} %", str(of_name["differ"]))
        for name, of_name in early_exit.items()
    ]
    agree = f"Labels of the collection in {number_format} as in float32: {100 * agreement:.2f} %."
    publish(__file__, "Scoring", f"{markdown_table(rows)}\n\n{markdown_table(labels)}\n\n{agree}")


if __name__ == "__main__":
    main()
