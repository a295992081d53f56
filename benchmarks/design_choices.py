"""Measure what each design choice is worth: `python -m benchmarks.design_choices`.

Every row of the table is the default recipe, balanced 1:1 and with LoRA on all layers, with the changes that
the row's flags make. A row runs a command of its own once for each seed. The seed also draws the split, so
all rows share the same splits. A finished run is a line of design_choices.jsonl and is not repeated, so the
benchmark can be stopped and started again. The table, DESIGN_CHOICES.md, is written anew after every run.

`--rows` picks rows, `--seeds` sets the number of seeds, `--jobs` sets how many runs share the cores, and
`--list` shows every command.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase, set_seed

import gpt_classification_model
from benchmarks.common import REPOSITORY, spread, train
from text_classifier.errors import ArtifactError
from text_classifier.files import atomic_path
from text_classifier.metrics import markdown_table
from text_classifier.sources.datasets import DataFile, resolve_sms_spam
from text_classifier.sources.weights import BaseModel, resolve_base_model

RUNS = REPOSITORY / "benchmarks" / "design_choices.jsonl"
TABLE = REPOSITORY / "benchmarks" / "DESIGN_CHOICES.md"
SCRATCH = Path("results/design_choices")

SEEDS = (123, 124, 125)

# Base models: the decoder that every machine can load, an encoder, and the GPT that `gpt_pretraining.py` makes.
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PRETRAINED_HERE = "./results/gpt_pretraining_chitchat/model"

# Balanced 1:1 like the published recipe, but with other ham in each epoch, and in English; no base has more than 30
# layers.
BALANCED = (
    "--majority fresh --num_train_epochs 4 --learning_rate 5e-4 --lora_layers 30 --chinese_messages false "
    "--max_length 120"
)
ALL_HAM = "--majority all --num_train_epochs 3 --minority_repeats"
PUBLISHED = (
    "--majority same --num_train_epochs 5 --learning_rate 1e-4 "
    "--token_dropout 0 --text_noise 0 --normalize_text false --lora_dropout 0.1 --present_day_messages false "
    "--load_best_model_at_end true --metric_for_best_model accuracy --greater_is_better true"
)
# Titles in the table of the TF-IDF models, which every run also trains.
TFIDF_ROWS = {
    "TF-IDF, train": "Trained on the balanced messages",
    "TF-IDF, train + left out": "… and all ham",
    "TF-IDF, train + left out + today": "… and present-day messages",
}
READ_AFTER_PADDING = "-m benchmarks.design_choices --read_after_padding"


@dataclass(frozen=True)
class Base:
    """A base model: the weights that training starts from."""

    name: str
    weights: str
    layers: int | None = None
    random: bool = False

    def flags(self) -> list[str]:
        """Return the flags that all rows on this base model share."""
        path = str(random_base_dir(self.weights)) if self.random else self.weights
        layers = ["--num_hidden_layers", str(self.layers)] if self.layers else []
        return ["--model_name_or_path", path, "--fallback_model", "none", *BALANCED.split(), "--bf16", "true", *layers]


@dataclass(frozen=True)
class Row:
    """One design choice: its title in the table, and the changes in the training command."""

    name: str
    section: str
    title: str
    base: Base
    flags: str = ""
    script: str = "gpt_classification_model.py"

    def command(self, seed: int | str) -> list[str]:
        """Return the command of one run, as a person would type it in the repository."""
        seeds = ["--seed", str(seed), "--split_seed", str(seed)]
        return ["python", *self.script.split(), *self.base.flags(), *self.flags.split(), *seeds]


def make_rows() -> list[Row]:
    """Return all rows in the order of the table."""
    pretrained_here, smollm2_12 = Base("gpt-here", PRETRAINED_HERE), Base("smollm2-12", SMOLLM2, layers=12)
    bases = {
        "SmolLM2-135M, the fallback base, its 30 layers": Base("smollm2", SMOLLM2, layers=30),
        "… its first 12 layers": smollm2_12,
        "… 12 layers of random weights": Base("smollm2-12-random", SMOLLM2, layers=12, random=True),
        "all-MiniLM-L6, an encoder": Base("minilm", MINILM),
        "… random weights": Base("minilm-random", MINILM, random=True),
        "GPT-2's architecture, 7 M, pretrained here": pretrained_here,
        "… random weights of that size": Base("gpt-here-random", PRETRAINED_HERE, random=True),
        "GPT-2 (124 M)": Base("gpt2", "gpt2"),
        "GPT-2 medium (355 M)": Base("gpt2-medium", "gpt2-medium"),
        "DistilBERT": Base("distilbert", "distilbert-base-uncased"),
    }
    rows = [Row(base.name, "Base", title, base) for title, base in bases.items()]
    tuned, recipe = "What is trained, on the 7 M GPT-2", "Recipe, on the 7 M GPT-2"
    choices = [
        ("rank-4", tuned, "LoRA of rank 4 (default: 8)", "--lora_r 4"),
        ("rank-16", tuned, "LoRA of rank 16", "--lora_r 16"),
        ("head", tuned, "New head only, learning rate 5e-3", "--tuning head --learning_rate 5e-3"),
        ("last-block", tuned, "Last block, 5e-5", "--tuning last_block --learning_rate 5e-5"),
        ("last-two-blocks", tuned, "Last two blocks, 5e-5", "--tuning last_two_blocks --learning_rate 5e-5"),
        ("full", tuned, "All layers, 5e-5", "--tuning full --learning_rate 5e-5"),
        ("same-ham", recipe, "The same ham every epoch", "--majority same"),
        ("all-ham", recipe, "All ham every epoch, 3 epochs", f"{ALL_HAM} 1 --sure_share 1"),
        ("spam-twice", recipe, "… and spam twice", f"{ALL_HAM} 2 --sure_share 1"),
        ("best-checkpoint", recipe, "The best checkpoint, not the last", "--load_best_model_at_end true"),
        ("no-today", recipe, "No present-day messages", "--present_day_messages false"),
        ("no-token-dropout", recipe, "No token dropout", "--token_dropout 0"),
        ("no-noise", recipe, "No noise", "--text_noise 0"),
        ("lora-dropout", recipe, "LoRA dropout 0.1 (default: 0)", "--lora_dropout 0.1"),
        ("lr-1e-4", recipe, "Learning rate 1e-4 (default: 5e-4)", "--learning_rate 1e-4"),
        ("published", recipe, "As published: same ham, no noise of any kind, 1e-4, 5 epochs", PUBLISHED),
    ]
    rows += [Row(f"gpt-here/{key}", section, title, pretrained_here, flags) for key, section, title, flags in choices]
    padded = "No noise, padded to 120, answer read after the padding"
    rows.append(Row("gpt-here/padded", recipe, padded, pretrained_here, "--text_noise 0", READ_AFTER_PADDING))
    section, title = "Recipe, on 12 layers of SmolLM2", "All ham every epoch, spam twice, 3 epochs"
    rows.append(Row("smollm2-12/spam-twice", section, title, smollm2_12, f"{ALL_HAM} 2 --sure_share 1"))
    return rows


# ---------------------------------------------------------------------------- runs


def random_base_dir(name: str) -> Path:
    """Return the folder for random weights of a base model's architecture."""
    return SCRATCH / "bases" / f"{name.removeprefix('./').replace('/', '--')}-random"


def fetch(base: Base) -> bool:
    """Fetch the weights of a base model, or make random ones of its architecture.

    Returns:
        False if the base model cannot be fetched; the reason is printed.
    """
    try:
        found = resolve_base_model(base.weights)
    except ArtifactError as error:
        print(f"{base.name}: not run. {str(error).splitlines()[0]}", flush=True)
        return False
    if base.random:
        set_seed(0)
        folder = random_base_dir(base.weights)
        AutoModel.from_config(AutoConfig.from_pretrained(found.path)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(found.path).save_pretrained(folder)
    return True


def read_after_padding(argv: list[str]) -> int:
    """Train like the early tutorials: fill messages with end-of-text up to 120 tokens, read the answer at the last."""

    class PaddedDataset(gpt_classification_model.SpamDataset):
        def __init__(self, csv_file, tokenizer, max_length, *columns):
            super().__init__(csv_file, tokenizer, max_length, *columns)
            filler = {"input_ids": tokenizer.eos_token_id, "attention_mask": 1}
            for name, value in filler.items():
                rows = self.encoded[name]
                self.encoded[name] = [row + [value] * (max_length - len(row)) for row in rows]
            self.lengths = [max_length] * len(self)

    def load_tokenizer(base: BaseModel, max_length: int, normalize_text: bool) -> PreTrainedTokenizerBase:
        tokenizer = gpt_classification_model.load_tokenizer(base, max_length, normalize_text)
        # The model answers at the last token that is no pad token, so the pad token must not be end-of-text.
        ordinary = next(number for number in range(len(tokenizer)) if number not in tokenizer.all_special_ids)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ordinary)
        return tokenizer

    return gpt_classification_model.main(argv, dataset_class=PaddedDataset, tokenizer_loader=load_tokenizer)


def run(row: Row, seed: int, jobs: int, messages: DataFile) -> dict:
    """Run one row with one seed and return its figures."""
    folder = SCRATCH / row.name / str(seed)
    usage = train(row.command(seed), folder, messages, jobs)
    report = json.loads((folder / "metrics.json").read_text())
    for remains in (*folder.glob("checkpoint-*"), folder / "model", folder / "dataset"):
        shutil.rmtree(remains)

    def figures(model: str) -> dict:
        splits = report["results"][model]
        return {
            "validation": splits["validation"]["accuracy"],
            "test": splits["test"]["accuracy"],
            "left_out_false_positives": splits["left_out"]["false_positive_rate"],
        }

    return {
        "row": row.name,
        "seed": seed,
        **figures("after"),
        "trainable_parameters": report["training"]["trainable_parameters"],
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_gib": round(report["peak_memory_gib"], 2),
        "test_messages": report["results"]["after"]["test"]["n"],
        "left_out_messages": report["results"]["after"]["left_out"]["n"],
        "tfidf": {name: figures(name) for name in report["results"] if name.startswith("TF-IDF")},
        "base_sha256": report["base_model"]["sha256"],
        "data": report["data"]["source"].removesuffix(", local copy"),
        "hardware": report["hardware"],
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "versions": report["versions"],
    }


def read_runs() -> list[dict]:
    """Return the finished runs."""
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.is_file() else []


# ---------------------------------------------------------------------------- table


def table_row(title: str, runs: list[dict]) -> list[str]:
    """Return the cells of one row. Runs of TF-IDF have no parameters, time and memory, so these cells get a dash."""
    cells = [title, f"{runs[0]['trainable_parameters']:,}" if "trainable_parameters" in runs[0] else "–"]
    cells += [spread([one[name] for one in runs]) for name in ("validation", "test", "left_out_false_positives")]
    for name, scale in (("cpu_seconds", 1 / 60), ("peak_memory_gib", 1)):
        cells.append(spread([one[name] for one in runs], scale, 1) if name in runs[0] else "–")
    return [*cells, str(len(runs))]


def table_rows(rows: list[Row], by_row: dict[str, list[dict]], with_tfidf: list[dict]) -> list[list[str]]:
    """Return the table: for each section a heading, a row with nothing changed, and the rows that were run.

    Args:
        by_row: the finished runs of each row.
        with_tfidf: for each seed the figures of the TF-IDF models.
    """
    head = ["", "Trainable parameters", "Validation %", "Test %", "False positives %", "CPU min", "Peak GiB", "Runs"]

    def heading(title: str) -> list[str]:
        return [f"**{title}**", *[""] * (len(head) - 1)]

    table, section = [head], None
    for row in rows:
        if not by_row[row.name]:
            continue
        if row.section != section:
            section = row.section
            table.append(heading(section))
            if row.name != row.base.name and by_row[row.base.name]:
                table.append(table_row("Nothing changed", by_row[row.base.name]))
        table.append(table_row(row.title, by_row[row.name]))
    if with_tfidf:
        table.append(heading("TF-IDF and logistic regression"))
        table += [table_row(title, [of_seed[name] for of_seed in with_tfidf]) for name, title in TFIDF_ROWS.items()]
    return table


def list_commands(rows: list[Row], by_row: dict[str, list[dict]]) -> str:
    """Return the commands of the rows that were run, and of those that were not."""
    explanations = {
        "Commands": "`python -m benchmarks.design_choices --rows NAME` runs a row, which is `python` with the\n"
        "words below, outputs of its own and the seed. "
        f"`{PRETRAINED_HERE}` is made by\n`python gpt_pretraining.py recipes/gpt_pretraining_chitchat.yaml`.",
        "Not run here": "The weights could not be had, or time was short.",
    }
    sections = []
    for title, explanation in explanations.items():
        chosen = [row for row in rows if bool(by_row[row.name]) == (title == "Commands")]
        commands = [
            f"- {row.name}: `{row.script} {shlex.join([*row.base.flags(), *row.flags.split()])}`" for row in chosen
        ]
        sections += ["\n".join([f"\n## {title}\n\n{explanation}\n", *commands])] if chosen else []
    return "\n".join(sections)


def make_table(rows: list[Row], runs: list[dict]) -> str:
    """Return the text of DESIGN_CHOICES.md, made from the finished runs.

    Raises:
        SystemExit: the runs have different messages, or those of one row different weights, so that their mean
            would say nothing.
    """
    by_row = {row.name: [one for one in runs if one["row"] == row.name] for row in rows}
    bases = [{one["base_sha256"] for one in of_row} for of_row in by_row.values()]
    sizes = {(one["test_messages"], one["left_out_messages"], one["data"]) for one in runs}
    if len(sizes) > 1 or any(len(weights) > 1 for weights in bases):
        raise SystemExit(f"{RUNS} holds runs of different data or weights: put it away and start anew.")
    ((test_messages, left_out_messages, data),) = sizes
    by_seed = {one["seed"]: one["tfidf"] for one in runs if TFIDF_ROWS.keys() <= one["tfidf"].keys()}
    table = markdown_table(table_rows(rows, by_row, [by_seed[seed] for seed in sorted(by_seed)]))
    machines = sorted({f"{one['hardware']}, torch {one['versions']['torch']}" for one in runs})
    commits = ", ".join(sorted({one["commit"] or "no commit" for one in runs}))
    return f"""# Design choices, measured

Every row is the default recipe (`recipes/sms_spam_gpt2.yaml`), but balanced 1:1 with other ham in each of 4
epochs, with LoRA on all layers and a learning rate of 5e-4, and with what the row names changed: mean ± standard
deviation over seeds, which draw the split as well; all rows share the seeds' splits. Made by
`python -m benchmarks.design_choices` from the runs in `design_choices.jsonl`. When they were made, the recipe read 120
tokens and had no Chinese messages, and an epoch took a third of 1,052 present-day messages. Figures are those of the
language model alone, without the TF-IDF model that the default recipe lets answer with it.

The test split has {test_messages} messages: one is {100 / test_messages:.2f} points. *False positives* are on
{left_out_messages} ham messages that balancing left out and training never saw. All runs are in bfloat16
mixed precision. Time is CPU time of the whole command, with evaluation; two idle cores need half of it.

{table}

Messages from: {data}. Run on {"; ".join(machines)}, with the code of {commits}.
{list_commands(rows, by_row)}
"""


def main() -> int:
    """Run the missing rows that the command line asks for; return the exit code."""
    # Commands and folders are relative to the repository.
    os.chdir(REPOSITORY)
    rows = make_rows()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [row.name for row in rows]
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=names, default=names, help="default: all")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), choices=range(1, len(SEEDS) + 1))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, sharing the cores")
    parser.add_argument("--list", action="store_true", help="show names and commands, run nothing")
    options = parser.parse_args()
    if options.list:
        for row in rows:
            print(f"{row.name}\n  {shlex.join(row.command('SEED'))}")
        return 0
    chosen = [row for row in rows if row.name in options.rows]
    done = {(one["row"], one["seed"]) for one in read_runs()}
    # Run every row with one seed before the next seed, so that the table has all rows early.
    waiting = [(row, seed) for seed in SEEDS[: options.seeds] for row in chosen if (row.name, seed) not in done]
    at_hand = {base for base in {row.base for row, _ in waiting} if fetch(base)}
    messages = resolve_sms_spam(SCRATCH / "dataset")
    one_writes = threading.Lock()

    def run_and_record(row: Row, seed: int) -> None:
        record = run(row, seed, options.jobs, messages)
        with one_writes:
            with RUNS.open("a") as file:
                file.write(json.dumps(record) + "\n")
            with atomic_path(TABLE) as scratch:
                scratch.write_text(make_table(rows, read_runs()), encoding="utf-8")
        print(f"{row.name}, seed {seed}: {100 * record['test']:.2f} %", flush=True)

    pool = ThreadPoolExecutor(options.jobs)
    try:
        for finished in as_completed(
            [pool.submit(run_and_record, row, seed) for row, seed in waiting if row.base in at_hand]
        ):
            finished.result()
    finally:
        # However this ends, start no new run, and record the runs that are still running.
        pool.shutdown(cancel_futures=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read_after_padding"]:
        sys.exit(read_after_padding(sys.argv[2:]))
    sys.exit(main())
