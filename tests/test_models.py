"""Base models of several architectures, tuned in several ways, train the right weights and load again."""

import contextlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from pasted import python_blocks
from safetensors.torch import load_file
from shared import REPOSITORY, save_wordpiece_tokenizer
from training_runs import assert_served_as_reported, report_of, run_here
from transformers import AutoModel, AutoTokenizer, DistilBertConfig

import gpt_classification_model
from text_classifier.classifier import classify, load_tokenizer_and_model
from text_classifier.runtime import encode
from text_classifier.sources.weights import BaseModel, resolve_base_model
from text_classifier.training.config import parse_arguments
from text_classifier.training.models import load_tokenizer


def test_gpt2_s_activation_in_one_step_changes_no_result(tiny_gpt2):
    """GELU in one step equals the base model's own in eight, so the adapter fits the base model as others load it."""
    model_args, _, _ = parse_arguments([])
    source = BaseModel(str(tiny_gpt2), tiny_gpt2, "local folder", "")
    tokenizer = load_tokenizer(source, max_length=120)
    model = gpt_classification_model.build_model(source, tokenizer, ["ham", "spam"], model_args).eval()
    assert model.config.activation_function == "gelu_pytorch_tanh"
    tokens = tokenizer(["call now to win a prize"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        ours = model(tokens, output_hidden_states=True).hidden_states[-1]
        published = AutoModel.from_pretrained(tiny_gpt2)(tokens).last_hidden_state
    assert published.std() > 0.1 and torch.allclose(ours, published, atol=1e-5)


# Where the recipe for film reviews saves its adapter.
MODEL = Path("results/imdb_distilbert/model")

SUBJECTS = ["film", "story", "cast", "ending", "music", "script", "picture", "dialogue", "first hour", "whole thing"]
GOOD = ["wonderful", "moving", "a joy", "funny and warm", "brilliant", "great fun", "a delight", "well worth seeing"]
BAD = ["terrible", "boring", "a mess", "dull and cold", "stupid", "a waste of time", "painful", "not worth seeing"]


@pytest.fixture
def imdb_csv(tmp_path):
    """Made-up reviews in the file that the archive of the IMDB reviews would be unpacked to."""
    opinions = [(words, label) for label, all_words in (("positive", GOOD), ("negative", BAD)) for words in all_words]
    rows = [(f"The {subject} is {words}.", label) for subject in SUBJECTS for words, label in opinions]
    file = tmp_path / "dataset/imdb/imdb.csv"
    file.parent.mkdir(parents=True)
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(file, index=False)
    return file


def test_imdb_recipe_on_distilberts_architecture(tmp_path, imdb_csv):
    """The recipe trains LoRA on q_lin and v_lin, and both new layers in full.

    The tokenizer keeps its own pad token, and the saved model reloads with the same loss.
    """
    folder = tmp_path / "tiny-distilbert"
    size = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    config = DistilBertConfig(vocab_size=save_wordpiece_tokenizer(folder), **size)
    AutoModel.from_config(config).save_pretrained(folder)
    recipe = str(REPOSITORY / "recipes/imdb_distilbert.yaml")
    assert run_here(tmp_path, [recipe, "--model_name_or_path", str(folder), "--disable_tqdm", "true"]) == 0

    for name in ("train", "validation", "test"):
        table = pd.read_csv(tmp_path / f"dataset/imdb/{name}.csv")
        assert set(table.columns) == {"Text", "Label"} and set(table["Label"]) == {0, 1}
    weights = load_file(tmp_path / MODEL / "adapter_model.safetensors")
    lora = {name.split(".lora_")[0].split(".")[-1] for name in weights if ".lora_" in name}
    full = {name.split(".")[2] for name in weights if ".lora_" not in name}
    assert (lora, full) == ({"q_lin", "v_lin"}, {"pre_classifier", "classifier"})
    report = json.loads((tmp_path / "results/imdb_distilbert/metrics.json").read_text())
    assert report["training"]["trainable_parameters"] == sum(weight.numel() for weight in weights.values())
    assert (report["data"]["name"], report["label_names"]) == ("IMDB reviews", ["negative", "positive"])

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / MODEL)
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ("[PAD]", 512)
    assert_served_as_reported(tmp_path / MODEL, tmp_path / "dataset/imdb", report)
    assert report["saved"] == "after" and not list((tmp_path / MODEL).glob("tfidf*")), (
        "by this recipe the language model answers alone"
    )
    card = (tmp_path / MODEL / "README.md").read_text()
    assert "IMDB" in card and "reviews are in English" in card and "SMS" not in card


@pytest.mark.registry
def test_imdb_recipe_learns_reviews_on_the_fallback_encoder(tmp_path, imdb_csv):
    """The weights are real, from the Hub or the registry; the sentences are unlike those trained on."""
    recipe, base = str(REPOSITORY / "recipes/imdb_distilbert.yaml"), "sentence-transformers/all-MiniLM-L6-v2"
    flags = ["--model_name_or_path", base, "--learning_rate", "2e-3", "--disable_tqdm", "true"]
    assert run_here(tmp_path, [recipe, *flags]) == 0
    classifier = load_tokenizer_and_model(tmp_path / MODEL)
    texts = ["I loved every minute of it.", "An excellent actress in a charming comedy."]
    texts += ["I hated every minute of it.", "An awful actress in a tiresome comedy."]
    labels = [answer.label for answer in classify(texts, *classifier)]
    assert labels == ["positive", "positive", "negative", "negative"]
    assert all(".pooler." not in name for name in load_file(tmp_path / MODEL / "adapter_model.safetensors"))


def test_only_the_first_layers_of_a_base_are_used_when_asked_for(tmp_path, tiny_gpt2, train):
    # Only the fallback model is cut; here it is the base itself.
    assert train(f"--fallback_model {tiny_gpt2} --fallback_layers 1 --num_train_epochs 1") == 0
    adapter = tmp_path / "lora_model"
    assert not [name for name in load_file(adapter / "adapter_model.safetensors") if ".h.1." in name]
    tokenizer, model = load_tokenizer_and_model(adapter)
    assert len(model.transformer.h) == 1
    assert_served_as_reported(adapter, tmp_path / "dataset", report_of(tmp_path))
    # The model card shows how plain PEFT loads it.
    (code,) = python_blocks(adapter / "README.md")
    with contextlib.chdir(tmp_path):
        exec(code, shown := {})
    plain = shown["model"]
    batch = tokenizer.pad(encode(["WIN a FREE prize now"], tokenizer, 120), return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(plain(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-4)
    assert list(plain.config.id2label.values()) == ["ham", "spam"]
    card = (adapter / "README.md").read_text()
    assert "its first 1 layers" in card and "Loaded in another way than above" in card


def test_the_default_recipe_cuts_no_base_but_the_fallback_one(tiny_gpt2):
    """GPT-2 medium has 24 layers and keeps them all, although the recipe keeps 12 of the fallback model's 30."""
    base = resolve_base_model(str(tiny_gpt2))
    model_args, data_args, _ = parse_arguments(["--fallback_layers", "1"])
    tokenizer = load_tokenizer(base, data_args.max_length)
    layers = {}
    for fallback in (model_args.fallback_model, base.name):
        model_args.fallback_model = fallback
        model = gpt_classification_model.build_model(base, tokenizer, ("a", "b"), model_args)
        layers[fallback == base.name] = len(model.get_base_model().transformer.h)
    assert layers == {False: 2, True: 1}


@pytest.mark.parametrize(
    ("tuning", "trained"),
    [
        ("head", ["score."]),
        ("last_block", ["score.", "transformer.ln_f.", "transformer.h.1."]),
        ("last_two_blocks", ["score.", "transformer.ln_f.", "transformer.h.0.", "transformer.h.1."]),
        ("full", [""]),
    ],
)
def test_other_tunings_train_what_they_name_and_save_a_whole_model(tmp_path, tiny_gpt2, train, tuning, trained):
    flags = f"--tuning {tuning} --learning_rate 1e-3"
    assert train(f"{flags} --num_train_epochs 2", charts=tuning == "head") == 0
    before = load_file(tiny_gpt2 / "model.safetensors")
    after = load_file(tmp_path / "lora_model/model.safetensors")
    changed = {name for name, weights in after.items() if name not in before or not torch.equal(weights, before[name])}
    assert changed == {name for name in after if name.startswith(tuple(trained))}
    report = report_of(tmp_path)
    assert report["training"]["trainable_parameters"] == sum(after[name].numel() for name in changed)
    assert_served_as_reported(tmp_path / "lora_model", tmp_path / "dataset", report)
    assert "lora" not in (tmp_path / "lora_model/README.md").read_text().lower().replace("lora_model", "")
    # A second run may replace the model that the first one saved.
    assert train(f"{flags} --num_train_epochs 1") == 0


def test_a_base_without_a_head_is_no_classifier(tiny_gpt2):
    """Its head would have random weights, new ones at every start."""
    with pytest.raises(ValueError, match="is no classifier"):
        load_tokenizer_and_model(tiny_gpt2)


def test_gpt2_small_has_the_documented_number_of_trainable_parameters():
    """LoRA trains 812,544 of 125,253,888 parameters: counted at GPT-2 small's real size, without allocating memory."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, GPT2Config

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(GPT2Config(num_labels=2, pad_token_id=50256))
        targets = {"target_modules": gpt_classification_model.LORA_TARGETS["gpt2"], "fan_in_fan_out": True}
        wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, **targets))
    assert wrapped.get_nb_trainable_parameters() == (812_544, 125_253_888)
