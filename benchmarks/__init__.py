"""Measurements of speed and accuracy; `python -m benchmarks.NAME` in the repository runs one."""

import os

# All figures are of CPU cores, also on a machine with a GPU.
os.environ["DEVICE"] = "cpu"
