"""Classify a file of messages.

python -m text_classifier messages.csv --output scored.csv --text_column body
python -m text_classifier messages.csv --output scored.csv --workers 4    # 4 Ray processes on this machine
python -m text_classifier messages.csv --output scored.csv --workers 40 --ray_address auto    # a running cluster
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from text_classifier.errors import ArtifactError
from text_classifier.files import file_sha256
from text_classifier.inference import fast_dtype, load_tokenizer_and_model
from text_classifier.scoring import score_file

EXTRAS = {"ray": "--workers", "nncf": "--int8", "openvino": "--int8"}


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        SystemExit: the options are wrong, or help was asked for; argparse prints the reason or the help.
    """
    parser = argparse.ArgumentParser(prog="python -m text_classifier", description="Classify the messages of a file.")
    parser.add_argument("file", type=Path, help="a UTF-8 .csv or .tsv with a header")
    parser.add_argument("--output", type=Path, required=True, help=".csv to write: the file's columns and the answers")
    parser.add_argument("--text_column", default="Text", help="column with the messages (default: Text)")
    parser.add_argument("--adapter_dir", type=Path, default=Path("lora_model"), help="default: lora_model")
    parser.add_argument("--int8", action="store_true", help="faster: weights of 8 bits (requirements/int8.txt)")
    parser.add_argument("--workers", type=int, help="classify in so many processes, with Ray (requirements/ray.txt)")
    parser.add_argument(
        "--ray_address", help="of a running Ray cluster, `auto` for this machine's; by default one is started here"
    )
    options = parser.parse_args(argv)
    if options.ray_address and options.workers is None:
        parser.error("--ray_address needs --workers")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: at least one is needed")
    if options.int8 and options.workers is not None:
        parser.error("--int8 does not go with --workers")
    return options


def score_here(options: argparse.Namespace) -> int:
    """Classify the file in this process and return the number of rows."""
    # OpenVINO converts a model in float32 and runs it on the CPU.
    placing = (torch.float32, torch.device("cpu")) if options.int8 else (fast_dtype(),)
    tokenizer, model = load_tokenizer_and_model(options.adapter_dir, *placing)
    sha256 = file_sha256(*sorted(options.adapter_dir.glob("*.safetensors")), options.adapter_dir / "config.json")
    if options.int8:
        # Imported only when needed: it has its own requirements and is slow to import.
        from text_classifier.int8 import Int8Model

        model, sha256 = Int8Model(model), f"{sha256} int8"
    return score_file(options.file, options.output, tokenizer, model, options.text_column, sha256)


def score_on_cluster(options: argparse.Namespace) -> int:
    """Classify the file on a Ray cluster and return the number of rows."""
    # Imported only when needed: it has its own requirements and is slow to import.
    from text_classifier.ray_scoring import connected, score_file_with_ray

    with connected(options.ray_address, options.workers):
        return score_file_with_ray(
            options.file, options.output, options.adapter_dir, options.text_column, options.workers
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Classify the file that the command line names.

    Returns:
        The exit code: 0, 1 after an error, or 130 after an interruption.
    """
    options = parse_options(argv)
    try:
        if options.output.resolve() == options.file.resolve():
            raise ValueError("--output is the file itself.")
        if options.output.is_dir():
            raise ValueError(f"--output {options.output} is a folder; name the .csv to write.")
        rows = score_here(options) if options.workers is None else score_on_cluster(options)
    except ModuleNotFoundError as error:
        option = EXTRAS.get(error.name)
        if option is None:
            raise
        extra = "ray" if option == "--workers" else "int8"
        print(f"Error: {option} needs {error.name}: pip install -r requirements/{extra}.txt", file=sys.stderr)
        return 1
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "the same command goes on from here" if options.workers is None else "nothing was written"
        print(f"\nInterrupted; {again}.", file=sys.stderr)
        return 130
    print(f"{rows:,} rows in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
