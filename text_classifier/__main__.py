"""Classify a file of messages: `python -m text_classifier messages.csv --output scored.csv --text_column body`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from text_classifier.errors import ArtifactError
from text_classifier.files import file_sha256
from text_classifier.inference import fast_dtype, load_tokenizer_and_model
from text_classifier.scoring import score_file


def main(argv: Sequence[str] | None = None) -> int:
    """Classify a file as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Classify the messages of a file.")
    parser.add_argument("file", type=Path, help="a UTF-8 .csv or .tsv with a header")
    parser.add_argument("--output", type=Path, required=True, help=".csv to write: the file's columns and the answers")
    parser.add_argument("--text_column", default="Text", help="column with the messages (default: Text)")
    parser.add_argument("--adapter_dir", type=Path, default=Path("lora_model"), help="default: lora_model")
    parser.add_argument("--int8", action="store_true", help="faster: weights of 8 bits (requirements/int8.txt)")
    options = parser.parse_args(argv)
    try:
        if options.output.resolve() == options.file.resolve():
            raise ValueError("--output is the file itself.")
        tokenizer, model = load_tokenizer_and_model(
            options.adapter_dir, torch.float32 if options.int8 else fast_dtype()
        )
        sha256 = file_sha256(*sorted(options.adapter_dir.glob("*.safetensors")), options.adapter_dir / "config.json")
        if options.int8:
            # An extra of its own, and slow to import.
            from text_classifier.int8 import Int8Model

            model, sha256 = Int8Model(model), f"{sha256} int8"
        rows = score_file(options.file, options.output, tokenizer, model, options.text_column, sha256)
    except ModuleNotFoundError as error:
        print(f"Error: --int8 needs {error.name}: pip install -r requirements/int8.txt", file=sys.stderr)
        return 1
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    print(f"{rows:,} rows in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
