"""Options that cannot work are told in one line, before data is read."""

import re

import numpy as np
import pytest
from training_runs import run_here
from transformers import EvalPrediction
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from gpt_classification_model import compute_metrics, main
from text_classifier.training import config

# The data is not there, so an error about it would show that it was looked for first.
NO_DATA = ("--data_file", "not-there.csv")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--metric_for_best_model f2 --load_best_model_at_end true", "f2: there are only loss, accuracy, precision"),
        ("--report_to wandb", "wandb"),
        ("--optim adamw_bnb_8bit", "bitsandbytes"),
        ("--optim galore_adamw", "galore"),
        ("--per_device_train_batch_size 0", "per_device_train_batch_size 0: at least 1"),
        ("--per_device_eval_batch_size 0", "per_device_eval_batch_size 0: at least 1"),
        ("--gradient_accumulation_steps 0", "at least 1"),
        ("--max_length 0", "max_length 0: at least 1"),
        ("--fallback_layers 0", "fallback_layers 0: at least 1"),
        ("--lora_r 0", "lora_r 0: at least 1"),
        ("--lora_dropout 2", "lora_dropout 2.0: it must lie between 0 and 1"),
        ("--seed -1", "seed -1"),
        ("--target_false_positive_rate 1.5", "target_false_positive_rate 1.5"),
        ("--num_train_epochs 0", "num_train_epochs 0: it must be above 0"),
        ("--fsdp full_shard", "fsdp"),
        ("--weight_decay nan", "weight_decay nan: a number is needed"),
        ("--eval_accumulation_steps 0", "eval_accumulation_steps 0: at least 1"),
        ("--dataloader_drop_last true", "evaluations would leave something out"),
        ("--label_names foo", "evaluations would leave something out"),
        ("--dataloader_persistent_workers true", "num_workers"),
        ("--use_liger_kernel true", "liger"),
        ("--torch_compile_backend nonsense", "(?i)nonsense"),
        ("--push_to_hub true --hub_model_id me/x", "needs a connection to the Hub and a login"),
    ],
)
def test_options_that_cannot_work_are_told_before_any_work(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setenv("HF_TOKEN", "")
    assert run_here(tmp_path, [*NO_DATA, *flags.split()]) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: ") and "not-there" not in error
    assert re.search(message, error)


@pytest.mark.parametrize(
    "flags", ["--deepspeed there.json", "--tf32 true", "--hub_strategy x", "--logging_steps 0", "--lora_r four"]
)
def test_options_that_transformers_refuses_are_told_in_one_line(tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*NO_DATA, *flags.split()])
    unset_hf_deepspeed_config()  # a refused --deepspeed leaves half a configuration behind, which later runs would read
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "Traceback" not in error and "error: " in error.splitlines()[-1]


@pytest.mark.parametrize(
    "flags",
    [
        "--metric_for_best_model f1 --load_best_model_at_end true --greater_is_better true",
        "--metric_for_best_model eval_recall --load_best_model_at_end true",
        "--label_smoothing_factor 0.1",
        "--optim adafactor --lr_scheduler_type polynomial",
    ],
)
def test_options_that_work_get_to_the_data(tmp_path, capsys, flags):
    assert run_here(tmp_path, [*NO_DATA, *flags.split()]) == 1
    assert "not-there.csv" in capsys.readouterr().err


def test_what_checkpoints_can_be_compared_by_is_measured():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    metrics = compute_metrics(EvalPrediction(logits, np.array([0, 1, 0, 1])))
    assert metrics == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_a_tracker_that_is_not_installed_is_named_with_its_requirements(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(config, "is_tensorboard_available", lambda: False)
    assert run_here(tmp_path, [*NO_DATA, "--report_to", "tensorboard"]) == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error == "Error: --report_to tensorboard needs it: pip install -r requirements/tensorboard.txt"
