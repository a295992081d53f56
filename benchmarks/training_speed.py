"""Measure how much faster training is than with the published recipe: `python -m benchmarks.training_speed`.

**Steps.** GPT-2 small's architecture (124 M parameters) is trained with LoRA on the SMS Spam Collection's
training split. Its weights are random, because speed does not depend on their values. The batch size is
always the same, in these ways:

- every message padded to 120 tokens, in random order, as tutorials do it;
- padded to the longest message of the batch, in random order;
- padded to the longest message of the batch, messages of similar length together;
- the same without dropout in LoRA, with plain instead of fused attention, and GELU in one step instead of eight;
- the same in bfloat16, with the frozen matrices stored in it, as the default recipe does; only on a CPU that has
  instructions for it.

The ways take turns for several rounds, with the same number of steps each. The best round of each way
counts, so that a busy moment of the machine harms none of them. The table shows messages per second, their
ratio, and a share: the model's arithmetic on tokens that are not padding, divided by the fastest float32
matrix product measured in the same run. The peak in bfloat16 is higher, so the share may exceed 100 %.

**Whole runs** use the base model that `gpt2` falls back to, each in a process of its own:

- the published recipe as tutorials run it: all layers, five epochs, float32, padded to 120 tokens, random order,
  evaluation unsorted, all training messages predicted at every evaluation;
- the default recipe;
- the default recipe in two processes that share the cores;
- the default recipe balanced like the published one, because it otherwise reads three times as many messages.

The published recipe takes half an hour, so only a few of its steps and one evaluation are run. Its time is
computed from theirs.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    PreTrainedTokenizerFast,
    Trainer,
)

from benchmarks.common import FIGURES, REPOSITORY
from gpt_classification_model import (
    LORA_TARGETS,
    AccuracyCallback,
    SpamDataset,
    build_model,
    compute_metrics,
    load_splits,
)
from text_classifier.errors import ArtifactError
from text_classifier.files import write_json
from text_classifier.merged import quiet_loading
from text_classifier.metrics import markdown_table
from text_classifier.runtime import fast_dtype
from text_classifier.sources.weights import resolve_base_model, resolve_base_model_or_fallback
from text_classifier.training.batches import LengthGroups
from text_classifier.training.config import DataArguments, parse_arguments
from text_classifier.training.models import FUSED_ACTIVATIONS, load_tokenizer, store_frozen_in_bfloat16
from text_classifier.training.runs import peak_memory_gib

PUBLISHED_RECIPE = ("recipes/sms_spam_gpt2_published.yaml", "--protocol", "deduplicated", "--bf16", "false")


def gpt2_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return GPT-2's own tokenizer; where the Hub cannot be reached, train one of the same kind on the texts."""
    try:
        return load_tokenizer(resolve_base_model("gpt2"), max_length=120)
    except ArtifactError:
        print("GPT-2's tokenizer cannot be reached; using a byte-level BPE trained on the messages.")
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(texts, vocab_size=50257, special_tokens=["<|endoftext|>"], show_progress=False)
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=end, pad_token=end)


def make_model(tokenizer: PreTrainedTokenizerFast, lora_dropout: float, attention: str, activation: str) -> PeftModel:
    """Return GPT-2 small with random weights, wrapped in LoRA."""
    torch.manual_seed(0)
    config = GPT2Config(num_labels=2, pad_token_id=tokenizer.pad_token_id, activation_function=activation)
    targets = {"target_modules": LORA_TARGETS["gpt2"], "fan_in_fan_out": True}
    lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, lora_dropout=lora_dropout, **targets)
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
        return get_peft_model(model, lora)


def peak_flops(size: int = 2048, repeats: int = 8) -> float:
    """Return the operations per second of the fastest float32 product of two `size` × `size` matrices."""
    matrix = torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def flops_per_message(model: PeftModel, lengths: list[int]) -> float:
    """Return the mean number of operations for training on one message, without padding.

    A frozen weight takes 2 operations per token forward and 2 backward, because it gets no gradient of its own.
    Embeddings take none. Attention takes 12 per pair of tokens and dimension, forward and backward together.

    Args:
        lengths: number of tokens of each message.
    """
    config = model.config
    frozen = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if not weight.requires_grad and weight.dim() == 2 and "wte" not in name and "wpe" not in name
    )
    attention = 12 * config.n_layer * config.n_embd
    return sum(4 * frozen * length + attention * length**2 for length in lengths) / len(lengths)


def messages_per_second(
    model: PeftModel, loader: DataLoader | list, optimizer: torch.optim.Optimizer, mixed: bool = False
) -> float:
    """Train on all batches of a loader once, and return the messages per second.

    Args:
        mixed: whether to compute in bfloat16 mixed precision.
    """
    messages, started = 0, time.perf_counter()
    precision = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    for batch in loader:
        with precision:
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        messages += len(batch["labels"])
    return messages / (time.perf_counter() - started)


class TimedTrainer(Trainer):
    """`Trainer` that adds up the seconds of its evaluations, callbacks included."""

    evaluation_seconds = 0.0

    def evaluate(self, *arguments, **options) -> dict[str, float]:
        started = time.perf_counter()
        metrics = super().evaluate(*arguments, **options)
        self.evaluation_seconds += time.perf_counter() - started
        return metrics


def train_as_tutorials_do(argv: list[str]) -> None:
    """Train like the early tutorials, with a plain `Trainer` and parts of this project; print the times as JSON.

    Messages are padded to 120 tokens and come in random order. Evaluation does not sort them, and every
    evaluation also predicts all training messages.
    """
    model_args, data_args, args = parse_arguments(argv)
    splits, label_names, _ = load_splits(data_args)
    base = resolve_base_model_or_fallback(model_args.model_name_or_path, model_args.fallback_model)
    tokenizer = load_tokenizer(base, data_args.max_length)
    datasets = {}
    for name in ("train", "validation"):
        csv_file = Path(data_args.dataset_dir, f"{name}.csv")
        splits[name].to_csv(csv_file, index=False)
        datasets[name] = SpamDataset(csv_file, tokenizer, data_args.max_length)
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
    print(json.dumps(figures))


def compare_whole_runs(steps: int) -> dict:
    """Run the default recipe in one process and in two; run `steps` steps of the published recipe.

    Returns:
        For each run its minutes and the peak memory of a process in GiB. For runs of the default recipe also the
        minutes with all evaluation and the accuracy at the natural ratio; for the published one its steps.

    Raises:
        SystemExit: a run failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = ["--output_dir", folder / "results", "--adapter_dir", folder / "model", "--dataset_dir", folder]
        outputs += ["--metrics_pdf", folder / "metrics.pdf", "--disable_tqdm", "true"]

        def run(*script: str) -> str:
            command = [sys.executable, *script, *map(str, outputs)]
            process = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
            if process.returncode:
                raise SystemExit(f"failed: {command}")
            return process.stdout

        whole = {}
        two = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
        for name, launcher, flags in (
            ("ours", [], []),
            ("two_processes", two, ["--per_device_train_batch_size", "8"]),
        ):
            print(f"Running the default recipe: {name} ...", flush=True)
            run(*launcher, "gpt_classification_model.py", *flags)
            report = json.loads((folder / "results" / "metrics.json").read_text())
            whole[name] = {
                "minutes": report["training"]["train_seconds"] / 60,
                "from_start_to_end_minutes": report["total_seconds"] / 60,
                "gib": report["peak_memory_gib"],
                "natural_ratio": report["results"][report["saved"]]["natural"]["accuracy"],
            }
        print(f"Running {steps} steps of the published recipe ...", flush=True)
        of_steps = ["--max_steps", str(steps), "--eval_steps", str(steps), "--save_steps", str(steps)]
        theirs = json.loads(
            run("-m", "benchmarks.training_speed", "--as-tutorials-do", *PUBLISHED_RECIPE, *of_steps).splitlines()[-1]
        )
    a_step = (theirs["train_seconds"] - theirs["evaluation_seconds"]) / steps
    epochs, batch, evaluate_every = 5, 16, 100
    all_steps = epochs * -(-theirs["train_messages"] // batch)
    seconds = all_steps * a_step + all_steps // evaluate_every * theirs["evaluation_seconds"]
    whole["published"] = {"minutes": seconds / 60, "gib": theirs["peak_memory_gib"], "steps": [steps, all_steps]}
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--messages", type=int, default=192, help="messages a round trains on, a multiple of 16")
    parser.add_argument("--steps", type=int, default=20, help="steps of the published recipe; 0: no whole runs")
    options = parser.parse_args()
    os.chdir(REPOSITORY)

    with tempfile.TemporaryDirectory() as folder:
        splits, _, _ = load_splits(DataArguments(dataset_dir=folder))
        train = splits["train"].sample(options.messages, random_state=0)
        train.to_csv(Path(folder, "train.csv"), index=False)
        tokenizer = gpt2_tokenizer(splits["train"]["Text"].tolist())
        dataset = SpamDataset(Path(folder, "train.csv"), tokenizer, 120)
    print(f"{len(dataset)} messages a round, {sum(dataset.lengths) / len(dataset):.1f} tokens on average")

    grouped = LengthGroups(dataset, group_size=16, seed=0)
    longest = DataCollatorWithPadding(tokenizer)
    to_120 = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=120)
    as_ours = (0.0, "eager", FUSED_ACTIVATIONS["gelu_new"])
    tutorial, ours = make_model(tokenizer, 0.1, "sdpa", "gelu_new"), make_model(tokenizer, *as_ours)
    together = DataLoader(dataset, 16, sampler=grouped, collate_fn=longest)
    to_120_random, longest_random = (
        DataLoader(dataset, 16, shuffle=True, collate_fn=collator) for collator in (to_120, longest)
    )
    # Each way has a model, its batches, and whether it computes in mixed precision.
    ways = {
        "padded to 120, random order": (tutorial, to_120_random, False),
        "padded to the longest, random order": (tutorial, longest_random, False),
        "grouped by length": (tutorial, together, False),
        "... no LoRA dropout, plain attention, GELU in one step": (ours, together, False),
    }
    if fast_dtype() is torch.bfloat16:
        mixed_ours = make_model(tokenizer, *as_ours)
        store_frozen_in_bfloat16(mixed_ours)
        ways["... in bfloat16"] = (mixed_ours, together, True)
    best = dict.fromkeys(ways, 0.0)
    for number in range(options.rounds + 1):
        for name, (model, loader, mixed) in ways.items():
            optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
            # The first round only warms up, with one batch.
            batches = loader if number else [next(iter(loader))]
            speed = messages_per_second(model, batches, optimizer, mixed)
            best[name] = max(best[name], speed if number else 0.0)

    slowest, peak, work = next(iter(best.values())), peak_flops(), flops_per_message(ours, dataset.lengths)
    print(f"\nfloat32 peak: {peak / 1e9:.0f} GFLOP/s; {work / 1e9:.1f} GFLOP a message")
    rows = [["Batches", "Messages/s", "Ratio", "Share of the float32 peak"]]
    rows += [
        [name, f"{speed:.2f}", f"{speed / slowest:.2f}", f"{100 * speed * work / peak:.0f} %"]
        for name, speed in best.items()
    ]
    print(f"\n{markdown_table(rows)}")
    figures = {
        "steps": {name: {"messages_per_second": speed, "share": speed * work / peak} for name, speed in best.items()}
    }
    if options.steps:
        figures["whole"] = whole = compare_whole_runs(options.steps)
        rows = [["Whole run, training with its evaluations", "Minutes", "Peak GiB of a process"]]
        rows += [[name, f"{of_run['minutes']:.1f}", f"{of_run['gib']:.1f}"] for name, of_run in whole.items()]
        print(f"\n{markdown_table(rows)}")
        print("\nOf the published recipe's {1} steps {0} were run.".format(*whole["published"]["steps"]))
    write_json(figures, FIGURES / "training_speed.json")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-tutorials-do"]:
        train_as_tutorials_do(sys.argv[2:])
    else:
        main()
