"""Run what documents and model cards show, as pasted."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from hub_stand_in import COMMIT


def python_blocks(document: Path) -> list[str]:
    """Return the Python code that a Markdown file shows, block by block."""
    return re.findall(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_pasted_here(code: str, folder: Path) -> str:
    """Run code in this process, where `folder` is the working directory, and return what it prints."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    return printed.getvalue()


def run_pasted(code: str, folder: Path, **environment: str) -> str:
    """Run code in a new process, where `folder` is the working directory, and return what it prints.

    It may need other settings of libraries that read them when they are imported.
    """
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def put_into_hub_cache(home: Path, name: str, model: Path) -> None:
    """Put a model folder into the Hub's cache in `home`, as if it had been downloaded; its files are not copied."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
