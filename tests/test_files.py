"""Files and folders are whole, whenever a process is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from shared import PACKAGE_PATH

from text_classifier.files import atomic_path


def run_until_killed(script: str, *argv: str) -> None:
    """Run Python code that kills itself; if it prints `ready`, kill it a moment later."""
    command, environment = [sys.executable, "-c", script, *argv], {**os.environ, "PYTHONPATH": PACKAGE_PATH}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline():
            time.sleep(0.2)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_atomic_path_keeps_the_old_file_when_writing_fails_or_is_killed(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    script = (
        "import os, sys, pathlib, text_classifier.files as a\n"
        "with a.atomic_path(pathlib.Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run_until_killed(script, str(target))
    assert target.read_text() == "old"


def test_killed_at_random_while_exchanging_folders(tmp_path):
    """The folder is there and whole, whenever the process is killed."""
    script = (
        "import itertools, sys, pathlib, text_classifier.files as a\n"
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
