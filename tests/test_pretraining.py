"""Pretraining at small size: the model learns, writes text, and is a base model for the classifier."""

import contextlib
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_stand_in import hub_handler
from shared import REPOSITORY, make_messages, save_wordpiece_tokenizer
from training_runs import run_here, run_process
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gpt_pretraining import main, sample_text
from text_classifier.extras.pretraining import (
    END_OF_TEXT,
    parse_arguments,
    read_conversations,
    split_documents,
    to_windows,
    train_tokenizer,
)
from text_classifier.sources import datasets

SCRIPT = REPOSITORY / "gpt_pretraining.py"
OUTPUT = Path("results/gpt_pretraining")
MODEL = OUTPUT / "model"
STORY = " ".join(f"The cat number {number % 7} sat on the mat and saw the dog run away." for number in range(300))
SMALL = (
    "--tokenizer_name none --vocab_size 400 --n_layer 2 --n_head 2 --n_embd 32 --context_length 32 --max_steps 20 "
    "--per_device_train_batch_size 8 --eval_steps 10 --save_steps 10 --learning_rate 1e-2 --sample_tokens 8 "
    "--prompt The --disable_tqdm true --save_total_limit 9"
)


def run_default(folder: Path, *flags: str) -> int:
    """Pretrain a small model in `folder`, by default on the story of the default recipe; return the exit code."""
    with contextlib.chdir(folder):
        return main([*SMALL.split(), *flags])


def pretrain(folder: Path, flags: str = "", text: str = STORY) -> int:
    """Write the text to `folder`, pretrain a small model on it there, and return the exit code."""
    (folder / "story.txt").write_text(text)
    return run_default(folder, "--text_file", "story.txt", *flags.split())


def report_of(folder: Path) -> dict:
    return json.loads((folder / OUTPUT / "metrics.json").read_text())


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return AutoModelForCausalLM.from_pretrained(folder / MODEL), AutoTokenizer.from_pretrained(folder / MODEL)


def validation_loss(folder: Path) -> float:
    """Return the loss that the saved model has on the end of the story."""
    model, tokenizer = load(folder)
    windows = to_windows(split_documents([STORY], 0.1)[1], tokenizer, 32)
    batch = {name: torch.stack([window[name] for window in windows]) for name in ("input_ids", "labels")}
    with torch.inference_mode():
        return model(**batch).loss.item()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a finished pretraining run, with what it printed."""
    folder = tmp_path_factory.mktemp("pretrained")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert pretrain(folder) == 0
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


def test_default_recipe_is_the_story_with_gpt2s_tokenizer():
    gpt, corpus, training = parse_arguments([])
    assert (gpt.tokenizer_name, corpus.corpus, corpus.text_file) == ("gpt2", "the_verdict", None)
    assert training.load_best_model_at_end and not training.greater_is_better and training.eval_on_start
    assert (REPOSITORY / corpus.fallback_recipe).is_file()


def test_it_learns_far_beyond_the_untrained_model(pretrained):
    report = report_of(pretrained)
    assert report["untrained_loss"] == pytest.approx(math.log(report["vocabulary"]), rel=0.1)
    assert report["validation_loss"] < report["untrained_loss"] / 2
    assert report["perplexity"] == pytest.approx(math.exp(report["validation_loss"]))
    assert list(report["samples"]) == ["0", "10", "20"] and len(set(report["samples"].values())) > 1
    assert all(text.startswith("The") for text in report["samples"].values())


def test_it_shows_losses_and_samples_while_it_learns(pretrained):
    printed = (pretrained / "printed.txt").read_text()
    for step in ("Step 0: validation loss", "Step 10: train loss", "Step 20: train loss"):
        assert step in printed
    assert printed.count("perplexity") == 4 and printed.count("\n  The") == 3 and "nan" not in printed


def test_what_is_saved_is_a_standard_folder(pretrained):
    folder = pretrained / MODEL
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    model, _ = load(pretrained)
    # The head shares the embedding's weights, as in GPT-2, even after the best checkpoint was loaded.
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    report = report_of(pretrained)
    assert model.num_parameters() == report["parameters"]
    # Training may have evaluated in bfloat16, so the two losses may differ a little.
    assert validation_loss(pretrained) == pytest.approx(report["validation_loss"], abs=2e-3)
    card = (folder / "README.md").read_text()
    assert f"{report['validation_loss']:.3f}" in card and report["corpus"]["sha256"] in card
    pdf = (pretrained / OUTPUT / "loss.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Count 1 " in pdf
    assert not [path for path in pretrained.iterdir() if path.name.startswith(".")], "no scratch files are left"


def test_the_classifier_takes_it_as_its_base(pretrained, tmp_path, messages_csv):
    argv = ["--model_name_or_path", str(pretrained / MODEL), "--data_file", str(messages_csv)]
    argv += ["--max_length", "32", "--num_train_epochs", "1", "--disable_tqdm", "true"]
    assert run_here(tmp_path, argv) == 0
    # The adapter must not replace its own base model.
    assert run_here(tmp_path, [*argv, "--adapter_dir", argv[1]]) == 1
    assert (pretrained / MODEL / "model.safetensors").is_file()
    report = json.loads((tmp_path / "results" / messages_csv.stem / "metrics.json").read_text())
    assert report["base_model"]["name"] == str(pretrained / MODEL)


def test_same_seed_same_model_and_resuming_changes_nothing(pretrained, tmp_path):
    """Sample texts are drawn at every evaluation; they must not change the random numbers of training."""
    shutil.copytree(pretrained / OUTPUT, tmp_path / OUTPUT, ignore=shutil.ignore_patterns("model", "checkpoint-20"))
    assert pretrain(tmp_path, "--resume_from_checkpoint last") == 0
    resumed, whole = report_of(tmp_path), report_of(pretrained)
    assert (resumed["resumed_at_step"], whole["resumed_at_step"]) == (10, 0)
    assert resumed["samples"] == whole["samples"] and resumed["untrained_loss"] == whole["untrained_loss"]
    # The first half of the steps was made by another run, so the speed counts only the second half.
    tokens = resumed["tokens_per_second"] * resumed["train_seconds"]
    assert tokens == pytest.approx(whole["tokens_per_second"] * whole["train_seconds"] / 2)
    other = tmp_path / "other"
    other.mkdir()
    assert pretrain(other, "--sample_tokens 1") == 0
    first, *others = (load(folder)[0].state_dict() for folder in (pretrained, tmp_path, other))
    for weights in others:
        torch.testing.assert_close(weights, first)


@pytest.mark.parametrize(("text", "flags"), [(STORY + " The end.", ""), (STORY, "--n_embd 64")], ids=["text", "size"])
def test_another_text_or_size_is_not_resumed(pretrained, tmp_path, capsys, text, flags):
    shutil.copytree(pretrained / OUTPUT, tmp_path / OUTPUT, ignore=shutil.ignore_patterns("model"))
    assert pretrain(tmp_path, f"--resume_from_checkpoint last {flags}", text) == 1
    assert "checkpoint-20" in capsys.readouterr().err
    assert (tmp_path / OUTPUT / "checkpoint-20").is_dir(), "nothing is lost by a mistake"


@pytest.mark.parametrize(
    "flags",
    [
        "--eval_strategy no --load_best_model_at_end false --eval_on_start false --sample_tokens 0",
        "--load_best_model_at_end false --max_steps 15 --eval_on_start false --learning_rate 9",
    ],
)
def test_reported_loss_is_that_of_the_saved_weights(tmp_path, flags):
    """This holds even if nothing is evaluated, or if the last weights are kept although others were better."""
    assert pretrain(tmp_path, f"{flags} --bf16 false") == 0
    report = report_of(tmp_path)
    assert report["best_step"] == report["steps"]
    assert validation_loss(tmp_path) == pytest.approx(report["validation_loss"], rel=1e-4)


def test_a_run_that_diverges_is_told_and_nothing_is_saved(tmp_path, capsys):
    assert pretrain(tmp_path, "--learning_rate 1e6 --max_grad_norm 1e9 --load_best_model_at_end false") == 1
    printed = capsys.readouterr()
    assert "perplexity inf" in printed.out and "Error: The loss is no number any more." in printed.err
    assert not (tmp_path / MODEL / "model.safetensors").exists()


def test_sampling_leaves_the_random_state_and_the_mode(pretrained):
    model, tokenizer = load(pretrained)
    model.train()
    state = torch.random.get_rng_state()
    first = sample_text(model, tokenizer, "The cat", 8, seed=1)
    assert first == sample_text(model, tokenizer, "The cat", 8, seed=1) != sample_text(model, tokenizer, "", 8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    # Only the end of a prompt that is too long is kept, so that the new tokens still fit.
    assert sample_text(model, tokenizer, "The cat sat. " * 50 + "The dog", 20, seed=1).count("The dog") == 1


# ---------------------------------------------------------------------------- text


def test_a_tokenizer_trained_here_writes_every_text_back():
    tokenizer = train_tokenizer(make_messages()["Text"].tolist(), 400)
    for text in ("free entry txt WIN to 85555", "  spaces\n\tand tabs ", "免费领奖 🎁 é", "<|endoftext|> as text"):
        assert tokenizer.decode(tokenizer(text, split_special_tokens=True)["input_ids"]) == text
    assert len(tokenizer) <= 400 and tokenizer.eos_token == tokenizer.bos_token == END_OF_TEXT


def test_windows_hold_the_whole_stream_with_an_end_after_each_document():
    tokenizer = train_tokenizer([STORY], 300)
    windows = to_windows(["The cat", "sat on <|endoftext|> the mat"], tokenizer, 4)
    stream = torch.cat([window["input_ids"] for window in windows]).tolist()
    ids = [
        tokenizer(text, split_special_tokens=True)["input_ids"] for text in ("The cat", "sat on <|endoftext|> the mat")
    ]
    expected = [*ids[0], tokenizer.eos_token_id, *ids[1], tokenizer.eos_token_id]
    assert stream == expected[: len(stream)] and len(expected) - len(stream) < 4
    # An end-of-text token that is spelled out in a text is plain text.
    assert stream.count(tokenizer.eos_token_id) <= 2


def test_validation_text_is_the_end_and_never_trained_on():
    assert split_documents(["abcdefghij"], 0.2) == (["abcdefgh"], ["ij"])
    documents = ["a" * 50, "b" * 30, "c" * 15, "d" * 5]
    assert split_documents(documents, 0.1) == (["a" * 50, "b" * 30, "c" * 10], ["c" * 5, "d" * 5])
    # The fraction holds even if the documents differ much in size.
    assert [sum(map(len, part)) for part in split_documents(["a", "b" * 999], 0.1)] == [900, 100]


def test_a_folder_of_texts_is_read_in_the_order_of_names(tmp_path):
    texts = tmp_path / "texts"
    (texts / "more").mkdir(parents=True)
    for name, text in {"b.txt": STORY[:9000], "a.txt": STORY, "more/c.txt": STORY[:3000], "notes.md": "no"}.items():
        (texts / name).write_text(text)
    (texts / "empty.txt").write_text(" \n")
    assert pretrain(tmp_path, "--text_file texts") == 0
    report = report_of(tmp_path)
    assert report["corpus"]["name"] == "texts"
    assert report["validation_tokens"] == pytest.approx(0.1 * report["train_tokens"] / 0.9, rel=0.05)


def test_conversations_are_documents_of_one_utterance_a_line(tmp_path):
    turns = [[{"text": "hi  there"}, {"text": "how are\nyou?"}], [{"text": "fine"}]]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"1": {"messages": turns}, "2": {"messages": []}}))
    assert read_conversations(path) == ["hi there\nhow are you?\nfine"]


# ---------------------------------------------------------------------------- sources and mistakes


def test_hubs_tokenizer_is_used_where_it_can_be_reached_and_two_processes_pretrain_together(tmp_path, tiny_gpt2, serve):
    """The script runs in new processes, because huggingface_hub reads its settings when it is imported."""
    (tmp_path / "story.txt").write_text(STORY)
    flags = [*SMALL.split(), "--tokenizer_name", "gpt2", "--text_file", "story.txt"]
    hub = {"HF_ENDPOINT": serve(hub_handler({"gpt2": tiny_gpt2})), "HF_HOME": tmp_path / "hf"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = run_process(tmp_path, *torchrun, SCRIPT, *flags, **hub)
    noises = ("Warning", "missing keys", "loss_type")
    assert not [noise for noise in ("TRAINING A TOKENIZER", *noises) if noise in run.stderr]
    assert run.stdout.count("Saved results/gpt_pretraining/model") == run.stdout.count("Step 20:") == 1
    assert load(tmp_path)[1].get_vocab() == AutoTokenizer.from_pretrained(tiny_gpt2).get_vocab()
    report = report_of(tmp_path)
    assert report["tokenizer"] == {"requested": "gpt2", "source": "gpt2"}
    assert report["validation_loss"] < report["untrained_loss"] / 2
    no_hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": tmp_path / "empty"}
    told = run_process(tmp_path, SCRIPT, *flags, **no_hub).stderr
    assert "TRAINING A TOKENIZER" in told and not [noise for noise in noises if noise in told]
    assert report_of(tmp_path)["tokenizer"] == {"requested": "gpt2", "source": "trained on the text"}
    assert "(asked for: gpt2)" in (tmp_path / MODEL / "README.md").read_text()


@pytest.fixture
def fallback_recipe(tmp_path, monkeypatch):
    """The path of a recipe for another text. The story is not in the cache, and its address does not answer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "THE_VERDICT", ("http://127.0.0.1:9/verdict.txt", "0" * 64))
    (tmp_path / "story.txt").write_text(STORY)
    defaults = yaml.safe_load((REPOSITORY / "recipes/gpt_pretraining.yaml").read_text())
    recipe = tmp_path / "fallback.yaml"
    recipe.write_text(yaml.safe_dump(defaults | {"text_file": str(tmp_path / "story.txt")}))
    return str(recipe)


def test_an_unreachable_story_is_replaced_by_the_fallback_recipe_and_that_is_told(tmp_path, fallback_recipe, caplog):
    assert run_default(tmp_path, "--fallback_recipe", fallback_recipe) == 0
    assert f"FOLLOWING {fallback_recipe} INSTEAD" in caplog.text
    corpus = report_of(tmp_path)["corpus"]
    assert (corpus["name"], corpus["instead_of"]) == ("story.txt", "the_verdict")
    assert "the_verdict could not be reached" in (tmp_path / MODEL / "README.md").read_text()


def test_flags_count_in_the_chitchat_recipe_too():
    """A trial run of a hundredth of an epoch stays that short when the fallback recipe replaces the story."""
    recipe = str(REPOSITORY / "recipes/gpt_pretraining_chitchat.yaml")
    *_, training = parse_arguments([recipe, "--num_train_epochs", "0.01"])
    assert (training.num_train_epochs, training.max_steps) == (0.01, -1)


@pytest.mark.parametrize("why", ["forbidden", "named", "another text at the address"])
def test_the_story_is_not_replaced(tmp_path, fallback_recipe, capsys, serve, monkeypatch, why):
    flags = {"forbidden": ["--fallback_recipe", "none"], "named": ["--corpus", "the_verdict"]}.get(why, [])
    if why.startswith("another"):
        address = serve(hub_handler({"gpt2": tmp_path})) + "/gpt2/resolve/main/story.txt"
        monkeypatch.setattr(datasets, "THE_VERDICT", (address, "0" * 64))
    assert run_default(tmp_path, "--fallback_recipe", fallback_recipe, *flags) == 1
    assert capsys.readouterr().err.count("Error: http://127.0.0.1") == 1
    assert not (tmp_path / MODEL).exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--text_file missing.txt", "missing.txt"),
        ("--text_file latin.txt", "latin.txt is not UTF-8"),
        ("--text_file empty", "no .txt file"),
        ("--text_file blank.txt", "no text"),
        ("--text_file short.txt", "fewer than one window"),
        ("--n_head 3", "does not divide"),
        ("--n_layer 0", "--n_layer 0: at least 1"),
        ("--context_length 1", "--context_length 1: at least 2"),
        ("--vocab_size -1", "--vocab_size -1: at least 257"),
        ("--dropout 2", "--dropout 2.0"),
        ("--sample_tokens 32", "less than --context_length"),
        ("--validation_frac 1.5", "between 0 and 1"),
        ("--tokenizer_name wordpiece", "has no end-of-text token"),
        ("--tokenizer_name no/such/name", "'no/such/name'"),
        ("--model_dir .", "is no adapter or model of this project"),
        ("--resume_from_checkpoint last", "no checkpoint"),
        ("--tokenizer_name ./nowhere", "nowhere is no folder with a tokenizer"),
        ("--report_to wandb", "wandb"),
        ("--metric_for_best_model accuracy", "accuracy: there are only loss"),
        ("--dataloader_drop_last true", "evaluations would leave something out"),
    ],
)
def test_mistakes_end_in_one_clear_error(tmp_path, capsys, flags, message):
    (tmp_path / "empty").mkdir()
    save_wordpiece_tokenizer(tmp_path / "wordpiece")
    for name, content in {
        "latin.txt": "café".encode("latin-1"),
        "blank.txt": b" \n",
        "short.txt": b"few words",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert pretrain(tmp_path, flags) == 1
    error = capsys.readouterr().err
    assert [message in line for line in error.splitlines() if line.startswith("Error:")] == [True]
    assert not (tmp_path / MODEL).exists() and (tmp_path / "story.txt").exists()
