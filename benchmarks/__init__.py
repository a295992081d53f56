"""Measurements of speed and accuracy; `python -m benchmarks.NAME` in the repository runs one."""
