"""Classify a file on several machines, or processes: `text_classifier.scoring` on a Ray cluster.

    pip install -r requirements/ray.txt
    python -m text_classifier.ray_scoring messages.csv --output scored --workers 4
    python -m text_classifier.ray_scoring messages.csv --output scored --workers 40 --address auto

Ray reads the file piece by piece, restarts workers that die and repeats what they had not finished.
The input and the output folder have to be on storage that all machines share.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow
import ray
from pyarrow import csv
from ray.data import ActorPoolStrategy, DataContext

from text_classifier.errors import ArtifactError
from text_classifier.inference import fast_dtype, load_tokenizer_and_model
from text_classifier.scoring import ROWS_AT_A_TIME, score_table
from text_classifier.tables import check_text_column, read_table

# What every machine needs of this repository: the package.
PACKAGE = Path(__file__).parent


class Scorer:
    """A worker: loads the adapter once and classifies tables."""

    def __init__(self, adapter_dir: str, text_column: str):
        self.text_column = text_column
        self.tokenizer, self.model = load_tokenizer_and_model(adapter_dir, fast_dtype())

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        return score_table(table, self.text_column, self.tokenizer, self.model)


def score_file_with_ray(source: Path, target: Path, adapter_dir: Path, text_column: str, workers: int) -> int:
    """Classify the messages of a .csv on the connected Ray cluster, and return how many rows were written.

    Args:
        target: a folder that is not there yet; it gets .csv files, in the order of the rows by name, all
            of them or, if something fails, none.
        workers: processes that hold a model each, of one CPU core each.

    Raises:
        ValueError: the source cannot be read or lacks the column, or the target exists.
    """
    if target.exists():
        raise ValueError(f"{target} exists.")
    first = next(read_table(source, ROWS_AT_A_TIME))
    check_text_column(source, first.columns, text_column)
    scratch = target.with_name(f".{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    rows = ray.data.read_csv(
        str(source),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        # As `read_table` reads: everything is text, and what is empty is empty.
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(first.columns, pyarrow.string()), strings_can_be_null=False
        ),
    )
    rows.map_batches(
        Scorer,
        fn_constructor_args=(str(adapter_dir.resolve()), text_column),
        batch_format="pandas",
        batch_size=ROWS_AT_A_TIME,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=-1,
    ).write_csv(str(scratch))
    written = sum(len(table) for part in scratch.glob("*.csv") for table in read_table(part, ROWS_AT_A_TIME))
    os.replace(scratch, target)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Classify a file as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Classify the messages of a file on a Ray cluster.")
    parser.add_argument("file", type=Path, help="a UTF-8 .csv with a header")
    parser.add_argument("--output", type=Path, required=True, help="folder for the .csv files that are written")
    parser.add_argument("--text_column", default="Text", help="column with the messages (default: Text)")
    parser.add_argument("--adapter_dir", type=Path, default=Path("lora_model"), help="default: lora_model")
    parser.add_argument("--workers", type=int, default=2, help="processes that classify (default: 2)")
    parser.add_argument("--address", help="of a running cluster; by default one is started on this machine")
    options = parser.parse_args(argv)
    try:
        # Before any worker: an adapter that cannot be loaded shows here.
        load_tokenizer_and_model(options.adapter_dir)
        runtime = {"runtime_env": {"py_modules": [str(PACKAGE)]}, "log_to_driver": False}
        if options.address is None:
            # One core more than the workers have: something has to read the file.
            runtime |= {"num_cpus": options.workers + 1, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(options.address, **runtime)
        written = score_file_with_ray(
            options.file, options.output, options.adapter_dir, options.text_column, options.workers
        )
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    finally:
        ray.shutdown()
    print(f"{written:,} rows in {options.output}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
