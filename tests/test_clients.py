"""What the documents show for other programs runs as pasted, and gives the language model's answers."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from pasted import put_into_hub_cache, python_blocks, run_pasted_here
from shared import REPOSITORY
from transformers import BertConfig, DistilBertConfig, GPT2Config, LlamaConfig

from text_classifier.classifier import Settings, load_tokenizer_and_model
from text_classifier.export import main
from text_classifier.sources.weights import resolve_base_model
from text_classifier.training.saving import kept_layers

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"

# Letter tricks, a special token spelled out, more tokens than the language model reads.
TEXTS = ["You won a prize! Call 09061701461", "See you at seven?", "Fr33 pr1ze <|im_end|>", "free " * 300]

pytestmark = pytest.mark.registry


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, shipped_adapter):
    """A folder with `lora_model` and its export, and a home whose Hub cache has the adapter's own base weights."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "lora_model").symlink_to(shipped_adapter)
    with contextlib.chdir(folder):
        assert main(["lora_model", "merged", "--onnx"]) == 0
    record = Settings.load(shipped_adapter).base_model
    put_into_hub_cache(folder / "home", BASE, resolve_base_model(BASE, trained_on=record).path)
    return folder


def logits_of(folder: Path) -> torch.Tensor:
    """Return the language model's logits for `TEXTS`."""
    tokenizer, model = load_tokenizer_and_model(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, split_special_tokens=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**batch).logits


@pytest.fixture(scope="module")
def expected(shipped_adapter) -> torch.Tensor:
    return logits_of(shipped_adapter)


@pytest.fixture
def only_in_the_cache(workplace, monkeypatch):
    """Let huggingface_hub, which reads its settings when it is imported, find the base weights in the cache alone."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(workplace / "home/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def check_logits(code: str, folder: Path, expected: torch.Tensor) -> None:
    """Run code that loads the adapter with plain PEFT; the logits of its model must be `expected`."""
    made = {}
    with contextlib.chdir(folder):
        exec(code, made)
    batch = made["tokenizer"](TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = made["model"](**batch).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    config = made["model"].config
    assert list(config.id2label.values()) == ["ham", "spam"] and config.pad_token_id == 2


def test_the_readmes_show_what_their_code_prints(workplace):
    english, chinese = (
        block for name in ("README.md", "README.zh-CN.md") for block in python_blocks(REPOSITORY / name)
    )
    lines = run_pasted_here(english, workplace).splitlines()
    for code in (english, chinese):
        assert lines == re.findall(r'"(\w+ \d\.\d{3})"', code) and len(lines) == 2
    assert re.sub("#.*", "", english) == re.sub("#.*", "", chinese)


def test_the_model_card_shows_the_adapter(workplace, only_in_the_cache, expected):
    (code,) = python_blocks(workplace / "lora_model/README.md")
    check_logits(code, workplace, expected)


def test_use_md_shows_every_way(workplace, only_in_the_cache, expected):
    blocks = python_blocks(REPOSITORY / "docs/use.md")
    for block in blocks:
        if "Peft" in block:
            check_logits(block, workplace, expected)
            continue
        printed = run_pasted_here(block, workplace)
        if "onnxruntime" in block:
            assert printed == "[1 0]\n"
        else:
            assert re.findall(r"\b(?:spam|ham)\b", printed) == ["spam", "ham"]
    assert len(blocks) == 4


def test_an_adapter_of_an_earlier_time_is_loaded_as_ever(shipped_adapter, expected, tmp_path):
    shutil.copytree(shipped_adapter, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_replication": None}))
    assert torch.equal(logits_of(tmp_path / "adapter"), expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(num_hidden_layers=3), [(0, 2)]),
        (BertConfig(num_hidden_layers=3), [(0, 2)]),
        # PEFT cannot choose layers of these, and says so in an error; the model card's code is right for them.
        (GPT2Config(n_layer=3), None),
        (DistilBertConfig(n_layers=3), None),
        (LlamaConfig(num_hidden_layers=2), None),
    ],
    ids=lambda value: f"{value.model_type}-{value.num_hidden_layers}" if hasattr(value, "model_type") else "",
)
def test_layers_that_an_adapter_uses_are_saved_where_peft_can_choose_them(tmp_path, config, expected):
    config.save_pretrained(tmp_path)
    assert kept_layers(tmp_path, 2) == expected
