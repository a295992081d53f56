"""Scoring on a Ray cluster gives what scoring in one process gives, also when a worker is killed."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import ray
from conftest import REPOSITORY
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from score_with_ray import main
from text_classifier import load_tokenizer_and_model, score_file

ROWS = 20_000


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two machines, as far as Ray can tell."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def messages(tmp_path):
    """A file with everything that makes CSV hard."""
    special = ["", "two\nlines", 'a "quoted" word', "a, b", "NA", "你好 👍", "  "]
    texts = special + [f"message {number}, call 0906{number}" for number in range(ROWS - len(special))]
    table = pd.DataFrame({"id": [f"{number:07}" for number in range(ROWS)], "Text": texts})
    table.to_csv(tmp_path / "messages.csv", index=False)
    return tmp_path / "messages.csv"


def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(cluster, messages, tiny_review_adapter, tmp_path):
    target = tmp_path / "scored"
    command = [sys.executable, REPOSITORY / "score_with_ray.py", messages, "--output", target, "--address", cluster]
    process = subprocess.Popen([*command, "--adapter_dir", tiny_review_adapter], stdout=subprocess.PIPE, text=True)
    ray.init(cluster, ignore_reinit_error=True)

    def scorers() -> set[int]:
        return {actor.pid for actor in list_actors() if "Map" in actor.class_name and actor.state == "ALIVE"}

    while process.poll() is None and len(before := scorers()) < 2:
        time.sleep(0.2)
    time.sleep(1)
    os.kill(min(before), signal.SIGKILL)
    assert process.poll() is None, "it was killed midway"
    assert process.wait(200) == 0 and f"{ROWS:,} rows" in process.stdout.read()

    tokenizer, model = load_tokenizer_and_model(tiny_review_adapter)
    score_file(messages, tmp_path / "alone.csv", tokenizer, model, "Text", "")
    options = {"dtype": str, "keep_default_na": False}
    parts = [pd.read_csv(part, **options) for part in sorted(target.glob("*.csv"))]
    alone = pd.read_csv(tmp_path / "alone.csv", **options)
    together = pd.concat(parts, ignore_index=True)
    assert together[["id", "Text", "predicted_label"]].equals(alone[["id", "Text", "predicted_label"]])
    probability = "positive_probability"
    told = together[probability].ne("")
    assert told.equals(alone[probability].ne("")) and (~told).sum() == 2
    difference = together[probability][told].astype(float) - alone[probability][told].astype(float)
    assert difference.abs().max() < 0.02, "workers may multiply in bfloat16"


@pytest.mark.parametrize("flags, said", [(["--text_column", "body"], "'body'"), ([], "exists")])
def test_mistakes_are_told_and_nothing_is_written(
    cluster, messages, tiny_review_adapter, tmp_path, flags, said, capsys
):
    target = tmp_path / ("scored" if flags else "")
    argv = [str(messages), "--output", str(target), "--adapter_dir", str(tiny_review_adapter), *flags]
    assert main(argv) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "scored").exists()
