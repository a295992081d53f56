"""The merged model in the cache: a start without PEFT and without the base, and what happens when the cache fails."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pasted import run_pasted
from safetensors.torch import load_file, save_file
from shared import REPOSITORY, give_settings

from text_classifier.classifier import Classifier
from text_classifier.files import file_sha256, write_json
from text_classifier.merged import ADAPTER_WEIGHTS

TEXTS = ["WIN a FREE prize now, call 1", "see you tonight", "ok"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of merged models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpt-classification-model" / "merged"


@pytest.fixture
def base(tmp_path, tiny_gpt2) -> Path:
    return shutil.copytree(tiny_gpt2, tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, base, tiny_review_adapter, cache) -> Path:
    """An adapter on `base` that has learned something, and that names the checksum of its base as training does."""
    folder = shutil.copytree(tiny_review_adapter, tmp_path / "adapter")
    adapter_config = json.loads((folder / "adapter_config.json").read_text())
    write_json(adapter_config | {"base_model_name_or_path": str(base)}, folder / "adapter_config.json")
    source = {"name": str(base), "source": "local folder", "sha256": file_sha256(base / "model.safetensors")}
    give_settings(folder, base_model=source)
    change(folder, seed=1)
    return folder


def change(adapter: Path, seed: int) -> None:
    """Give an adapter other weights."""
    torch.manual_seed(seed)
    weights = {name: torch.randn_like(weight) / 8 for name, weight in load_file(adapter / ADAPTER_WEIGHTS).items()}
    save_file(weights, adapter / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def answers(adapter: Path, dtype: torch.dtype = torch.float32) -> list[float]:
    return [answer.probability for answer in Classifier.load(adapter, dtype).answer(TEXTS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_start_gives_the_same_answers_and_the_second_needs_no_base(base, adapter, dtype):
    first = answers(adapter, dtype)
    shutil.rmtree(base)
    assert answers(adapter, dtype) == first


def test_the_second_start_does_not_import_peft(adapter):
    code = (
        "import sys; from text_classifier import load_tokenizer_and_model\n"
        f"load_tokenizer_and_model({str(adapter)!r}); print('peft' in sys.modules)"
    )
    answers(adapter)
    assert run_pasted(code, REPOSITORY) == "False\n"


def test_another_adapter_in_the_same_folder_and_another_number_format_are_merged_anew(adapter):
    before = answers(adapter, torch.bfloat16)
    assert Classifier.load(adapter, torch.float32).model.dtype is torch.float32
    change(adapter, seed=2)
    assert answers(adapter, torch.bfloat16) != before


def test_a_damaged_merged_model_is_made_anew(cache, adapter):
    before = answers(adapter)
    (kept,) = cache.glob("*/model.safetensors")
    kept.write_bytes(kept.read_bytes()[:1000])
    assert answers(adapter) == before
    assert kept.stat().st_size > 1000


def test_without_a_cache_that_can_be_written_the_model_is_merged_at_every_start(cache, adapter):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert answers(adapter) == answers(adapter)
    assert cache.is_file()


def test_only_the_models_used_last_stay(cache, base, adapter):
    for seed in range(2, 7):
        change(adapter, seed)
        answers(adapter)
    assert len(list(cache.iterdir())) == 3
    # The last one is among them.
    shutil.rmtree(base)
    assert answers(adapter)
