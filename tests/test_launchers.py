"""Training works under launchers, in several processes, and on a base model from the Hub by its name."""

import contextlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hub_stand_in import hub_handler
from peft import AutoPeftModelForSequenceClassification
from training_runs import SCRIPT, arguments, report_of, run_here, run_process

from text_classifier.classifier import load_tokenizer_and_model

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# Without a GPU, accelerate starts several processes only through MPI.
ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_gpt2) -> Path:
    """The tiny GPT-2 without dropout, which would draw other numbers for other batches."""
    folder = shutil.copytree(tiny_gpt2, tmp_path_factory.mktemp("hub") / "gpt2")
    config = json.loads((folder / "config.json").read_text())
    config |= dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def logged(folder: Path) -> list[dict]:
    """Return the log of the newest run in `folder`."""
    state = max((folder / "results").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(state.read_text())["log_history"]


@pytest.fixture(scope="module")
def first_steps(base, messages_csv, tmp_path_factory) -> list[dict]:
    """What one process logs of the first step, for one batch of eight messages, two of four and four of two."""
    steps = []
    for batch, accumulation in ((8, 1), (4, 2), (2, 4)):
        folder = tmp_path_factory.mktemp("first_step")
        flags = f"--per_device_train_batch_size {batch} --gradient_accumulation_steps {accumulation} --max_steps 1"
        flags += " --logging_steps 1 --save_steps 1 --eval_steps 1"
        assert run_here(folder, arguments(base, messages_csv, *flags.split())) == 0
        steps += [entry for entry in logged(folder) if "grad_norm" in entry]
    return steps


@pytest.mark.parametrize(("launcher", "processes"), [(TORCHRUN, 2), (ACCELERATE, 1)], ids=["torchrun", "accelerate"])
def test_launchers_count_every_message_once(
    trained, first_steps, tmp_path, base, messages_csv, serve, hub_at, launcher, processes
):
    """The figures before the first step, and of this step, equal those in one process.

    Loss and gradient are means over the step's messages, whatever they are divided into. Tokenizer and weights of
    `gpt2` come from a stand-in for the Hub; plain PEFT finds them by that name.
    """
    address = serve(hub_handler({"gpt2": base}))
    flags = "--num_train_epochs 1 --per_device_train_batch_size 2 --logging_steps 1 --gradient_accumulation_steps "
    argv = arguments("gpt2", messages_csv, *flags.split(), str(4 // processes))
    result = run_process(tmp_path, "-m", *launcher, SCRIPT, *argv, HF_ENDPOINT=address, HF_HOME=tmp_path / "home")
    assert result.stdout.count("Saved lora_model") == 1
    two, one = report_of(tmp_path), report_of(trained)
    assert two["training"]["processes"] == processes
    source = two["base_model"]
    assert (source["name"], source["source"], source["fallback_used"]) == ("gpt2", "Hugging Face Hub", False)
    for split in ("validation", "test", "left_out"):
        distributed, alone = two["results"]["before"][split], one["results"]["before"][split]
        assert distributed["confusion_matrix"] == alone["confusion_matrix"]
        assert distributed["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    said = [pd.read_csv(folder / "results/predictions.csv") for folder in (tmp_path, trained)]
    assert said[0]["Text"].tolist() == said[1]["Text"].tolist()
    assert said[0]["before"].tolist() == pytest.approx(said[1]["before"].tolist(), abs=1e-5)
    assert list(two["results"]) == list(one["results"]) and two["saved"] == "after + TF-IDF"
    untrained = [
        next(entry["train_accuracy"] for entry in logged(folder) if "train_accuracy" in entry)
        for folder in (tmp_path, trained)
    ]
    assert untrained[0] == untrained[1]
    first = next(entry for entry in logged(tmp_path) if "grad_norm" in entry)
    for key in ("loss", "grad_norm"):
        expected = pytest.approx(first_steps[0][key], rel=0.01)
        assert [step[key] for step in (*first_steps, first)] == [expected] * 4
    hub_at(address)
    with contextlib.chdir(tmp_path):
        load_tokenizer_and_model("lora_model")
        loaded = AutoPeftModelForSequenceClassification.from_pretrained("lora_model")
    assert loaded.peft_config["default"].base_model_name_or_path == "gpt2"
