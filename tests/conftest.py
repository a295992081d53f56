"""Load the fixtures of shared.py, which import PyTorch, only where tests run, and let processes start faster.

With pytest-xdist, the first process just hands out the tests.
"""

import os
from pathlib import Path

import pytest

# Processes that tests start run quick_start/sitecustomize.py first, unless PYTHONPATH is set already.
os.environ.setdefault("PYTHONPATH", str(Path(__file__).with_name("quick_start")))


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared")
