"""Measure how fast the shipped adapter starts, answers a message and scores a file: `python -m benchmarks.scoring`.

Every command runs in a process of its own, as a person would start it, and its time includes the start:

- one message, with the base weights in the cache;
- a file of a tenth of `--messages`, in bfloat16 (or float32) and with weights of 8 bits;
- a file of `--messages` with weights of 8 bits, to see whether memory grows;
- with `--ray`, the smaller file on two Ray workers.

The files hold messages of the collection, drawn with repetition. Then single messages are timed in a loaded
model. Last, the labels in bfloat16 and in 8 bits are compared with those in float32 on the whole collection.
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
from transformers import PreTrainedModel

from benchmarks.common import ADAPTER, FIGURES, REPOSITORY, run_measured
from text_classifier.files import write_json
from text_classifier.inference import classify, fast_dtype, load_tokenizer_and_model
from text_classifier.int8 import Int8Model
from text_classifier.metrics import markdown_table
from text_classifier.sources.datasets import read_sms_spam, resolve_sms_spam

FIRST_ANSWER = f"""
from text_classifier import classify, load_tokenizer_and_model
from text_classifier.inference import fast_dtype
print(classify(["Win a prize"], *load_tokenizer_and_model({str(ADAPTER)!r}, fast_dtype())))
"""


def run(*command: str | Path) -> tuple[float, float]:
    """Run a Python command; return its seconds and the peak memory of its process in MiB."""
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    seconds, usage = run_measured([sys.executable, *command], cwd=REPOSITORY, **nowhere)
    return seconds, usage.ru_maxrss / 2**10


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000, help="rows of the larger file")
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two workers on this machine")
    options = parser.parse_args()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = read_sms_spam(resolve_sms_spam(folder).path)["Text"]
        # The first run fills the cache, so it is not timed.
        run("-c", FIRST_ANSWER)
        start_up = min(run("-c", FIRST_ANSWER)[0] for _ in range(3))
        figures["first_answer_seconds"] = start_up
        rows.append(("Start of the process to the first answer", f"{start_up:.1f} s", ""))
        # Score the files before this process loads a model, because a child's peak memory is never below the memory
        # of its parent.
        small, large = options.messages // 10, options.messages
        for count, flags in ((small, []), (small, ["--int8"]), (large, ["--int8"])):
            source = folder / f"{count}.csv"
            drawn = texts.sample(count, replace=True, random_state=0)
            pd.DataFrame({"Text": drawn}).to_csv(source, index=False)
            took, peak = run("-m", "text_classifier", source, "--output", folder / f"{count}-scored.csv", *flags)
            name = " ".join([str(count), *flags])
            figures[f"file of {name}"] = {"messages_per_second": count / took, "peak_mib": peak}
            rows.append(
                (f"File of {count:,} messages {' '.join(flags)}", f"{count / took:.0f} messages/s", f"{peak:,.0f} MiB")
            )
        if options.ray:
            took, _ = run(
                "-m", "text_classifier", folder / f"{small}.csv", "--output", folder / "ray.csv", "--workers", "2"
            )
            figures["ray_messages_per_second"] = small / took
            rows.append((f"File of {small:,} messages on two Ray workers", f"{small / took:.0f} messages/s", ""))
        tokenizer, model = load_tokenizer_and_model(ADAPTER, fast_dtype())
        seconds = []
        for text in texts.sample(220, random_state=0):
            started = time.perf_counter()
            classify([text], tokenizer, model)
            seconds.append(time.perf_counter() - started)
        p50, p95 = 1000 * np.quantile(seconds[20:], [0.5, 0.95])
        figures["one_message_p50_ms"], figures["one_message_p95_ms"] = p50, p95
        rows.append(("One message", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""))
        exact = load_tokenizer_and_model(ADAPTER, torch.float32)[1]

        def labels(model: PreTrainedModel | Int8Model) -> np.ndarray:
            return np.array([answer.label for answer in classify(texts.tolist(), tokenizer, model)])

        expected = labels(exact)
        for name, compared in (("fast", model), ("int8", Int8Model(exact))):
            figures[f"{name}_agreement"] = agreement = np.mean(labels(compared) == expected)
            differ = round(len(texts) * (1 - agreement))
            rows.append((f"Labels as in float32, {name}", f"{100 * agreement:.2f} % ({differ} differ)", ""))
    write_json(figures, FIGURES / "scoring.json")
    print(f"\nIn {str(fast_dtype()).removeprefix('torch.')} on {os.cpu_count()} CPU cores:\n")
    print(markdown_table([("", "", "Peak memory"), *rows]))


if __name__ == "__main__":
    main()
