"""How fast the shipped adapter starts, answers and works through a file: `python benchmarks/scoring.py`.

Every command runs in a process of its own, as a person would start it: one message from a cold start (with
the base weights in the cache), then a file of messages of the collection, drawn with repetition, of a
tenth of the size and of the full size, to see whether memory grows with it. With `--ray` also on two Ray
workers.
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

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from artifact_sources import read_sms_spam, resolve_sms_spam  # noqa: E402
from gpt_classification_model import write_json  # noqa: E402
from text_classifier import classify, fast_dtype, load_tokenizer_and_model  # noqa: E402

FIGURES = REPOSITORY / "results" / "benchmarks" / "scoring.json"
ADAPTER = REPOSITORY / "lora_model"
FIRST_ANSWER = f"""
from text_classifier import classify, fast_dtype, load_tokenizer_and_model
print(classify(["Win a prize"], *load_tokenizer_and_model({str(ADAPTER)!r}, fast_dtype())))
"""


def run(*command: str | Path) -> tuple[float, float]:
    """Run a Python command and return its seconds and the most memory its process took, in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - started, usage.ru_maxrss / 2**10


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
        # Fills the cache.
        run("-c", FIRST_ANSWER)
        start_up = min(run("-c", FIRST_ANSWER)[0] for _ in range(3))
        figures["first_answer_seconds"] = start_up
        rows.append(("Start of the process to the first answer", f"{start_up:.1f} s", ""))
        tokenizer, model = load_tokenizer_and_model(ADAPTER, fast_dtype())
        seconds = []
        for text in texts.sample(220, random_state=0):
            started = time.perf_counter()
            classify([text], tokenizer, model)
            seconds.append(time.perf_counter() - started)
        p50, p95 = 1000 * np.quantile(seconds[20:], [0.5, 0.95])
        figures["one_message_p50_ms"], figures["one_message_p95_ms"] = p50, p95
        rows.append(("One message", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""))
        del model
        for count in (options.messages // 10, options.messages):
            source = folder / f"{count}.csv"
            drawn = texts.sample(count, replace=True, random_state=0)
            pd.DataFrame({"Text": drawn}).to_csv(source, index=False)
            took, peak = run("text_classifier.py", source, "--output", folder / f"{count}-scored.csv")
            speed = count / (took - start_up)
            figures[f"file_of_{count}"] = {"messages_per_second": speed, "peak_mib": peak}
            rows.append((f"File of {count:,} messages", f"{speed:.0f} messages/s", f"{peak:,.0f} MiB"))
        if options.ray:
            took, _ = run("score_with_ray.py", source, "--output", folder / "ray")
            figures["ray_messages_per_second"] = count / took
            rows.append(
                (f"... on two Ray workers, with their start ({took:.0f} s)", f"{count / took:.0f} messages/s", "")
            )
    write_json(figures, FIGURES)
    print(f"\nIn {str(fast_dtype()).removeprefix('torch.')} on {os.cpu_count()} CPU cores:\n")
    print("| | | Peak memory |\n| --- | ---: | ---: |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
