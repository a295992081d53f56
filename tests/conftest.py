"""Load the fixtures of shared.py, which import PyTorch, only where tests run.

With pytest-xdist, the first process just hands out the tests.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared")
