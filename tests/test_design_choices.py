"""The table of design choices: every row is a valid command, and the table shows the figures of the runs."""

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY
from training_runs import arguments, run_here
from transformers import AutoTokenizer

from benchmarks import design_choices
from text_classifier.training.config import parse_arguments


def test_every_row_is_a_valid_command_of_its_own():
    rows = design_choices.make_rows()
    assert len({row.name for row in rows}) == len({tuple(row.command(1)) for row in rows}) == len(rows)
    for row in rows:
        flags = row.command(7)[1 + len(row.script.split()) :]
        model, data, training = parse_arguments(flags)
        assert (data.split_seed, training.seed, model.fallback_model) == (7, 7, None)


def test_table_shows_mean_and_spread_and_what_was_not_run():
    rows = design_choices.make_rows()
    tfidf = {"validation": 0.9, "test": 0.95, "left_out_false_positives": 0.01}
    run = {
        "row": "smollm2",
        "validation": 1.0,
        "left_out_false_positives": 0.0,
        "trainable_parameters": 1234,
        "cpu_seconds": 90,
        "peak_memory_gib": 2.0,
        "tfidf": {f"TF-IDF, train{more}": tfidf for more in ("", " + left out", " + left out + today")},
        "test_messages": 250,
        "left_out_messages": 600,
        "base_sha256": "0",
        "hardware": "2 CPU cores",
        "versions": {"torch": "9"},
        "commit": "abc1234",
        "data": "UCI",
    }
    table = design_choices.make_table(rows, [run | {"seed": 1, "test": 0.97}, run | {"seed": 2, "test": 0.99}])
    (row,) = [line for line in table.splitlines() if line.startswith("| SmolLM2-135M, the fallback")]
    assert row.split(" | ")[1:] == [
        "1,234",
        "100.00 ± 0.00",
        "98.00 ± 1.41",
        "0.00 ± 0.00",
        "1.5 ± 0.0",
        "2.0 ± 0.0",
        "2 |",
    ]
    assert "| Trained on the balanced messages | – | 90.00 ± 0.00 | 95.00 ± 0.00 |" in table
    commands, not_run = table.split("## Commands")[1].split("## Not run here")
    assert "torch 9, with the code of abc1234." in table
    assert "has 250 messages: one is 0.40 points" in table
    assert (
        "- smollm2:" in commands
        and "- smollm2:" not in not_run
        and "- gpt2: `gpt_classification_model.py --model_name_or_path gpt2" in not_run
    )
    with pytest.raises(SystemExit, match="different data"):
        design_choices.make_table(
            rows, [run | {"seed": 1, "test": 1.0}, run | {"seed": 2, "test": 1.0, "data": "mirror"}]
        )


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """A benchmark in a temporary folder: one row has finished its first seed, and `gpt2` cannot be fetched."""
    monkeypatch.setattr(design_choices, "RUNS", tmp_path / "runs.jsonl")
    monkeypatch.setattr(design_choices, "TABLE", tmp_path / "table.md")
    monkeypatch.setattr(design_choices, "make_table", lambda rows, runs: str(len(runs)))
    monkeypatch.setattr(design_choices, "fetch", lambda base: base.weights != "gpt2")
    monkeypatch.setattr(design_choices, "resolve_sms_spam", lambda folder: None)
    finished = {"row": "minilm", "seed": design_choices.SEEDS[0], "test": 1.0}
    design_choices.RUNS.write_text(json.dumps(finished) + "\n")
    monkeypatch.setattr(sys, "argv", ["design_choices.py", "--rows", "minilm", "gpt2", "--jobs", "2"])
    monkeypatch.chdir(tmp_path)
    return design_choices


def test_a_finished_run_is_not_run_again(unfinished, monkeypatch):
    monkeypatch.setattr(unfinished, "run", lambda row, seed, *_: {"row": row.name, "seed": seed, "test": 0.5})
    assert unfinished.main() == 0
    seeds = [(run["row"], run["seed"]) for run in unfinished.read_runs()]
    assert sorted(seeds) == [("minilm", seed) for seed in unfinished.SEEDS]
    assert unfinished.TABLE.read_text() == "3"


@pytest.mark.parametrize("reason", [KeyboardInterrupt, SystemExit("a run failed")])
def test_stopping_starts_nothing_new_and_keeps_what_is_finished(unfinished, monkeypatch, reason):
    started = []

    def run(row, seed, *_):
        started.append(seed)
        if seed == unfinished.SEEDS[1]:
            raise reason
        time.sleep(0.3)
        return {"row": row.name, "seed": seed, "test": 0.5}

    monkeypatch.setattr(unfinished, "run", run)
    monkeypatch.setattr(unfinished, "SEEDS", (*unfinished.SEEDS, 126, 127, 128))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seeds", "6"])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        unfinished.main()
    assert len(started) < 5 and len(unfinished.read_runs()) == len(started)


def test_reading_after_the_padding_pads_with_a_token_the_model_reads(tmp_path, tiny_gpt2, messages_csv):
    """The answer is read at the last end-of-text token, so end-of-text must not be the pad token."""
    flags = arguments(tiny_gpt2, messages_csv, "--num_train_epochs", "1")
    command = [sys.executable, "-m", "benchmarks.design_choices", "--read_after_padding", *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lora_model")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert json.loads((tmp_path / "lora_model/config.json").read_text())["pad_token_id"] == tokenizer.pad_token_id
    usual = tmp_path / "usual"
    usual.mkdir()
    assert run_here(usual, flags) == 0
    before = [
        json.loads((folder / "results/metrics.json").read_text())["results"]["before"] for folder in (tmp_path, usual)
    ]
    assert before[0]["test"]["loss"] != pytest.approx(before[1]["test"]["loss"], abs=1e-6)
