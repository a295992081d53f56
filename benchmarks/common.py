"""Code that the benchmarks share: measured commands, training runs, pages of figures, means with spread."""

import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from resource import struct_rusage

import pandas as pd
import torch

from gpt_classification_model import load_splits
from text_classifier.files import atomic_path
from text_classifier.runtime import fast_dtype
from text_classifier.sources.datasets import DataFile
from text_classifier.training.config import DataArguments

REPOSITORY = Path(__file__).resolve().parent.parent
ADAPTER = REPOSITORY / "lora_model"
MODERN_MESSAGES = REPOSITORY / "tests" / "modern_messages.tsv"
"""Messages unlike the collection, for testing; nothing is trained on them."""
CHINESE_MESSAGES = REPOSITORY / "tests" / "chinese_messages.tsv"
"""Chinese messages, for testing; nothing is trained on them."""
SHORT_MESSAGES = REPOSITORY / "tests" / "short_messages.tsv"
"""Messages of one to three words in both languages, for testing; nothing is trained on them."""
OTHER_LANGUAGES = REPOSITORY / "tests" / "other_languages.tsv"
"""Short messages in ten languages that are neither English nor Chinese."""


def run_measured(command: Sequence[str | Path], **options) -> tuple[float, struct_rusage]:
    """Run a command; return its seconds and the resources that its process used.

    Args:
        options: keyword arguments of `subprocess.Popen`.

    Raises:
        SystemExit: the command failed.
    """
    command = [str(word) for word in command]
    started = time.perf_counter()
    process = subprocess.Popen(command, **options)
    # Unlike `process.wait`, this also returns the resources that this one process used.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} failed")
    return time.perf_counter() - started, usage


def train(command: Sequence[str], folder: Path, messages: DataFile, jobs: int = 1) -> struct_rusage:
    """Run a training command and return the resources that it used; all its files go to `folder`.

    Args:
        command: `python` and its arguments.
        messages: file of the SMS Spam Collection, the same for all runs. A run that asks UCI itself might get
            another answer than the run before.
        jobs: number of commands that run at a time and share the cores.

    Raises:
        SystemExit: the command failed; `log.txt` in the folder says why.
    """
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    shutil.copy(messages.path, folder / "dataset")
    source = "mirror" if "mirror" in messages.source else "uci"
    outputs = ["--output_dir", folder, "--adapter_dir", folder / "model", "--metrics_pdf", folder / "metrics.pdf"]
    outputs += ["--dataset_dir", folder / "dataset", "--data_source", source, "--disable_tqdm", "true"]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // jobs))}
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, *command[1:], *outputs]
        _, usage = run_measured(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    return usage


def shipped_splits() -> dict[str, pd.DataFrame]:
    """Return the splits of the collection that the shipped adapter was trained and tested on."""
    with tempfile.TemporaryDirectory() as folder:
        return load_splits(DataArguments(data_source="mirror", dataset_dir=folder))[0]


def publish(script: str, title: str, text: str) -> None:
    """Print what a benchmark measured, and write it to a page of the script's name beside the script.

    The page says which command made it on which kind of CPU, because that decides the speed of everything here.
    """
    path = Path(script)
    command = shlex.join(["python", "-m", f"benchmarks.{path.stem}", *sys.argv[1:]])
    kind = "with" if fast_dtype(torch.device("cpu")) is torch.bfloat16 else "without"
    cpu = f"{os.cpu_count()} CPU cores {kind} bfloat16 instructions"
    page = f"# {title}, measured\n\nMade by `{command}` on {cpu}.\n\n{text}\n"
    with atomic_path(path.with_name(f"{path.stem.upper()}.md")) as scratch:
        scratch.write_text(page, encoding="utf-8")
    print(page)


def spread(values: Sequence[float], scale: float = 100, digits: int = 2) -> str:
    """Write the mean, and for more than one value the standard deviation; by default in per cent.

    Args:
        scale: factor of all values; 100 gives per cent.
        digits: digits after the decimal point.
    """
    text = f"{scale * statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {scale * statistics.stdev(values):.{digits}f}"
