"""Measurements of speed and accuracy; `python -m benchmarks.NAME` in the repository runs one."""

import os

# The tables tell of CPU cores, on a machine with a GPU too.
os.environ["DEVICE"] = "cpu"
