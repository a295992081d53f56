"""The adapter in the repository keeps what its model card promises, on messages it never trained on."""

import json

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard

from evaluation_report import classification_metrics, tfidf_predictions
from gpt_classification_model import DataArguments, load_splits
from text_classifier import classify, load_tokenizer_and_model

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The splits the adapter was trained on: the mirror's messages."""
    arguments = DataArguments(data_source="mirror", dataset_dir=str(tmp_path_factory.mktemp("dataset")))
    return load_splits(arguments)[0]


@pytest.fixture(scope="module")
def shipped(shipped_adapter):
    return load_tokenizer_and_model(shipped_adapter)


def spam_probabilities(texts, shipped) -> list[float]:
    return [answer.positive_probability for answer in classify(list(texts), *shipped)]


def test_folder_has_what_peft_needs_and_no_pickle(shipped_adapter):
    names = {path.name for path in shipped_adapter.iterdir()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert expected <= names and not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    config = json.loads((shipped_adapter / "config.json").read_text())
    assert config["id2label"] == {"0": "ham", "1": "spam"} and config["pad_token_id"] is not None
    base = json.loads((shipped_adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == "HuggingFaceTB/SmolLM2-135M-Instruct", "a Hub id, not a path of the machine that trained it"


def test_accuracy_on_the_test_split_is_high_and_not_below_tfidf(splits, shipped, shipped_adapter):
    test = splits["test"]
    metrics = classification_metrics(test["Label"], spam_probabilities(test["Text"], shipped))
    baseline = classification_metrics(*tfidf_predictions(splits["train"], {"test": test})["test"])
    assert metrics["accuracy"] >= max(0.98, baseline["accuracy"])
    card = ModelCard.load(shipped_adapter / "README.md").data.eval_results
    promised = {result.metric_type: result.metric_value for result in card}
    assert promised["accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-4)


def test_few_false_positives_on_left_out_ham(splits, shipped):
    left_out = splits["left_out_test"]
    metrics = classification_metrics(left_out["Label"], spam_probabilities(left_out["Text"], shipped))
    assert metrics["n"] > 600 and metrics["false_positive_rate"] <= 0.015


def test_the_fast_number_format_keeps_the_labels(splits, shipped, shipped_adapter):
    texts = pd.concat([splits["test"], splits["left_out_test"]])["Text"].tolist()
    exact = classify(texts, *shipped)
    fast = classify(texts, *load_tokenizer_and_model(shipped_adapter, torch.bfloat16))
    agreement = sum(one.label == other.label for one, other in zip(exact, fast, strict=True)) / len(texts)
    assert agreement >= 0.999
