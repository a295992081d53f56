"""Training works in several processes, and on a base model from the Hub by its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hub_stand_in import hub_handler
from training_runs import SCRIPT, arguments

from text_classifier.inference import load_tokenizer_and_model


@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (["torch.distributed.run", "--standalone", "--nproc_per_node", "2"], 2),
        # Without a GPU, accelerate starts several processes only through MPI.
        (["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"], 1),
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_launchers_count_every_message_once(trained, tmp_path, tiny_gpt2, messages_csv, launcher, processes):
    """The figures before the first step equal those of the same untrained model in one process."""
    result = subprocess.run(
        [sys.executable, "-m", *launcher, str(SCRIPT), *arguments(tiny_gpt2, messages_csv)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Saved lora_model") == 1
    two, one = (json.loads((folder / "results/metrics.json").read_text()) for folder in (tmp_path, trained))
    assert two["training"]["processes"] == processes
    for split in ("validation", "test", "left_out"):
        distributed, alone = two["results"]["before"][split], one["results"]["before"][split]
        assert distributed["confusion_matrix"] == alone["confusion_matrix"]
        assert distributed["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    said = [pd.read_csv(folder / "results/predictions.csv") for folder in (tmp_path, trained)]
    assert said[0]["Text"].tolist() == said[1]["Text"].tolist()
    assert said[0]["before"].tolist() == pytest.approx(said[1]["before"].tolist(), abs=1e-5)
    assert list(two["results"]) == list(one["results"]) and two["saved"] == "after + TF-IDF"
    load_tokenizer_and_model(tmp_path / "lora_model")
    first = [newest_log(folder)[0] for folder in (tmp_path, trained)]
    assert first[0]["train_accuracy"] == first[1]["train_accuracy"]


def newest_log(folder: Path) -> list[dict]:
    state = max((folder / "results").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return [entry for entry in json.loads(state.read_text())["log_history"] if "train_accuracy" in entry]


def test_hub_base_by_name_end_to_end(tiny_gpt2, messages_csv, serve, tmp_path):
    """Training gets tokenizer and weights of `gpt2` from a stand-in for the Hub; plain PEFT finds them by that name."""
    environment = {**os.environ, "HF_ENDPOINT": serve(hub_handler({"gpt2": tiny_gpt2})), "HF_HOME": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), *arguments("gpt2", messages_csv)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    base = json.loads((tmp_path / "results/metrics.json").read_text())["base_model"]
    assert (base["name"], base["source"], base["fallback_used"]) == ("gpt2", "Hugging Face Hub", False)
    script = (
        "from peft import AutoPeftModelForSequenceClassification as Auto\n"
        "print(Auto.from_pretrained('lora_model').peft_config['default'].base_model_name_or_path)"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["gpt2"], result.stderr[-3000:]
