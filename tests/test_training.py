"""A whole run at small size: what it leaves, that it can be repeated, resumed, distributed and killed."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, save_wordpiece_tokenizer
from hub_stand_in import hub_handler
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file, save_file
from scipy.special import logit
from sklearn.metrics import log_loss
from test_data import uci_stand_in
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    LlamaConfig,
)

import gpt_classification_model
import gpt_pretraining
from gpt_classification_model import main
from text_classifier.inference import classify, encode, load_tokenizer_and_model
from text_classifier.sources.weights import BaseModel
from text_classifier.training.charts import plot_metrics
from text_classifier.training.config import DEFAULT_RECIPE, parse_arguments
from text_classifier.training.runs import peak_memory_gib

SCRIPT = REPOSITORY / "gpt_classification_model.py"
QUICK = (
    "--num_train_epochs 3 --eval_steps 5 --save_steps 5 --logging_steps 5 --save_total_limit 9 "
    "--learning_rate 5e-3 --disable_tqdm true --bf16 false --majority fresh --load_best_model_at_end true"
)


def arguments(base: Path | str, messages_csv: Path, *more: str) -> list[str]:
    return ["--model_name_or_path", str(base), "--data_file", str(messages_csv), *QUICK.split(), *more]


def run_here(folder: Path, argv: list[str]) -> int:
    """Run the script's main in `folder`; its outputs are relative to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return main(argv)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_gpt2, messages_csv):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_here(folder, arguments(tiny_gpt2, messages_csv)) == 0
    return folder


# ---------------------------------------------------------------------------- arguments


def test_default_recipe_has_the_documented_values(capsys):
    model, data, training = parse_arguments([])
    assert (model.model_name_or_path, model.lora_r, model.lora_alpha) == ("gpt2", 8, 32)
    assert data.max_length == 120 and data.split_seed == training.seed == 123
    assert training.per_device_train_batch_size == training.per_device_eval_batch_size == 16
    assert training.eval_steps == training.save_steps == training.logging_steps == 100
    assert training.lr_scheduler_type == "cosine" and training.warmup_steps == 0.1 and training.max_grad_norm == 1.0
    assert training.output_dir == "./results" and training.report_to == []
    assert not training.load_best_model_at_end, "the last step's weights are kept"


def test_the_published_recipe_has_the_published_values():
    model, data, training = parse_arguments([str(REPOSITORY / "recipes/sms_spam_gpt2_published.yaml")])
    assert (model.lora_r, model.lora_alpha, model.lora_dropout, model.num_hidden_layers) == (8, 32, 0.1, None)
    assert (data.protocol, data.majority) == ("original", "same") and not data.normalize_text
    assert data.token_dropout == data.text_noise == 0
    assert (training.num_train_epochs, training.learning_rate) == (5, 1e-4)


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_is_valid(recipe):
    script = gpt_pretraining if recipe.stem.startswith("gpt_pretraining") else gpt_classification_model
    *_, training = script.parse_arguments([str(recipe)])
    published = recipe.stem.endswith("published")
    assert training.load_best_model_at_end == (recipe != DEFAULT_RECIPE)
    assert training.greater_is_better == published
    assert training.metric_for_best_model == ("accuracy" if published else "eval_loss")


def test_flags_override_a_recipe(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("lora_r: 4\nlearning_rate: 1e-3\noutput_dir: out\nfallback_model: some/model\n")
    model, _, training = parse_arguments(
        [str(recipe), "--lora_r", "2", "--target_modules", "c_attn", "--fallback_model", "none"]
    )
    assert (model.lora_r, model.target_modules, model.fallback_model) == (2, ["c_attn"], None)
    assert training.learning_rate == 1e-3
    recipe.write_text("lora_rank: 4\n")
    mistyped = tmp_path / "mistyped.yaml"
    mistyped.write_text("protocol: orignal\n")
    for argv, message in (
        ([str(recipe)], "lora_rank"),
        (["--no_such_flag", "1"], "no_such_flag"),
        (["missing.yaml"], "missing.yaml"),
        ([str(mistyped)], "orignal"),
        (["--load_best_model_at_end", "true", "--eval_steps", "30"], "eval"),
    ):
        with pytest.raises(SystemExit) as caught:
            parse_arguments(argv)
        assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data_file", "missing.csv"], "missing.csv"),
        (["--resume_from_checkpoint", "last"], "no checkpoint in ./results"),
        (["--resume_from_checkpoint", "nowhere"], "not a checkpoint"),
        (["--max_length", "500"], "at most 128 tokens"),
        (["--target_modules", "q_proj"], "cannot be tuned"),
        (["--model_name_or_path", "no-such-folder/x", "--fallback_model", "none"], "Could not find the base model"),
        (["--adapter_dir", "."], "is no adapter"),
        (["--dataset_dir", "/proc/nowhere"], "Error:"),
    ],
)
def test_mistakes_end_in_one_clear_error(tmp_path, tiny_gpt2, messages_csv, capsys, monkeypatch, more, message):
    monkeypatch.setattr("text_classifier.sources.weights.HF_HUB_OFFLINE", True)
    (tmp_path / "precious.txt").write_text("mine")
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *more)) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "lora_model").exists() and (tmp_path / "precious.txt").read_text() == "mine"


# ---------------------------------------------------------------------------- what a run leaves


def test_run_leaves_adapter_charts_data_and_report(trained):
    names = {path.name for path in (trained / "lora_model").iterdir()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert expected <= names and not {name for name in names if name.endswith((".bin", ".pt", ".pkl"))}
    assert (trained / "training_metrics.pdf").read_bytes().startswith(b"%PDF")
    assert not [path for path in trained.iterdir() if path.name.startswith(".")], "no scratch files are left"
    train = pd.read_csv(trained / "dataset/train.csv")
    assert list(train.columns) == ["Label", "Text"] and set(train["Label"]) == {0, 1}
    report = json.loads((trained / "results/metrics.json").read_text())
    rivals = ["TF-IDF, train", "TF-IDF, train + left out"]
    assert list(report["results"]) == ["before", "after", "after + TF-IDF", *rivals]
    for results in report["results"].values():
        assert {"validation", "test", "left_out", "natural"} == set(results)
    assert report["results"]["after"]["test"]["accuracy"] > report["results"]["before"]["test"]["accuracy"]
    assert not report["base_model"]["fallback_used"] and report["data"]["messages"] == 180
    card = (trained / "lora_model/README.md").read_text()
    assert report["table"] in card and report["base_model"]["sha256"] in card


def test_every_held_out_message_is_listed_with_what_each_model_said(trained):
    listed = pd.read_csv(trained / "results/predictions.csv")
    report = json.loads((trained / "results/metrics.json").read_text())
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
    *_, partner = report["results"]
    assert model.config.language_model_weight == 0.5
    together = 0.5 * logit(natural["after"]) + logit(natural[partner])
    assert logit(natural["after + TF-IDF"]).tolist() == pytest.approx(together.tolist(), abs=0.02)


def test_the_kept_checkpoint_is_the_best_on_validation(trained):
    """The one of the lowest loss."""
    state = json.loads((trained / "results/checkpoint-18/trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if entry.get("eval_accuracy") and entry["step"]]
    best = min(evaluations, key=lambda entry: entry["eval_loss"])
    assert len({entry["eval_loss"] for entry in evaluations}) > 1
    assert evaluations[-1]["step"] == 18, "the last step counts, although it is no multiple of eval_steps"
    report = json.loads((trained / "results/metrics.json").read_text())
    assert report["training"]["best_step"] == best["step"]
    assert report["results"]["after"]["validation"]["loss"] == pytest.approx(best["eval_loss"], abs=1e-5)


def test_reloaded_adapter_gives_the_reported_figures(trained):
    """Saving and reloading changes nothing: the loss on the test split is the trained model's."""
    report = json.loads((trained / "results/metrics.json").read_text())
    tokenizer, model = load_tokenizer_and_model(trained / "lora_model")
    assert model.config.id2label == {0: "ham", 1: "spam"} and not model.training
    test = pd.read_csv(trained / "dataset/test.csv")
    answers = classify(test["Text"].tolist(), tokenizer, model)
    spam = [answer.positive_probability for answer in answers]
    assert log_loss(test["Label"], spam) == pytest.approx(report["results"][report["saved"]]["test"]["loss"], abs=1e-5)


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
        model.config.decision_threshold = threshold
        (answer,) = classify(["see you at prize tonight"], tokenizer, model)
        assert answer.label == label and answer.positive_probability == pytest.approx(spam)


def test_answers_do_not_depend_on_the_batch_and_long_texts_are_marked(trained):
    tokenizer, model = load_tokenizer_and_model(trained / "lora_model")
    texts = ["hi", "free prize " * 100, "<|endoftext|>", "\x00", "免费领奖 \ud800", "see you at 7"]
    together = classify(texts, tokenizer, model)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = classify([text], tokenizer, model)
        assert alone.label == answer.label
        assert alone.positive_probability == pytest.approx(answer.positive_probability, abs=1e-5)
    assert [answer.truncated for answer in together] == [False, True, False, False, False, False]


# ---------------------------------------------------------------------------- repeat, resume, distribute


def test_same_seed_gives_the_same_adapter(trained, tmp_path, tiny_gpt2, messages_csv):
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv)) == 0
    assert_same_adapter(tmp_path, trained)


def test_frozen_weights_stored_in_bfloat16_change_no_result(tmp_path, tiny_gpt2, messages_csv, monkeypatch):
    store, dtypes = gpt_classification_model.store_frozen_in_bfloat16, set()

    def spy(model):
        store(model)
        dtypes.update((weights.requires_grad, weights.dtype) for weights in model.parameters() if weights.dim() == 2)

    argv = arguments(tiny_gpt2, messages_csv, "--bf16", "true")
    for name, replacement in (("stored", spy), ("converted", lambda model: None)):
        monkeypatch.setattr(gpt_classification_model, "store_frozen_in_bfloat16", replacement)
        (tmp_path / name).mkdir()
        assert run_here(tmp_path / name, argv) == 0
    # The embeddings are frozen and stay as they are.
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16), (False, torch.float32)}
    assert_same_adapter(tmp_path / "stored", tmp_path / "converted")


def test_gpt2_s_activation_in_one_step_changes_no_result(tiny_gpt2):
    """What the base computes in eight steps; an adapter trained so fits the base as everyone else loads it."""
    model_args, _, _ = parse_arguments([])
    source = BaseModel(str(tiny_gpt2), tiny_gpt2, "local folder", "")
    tokenizer = gpt_classification_model.load_tokenizer(source, max_length=120)
    model = gpt_classification_model.build_model(source, tokenizer, ["ham", "spam"], model_args).eval()
    assert model.config.activation_function == "gelu_pytorch_tanh"
    tokens = tokenizer(["call now to win a prize"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = model(tokens, output_hidden_states=True).hidden_states[-1]
        published = AutoModel.from_pretrained(tiny_gpt2)(tokens).last_hidden_state
    assert published.std() > 0.1 and torch.allclose(ours, published, atol=1e-5)


def test_peak_memory_is_that_of_the_process_and_not_of_what_started_it():
    code = "from text_classifier.training.runs import peak_memory_gib; print(peak_memory_gib())"
    bulky = np.ones(2**28)
    child = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert peak_memory_gib() > bulky.nbytes / 2**30 == 2
    assert 0.05 < float(child.stdout) < 2


def test_a_mistake_costs_no_checkpoints(trained, tmp_path, tiny_gpt2, messages_csv):
    shutil.copytree(trained / "results", tmp_path / "results")
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, "--target_modules", "q_proj")) == 1
    assert (tmp_path / "results/checkpoint-18").is_dir()


def test_without_loading_the_best_the_report_is_about_the_last(tmp_path, tiny_gpt2, messages_csv):
    flags = ["--load_best_model_at_end", "false", "--learning_rate", "1"]
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *flags)) == 0
    training = json.loads((tmp_path / "results/metrics.json").read_text())["training"]
    assert training["best_step"] == training["steps"] == 18
    assert "checkpoint was chosen" not in (tmp_path / "lora_model/README.md").read_text()


def test_resumed_run_ends_like_an_uninterrupted_one(trained, tmp_path, tiny_gpt2, messages_csv):
    shutil.copytree(trained / "results", tmp_path / "results", ignore=shutil.ignore_patterns("checkpoint-18"))
    argv = arguments(tiny_gpt2, messages_csv, "--resume_from_checkpoint", "last")
    assert run_here(tmp_path, argv) == 0
    assert_same_adapter(tmp_path, trained)


def assert_same_adapter(first: Path, second: Path) -> None:
    weights, others = (load_file(folder / "lora_model/adapter_model.safetensors") for folder in (first, second))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], msg=name)


def test_a_fresh_run_leaves_no_old_checkpoint_to_resume_by_mistake(trained, tmp_path, tiny_gpt2, messages_csv):
    shutil.copytree(trained / "results", tmp_path / "results")
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, "--num_train_epochs", "1")) == 0
    steps = {path.name for path in (tmp_path / "results").glob("checkpoint-*")}
    assert steps == {"checkpoint-5", "checkpoint-6"}


def test_fallback_is_told_in_the_report(tmp_path, tiny_gpt2, messages_csv, monkeypatch):
    monkeypatch.setattr("text_classifier.sources.weights.HF_HUB_OFFLINE", True)
    fallback = ["--fallback_model", str(tiny_gpt2), "--num_train_epochs", "1"]
    assert run_here(tmp_path, arguments("no/such-model", messages_csv, *fallback)) == 0
    base = json.loads((tmp_path / "results/metrics.json").read_text())["base_model"]
    assert base["fallback_used"] and (base["requested"], base["name"]) == ("no/such-model", str(tiny_gpt2))
    assert "could not reach" in (tmp_path / "lora_model/README.md").read_text()


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path, tiny_gpt2, messages_csv):
    stop = ["--early_stopping_patience", "1", "--learning_rate", "0", "--num_train_epochs", "50"]
    # The default recipe's way; a run that is stopped keeps its best all the same.
    stop += ["--load_best_model_at_end", "false"]
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *stop)) == 0
    training = json.loads((tmp_path / "results/metrics.json").read_text())["training"]
    assert training["steps"] == 10 and training["best_step"] == 5 and training["best_checkpoint"]


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
    """Before the first step the figures are those of the same untrained model in one process."""
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
    """`gpt2` by its name, tokenizer and weights, from a stand-in of the Hub; then plain PEFT by that name."""
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


# ---------------------------------------------------------------------------- killed while saving


@pytest.mark.parametrize(
    "moment",
    [
        "transformers.PreTrainedTokenizerBase.save_pretrained",
        "text_classifier.training.saving.exchange_folder",
        "shutil.rmtree",
        "matplotlib.figure.Figure.savefig",
    ],
)
def test_killed_at_any_moment_of_saving_leaves_whole_files(trained, tmp_path, tiny_gpt2, messages_csv, moment):
    """The process kills itself in the middle of a second run's saving; the first run's files must stand."""
    work = tmp_path / "work"
    shutil.copytree(trained, work)
    old = snapshot(work)
    script = (
        "import os, signal, sys, importlib, gpt_classification_model as g, shutil, transformers, matplotlib.figure\n"
        "started = g.save_adapter\n"
        "def arm(*positional, **named):\n"
        "    def die(*a, **k): k.get('ignore_errors') or os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    owner, _, name = {moment!r}.rpartition('.')\n"
        "    parts = owner.split('.')\n"
        "    target = importlib.import_module(parts[0])\n"
        "    for part in parts[1:]: target = getattr(target, part)\n"
        "    setattr(target, name, die)\n"
        "    return started(*positional, **named)\n"
        "g.save_adapter = arm\n"
        "g.main(sys.argv[1:])\n"
    )
    argv = arguments(tiny_gpt2, messages_csv, "--seed", "7", "--num_train_epochs", "1")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run([sys.executable, "-c", script, *argv], cwd=work, env=environment, capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()[-3000:]
    new = snapshot(work)
    adapter = {name: content for name, content in new.items() if name.startswith("lora_model/")}
    previous = {name: content for name, content in old.items() if name.startswith("lora_model/")}
    if moment in (
        "transformers.PreTrainedTokenizerBase.save_pretrained",
        "text_classifier.training.saving.exchange_folder",
    ):
        assert adapter == previous
    else:
        assert adapter.keys() == previous.keys() and adapter != previous, "the new adapter, whole"
    load_tokenizer_and_model(work / "lora_model")
    assert new["training_metrics.pdf"] == old["training_metrics.pdf"]
    assert new["results/metrics.json"] == old["results/metrics.json"]
    if moment == "shutil.rmtree":
        assert (work / ".lora_model.new").exists()
        assert run_here(work, arguments(tiny_gpt2, messages_csv)) == 0, "leftovers are no obstacle"
        assert not (work / ".lora_model.new").exists()


# ---------------------------------------------------------------------------- charts and architectures


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 10, "eval_accuracy": 0.9, "eval_loss": 0.3}],
        [
            {"step": step, "loss": 1 / step, "eval_loss": 1 / step, "eval_accuracy": 0.9, "train_accuracy": 1.0}
            for step in (10, 20)
        ],
    ],
    ids=["none", "one evaluation", "two"],
)
def test_charts_are_drawn_for_any_history(tmp_path, history):
    plot_metrics(history, tmp_path / "charts.pdf", "gpt2 + LoRA", best_step=10)
    content = (tmp_path / "charts.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/Count 1 " in content, "one page"
    assert b"/Subtype /Image" not in content, "vectors only"


def test_encoder_keeps_its_own_pad_token_and_trains_only_lora_and_head(tmp_path, messages_csv):
    folder = tmp_path / "tiny-bert"
    vocab_size = save_wordpiece_tokenizer(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=vocab_size, **size)).save_pretrained(folder)
    assert run_here(tmp_path, arguments(folder, messages_csv, "--num_train_epochs", "1")) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lora_model")
    assert tokenizer.pad_token == "[PAD]"
    weights = load_file(tmp_path / "lora_model/adapter_model.safetensors")
    assert all(".lora_" in name or ".classifier." in name for name in weights)
    load_tokenizer_and_model(tmp_path / "lora_model")


SUBJECTS = ["film", "story", "cast", "ending", "music", "script", "picture", "dialogue", "first hour", "whole thing"]
GOOD = ["wonderful", "moving", "a joy", "funny and warm", "brilliant", "great fun", "a delight", "well worth seeing"]
BAD = ["terrible", "boring", "a mess", "dull and cold", "stupid", "a waste of time", "painful", "not worth seeing"]


@pytest.fixture
def imdb_csv(tmp_path):
    """Reviews where the archive of the IMDB reviews would have put them."""
    opinions = [(words, label) for label, all_words in (("positive", GOOD), ("negative", BAD)) for words in all_words]
    rows = [(f"The {subject} is {words}.", label) for subject in SUBJECTS for words, label in opinions]
    file = tmp_path / "dataset/imdb/imdb.csv"
    file.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(file, index=False)
    return file


def test_imdb_recipe_on_distilberts_architecture(tmp_path, imdb_csv):
    """LoRA on q_lin and v_lin, both new layers in full, all else frozen; its own pad token; reloads the same."""
    folder = tmp_path / "tiny-distilbert"
    size = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = DistilBertConfig(vocab_size=save_wordpiece_tokenizer(folder), **size)
    AutoModel.from_config(config).save_pretrained(folder)
    recipe = str(REPOSITORY / "recipes/imdb_distilbert.yaml")
    assert run_here(tmp_path, [recipe, "--model_name_or_path", str(folder), "--disable_tqdm", "true"]) == 0

    for name in ("train", "validation", "test"):
        table = pd.read_csv(tmp_path / f"dataset/imdb/{name}.csv")
        assert set(table.columns) == {"text", "label"} and set(table["label"]) == {0, 1}
    weights = load_file(tmp_path / "imdb_lora_model/adapter_model.safetensors")
    lora = {name.split(".lora_")[0].split(".")[-1] for name in weights if ".lora_" in name}
    full = {name.split(".")[2] for name in weights if ".lora_" not in name}
    assert (lora, full) == ({"q_lin", "v_lin"}, {"pre_classifier", "classifier"})
    report = json.loads((tmp_path / "results_imdb/metrics.json").read_text())
    assert report["training"]["trainable_parameters"] == sum(weight.numel() for weight in weights.values())
    assert (report["data"]["name"], report["label_names"]) == ("IMDB reviews", ["negative", "positive"])

    tokenizer, model = load_tokenizer_and_model(tmp_path / "imdb_lora_model")
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ("[PAD]", 512)
    test = pd.read_csv(tmp_path / "dataset/imdb/test.csv")
    answers = classify(test["text"].tolist(), tokenizer, model)
    positive = [answer.positive_probability for answer in answers]
    assert log_loss(test["label"], positive) == pytest.approx(report["results"]["after"]["test"]["loss"], abs=1e-5)
    assert not list((tmp_path / "imdb_lora_model").glob("tfidf*")), "by this recipe the language model answers alone"
    card = (tmp_path / "imdb_lora_model/README.md").read_text()
    assert "IMDB" in card and "reviews are in English" in card and "SMS" not in card


@pytest.mark.registry
def test_imdb_recipe_learns_reviews_on_the_fallback_encoder(tmp_path, imdb_csv):
    """Real weights, from the Hub or the package registry, and sentences unlike those trained on."""
    recipe, base = str(REPOSITORY / "recipes/imdb_distilbert.yaml"), "sentence-transformers/all-MiniLM-L6-v2"
    flags = ["--model_name_or_path", base, "--learning_rate", "2e-3", "--disable_tqdm", "true"]
    assert run_here(tmp_path, [recipe, *flags]) == 0
    classifier = load_tokenizer_and_model(tmp_path / "imdb_lora_model")
    texts = ["I loved every minute of it.", "An excellent actress in a charming comedy."]
    texts += ["I hated every minute of it.", "An awful actress in a tiresome comedy."]
    labels = [answer.label for answer in classify(texts, *classifier)]
    assert labels == ["positive", "positive", "negative", "negative"]
    assert all(".pooler." not in name for name in load_file(tmp_path / "imdb_lora_model/adapter_model.safetensors"))


def test_only_the_first_layers_of_a_base_are_used_when_asked_for(tmp_path, tiny_gpt2, messages_csv, capsys):
    flags = ["--num_hidden_layers", "1", "--num_train_epochs", "1"]
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *flags)) == 0
    adapter = tmp_path / "lora_model"
    report = json.loads((tmp_path / "results/metrics.json").read_text())
    assert not [name for name in load_file(adapter / "adapter_model.safetensors") if ".h.1." in name]
    tokenizer, model = load_tokenizer_and_model(adapter)
    assert len(model.transformer.h) == 1
    test = pd.read_csv(tmp_path / "dataset/test.csv")
    answers = classify(test["Text"].tolist(), tokenizer, model)
    spam = [answer.positive_probability for answer in answers]
    assert log_loss(test["Label"], spam) == pytest.approx(report["results"][report["saved"]]["test"]["loss"], abs=1e-5)
    # As the model card tells users of plain PEFT.
    plain = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_hidden_layers=1, pad_token_id=0)
    batch = tokenizer.pad(encode(["WIN a FREE prize now"], tokenizer, 120), return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-4)
    card = (adapter / "README.md").read_text()
    assert "its first 1 layers" in card and "Plain PEFT has to be told so" in card
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, "--num_hidden_layers", "0")) == 1
    assert "at least one" in capsys.readouterr().err


def test_all_messages_of_the_larger_class_can_be_taken_every_epoch(tmp_path, tiny_gpt2, messages_csv):
    """Of 120 ham and 60 spam, training holds 42 and 42 balanced, and 42 ham that balancing left out.

    With all ham each spam message is taken twice, as asked for; otherwise the classes are even as it is.
    Checkpoints are then compared on the ham that balancing left out of validation as well.
    """
    steps = {}
    for majority in ("same", "fresh", "all"):
        flags = ["--majority", majority, "--num_train_epochs", "1", "--per_device_train_batch_size", "6"]
        flags += ["--minority_repeats", "2"]
        assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *flags)) == 0
        training = json.loads((tmp_path / "results/metrics.json").read_text())["training"]
        steps[majority], best_step = training["steps"], training["best_step"]
        predictions = pd.read_csv(tmp_path / "results/predictions.csv", keep_default_na=False)
        compared = predictions[
            predictions["Split"].isin(["validation", *["left_out_validation"] * (majority == "all")])
        ]
        hits = compared["after"].gt(0.5) == compared["Label"].eq(1)
        (state,) = (tmp_path / "results").glob(f"checkpoint-{steps[majority]}/trainer_state.json")
        (kept,) = [
            entry["eval_accuracy"]
            for entry in json.loads(state.read_text())["log_history"]
            if "eval_accuracy" in entry and entry["step"] == best_step
        ]
        assert kept == pytest.approx(hits.mean()) and len(compared) == (18 if majority == "all" else 12)
    assert steps == {"same": 14, "fresh": 14, "all": 28}


def test_an_epoch_takes_a_third_of_the_messages_of_today(tmp_path, tiny_gpt2):
    """Besides 1,045 of the collection, balanced: 176 of 526 ham and as many of spam."""
    (tmp_path / "dataset").mkdir()
    uci_stand_in(tmp_path / "dataset")
    flags = "--majority same --protocol original --num_train_epochs 1 --disable_tqdm true --present_day_messages"
    steps = {}
    for today in ("true", "false"):
        assert run_here(tmp_path, ["--model_name_or_path", str(tiny_gpt2), *flags.split(), today]) == 0
        steps[today] = json.loads((tmp_path / "results/metrics.json").read_text())["training"]["steps"]
    # Batches of 16.
    assert steps == {"true": math.ceil((1045 + 2 * 176) / 16), "false": math.ceil(1045 / 16)}


@pytest.mark.parametrize(
    ("config", "trained_in_full"),
    [
        (LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32), {"score"}),
        (DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32), {"pre_classifier", "classifier"}),
    ],
    ids=["llama", "distilbert"],
)
def test_other_architectures_train_lora_and_head_only(tmp_path, tiny_gpt2, messages_csv, config, trained_in_full):
    folder = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.save_pretrained(folder)
    config.vocab_size, config.pad_token_id = len(tokenizer), None
    if config.model_type == "distilbert":
        config.pad_token_id = 0
    AutoModel.from_config(config).save_pretrained(folder)
    assert run_here(tmp_path, arguments(folder, messages_csv, "--num_train_epochs", "1")) == 0
    weights = load_file(tmp_path / "lora_model/adapter_model.safetensors")
    assert {name.split(".")[2] for name in weights if ".lora_" not in name} == trained_in_full
    load_tokenizer_and_model(tmp_path / "lora_model")


@pytest.mark.parametrize(
    ("tuning", "trained"),
    [
        ("head", ["score."]),
        ("last_block", ["score.", "transformer.ln_f.", "transformer.h.1."]),
        ("last_two_blocks", ["score.", "transformer.ln_f.", "transformer.h.0.", "transformer.h.1."]),
        ("full", [""]),
    ],
)
def test_other_tunings_train_what_they_name_and_save_a_whole_model(tmp_path, tiny_gpt2, messages_csv, tuning, trained):
    flags = ["--tuning", tuning, "--num_train_epochs", "2", "--plot_over", "epoch", "--learning_rate", "1e-3"]
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *flags)) == 0
    before = load_file(tiny_gpt2 / "model.safetensors")
    after = load_file(tmp_path / "lora_model/model.safetensors")
    changed = {name for name, weights in after.items() if name not in before or not torch.equal(weights, before[name])}
    assert changed == {name for name in after if name.startswith(tuple(trained))}
    report = json.loads((tmp_path / "results/metrics.json").read_text())
    assert report["training"]["trainable_parameters"] == sum(after[name].numel() for name in changed)
    tokenizer, model = load_tokenizer_and_model(tmp_path / "lora_model")
    test = pd.read_csv(tmp_path / "dataset/test.csv")
    spam = [answer.positive_probability for answer in classify(test["Text"].tolist(), tokenizer, model)]
    assert log_loss(test["Label"], spam) == pytest.approx(report["results"][report["saved"]]["test"]["loss"], abs=1e-5)
    assert "lora" not in (tmp_path / "lora_model/README.md").read_text().lower().replace("lora_model", "")
    # A second run may replace what the first one saved.
    assert run_here(tmp_path, arguments(tiny_gpt2, messages_csv, *flags, "--num_train_epochs", "1")) == 0


def test_base_with_missing_weights_is_refused(tmp_path, tiny_gpt2, messages_csv, capsys):
    folder = tmp_path / "base"
    shutil.copytree(tiny_gpt2, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": weight for name, weight in weights.items()}, folder / "model.safetensors")
    assert run_here(tmp_path, arguments(folder, messages_csv)) == 1
    assert "lacks weights" in capsys.readouterr().err


def test_a_base_without_a_head_is_no_classifier(tiny_gpt2):
    """It would answer with random weights, others at every start."""
    with pytest.raises(ValueError, match="is no classifier"):
        load_tokenizer_and_model(tiny_gpt2)


def test_gpt2_small_has_the_documented_number_of_trainable_parameters():
    """812,544 of 125,253,888, counted on GPT-2 small's real dimensions without allocating them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, GPT2Config

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(GPT2Config(num_labels=2, pad_token_id=50256))
        targets = gpt_classification_model.LORA_TARGETS["gpt2"]
        wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, **targets))
    assert wrapped.get_nb_trainable_parameters() == (812_544, 125_253_888)
