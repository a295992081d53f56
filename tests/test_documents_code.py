"""The code and the options that tutorials about this project show run as pasted, or say what replaced them."""

from pathlib import Path

import pandas as pd
import pytest
from pasted import run_pasted, run_pasted_here
from shared import PACKAGE_PATH, make_messages
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoTokenizer

from gpt_classification_model import SpamDataset, create_balanced_dataset, random_split
from text_classifier.classifier import Settings
from text_classifier.merged import load_merged
from text_classifier.sources.weights import BaseModel
from text_classifier.training.config import parse_arguments

SPAM, HAM = "You have won a £1000 cash prize! Call 09061701461 to claim", "Are you coming home for dinner tonight?"

BODY = f"""
import torch
from text_classifier import load_tokenizer_and_model
tokenizer, model = load_tokenizer_and_model("lora_model")

def classify_review(user_input):
    inputs = tokenizer(user_input, return_tensors="pt", truncation=True, padding="max_length", max_length=120)
    inputs = {{name: tensor.to(model.device) for name, tensor in inputs.items()}}
    with torch.no_grad():
        logits = model(**inputs).logits
    return "垃圾信息" if torch.argmax(logits, dim=-1).item() == 1 else "正常信息"

print(classify_review({SPAM!r}), classify_review({HAM!r}))
"""

OF_THE_APP = f"""
from chainlit_gpt_classification import classify_review, get_model_and_tokenizer
tokenizer, model = get_model_and_tokenizer()
for text in ({SPAM!r}, {HAM!r}, "", "\\u200b"):
    print(classify_review(text))
"""


@pytest.fixture
def workplace(tmp_path, shipped_adapter) -> Path:
    (tmp_path / "lora_model").symlink_to(shipped_adapter)
    return tmp_path


@pytest.mark.registry
def test_a_classify_review_of_one_s_own(workplace):
    assert run_pasted_here(BODY, workplace).split() == ["垃圾信息", "正常信息"]


@pytest.mark.registry
def test_classify_review_of_the_app(workplace):
    *_, spam, ham, empty, invisible = run_pasted(OF_THE_APP, workplace, PYTHONPATH=PACKAGE_PATH).splitlines()
    assert (spam, ham) == ("垃圾信息", "正常信息")
    assert empty == invisible and empty.startswith("请输入一段文本以进行分类")


def test_a_plain_data_loader_stacks_messages_of_all_lengths(tmp_path, tiny_gpt2):
    table = pd.DataFrame({"Label": [0, 1, 0], "Text": ["ok", "win a prize now, call today", "see you"]})
    table.to_csv(tmp_path / "train.csv", index=False)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.pad_token = tokenizer.eos_token
    dataset = SpamDataset(tmp_path / "train.csv", tokenizer)
    (batch,) = DataLoader(dataset, batch_size=8)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, dataset.max_length)
    assert batch["attention_mask"].sum(dim=1).tolist() == dataset.lengths
    assert batch["labels"].tolist() == [0, 1, 0]


def test_random_split_takes_its_shares_by_place_and_by_name():
    balanced = create_balanced_dataset(make_messages())
    by_place, by_name = random_split(balanced, 0.7, 0.1), random_split(balanced, train_frac=0.7, validation_frac=0.1)
    assert [len(part) for part in by_place] == [84, 12, 24]
    assert all(one.equals(other) for one, other in zip(by_place, by_name, strict=True))


@pytest.mark.parametrize(
    ("flags", "instead"),
    [(["--warmup_ratio", "0.1"], "--warmup_steps"), (["--logging_dir=./logs"], "TENSORBOARD_LOGGING_DIR")],
)
def test_options_of_older_versions_say_what_replaced_them(flags, instead, tmp_path, capsys):
    recipe = tmp_path / "old.yaml"
    recipe.write_text("warmup_ratio: 0.1\nlogging_dir: ./logs\n")
    for argv in (flags, [str(recipe)]):
        with pytest.raises(SystemExit):
            parse_arguments(argv)
        assert instead in capsys.readouterr().err


def test_only_the_splits_are_made_when_asked_for(tmp_path, train, capsys):
    assert train("--model_name_or_path no-such/base --prepare_only") == 0
    assert [file.name for file in tmp_path.iterdir()] == ["dataset"]
    assert len(pd.read_csv(tmp_path / "dataset/train.csv")) == 84
    assert "train.csv (84), validation.csv (12), test.csv (24)" in capsys.readouterr().out


def test_an_adapter_is_not_loaded_onto_a_base_of_another_kind(shipped_adapter, tiny_gpt2, monkeypatch):
    other = BaseModel("gpt2", tiny_gpt2, "local folder", "another checksum")
    monkeypatch.setattr("text_classifier.merged.resolve_base_model", lambda *_, **__: other)
    monkeypatch.setattr("text_classifier.merged._load_kept", lambda *_: None)
    with pytest.raises(ValueError, match=r"belongs to HuggingFaceTB/SmolLM2-135M-Instruct .* and not to gpt2"):
        trained_on = Settings.load(shipped_adapter).base_model
        load_merged(shipped_adapter, AutoConfig.from_pretrained(shipped_adapter), trained_on, None)
