"""Scoring on a Ray cluster gives the same result as scoring in one process, even if a worker is killed."""

import os
import re
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from shared import PACKAGE_PATH, REPOSITORY

from text_classifier.__main__ import main
from text_classifier.classifier import Classifier
from text_classifier.extras.ray_scoring import PACKAGE
from text_classifier.reading.messages import ReadOptions, read_messages
from text_classifier.scoring import Task, score_file

ROWS = 20_000


@pytest.fixture
def messages(tmp_path):
    """A CSV file with blank texts, line breaks, quotes, commas, "NA" and emoji."""
    special = ["", "two\nlines", 'a "quoted" word', "a, b", "NA", "你好 👍", "  "]
    texts = special + [f"message {number}, call 0906{number}" for number in range(ROWS - len(special))]
    table = pd.DataFrame({"id": [f"{number:07}" for number in range(ROWS)], "Text": texts})
    table.to_csv(tmp_path / "messages.csv", index=False)
    return tmp_path / "messages.csv"


def test_other_machines_get_every_module_that_those_sent_to_them_import():
    for file in PACKAGE.rglob("*.py"):
        imported = re.findall(r"^ *(?:from|import) (\w+)", file.read_text(), re.MULTILINE)
        ours = {
            name for name in imported if list(REPOSITORY.glob(f"{name}.py")) + list(REPOSITORY.glob(f"{name}/*.py"))
        }
        assert ours <= {PACKAGE.name}


def test_nothing_is_lost_or_doubled_when_a_worker_is_killed(messages, tiny_review_adapter, tmp_path):
    target = tmp_path / "scored.csv"
    command = [sys.executable, "-m", "text_classifier", messages, "--output", target, "--workers", "2"]
    # Ray's workers are nicer than others, and would hardly get a core beside other work.
    environment = {**os.environ, "PYTHONPATH": PACKAGE_PATH, "RAY_worker_niceness": "0"}
    command += ["--adapter_dir", tiny_review_adapter]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def workers() -> list[psutil.Process]:
        """Return the processes that classify: Ray puts the name of their class, `Scorer`, into the command line."""
        return [one for one in psutil.process_iter(["cmdline"]) if "Scorer" in "".join(one.info["cmdline"] or [])]

    while process.poll() is None and not list(tmp_path.glob(".scored.csv.parts/*.csv")):
        time.sleep(0.1)
    (killed, *_) = workers()
    killed.kill()
    assert process.poll() is None, "it was killed midway"
    assert process.wait() == 0 and f"{ROWS:,} rows" in process.stdout.read()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["messages.csv", "scored.csv"]

    opened = read_messages(messages)
    task = Task(messages, ReadOptions(text_column=opened.text_columns), threshold=0.5, exact=False)
    score_file(opened, task, tmp_path / "alone.csv", Classifier.load(tiny_review_adapter), "")
    options = {"dtype": str, "keep_default_na": False}
    alone, together = (pd.read_csv(file, **options) for file in (tmp_path / "alone.csv", target))
    assert together["id"].tolist() == alone["id"].tolist(), "no row is lost, doubled or out of its order"
    assert together["Text"].tolist() == alone["Text"].tolist()
    assert together.columns.tolist() == alone.columns.tolist()
    probability = "positive_probability"
    told = together[probability].ne("")
    assert told.equals(alone[probability].ne("")) and (~told).sum() == 2
    difference = together[probability][told].astype(float) - alone[probability][told].astype(float)
    assert difference.abs().max() < 0.02, "workers may multiply in bfloat16"


@pytest.mark.parametrize(
    ("flags", "said"), [(["--text_column", "body"], "'body'"), (["--adapter_dir", "nowhere"], "nowhere")]
)
def test_mistakes_are_told_and_nothing_is_written(messages, tiny_review_adapter, tmp_path, flags, said, capsys):
    target = tmp_path / "scored.csv"
    argv = [str(messages), "--output", str(target), "--workers", "1", "--adapter_dir", str(tiny_review_adapter), *flags]
    assert main(argv) == 1
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["messages.csv"]


@pytest.mark.parametrize(
    ("flags", "said"), [(["--workers", "0"], "at least one"), (["--ray_address", "auto"], "needs --workers")]
)
def test_options_that_make_no_sense_together_are_told(messages, tmp_path, flags, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(messages), "--output", str(tmp_path / "scored.csv"), *flags])
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_without_its_extra_the_option_says_what_to_install(messages, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "text_classifier.extras.ray_scoring", raising=False)
    assert main([str(messages), "--output", str(tmp_path / "scored.csv"), "--workers", "2"]) == 1
    assert "--workers needs ray: pip install -r requirements/ray.txt" in capsys.readouterr().err
