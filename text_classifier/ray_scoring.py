"""Classify a file on a Ray cluster: on several machines, or in several processes on this machine.

Ray reads the file piece by piece. It restarts workers that die and repeats their unfinished work. The file and the
result must be on storage that all machines share.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow
import ray
import torch
from pyarrow import csv
from ray.data import ActorPoolStrategy, DataContext

from text_classifier.files import atomic_path
from text_classifier.inference import choose_device, fast_dtype, load_tokenizer_and_model
from text_classifier.scoring import ROWS_PER_CHUNK, as_csv, score_table
from text_classifier.tables import check_columns, is_tab_separated, read_table

# The part of this repository that Ray copies to every machine.
PACKAGE = Path(__file__).parent


class Scorer:
    """A Ray worker. It loads the adapter once and then classifies tables.

    Args:
        has_gpu: whether Ray gave this worker a GPU of its own. A worker without one may see those of the others.
    """

    def __init__(self, adapter_dir: str, text_column: str, has_gpu: bool):
        self.text_column = text_column
        device = choose_device() if has_gpu else torch.device("cpu")
        self.tokenizer, self.model = load_tokenizer_and_model(adapter_dir, fast_dtype(device), device)

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        return score_table(table, self.text_column, self.tokenizer, self.model)


@contextlib.contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Connect to a Ray cluster, and disconnect when the block ends.

    Args:
        address: address of a running cluster; None starts a cluster on this machine.
        workers: number of workers that a cluster started here must have CPU cores for.
    """
    runtime = {"runtime_env": {"py_modules": [str(PACKAGE)]}, "log_to_driver": False}
    if address is None:
        # One core more than the workers need, because Ray also has to read the file.
        runtime |= {"num_cpus": workers + 1, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address, **runtime)
    try:
        yield
    finally:
        ray.shutdown()


def score_file_with_ray(source: Path, target: Path, adapter_dir: Path, text_column: str, workers: int) -> int:
    """Classify the messages of a .csv or .tsv on the connected cluster, and return how many rows were written.

    Args:
        target: the .csv to write; it appears when all rows are done, and has them in the order of the source.
        workers: number of processes; each one holds a model and uses one CPU core, and a GPU if the cluster has enough
            for all of them and the environment variable DEVICE is not `cpu`.

    Raises:
        ValueError: the source cannot be read, lacks the column or has no rows, or DEVICE names one of several devices.
    """
    first = next(read_table(source, ROWS_PER_CHUNK))
    check_columns(source, first.columns, text_column=text_column)
    if not len(first):
        raise ValueError(f"{source} has no rows.")
    # Load the adapter here once, so that an error in it is reported before any worker starts.
    load_tokenizer_and_model(adapter_dir, device=torch.device("cpu"))
    parts = target.with_name(f".{target.name}.parts")
    shutil.rmtree(parts, ignore_errors=True)
    try:
        _classify_in_parts(source, parts, list(first.columns), adapter_dir, text_column, workers)
        return _join(parts, target)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _has_gpus(workers: int) -> bool:
    """Return whether each of so many workers gets a GPU: the cluster has enough, and DEVICE does not forbid it.

    Raises:
        ValueError: DEVICE names one of several devices, but Ray decides which one a worker gets.
    """
    device = os.environ.get("DEVICE", "")
    if ":" in device:
        raise ValueError(
            f"DEVICE={device} does not go with --workers: Ray gives out the GPUs. DEVICE=cpu forbids them."
        )
    return device != "cpu" and ray.cluster_resources().get("GPU", 0) >= workers


def _classify_in_parts(
    source: Path, parts: Path, columns: list[str], adapter_dir: Path, text_column: str, workers: int
) -> None:
    has_gpus = _has_gpus(workers)
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    # Read the file as `read_table` does: every cell is text, an empty cell is "", and a .tsv has no quoting.
    layout = {"delimiter": "\t", "quote_char": False} if is_tab_separated(source) else {"newlines_in_values": True}
    rows = ray.data.read_csv(
        str(source),
        parse_options=csv.ParseOptions(**layout),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pyarrow.string()), strings_can_be_null=False
        ),
    )
    rows.map_batches(
        Scorer,
        fn_constructor_args=(str(adapter_dir.resolve()), text_column, has_gpus),
        batch_format="pandas",
        batch_size=ROWS_PER_CHUNK,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=int(has_gpus),
    ).write_csv(str(parts))


def _join(parts: Path, target: Path) -> int:
    """Join the parts into one file and return the number of rows; the parts' names sort in the order of the rows."""
    written = 0
    with atomic_path(target) as scratch, scratch.open("wb") as output:
        for part in sorted(parts.glob("*.csv")):
            for table in read_table(part, ROWS_PER_CHUNK):
                output.write(as_csv(table, header=not written))
                written += len(table)
    return written
