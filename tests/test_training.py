"""A whole training run at small size: its files and figures are right, and it can be repeated and resumed."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from scipy.special import logit
from shared import REPOSITORY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_data import uci_stand_in
from training_runs import arguments, assert_served_as_reported, report_of, run_here
from transformers import AutoConfig, AutoTokenizer

from text_classifier.classifier import Joint, classify, load_tokenizer_and_model
from text_classifier.runtime import encode
from text_classifier.training import models
from text_classifier.training.config import FineTuningArguments
from text_classifier.training.data import read_made_up_messages
from text_classifier.training.runs import peak_memory_gib

# ---------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data_file missing.csv", "missing.csv"),
        ("--resume_from_checkpoint last", "no checkpoint in ./results"),
        ("--resume_from_checkpoint nowhere", "not a checkpoint"),
        ("--target_modules q_proj", "cannot be tuned"),
        ("--model_name_or_path no-such-folder/x --fallback_model none", "Could not find the base model"),
        ("--adapter_dir .", "is no adapter"),
        ("--dataset_dir /proc/nowhere", "Error:"),
    ],
)
def test_mistakes_end_in_one_clear_error(tmp_path, train, capsys, monkeypatch, flags, message):
    monkeypatch.setattr("text_classifier.sources.weights.HF_HUB_OFFLINE", True)
    (tmp_path / "precious.txt").write_text("mine")
    assert train(flags) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "lora_model").exists() and (tmp_path / "precious.txt").read_text() == "mine"


def test_a_base_that_reads_fewer_tokens_than_the_recipe_asks_for_is_used_all_the_same(tmp_path, train, caplog):
    caplog.set_level("INFO")
    assert train("--max_length 500 --num_train_epochs 1") == 0
    assert "reads at most 128 tokens" in caplog.text
    assert "reads 128 tokens of a message" in (tmp_path / "lora_model/README.md").read_text()
    tokenizer, model = load_tokenizer_and_model(tmp_path / "lora_model")
    assert classify(["word " * 600], tokenizer, model)[0].truncated


# ---------------------------------------------------------------------------- files and figures of a run


def test_run_leaves_adapter_charts_data_and_report(trained):
    names = {path.name for path in (trained / "lora_model").iterdir()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert expected <= names and not {name for name in names if name.endswith((".bin", ".pt", ".pkl"))}
    tokenizer = AutoTokenizer.from_pretrained(trained / "lora_model")
    assert tokenizer.tokenize("<|endoftext|>") != ["<|endoftext|>"], "ordinary text for other programs, too"
    assert (trained / "training_metrics.pdf").read_bytes().startswith(b"%PDF")
    assert not [path for path in trained.iterdir() if path.name.startswith(".")], "no scratch files are left"
    train = pd.read_csv(trained / "dataset/train.csv")
    assert list(train.columns) == ["Label", "Text"] and set(train["Label"]) == {0, 1}
    report = report_of(trained)
    assert list(report["results"]) == ["before", "after", "after + TF-IDF", "TF-IDF"]
    for name, results in report["results"].items():
        assert {"validation", "test", "left_out", "natural"} == set(results) - {"train"}
        assert ("train" in results) == (name == "after"), "accuracy on training messages, of the language model alone"
    assert report["results"]["after"]["test"]["accuracy"] > report["results"]["before"]["test"]["accuracy"]
    assert not report["base_model"]["fallback_used"] and report["data"]["messages"] == 180
    card = (trained / "lora_model/README.md").read_text()
    assert report["table"] in card and report["base_model"]["sha256"] in card


def test_every_held_out_message_is_listed_with_what_each_model_said(trained):
    listed = pd.read_csv(trained / "results/predictions.csv")
    report = report_of(trained)
    assert set(report["results"]) <= set(listed.columns)
    for split, messages in listed.groupby("Split"):
        of_split = pd.read_csv(trained / f"dataset/{split}.csv")
        assert messages["Text"].tolist() == of_split["Text"].tolist()
        assert messages["Label"].tolist() == of_split["Label"].tolist()
    natural = listed[listed["Split"].isin(["test", "left_out_test"])]
    for model, results in report["results"].items():
        said = natural[model].ge(results["natural"]["threshold"]).eq(natural["Label"])
        assert said.mean() == pytest.approx(results["natural"]["accuracy"])
    tokenizer, model = load_tokenizer_and_model(trained / "lora_model")
    served = [answer.positive_probability for answer in classify(natural["Text"].tolist(), tokenizer, model)]
    assert served == pytest.approx(natural["after + TF-IDF"].tolist(), abs=1e-4), "each is its own message's"
    settings = model.text_classifier.settings
    assert asdict(settings.joint) == report["joint"] and settings.joint == Joint(0.5), "the intercept is for spam"
    assert settings.early_exit == report["early_exit"] and settings.early_exit["bound"] >= 2.5
    together = settings.joint.log_odds(logit(natural["after"]), logit(natural["TF-IDF"]))
    assert logit(natural["after + TF-IDF"]).tolist() == pytest.approx(together.tolist(), abs=0.02)


def test_the_kept_checkpoint_is_the_best_on_validation(trained):
    """The best checkpoint is the one with the lowest loss."""
    state = json.loads((trained / "results/checkpoint-18/trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if entry.get("eval_accuracy") and entry["step"]]
    best = min(evaluations, key=lambda entry: entry["eval_loss"])
    assert len({entry["eval_loss"] for entry in evaluations}) > 1
    assert evaluations[-1]["step"] == 18, "the last step counts, although it is no multiple of eval_steps"
    report = report_of(trained)
    assert report["training"]["best_step"] == best["step"]
    assert report["results"]["after"]["validation"]["loss"] == pytest.approx(best["eval_loss"], abs=1e-5)


def test_reloaded_adapter_gives_the_reported_figures(trained):
    _, model = load_tokenizer_and_model(trained / "lora_model")
    assert model.config.id2label == {0: "ham", 1: "spam"} and not model.training
    assert_served_as_reported(trained / "lora_model", trained / "dataset", report_of(trained))


def test_plain_peft_loads_the_adapter_with_the_same_logits(trained):
    tokenizer, merged = load_tokenizer_and_model(trained / "lora_model")
    config = AutoConfig.from_pretrained(trained / "lora_model")
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        trained / "lora_model", id2label=config.id2label, pad_token_id=config.pad_token_id
    ).eval()
    texts = ["WIN a FREE prize now", "see you tonight, did you eat yet? " * 3]
    batch = tokenizer.pad(encode(texts, tokenizer, 120), return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(plain(**batch).logits, merged(**batch).logits, atol=1e-5, rtol=1e-4)
    assert plain.config.id2label == {0: "ham", 1: "spam"}


def test_the_stored_threshold_moves_the_label_and_not_the_probability(trained):
    tokenizer, model = load_tokenizer_and_model(trained / "lora_model")
    (at_half,) = classify(["see you at prize tonight"], tokenizer, model)
    spam = at_half.positive_probability
    for threshold, label in ((spam * 0.9, "spam"), (spam + 0.9 * (1 - spam), "ham")):
        settings = replace(model.text_classifier.settings, decision_threshold=threshold)
        model.text_classifier = replace(model.text_classifier, settings=settings)
        (answer,) = classify(["see you at prize tonight"], tokenizer, model)
        assert answer.label == label and answer.positive_probability == pytest.approx(spam)


# ---------------------------------------------------------------------------- repeat and resume


def test_same_seed_gives_the_same_adapter(trained, tmp_path, train):
    assert train() == 0
    assert_same_adapter(tmp_path, trained)


def test_frozen_weights_stored_in_bfloat16_change_no_result(tmp_path, tiny_gpt2, messages_csv, monkeypatch):
    store, dtypes = models.store_frozen_in_bfloat16, set()

    def spy(model):
        store(model)
        dtypes.update((weights.requires_grad, weights.dtype) for weights in model.parameters() if weights.dim() == 2)

    for name, replacement in (("stored", spy), ("converted", lambda model: None)):
        monkeypatch.setattr(models, "store_frozen_in_bfloat16", replacement)
        (tmp_path / name).mkdir()
        assert run_here(tmp_path / name, arguments(tiny_gpt2, messages_csv, "--bf16", "true")) == 0
    # The embeddings are frozen too, but stay in float32.
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16), (False, torch.float32)}
    assert_same_adapter(tmp_path / "stored", tmp_path / "converted")


def test_peak_memory_is_that_of_the_process_and_not_of_what_started_it():
    code = "from text_classifier.training.runs import peak_memory_gib; print(peak_memory_gib())"
    bulky = np.ones(2**28)
    child = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert peak_memory_gib() > bulky.nbytes / 2**30 == 2
    assert 0.05 < float(child.stdout) < 2


def test_a_mistake_costs_no_checkpoints(trained, tmp_path, train):
    shutil.copytree(trained / "results", tmp_path / "results")
    assert train("--target_modules q_proj") == 1
    assert (tmp_path / "results/checkpoint-18").is_dir()


def test_without_loading_the_best_the_report_is_about_the_last(tmp_path, train):
    assert train("--load_best_model_at_end false --learning_rate 1") == 0
    training = report_of(tmp_path)["training"]
    assert training["best_step"] == training["steps"] == 18
    assert "checkpoint was chosen" not in (tmp_path / "lora_model/README.md").read_text()


def test_resumed_run_ends_like_an_uninterrupted_one(trained, tmp_path, train):
    shutil.copytree(trained / "results", tmp_path / "results", ignore=shutil.ignore_patterns("checkpoint-18"))
    assert train("--resume_from_checkpoint last") == 0
    assert_same_adapter(tmp_path, trained)


def assert_same_adapter(*folders: Path) -> None:
    first, second = (load_file(folder / "lora_model/adapter_model.safetensors") for folder in folders)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--seed 7", "--seed was 123 and is now 7"),
        ("--positive_label ham", "labels was"),
        ("--lora_r 16", "--lora_r was 8 and is now 16"),
        ("--tuning full", "--tuning was 'lora'"),
        ("--optim adafactor", "--optim was 'adamw_torch_fused'"),
        ("--data_file other.csv", "data (SHA-256) was"),
        ("--max_length 20", "--max_length was 512"),
    ],
)
def test_another_run_is_not_resumed(trained, tmp_path, train, messages_csv, capsys, flags, named):
    """Messages that are held out now may have been trained on then, or the weights do not fit."""
    shutil.copytree(trained / "results", tmp_path / "results")
    (tmp_path / "other.csv").write_text(messages_csv.read_text().replace("tonight", "today"))
    assert train(f"--resume_from_checkpoint last {flags}") == 1
    error = capsys.readouterr().err
    assert "belongs to another run" in error and named in error and "Traceback" not in error
    assert (tmp_path / "results/checkpoint-18").is_dir() and not (tmp_path / "lora_model").exists()


def test_a_checkpoint_of_which_nothing_is_known_is_not_resumed(trained, tmp_path, train, capsys):
    shutil.copytree(trained / "results", tmp_path / "results", ignore=shutil.ignore_patterns("run.json"))
    assert train("--resume_from_checkpoint last") == 1
    assert "run.json beside it cannot be read" in capsys.readouterr().err


def test_a_fresh_run_leaves_no_old_checkpoint_to_resume_by_mistake(trained, tmp_path, train):
    shutil.copytree(trained / "results", tmp_path / "results")
    assert train("--num_train_epochs 1") == 0
    steps = {path.name for path in (tmp_path / "results").glob("checkpoint-*")}
    assert steps == {"checkpoint-5", "checkpoint-6"}


def test_few_messages_are_read_until_there_are_enough_steps(tmp_path, train, monkeypatch):
    monkeypatch.setattr(FineTuningArguments, "min_steps", 8)
    assert train("--num_train_epochs 1") == 0
    assert report_of(tmp_path)["training"]["steps"] == 8


def test_fallback_is_told_in_the_report(tmp_path, tiny_gpt2, train, monkeypatch):
    monkeypatch.setattr("text_classifier.sources.weights.HF_HUB_OFFLINE", True)
    assert train(f"--model_name_or_path no/such-model --fallback_model {tiny_gpt2} --num_train_epochs 1") == 0
    base = report_of(tmp_path)["base_model"]
    assert base["fallback_used"] and (base["requested"], base["name"]) == ("no/such-model", str(tiny_gpt2))
    assert "could not reach" in (tmp_path / "lora_model/README.md").read_text()


# ---------------------------------------------------------------------------- messages of an epoch


def test_all_messages_of_the_larger_class_can_be_taken(tmp_path, train):
    """Training has 42 ham, 42 spam and 42 left-out ham, from 120 ham and 60 spam.

    With the left-out ham each spam message is taken twice, and checkpoints are also compared on the left-out ham of
    validation.
    """
    for repeats, steps, held_out in (("0", 14, ["validation"]), ("2", 28, ["validation", "left_out_validation"])):
        assert train(f"--minority_repeats {repeats} --num_train_epochs 1 --per_device_train_batch_size 6") == 0
        training = report_of(tmp_path)["training"]
        assert training["steps"] == steps
        spam = pd.read_csv(tmp_path / "dataset/train.csv")["Label"].sum()
        told = f"an epoch takes {spam} messages of the smaller class again"
        assert (told in report_of(tmp_path)["data"]["description"]) == (repeats == "2")
        predictions = pd.read_csv(tmp_path / "results/predictions.csv", keep_default_na=False)
        compared = predictions[predictions["Split"].isin(held_out)]
        hits = compared["after"].gt(0.5) == compared["Label"].eq(1)
        state = json.loads((tmp_path / f"results/checkpoint-{steps}/trainer_state.json").read_text())
        kept = [entry for entry in state["log_history"] if entry["step"] == training["best_step"]]
        (accuracy,) = [entry["eval_accuracy"] for entry in kept if "eval_accuracy" in entry]
        assert accuracy == pytest.approx(hits.mean()) and len(compared) == (12 if repeats == "0" else 18)


def test_an_epoch_takes_every_modern_message(tmp_path, tiny_gpt2):
    """An epoch has 1,045 balanced messages of the collection, and the modern ones."""
    (tmp_path / "dataset").mkdir()
    uci_stand_in(tmp_path / "dataset")
    flags = "--minority_repeats 0 --protocol original --num_train_epochs 1 --disable_tqdm true --eval_strategy no"
    flags += " --bf16 false --extra_data"
    steps = {}
    for modern in ("modern", "none"):
        assert run_here(tmp_path, ["--model_name_or_path", str(tiny_gpt2), *flags.split(), modern]) == 0
        steps[modern] = report_of(tmp_path)["training"]["steps"]
    # A batch has 16 messages.
    extra = len(read_made_up_messages("modern"))
    assert steps == {"modern": math.ceil((1045 + extra) / 16), "none": math.ceil(1045 / 16)}


def test_tensorboard_gets_the_curves_in_the_output_folder(tmp_path, train, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    assert train("--report_to tensorboard --num_train_epochs 1 --output_dir results/seen") == 0
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert events.parts[-5:-2] == ("results", "seen", "runs")
    curves = EventAccumulator(str(events.parent)).Reload()
    assert len(curves.Scalars("eval/accuracy")) >= 2
    assert {"train/loss", "train/train_accuracy", "eval/loss"} <= set(curves.Tags()["scalars"])


def test_a_run_that_diverges_is_told_and_nothing_is_saved(tmp_path, train, capsys):
    assert train("--learning_rate 1e30") == 1
    assert "Error: The model's answers are no numbers any more." in capsys.readouterr().err
    assert not (tmp_path / "lora_model").exists()
