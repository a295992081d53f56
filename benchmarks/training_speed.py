"""Measure how much faster training is than with the published recipe: `python -m benchmarks.training_speed`.

Whole runs on the base model that `gpt2` falls back to, each in a process of its own: the default recipe, the same in
two processes that share the cores, and the published recipe, which trains all layers for five epochs, in float32.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.common import publish, train
from text_classifier.metrics import markdown_table, percent

SCRIPT = "gpt_classification_model.py"
RUNS = {
    "default recipe": SCRIPT,
    # Both processes together take 16 messages a step, as one does.
    "... in two processes": f"-m torch.distributed.run --nproc_per_node 2 {SCRIPT} --per_device_train_batch_size 8",
    "published recipe": f"{SCRIPT} recipes/sms_spam_gpt2_published.yaml --protocol deduplicated --bf16 false",
}


def main() -> None:
    """Measure, write the table to TRAINING_SPEED.md and print it."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [["Run", "Training with its evaluations, min", "From start to end, min", "Peak GiB", "Right, %"]]
    for name, command in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            report = train(command.split(), Path(folder), stdout=sys.stderr)
        minutes = [f"{seconds / 60:.1f}" for seconds in (report["training"]["train_seconds"], report["total_seconds"])]
        right = percent(report["results"][report["saved"]]["natural"]["accuracy"])
        rows.append([name, *minutes, f"{report['peak_memory_gib']:.1f}", right])
    publish(__file__, "Training speed", markdown_table(rows))


if __name__ == "__main__":
    main()
