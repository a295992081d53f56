"""Measurements of speed and accuracy; each module runs as `python -m benchmarks.NAME` in the repository."""
