"""Measure how much faster training is than with the published recipe: `python -m benchmarks.training_speed`.

Whole runs on the base model that `gpt2` falls back to, each in a process of its own:

- the default recipe;
- the default recipe in two processes that share the cores;
- the published recipe as tutorials run it: all layers, five epochs, float32, padded to 120 tokens, random order,
  evaluation unsorted, all training messages predicted at every evaluation. It takes half an hour or more, so only a few
  of its steps and one evaluation are run. Its time is computed from theirs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from transformers import DataCollatorWithPadding, Trainer

from benchmarks.common import publish, train
from gpt_classification_model import AccuracyCallback, SpamDataset, build_model, compute_metrics, prepare
from text_classifier.files import write_json
from text_classifier.metrics import markdown_table
from text_classifier.training.config import parse_arguments
from text_classifier.training.models import load_tokenizer
from text_classifier.training.runs import peak_memory_gib

PUBLISHED_RECIPE = ("recipes/sms_spam_gpt2_published.yaml", "--protocol", "deduplicated", "--bf16", "false")
# What the published recipe trains: epochs, messages a step, steps between two evaluations.
EPOCHS, BATCH, EVALUATE_EVERY = 5, 16, 100


class TimedTrainer(Trainer):
    """`Trainer` that adds up the seconds of its evaluations, callbacks included."""

    evaluation_seconds = 0.0

    def evaluate(self, *arguments, **options) -> dict[str, float]:
        started = time.perf_counter()
        metrics = super().evaluate(*arguments, **options)
        self.evaluation_seconds += time.perf_counter() - started
        return metrics


def train_as_tutorials_do(argv: list[str]) -> None:
    """Train with a plain `Trainer` and parts of this project; write the times to metrics.json."""
    model_args, data_args, args = parse_arguments(argv)
    _, label_names, _, base = prepare(model_args, data_args, args)
    tokenizer = load_tokenizer(base, data_args.max_length)
    datasets = {
        name: SpamDataset(Path(data_args.dataset_dir, f"{name}.csv"), tokenizer, data_args.max_length)
        for name in ("train", "validation")
    }
    trainer = TimedTrainer(
        model=build_model(base, tokenizer, label_names, model_args),
        args=args,
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        data_collator=DataCollatorWithPadding(tokenizer, padding="max_length", max_length=data_args.max_length),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.add_callback(AccuracyCallback(trainer))
    outcome = trainer.train()
    figures = {
        "train_seconds": outcome.metrics["train_runtime"],
        "evaluation_seconds": trainer.evaluation_seconds,
        "train_messages": len(datasets["train"]),
        "peak_memory_gib": peak_memory_gib(),
    }
    write_json(figures, Path(args.output_dir, "metrics.json"))


def run(*command: str) -> dict:
    """Run a training command in a folder of its own, and return its report."""
    with tempfile.TemporaryDirectory() as folder:
        return train(command, Path(folder), stdout=sys.stderr)


def main() -> None:
    """Measure, write the table to TRAINING_SPEED.md and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="steps of the published recipe")
    steps = parser.parse_args().steps
    two = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    runs = {"default recipe": run("gpt_classification_model.py")}
    smaller_batch = ["--per_device_train_batch_size", "8"]
    runs["... in two processes"] = run(*two, "gpt_classification_model.py", *smaller_batch)
    rows = [["Run", "Training with its evaluations, min", "From start to end, min", "Peak GiB", "Right, %"]]
    for name, report in runs.items():
        minutes = [f"{seconds / 60:.1f}" for seconds in (report["training"]["train_seconds"], report["total_seconds"])]
        right = report["results"][report["saved"]]["natural"]["accuracy"]
        rows.append([name, *minutes, f"{report['peak_memory_gib']:.1f}", f"{100 * right:.2f}"])
    of_steps = [word for name in ("max", "eval", "save") for word in (f"--{name}_steps", str(steps))]
    theirs = run("-m", "benchmarks.training_speed", "--as-tutorials-do", *PUBLISHED_RECIPE, *of_steps)
    a_step = (theirs["train_seconds"] - theirs["evaluation_seconds"]) / steps
    all_steps = EPOCHS * -(-theirs["train_messages"] // BATCH)
    seconds = all_steps * a_step + all_steps // EVALUATE_EVERY * theirs["evaluation_seconds"]
    shown = f"published recipe, from {steps} of its {all_steps} steps"
    rows.append([shown, f"{seconds / 60:.1f}", "", f"{theirs['peak_memory_gib']:.1f}", ""])
    publish(__file__, "Training speed", markdown_table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-tutorials-do"]:
        train_as_tutorials_do(sys.argv[2:])
    else:
        main()
