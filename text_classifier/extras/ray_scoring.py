"""Classify a file on a Ray cluster: on several machines, or in several processes on this machine.

Workers get the rows piece by piece. Ray restarts workers that die and repeats their unfinished work. The file and the
result must be on storage that all machines share.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import ray
import torch
from ray.data import ActorPoolStrategy

from text_classifier.classifier import Classifier
from text_classifier.files import atomic_path
from text_classifier.reading.messages import Messages
from text_classifier.runtime import choose_device, fast_dtype
from text_classifier.scoring import ROWS_PER_CHUNK, Task, as_csv, score_table

# The part of this repository that Ray copies to every machine.
PACKAGE = Path(__file__).parents[1]


class Scorer:
    """A Ray worker. It loads the adapter once and then classifies pieces of the file."""

    def __init__(self, adapter_dir: str, task: Task, has_gpu: bool):
        self.task = task
        # A worker without a GPU of its own may see those of the others.
        device = choose_device() if has_gpu else torch.device("cpu")
        self.classifier = Classifier.load(adapter_dir, fast_dtype(device), device)

    def __call__(self, piece: dict[str, str]) -> dict[str, int]:
        """Write the answers of a piece beside it, and return how many there are."""
        rows = Path(piece["item"])
        scored = score_table(pd.read_parquet(rows), self.task, self.classifier)
        with atomic_path(rows.with_suffix(".csv")) as scratch:
            scratch.write_bytes(as_csv(scored, header=int(rows.stem) == 0))
        return {"rows": len(scored)}


def score_file_with_ray(
    messages: Messages, task: Task, part: Path, adapter_dir: Path, workers: int, address: str | None = None
) -> None:
    """Classify the messages of a file on a Ray cluster.

    Args:
        messages: those of the source of `task`.
        part: CSV that gets the rows when all are done, in the order of the source.
        workers: number of processes; each one holds a model and uses one CPU core, and a GPU if the cluster has enough
            for all of them and the environment variable DEVICE is not `cpu`.
        address: address of a running cluster; None starts a cluster on this machine.

    Raises:
        ValueError: the source cannot be read, or DEVICE names one of several devices.
    """
    runtime = {"runtime_env": {"py_modules": [str(PACKAGE)]}, "log_to_driver": False}
    if address is None:
        # One core more than the workers need, because Ray also has to read the file.
        runtime |= {"num_cpus": workers + 1, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    folder = part.with_name(f".{part.name}s").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    ray.init(address, **runtime)
    try:
        has_gpus = _has_gpus(workers)
        folder.mkdir()
        # The one reader reads the file, whatever its format; workers get its rows in pieces.
        for number, chunk in enumerate(messages.chunks(ROWS_PER_CHUNK)):
            chunk.to_parquet(folder / f"{number:08}.parquet", index=False)  # so the names sort in the order of the rows
        pieces = [str(piece) for piece in sorted(folder.glob("*.parquet"))]
        ray.data.from_items(pieces, override_num_blocks=len(pieces)).map(
            Scorer,
            fn_constructor_args=(str(adapter_dir.resolve()), task, has_gpus),
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=int(has_gpus),
        ).materialize()
        with part.open("wb") as output:
            for piece in pieces:
                output.write(Path(piece).with_suffix(".csv").read_bytes())
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


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
