"""Training works under launchers, in several processes, and on a base model from the Hub by its name."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from hub_stand_in import hub_handler
from training_runs import SCRIPT, arguments, report_of, run_here, run_process

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


# Without a GPU, accelerate starts several processes only through MPI.
ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]


@pytest.mark.parametrize(("launcher", "processes"), [(TORCHRUN, 2), (ACCELERATE, 1)], ids=["torchrun", "accelerate"])
def test_launchers_count_every_message_once(trained, tmp_path, tiny_gpt2, messages_csv, serve, launcher, processes):
    """The figures before the first step equal those of the same untrained model in one process.

    Tokenizer and weights of `gpt2` come from a stand-in for the Hub; plain PEFT finds them by that name.
    """
    environment = {"HF_ENDPOINT": serve(hub_handler({"gpt2": tiny_gpt2})), "HF_HOME": tmp_path}
    argv = arguments("gpt2", messages_csv, "--num_train_epochs", "1")
    result = run_process(tmp_path, "-m", *launcher, SCRIPT, *argv, **environment)
    assert result.stdout.count("Saved lora_model") == 1
    two, one = report_of(tmp_path), report_of(trained)
    assert two["training"]["processes"] == processes
    base = two["base_model"]
    assert (base["name"], base["source"], base["fallback_used"]) == ("gpt2", "Hugging Face Hub", False)
    for split in ("validation", "test", "left_out"):
        distributed, alone = two["results"]["before"][split], one["results"]["before"][split]
        assert distributed["confusion_matrix"] == alone["confusion_matrix"]
        assert distributed["loss"] == pytest.approx(alone["loss"], abs=1e-6)
    said = [pd.read_csv(folder / "results/predictions.csv") for folder in (tmp_path, trained)]
    assert said[0]["Text"].tolist() == said[1]["Text"].tolist()
    assert said[0]["before"].tolist() == pytest.approx(said[1]["before"].tolist(), abs=1e-5)
    assert list(two["results"]) == list(one["results"]) and two["saved"] == "after + TF-IDF"
    first = [newest_log(folder)[0] for folder in (tmp_path, trained)]
    assert first[0]["train_accuracy"] == first[1]["train_accuracy"]
    script = (
        "from peft import AutoPeftModelForSequenceClassification as Auto\n"
        "from text_classifier import load_tokenizer_and_model\n"
        "load_tokenizer_and_model('lora_model')\n"
        "print(Auto.from_pretrained('lora_model').peft_config['default'].base_model_name_or_path)"
    )
    printed = run_process(tmp_path, "-c", script, PYTHONPATH=REPOSITORY, **environment).stdout
    assert printed.splitlines()[-1:] == ["gpt2"]


def test_a_step_is_the_same_in_one_batch_in_several_and_in_two_processes(tmp_path, tiny_gpt2, messages_csv):
    """Loss and gradient are means over the step's messages, whatever they are divided into."""
    # Dropout would draw other numbers for other batches.
    base = shutil.copytree(tiny_gpt2, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | dict.fromkeys(
        ("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0
    )
    (base / "config.json").write_text(json.dumps(config))
    ways = {"8 x 1": (8, 1, 1), "4 x 2": (4, 2, 1), "2 x 4": (2, 4, 1), "2 x 2 in two processes": (2, 2, 2)}
    first = {}
    for name, (batch, accumulation, processes) in ways.items():
        flags = ["--per_device_train_batch_size", str(batch), "--gradient_accumulation_steps", str(accumulation)]
        flags += ["--max_steps", "1", "--logging_steps", "1", "--save_steps", "1", "--eval_steps", "1"]
        flags += ["--output_dir", f"results/{batch}-{processes}"]
        if processes == 1:
            assert run_here(tmp_path, arguments(base, messages_csv, *flags)) == 0
        else:
            run_process(tmp_path, "-m", *TORCHRUN, SCRIPT, *arguments(base, messages_csv, *flags))
        state = json.loads((tmp_path / f"results/{batch}-{processes}/checkpoint-1/trainer_state.json").read_text())
        (first[name],) = [entry for entry in state["log_history"] if "grad_norm" in entry]
    for key in ("loss", "grad_norm"):
        expected = pytest.approx(first["8 x 1"][key], rel=0.01)
        assert {name: entry[key] for name, entry in first.items()} == dict.fromkeys(ways, expected)


def newest_log(folder: Path) -> list[dict]:
    state = max((folder / "results").glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    return [entry for entry in json.loads(state.read_text())["log_history"] if "train_accuracy" in entry]
