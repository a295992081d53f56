"""What the benchmarks share: places, the number format, the pages of figures."""

import os
import shlex
import sys
from pathlib import Path

import torch

from text_classifier.files import atomic_path
from text_classifier.runtime import fast_dtype

REPOSITORY = Path(__file__).resolve().parent.parent
ADAPTER = REPOSITORY / "lora_model"


def number_format() -> str:
    """Return the name of the number format in which this CPU multiplies fastest."""
    return str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")


def publish(script: str, title: str, text: str) -> None:
    """Print what a benchmark measured, and write it to a page of the script's name beside the script.

    The page says which command made it on which kind of CPU, because that decides the speed of everything here.
    """
    path = Path(script)
    command = shlex.join(["python", "-m", f"benchmarks.{path.stem}", *sys.argv[1:]])
    kind = "with" if number_format() == "bfloat16" else "without"
    cpu = f"{os.cpu_count()} CPU cores {kind} bfloat16 instructions"
    page = f"# {title}, measured\n\nMade by `{command}` on {cpu}.\n\n{text}\n"
    with atomic_path(path.with_name(f"{path.stem.upper()}.md")) as scratch:
        scratch.write_text(page, encoding="utf-8")
    print(page)
