"""An export is an ordinary model: other programs, as the documents show them, give the language model's answers."""

import contextlib
import errno
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from hub_stand_in import hub_handler
from huggingface_hub import ModelCard, constants
from pasted import put_into_hub_cache, python_blocks, run_pasted_here
from shared import REPOSITORY, files_in, give_settings, give_tfidf, make_messages
from transformers import AutoModelForSequenceClassification, pipeline

from text_classifier import export
from text_classifier.classifier import Classifier, Settings, load_tokenizer_and_model
from text_classifier.export import main
from text_classifier.extras import onnx_export
from text_classifier.sources.weights import resolve_base_model
from text_classifier.tfidf import fit_tfidf

# Longer than the language model reads, letter tricks, the pad token spelled out, white space, other scripts.
HARD = ["free " * 300, "Call me. " * 200, "Fr33 pr1ze, c l a i m nοw", "you won <|im_end|>", "<|im_end|>"]
HARD += [" ", "🎁", "你好"]
PRESENT_DAY = REPOSITORY / "dataset/modern_messages.tsv"


def probabilities_of_language_model(folder: Path, texts: list[str]) -> list[float]:
    language_model = replace(Classifier.load(folder), tfidf=None)
    return [answer.probability for answer in language_model.answer_parts(texts)]


def probabilities_in(answers: list[dict], positive: str) -> list[float]:
    return [answer["score"] if answer["label"] == positive else 1 - answer["score"] for answer in answers]


def export_here(folder: Path, *arguments: str | Path) -> int:
    """Run the command in `folder`; return the exit code."""
    with contextlib.chdir(folder):
        return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def merged(tmp_path_factory, shipped_adapter) -> Path:
    """The export of the shipped adapter, with ONNX, beside `lora_model`."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "lora_model").symlink_to(shipped_adapter)
    assert export_here(folder, "lora_model", "merged", "--onnx") == 0
    return folder / "merged"


@pytest.mark.registry
def test_the_pipeline_gives_the_language_models_answers_alone_and_in_batches(merged, shipped_adapter):
    texts = HARD + pd.read_csv(PRESENT_DAY, sep="\t", quoting=3)["Text"].sample(56, random_state=1).tolist()
    pipe = pipeline("text-classification", model=str(merged), truncation=True)
    alone = [pipe(text)[0] for text in texts]
    assert {answer["label"] for answer in alone} == {"ham", "spam"}
    together = probabilities_in(pipe(texts, batch_size=8), "spam")
    assert together == pytest.approx(probabilities_in(alone, "spam"), abs=1e-4)
    assert together == pytest.approx(probabilities_of_language_model(shipped_adapter, texts), abs=1e-4)


@pytest.mark.registry
def test_the_folder_is_a_plain_model_without_the_layers_that_are_not_used(merged, shipped_adapter):
    files = "README.md adapter_card.md config.json model.onnx model.safetensors text_classifier.json"
    assert files_in(merged) == [*files.split(), "tokenizer.json", "tokenizer_config.json"]
    assert merged.parent.stat().st_mode & 0o777 == 0o700 and (merged / "model.safetensors").stat().st_mode & 0o044
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    assert len(model.model.layers) == 12 and model.config.pad_token_id == 2
    # The package loads it as well, and answers with the language model alone.
    texts = ["Win £1000, call 09061701461!", "See you at seven?"]
    exported = Classifier.load(merged)
    assert exported.tfidf is None
    assert (exported.tokenizer.padding_side, exported.tokenizer.model_max_length) == ("right", 512)
    answers = [answer.probability for answer in exported.answer_parts(texts)]
    assert answers == pytest.approx(probabilities_of_language_model(shipped_adapter, texts), abs=1e-6)


@pytest.mark.registry
def test_its_card_tells_what_it_is_and_its_code_runs_as_pasted(merged):
    card = ModelCard.load(merged / "README.md")
    assert (card.data.base_model, card.data.license) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert card.data.eval_results is None, "the adapter's figures are those of both models"
    for expected in ("the language model alone, without TF-IDF", "above 0.5", "SHA-256", "[adapter_card.md]"):
        assert expected in card.content
    assert "| after + TF-IDF " in (merged / "adapter_card.md").read_text()
    (code,) = python_blocks(merged / "README.md")
    printed = run_pasted_here(code, merged.parent)
    assert "'label': 'spam'" in printed and "'label': 'ham'" in printed


def test_what_holds_for_both_models_is_left_out(tiny_review_adapter, tmp_path):
    adapter = shutil.copytree(tiny_review_adapter, tmp_path / "adapter")
    texts = make_messages()["Text"].tolist()
    tfidf = fit_tfidf(texts, [number % 2 for number in range(len(texts))])
    give_tfidf(adapter, tfidf, 0.5, decision_threshold=0.8, early_exit={"bound": 2.5, "usual_log_odds": [-1, 1]})
    (adapter / "README.md").unlink()
    assert export_here(tmp_path, "adapter", "merged") == 0
    settings = Settings.load(tmp_path / "merged")
    assert (settings.joint, settings.decision_threshold, settings.early_exit) == (None, 0.5, None)
    assert "model.onnx" not in files_in(tmp_path / "merged")
    card = (tmp_path / "merged/README.md").read_text()
    assert "0.8, was chosen for both models together" in card and "has no model card" in card and "onnx" not in card
    assert not list((tmp_path / "merged").glob("*tfidf*"))
    # Without TF-IDF, the threshold is the language model's own.
    give_settings(adapter, joint=None)
    assert export_here(tmp_path, "adapter", "merged") == 0
    assert Settings.load(tmp_path / "merged").decision_threshold == 0.8
    card = (tmp_path / "merged/README.md").read_text()
    assert "chosen in training is 0.8" in card and "TF-IDF" not in card


def test_a_normalizer_of_gpt2_comes_along(trained, tmp_path):
    """The default recipe normalises text, and GPT-2's own tokenizer class would lose that."""
    assert export_here(tmp_path, trained / "lora_model", "merged") == 0
    tricks = ["Fr33 pr1ze, c l a i m nοw", "WIN a FREE prize now, call 10023", "see you at 7 tonight"]
    pipe = pipeline("text-classification", model=str(tmp_path / "merged"), truncation=True)
    expected = probabilities_of_language_model(trained / "lora_model", tricks)
    assert probabilities_in(pipe(tricks, batch_size=8), "spam") == pytest.approx(expected, abs=1e-5)


def test_a_whole_model_is_exported_and_runs_as_its_own_card_shows(tmp_path, train):
    assert train("--tuning head --num_train_epochs 1 --adapter_dir mine/model") == 0
    (code,) = python_blocks(tmp_path / "mine/model/README.md")
    texts = ["Fr33 pr1ze, c l a i m nοw", "see you at 7 tonight"]
    expected = probabilities_of_language_model(tmp_path / "mine/model", texts)
    shown = {}
    with contextlib.chdir(tmp_path):
        exec(code, shown)
    assert probabilities_in(shown["classify"](texts), "spam") == pytest.approx(expected, abs=1e-5)
    assert export_here(tmp_path, "mine/model", "merged") == 0
    assert probabilities_of_language_model(tmp_path / "merged", texts) == pytest.approx(expected, abs=1e-6)


def test_what_was_trained_on_an_export_is_no_export(tiny_review_adapter, tmp_path, train, capsys):
    assert export_here(tmp_path, tiny_review_adapter, "merged") == 0
    assert train("--model_name_or_path ./merged --num_train_epochs 1 --adapter_dir new") == 0
    assert export_here(tmp_path, tiny_review_adapter, "new") == 1
    assert "new exists and is no earlier export" in capsys.readouterr().err


def test_an_earlier_export_is_replaced_and_nothing_else(tiny_review_adapter, tmp_path, capsys):
    assert export_here(tmp_path, tiny_review_adapter, "new/merged") == 0, "missing folders are made"
    (tmp_path / "new/merged/README.md").write_text("old")
    assert export_here(tmp_path, tiny_review_adapter, "new/merged") == 0
    assert (tmp_path / "new/merged/README.md").read_text() != "old"
    (tmp_path / "empty").mkdir()
    assert export_here(tmp_path, tiny_review_adapter, "empty") == 0
    shutil.copytree(tiny_review_adapter, tmp_path / "adapter")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("text")
    before = files_in(tmp_path)
    for occupied in ("adapter", "photos", "file"):
        assert export_here(tmp_path, "adapter", occupied) == 1
        assert f"Error: {occupied} exists and is no earlier export" in capsys.readouterr().err
    assert files_in(tmp_path) == before


def test_nothing_is_half_written(tiny_review_adapter, tmp_path, monkeypatch, capsys):
    assert export_here(tmp_path, tiny_review_adapter, "merged") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()}

    def full_disk(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export, "exchange_folder", full_disk)
    assert export_here(tmp_path, tiny_review_adapter, "merged") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "Error: merged: cannot be written: No space left on device"
    assert {path.name: path.read_bytes() for path in (tmp_path / "merged").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_folder_that_cannot_be_exported_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/adapter_config.json").write_text("{")
    neither = "holds neither an adapter nor a model"
    for folder, message in (("nowhere", neither), ("empty", neither), ("broken", "broken")):
        assert export_here(tmp_path, folder, "merged") == 1
        *_, error = capsys.readouterr().err.splitlines()
        assert error.startswith("Error: ") and message in error
        assert not (tmp_path / "merged").exists()


def test_options_that_do_not_go_together(capsys):
    for flags, message in (
        ("", "name a folder to write, or --push_to_hub"),
        ("--onnx --push_to_hub me/x", "--onnx needs a folder to write"),
        ("merged --private", "--private needs --push_to_hub"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["lora_model", *flags.split()])
        assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------- what the documents show

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"

# Letter tricks, a special token spelled out, more tokens than the language model reads.
TEXTS = ["You won a prize! Call 09061701461", "See you at seven?", "Fr33 pr1ze <|im_end|>", "free " * 300]


@pytest.fixture(scope="module")
def workplace(merged, shipped_adapter) -> Path:
    """A folder with `lora_model`, its export, and a home whose Hub cache has the adapter's own base weights."""
    record = Settings.load(shipped_adapter).base_model
    put_into_hub_cache(merged.parent / "home", BASE, resolve_base_model(BASE, trained_on=record).path)
    return merged.parent


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


@pytest.mark.registry
def test_the_readmes_show_what_their_code_prints(workplace):
    english, chinese = (
        block for name in ("README.md", "README.zh-CN.md") for block in python_blocks(REPOSITORY / name)
    )
    lines = run_pasted_here(english, workplace).splitlines()
    for code in (english, chinese):
        assert lines == re.findall(r'"(\w+ \d\.\d{3})"', code) and len(lines) == 2
    assert re.sub("#.*", "", english) == re.sub("#.*", "", chinese)


@pytest.mark.registry
def test_the_model_card_shows_the_adapter(workplace, only_in_the_cache, expected):
    (code,) = python_blocks(workplace / "lora_model/README.md")
    check_logits(code, workplace, expected)


@pytest.mark.registry
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


@pytest.mark.registry
def test_an_adapter_of_an_earlier_time_is_loaded_as_ever(shipped_adapter, expected, tmp_path):
    shutil.copytree(shipped_adapter, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_replication": None}))
    assert torch.equal(logits_of(tmp_path / "adapter"), expected)


# ---------------------------------------------------------------------------- ONNX


def test_onnx_runtime_gives_the_same_logits(tiny_review_adapter, tmp_path, recwarn):
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--onnx") == 0
    exported = Classifier.load(tmp_path / "merged")
    tokenizer, model = exported.tokenizer, exported.model
    for batch_size in (1, 7):
        difference = onnx_export.compare(model, tokenizer, tmp_path / "merged/onnx/model.onnx", batch_size)
        assert difference < 1e-5
    assert "onnx/model.onnx" in (tmp_path / "merged/README.md").read_text()
    assert not [str(warning.message) for warning in recwarn if "onnx" in warning.filename]


def test_an_onnx_file_that_answers_otherwise_is_not_kept(tiny_review_adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.onnx.export", Mock())
    monkeypatch.setattr(onnx_export, "onnxscript", Mock())
    monkeypatch.setattr(onnx_export, "compare", lambda *_: 0.5)
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--onnx") == 1
    assert "logits differ by up to 0.5" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_before_any_work(tiny_review_adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "text_classifier.extras.onnx_export", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--onnx") == 1
    assert capsys.readouterr().err == "Error: --onnx needs onnxruntime: pip install -r requirements/onnx.txt\n"
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(tmp_path, serve, hub_at, monkeypatch):
    """A stand-in for the Hub, where a user named `me` is logged in; uploads are put into the folder `hub`."""
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    handler = hub_handler({}, tmp_path / "hub")
    hub_at(serve(handler))
    return handler


def test_an_export_is_sent_and_loaded_by_its_name(tiny_review_adapter, tmp_path, hub, capsys):
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--push_to_hub", "reviews") == 0
    assert f"Sent to {constants.ENDPOINT}/me/reviews" in capsys.readouterr().out and not hub.private
    assert files_in(tmp_path / "hub/me/reviews") == files_in(tmp_path / "merged")
    code = python_blocks(tmp_path / "merged/README.md")[0]
    assert 'model="me/reviews"' in code
    assert run_pasted_here(code, tmp_path).count("'label'") == 2
    assert list((tmp_path / "hub_cache").glob("models--me--reviews/snapshots/*/model.safetensors"))


def test_an_adapter_is_sent_as_it_is(tiny_review_adapter, tmp_path, hub, capsys):
    arguments = [tiny_review_adapter, "--push_to_hub", "me/adapter", "--private"]
    assert export_here(tmp_path, *arguments) == 0
    assert files_in(tmp_path / "hub/me/adapter") == files_in(tiny_review_adapter) and hub.private == {"me/adapter"}
    # What is public already does not become private.
    hub.private.clear()
    assert export_here(tmp_path, *arguments) == 1
    assert "it is there already and is public" in capsys.readouterr().err


NO_LOGIN = "--push_to_hub needs a connection to the Hub and a login"


@pytest.mark.parametrize(
    ("name", "token", "settings", "message"),
    [
        ("me/x", "", {}, NO_LOGIN),
        ("me/x", "hf_x", {"ENDPOINT": "http://127.0.0.1:9"}, NO_LOGIN),
        ("me/x", "hf_x", {"HF_HUB_OFFLINE": True}, NO_LOGIN),
        ("a/b/c", "hf_x", {}, "--push_to_hub a/b/c: Repo id must be"),
    ],
)
def test_what_cannot_be_sent_is_told_before_any_work(
    tiny_review_adapter, tmp_path, hub, monkeypatch, capsys, name, token, settings, message
):
    monkeypatch.setenv("HF_TOKEN", token)
    for setting, value in settings.items():
        monkeypatch.setattr(constants, setting, value)
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--push_to_hub", name) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"Error: {message}") and not (tmp_path / "merged").exists()


def test_what_the_hub_refuses_is_told_and_the_export_stays(tiny_review_adapter, tmp_path, hub, capsys):
    assert export_here(tmp_path, tiny_review_adapter, "merged", "--push_to_hub", "other/x") == 1
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: merged was not sent to other/x: 403")
    assert "don't have the rights" in error and (tmp_path / "merged/model.safetensors").is_file()


def test_only_a_trained_folder_is_sent(tmp_path, hub, capsys):
    (tmp_path / "keys").mkdir()
    assert export_here(tmp_path, "keys", "--push_to_hub", "me/x") == 1
    assert "neither an adapter nor a model" in capsys.readouterr().err and not hub.requests
