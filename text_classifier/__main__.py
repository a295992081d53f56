"""Classify a file of messages.

python -m text_classifier messages.csv --output scored.csv
python -m text_classifier messages.csv --output scored.csv --label_column kind    # also how good the answers are
python -m text_classifier messages.csv --output scored.csv --workers 4    # 4 Ray processes on this machine
python -m text_classifier messages.csv --output scored.csv --workers 40 --ray_address auto    # a running cluster
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from transformers import HfArgumentParser

from text_classifier.classifier import SETTINGS_FILE, Classifier
from text_classifier.errors import run_command
from text_classifier.files import STANDARD, file_sha256, is_stream
from text_classifier.reading.messages import ReadOptions, read_messages
from text_classifier.reading.notes import TableError
from text_classifier.runtime import fast_dtype
from text_classifier.scoring import Task, check_output, classes_of, finished_rows, measure, score_file, write_result


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. If it is wrong, or asks for help, argparse says so and ends the program."""
    parser = HfArgumentParser(
        [ReadOptions],
        prog="python -m text_classifier",
        description="Classify the messages of a file.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument(
        "file", type=Path, help="a .csv, .tsv, .jsonl, .xlsx, or .txt with one message a line; - is standard input"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="what to write: the file's columns and the answers, as .csv, .tsv, .jsonl or .xlsx; - is standard output",
    )
    parser.add_argument("--threshold", type=float, help="probability from which a message is class 1")
    parser.add_argument("--adapter_dir", type=Path, default=Path("lora_model"), help="default: lora_model")
    parser.add_argument(
        "--exact", action="store_true", help="let the language model read every message, also where TF-IDF is sure"
    )
    parser.add_argument("--workers", type=int, help="number of processes, with Ray (requirements/ray.txt)")
    parser.add_argument(
        "--ray_address", help="a running Ray cluster, `auto` for this machine's; by default one is started here"
    )
    options = parser.parse_args(argv)
    if options.ray_address and options.workers is None:
        parser.error("--ray_address needs --workers")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: at least one is needed")
    if options.threshold is not None and not 0 < options.threshold < 1:
        parser.error(f"--threshold {options.threshold:g}: it must lie between 0 and 1")
    if not options.output and not options.label_column:
        parser.error("--output is needed; only with --label_column, which measures the answers, it may be left out")
    if options.positive_label and not options.label_column:
        parser.error("--positive_label needs --label_column")
    return options


@contextlib.contextmanager
def given_file(path: Path) -> Iterator[Path]:
    """Yield the file to read; what comes through standard input or a pipe is kept in a file, to be read twice."""
    if not is_stream(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix="".join(path.suffixes)) as kept:
        with contextlib.nullcontext(sys.stdin.buffer) if path == STANDARD else path.open("rb") as stream:
            shutil.copyfileobj(stream, kept)
        kept.flush()
        yield Path(kept.name)


def score(options: argparse.Namespace) -> None:
    """Classify the file, measure the answers if it has labels, and print what was done.

    Raises:
        ValueError, OSError: the file or an option cannot be used, or the result cannot be written.
    """
    reading = ReadOptions(**{entry.name: getattr(options, entry.name) for entry in fields(ReadOptions)})
    with given_file(options.file) as source:
        if options.output:
            check_output(options.output, source)
        try:
            messages = read_messages(source, reading)
        except TableError as error:
            raise ValueError(f"{options.file}: {error}") from error
        for note in messages.notes:
            print(f"{options.file}: {note}", file=sys.stderr)
        if options.output:
            check_output(options.output, source, messages.rows)
        # Every worker loads the adapter itself; an error in it is told here, before one starts.
        device = None if options.workers is None else torch.device("cpu")
        classifier = Classifier.load(options.adapter_dir, fast_dtype(device), device)
        threshold = options.threshold or classifier.settings.decision_threshold
        task = Task(source, replace(reading, text_column=messages.text_columns), threshold, options.exact)
        classes = classes_of(messages, task, classifier.labels) if messages.label_column else None
        if classes and (described := classes.describe()):
            print(f"{options.file}: {described}", file=sys.stderr)
        done = f"{messages.rows:,} rows"
        if options.output and not is_stream(options.output):
            done += f" in {options.output}"
        with finished_rows(options.output) as part:
            if options.workers is None:
                settings = [file for name in ("config.json", SETTINGS_FILE) for file in options.adapter_dir.glob(name)]
                sha256 = file_sha256(*sorted(options.adapter_dir.glob("*.safetensors")), *settings)
                score_file(messages, task, part, classifier, sha256)
            else:
                # Imported only when needed: it has its own requirements and is slow to import.
                from text_classifier.extras.ray_scoring import score_file_with_ray

                score_file_with_ray(messages, task, part, options.adapter_dir, options.workers, options.ray_address)
            if classes:
                done = f"{measure(part, task, classes, str(options.adapter_dir))}\n{done}"
            if options.output:
                write_result(part, options.output)
        # A stream, such as /dev/stdout, gets nothing but the result.
        print(done, file=sys.stderr if options.output and is_stream(options.output) else sys.stdout)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code of `run_command`."""
    options = parse_options(argv)
    goes_on = options.workers is None and options.output and not is_stream(options.output)
    again = "the same command goes on from here" if goes_on else "nothing was written"
    return run_command(lambda: score(options), str(options.output or "temporary files"), f"Interrupted; {again}.")


if __name__ == "__main__":
    sys.exit(main())
