"""Base weights and tokenizers are found in every source, and other weights are never taken without a word."""

import hashlib
import http.server
import json
import logging
import shutil
import time
from pathlib import Path

import pytest
from hub_stand_in import hub_handler
from pasted import run_pasted
from shared import REPOSITORY

from text_classifier.errors import ArtifactError, UnreachableError
from text_classifier.sources import weights
from text_classifier.sources.weights import resolve_base_model, resolve_base_model_or_fallback, resolve_tokenizer


def in_new_process(call: str, home: Path, **environment: str) -> str:
    """Return what a function of `weights` returns in a new process, where huggingface_hub reads other settings."""
    code = f"from text_classifier.sources.weights import *; print({call})"
    return run_pasted(code, REPOSITORY, HF_HOME=str(home), **environment).rstrip()


def test_local_folder_is_used_as_it_is(tiny_gpt2):
    base = resolve_base_model(str(tiny_gpt2))
    assert (base.path, base.source) == (tiny_gpt2, "local folder")
    assert base.sha256 == hashlib.sha256((tiny_gpt2 / "model.safetensors").read_bytes()).hexdigest()


def test_hub_then_its_cache(tiny_gpt2, serve, tmp_path):
    # The Hub's repositories hold the weights in other formats, too.
    repository = shutil.copytree(tiny_gpt2, tmp_path / "repository")
    (repository / "pytorch_model.bin").write_text("other format")
    handler = hub_handler({"gpt2": repository})
    address = serve(handler)
    online = in_new_process("resolve_base_model('gpt2')", tmp_path, HF_ENDPOINT=address)
    assert "source='Hugging Face Hub'" in online and resolve_base_model(str(tiny_gpt2)).sha256 in online
    asked = len(handler.requests)
    assert in_new_process("resolve_base_model('gpt2')", tmp_path, HF_HUB_OFFLINE="1") == online
    assert len(handler.requests) == asked
    # An interrupted download is completed.
    (downloaded,) = (tmp_path / "hub").glob("*/snapshots/*/model.safetensors")
    downloaded.unlink()
    assert in_new_process("resolve_base_model('gpt2')", tmp_path, HF_ENDPOINT=address) == online
    assert downloaded.is_file() and not downloaded.with_name("pytorch_model.bin").exists()


def test_a_hub_that_never_answers_costs_seconds(serve, hub_at):
    class Stalled(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(60)

        do_HEAD = do_GET

    hub_at(serve(Stalled))
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="Could not find the base model 'gpt2'"):
        resolve_base_model("gpt2")
    assert time.monotonic() - started < 30


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(weights, "HF_HUB_OFFLINE", True)


def test_error_lists_every_attempt_and_what_to_do(offline, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="local folder: the folder lacks") as caught:
        resolve_base_model(str(tmp_path))
    assert "Hub" not in str(caught.value).partition("Connect")[0]
    attempts = "local folder: no such.*Hub's cache:.*Hub: HF_HUB_OFFLINE is set.*registry mirror: no mirror"
    with pytest.raises(UnreachableError, match=f"(?s){attempts}.*HF_ENDPOINT"):
        resolve_base_model("no/such-model")


def test_fallback_is_announced_or_forbidden(offline, tiny_gpt2, caplog):
    base = resolve_base_model_or_fallback("no/such-model", str(tiny_gpt2))
    assert base.path == tiny_gpt2
    assert "FALLBACK" in caplog.text and "no/such-model" in caplog.text
    with pytest.raises(ArtifactError):
        resolve_base_model_or_fallback("no/such-model", None)


@pytest.mark.parametrize("name", ["gpt3", "./gpt2"])
def test_a_mistyped_name_trains_nothing_else(tiny_gpt2, serve, hub_at, name):
    """The fallback is not taken if the Hub answers that it has no such model, nor for a path."""
    hub_at(serve(hub_handler({"gpt2": tiny_gpt2})))
    with pytest.raises(ArtifactError, match="Could not find the base model") as caught:
        resolve_base_model_or_fallback(name, str(tiny_gpt2))
    assert caught.type is ArtifactError


def test_other_weights_than_trained_on_are_said(tiny_gpt2, caplog):
    record = {"name": str(tiny_gpt2), "source": "local folder", "sha256": resolve_base_model(str(tiny_gpt2)).sha256}
    resolve_base_model(str(tiny_gpt2), trained_on=record)
    assert not caplog.records
    resolve_base_model(str(tiny_gpt2), trained_on={**record, "sha256": "0" * 64})
    assert "was trained on" in caplog.text


def test_half_converted_model_is_converted_again(local_registry, offline, monkeypatch, tiny_gpt2):
    monkeypatch.setattr(weights, "MODEL_MIRRORS", {"mirrored/model": local_registry})
    monkeypatch.setattr(weights, "convert_gguf", lambda gguf, folder: shutil.copytree(tiny_gpt2, folder))
    first = resolve_base_model("mirrored/model")
    assert (first.source, first.sha256) == ("registry mirror", local_registry.files["tiny_mirror/model.gguf"])
    (first.path / "model.safetensors").unlink()
    remains = first.path.with_name(f".{first.path.name}.killed")
    remains.mkdir()
    assert resolve_base_model("mirrored/model") == first
    assert (first.path / "model.safetensors").is_file() and not remains.exists()


@pytest.mark.registry
def test_mirrored_model_is_converted_once(caplog):
    caplog.set_level(logging.INFO, logger="text_classifier")
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    first = resolve_base_model(name, trained_on={"source": "registry mirror", "sha256": "", "name": name})
    caplog.clear()
    (sha256,) = weights.MODEL_MIRRORS[name].files.values()
    again = resolve_base_model(name, trained_on={"source": "registry mirror", "sha256": sha256})
    assert again == first and not caplog.records
    assert (again.path / "model.safetensors").is_file()
    config = json.loads((again.path / "config.json").read_text())
    assert config["model_type"] == "llama" and "quantization_config" not in config


@pytest.mark.registry
def test_mirrored_encoder_is_a_whole_folder_of_the_hubs_own_weights(offline):
    base = resolve_base_model("sentence-transformers/all-MiniLM-L6-v2")
    assert base.source in ("registry mirror", "Hugging Face Hub")
    # The Hub lists this checksum for its own model.safetensors.
    assert base.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_a_tokenizer_comes_without_the_weights(tiny_gpt2, serve, tmp_path):
    for settings in ({"HF_ENDPOINT": serve(hub_handler({"gpt2": tiny_gpt2}))}, {"HF_HUB_OFFLINE": "1"}):
        folder = Path(in_new_process("resolve_tokenizer('gpt2')", tmp_path, **settings))
        assert (folder / "tokenizer.json").is_file() and not list(folder.glob("*.safetensors"))
    assert resolve_tokenizer(str(tiny_gpt2)) == tiny_gpt2


def test_a_tokenizer_that_does_not_exist_is_told_from_one_that_cannot_be_reached(tiny_gpt2, serve, hub_at):
    address = serve(hub_handler({"gpt2": tiny_gpt2}))
    for endpoint, expected in ((address, ArtifactError), ("http://127.0.0.1:9", UnreachableError)):
        hub_at(endpoint)
        with pytest.raises(ArtifactError) as caught:
            resolve_tokenizer("gpt3")
        assert caught.type is expected
