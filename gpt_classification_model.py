"""Fine-tune GPT-2 with LoRA into a classifier of short messages.

    python gpt_classification_model.py                                         # the default recipe
    python gpt_classification_model.py --num_train_epochs 1                    # one thing changed
    python gpt_classification_model.py recipes/sms_spam_gpt2_published.yaml    # another recipe
    torchrun --nproc_per_node 2 gpt_classification_model.py                    # two processes

A recipe (YAML) sets the defaults, flags override it, `--help` lists them all.
"""

import copy
import csv
import dataclasses
import importlib.metadata
import itertools
import json
import logging
import math
import os
import platform
import random
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
import psutil
import torch
import yaml
from accelerate.utils import broadcast_object_list
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import CONFIG_NAME
from tokenizers import normalizers
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.pytorch_utils import Conv1D
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import get_last_checkpoint

from evaluation_report import (
    HELD_OUT,
    model_card,
    plot_reliability,
    predictions_together,
    results_table,
    score,
    tfidf_predictions,
)
from text_classifier.errors import ArtifactError, ConfigurationError
from text_classifier.feedback import read_feedback
from text_classifier.files import atomic_path, exchange_folder, file_sha256, write_json
from text_classifier.inference import encode, fast_dtype, quiet_loading
from text_classifier.sources.datasets import read_sms_spam, resolve_imdb, resolve_sms_spam
from text_classifier.sources.weights import BaseModel, resolve_base_model_or_fallback
from text_classifier.tables import read_table
from text_classifier.tfidf import TfidfModel, fit_tfidf, save_tfidf
from text_classifier.training.text_noise import add_noise, make_normalizer

logger = logging.getLogger(__name__)

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "sms_spam_gpt2.yaml"
PRESENT_DAY_MESSAGES = Path(__file__).parent / "dataset" / "present_day_messages.tsv"

# What LoRA adapts in each architecture (its config's `model_type`) and which new layers are trained in
# full. GPT-2's `c_proj` names the projections of both attention and MLP; its layers are Conv1D, which
# store weights transposed.
LORA_TARGETS = {
    "gpt2": {"target_modules": ["c_attn", "c_proj"], "modules_to_save": ["score"], "fan_in_fan_out": True},
    "llama": {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "modules_to_save": ["score"],
    },
    "distilbert": {"target_modules": ["q_lin", "v_lin"], "modules_to_save": ["pre_classifier", "classifier"]},
    "bert": {"target_modules": ["query", "key", "value"], "modules_to_save": ["classifier"]},
}

# Where each architecture keeps its blocks, and what stands between the last one and the new layers.
BLOCKS = {
    "gpt2": ("transformer.h", ["transformer.ln_f"]),
    "llama": ("model.layers", ["model.norm"]),
    "distilbert": ("distilbert.transformer.layer", []),
    "bert": ("bert.encoder.layer", ["bert.pooler"]),
}

# Activations that transformers computes in eight steps, each through memory, and their equals in one.
FUSED_ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh"}

# What is trained, as titles say it.
TUNINGS = {
    "lora": "LoRA",
    "head": "new head",
    "last_block": "last block",
    "last_two_blocks": "last two blocks",
    "full": "all layers",
}

LICENCES = {
    "gpt2": "mit",
    "openai-community/gpt2": "mit",
    "distilbert-base-uncased": "apache-2.0",
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}

SPLITS = ("train", "validation", "test")
# What else may be trained on, and the share of it that an epoch takes. All messages of today in every epoch would
# teach that the collection's spam about ringtones and downloads, which reads like a notice, is one.
EXTRA_SPLITS = {"present_day": 1 / 3, "feedback": 1.0}

# Of the language model's log odds, where TF-IDF's are added. It is too sure of itself: on the validation messages of
# five splits together the likelihood is highest with 0.49 and 0.96 times (`benchmarks/accuracy.py`).
LANGUAGE_MODEL_WEIGHT = 0.5

# Accuracy on training messages is measured on so many at most: predicting all of them at every evaluation
# takes a good part of a run, and with 35,000 reviews longer than training on them.
TRAIN_ACCURACY_MESSAGES = 256

# ---------------------------------------------------------------------------- configuration


@dataclass
class ModelArguments:
    """What is adapted, and how."""

    model_name_or_path: str = field(default="gpt2", metadata={"help": "Hub id or folder of the base model."})
    fallback_model: str | None = field(
        default=None, metadata={"help": "Base to use where the first cannot be reached; `none` forbids one."}
    )
    num_hidden_layers: int | None = field(
        default=None, metadata={"help": "Use at most so many layers of the base, the first ones; by default all."}
    )
    tuning: Literal["lora", "head", "last_block", "last_two_blocks", "full"] = field(
        default="lora",
        metadata={"help": "What is trained: LoRA, or weights of the base; then a whole model is saved."},
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the LoRA matrices."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA updates are scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout in front of the LoRA matrices."})
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers to adapt; by default those usual for the architecture."}
    )
    add_tfidf: bool = field(
        default=False,
        metadata={"help": "Save a TF-IDF model as well, and let both answer together."},
    )


@dataclass
class DataArguments:
    """What is learned from."""

    dataset: Literal["sms_spam", "imdb"] = field(
        default="sms_spam", metadata={"help": "The SMS Spam Collection, or 50,000 film reviews."}
    )
    data_file: str | None = field(default=None, metadata={"help": "Your own .csv or .tsv instead."})
    text_column: str = field(default="Text", metadata={"help": "Column with the message, in all data files."})
    label_column: str = field(default="Label", metadata={"help": "Column with its label."})
    positive_label: str | None = field(
        default=None, metadata={"help": "Label to detect (class 1); by default the later one in the alphabet."}
    )
    feedback_file: str | None = field(
        default=None, metadata={"help": "Answers corrected in the chat (its FEEDBACK_FILE), to be trained on as well."}
    )
    present_day_messages: bool = field(
        default=False,
        metadata={"help": "Train also on messages of today, written for this project (SMS Spam Collection only)."},
    )
    data_source: Literal["auto", "uci", "mirror"] = field(
        default="auto", metadata={"help": "Where the SMS Spam Collection comes from."}
    )
    dataset_dir: str = field(default="dataset", metadata={"help": "Folder the data files are written to."})
    protocol: Literal["deduplicated", "original"] = field(
        default="deduplicated",
        metadata={"help": "`original` parses and splits like the published figures: duplicates stay in."},
    )
    majority: Literal["same", "fresh", "all"] = field(
        default="same",
        metadata={
            "help": "What an epoch takes of the larger class: the `same` messages as every other epoch and as many as "
            "of the smaller class, as many `fresh` ones, or `all`."
        },
    )
    minority_repeats: int = field(
        default=1,
        metadata={
            "help": "With all of the larger class, an epoch takes each message of the smaller one so often, the same "
            "version each time, until there are as many."
        },
    )
    token_dropout: float = field(
        default=0.0, metadata={"help": "Leave out this share of a training message's tokens, others every epoch."}
    )
    normalize_text: bool = field(
        default=False,
        metadata={"help": "Let the tokenizer undo look-alike letters, accents and letters set apart (English)."},
    )
    text_noise: float = field(
        default=0.0,
        metadata={"help": "Give this share of training messages other numbers, case and typing errors, every epoch."},
    )
    split_seed: int = field(default=123, metadata={"help": "Seed of balancing and splitting."})
    max_length: int = field(default=120, metadata={"help": "The language model reads so many tokens of a message."})


@dataclass
class FineTuningArguments(TrainingArguments):
    """transformers' TrainingArguments, and what this script adds to them."""

    adapter_dir: str = field(default="lora_model", metadata={"help": "Folder the trained adapter is saved to."})
    metrics_pdf: str = field(default="training_metrics.pdf", metadata={"help": "File the charts are saved to."})
    plot_over: Literal["step", "epoch"] = field(default="step", metadata={"help": "Horizontal axis of the charts."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without improvement, and keep the best."}
    )
    target_false_positive_rate: float | None = field(
        default=None,
        metadata={"help": "Choose the threshold so that this share of held-out class 0 is called class 1; 0: use 0.5."},
    )


def split_recipe(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the recipe, if the first argument is one (.yaml), and the flags."""
    named = bool(argv) and argv[0].endswith((".yaml", ".yml"))
    return (argv[0] if named else None), list(argv[named:])


def unless_none(value: str | None) -> str | None:
    """Return the value of an option that `none` takes back: a recipe may set it, a flag cannot unset it."""
    return None if str(value).lower() == "none" else value


def parse_recipe(argv: Sequence[str], kinds: Sequence[type], default_recipe: Path) -> tuple:
    """Read a recipe (first argument if it ends in .yaml, else the default one) and the flags over it.

    Training is in mixed precision by default where the GPU, or without one the CPU, multiplies bfloat16.

    Args:
        kinds: the dataclasses that hold the options; one instance of each is returned.
    """
    named, flags = split_recipe(argv)
    recipe = Path(named or default_recipe)
    parser = HfArgumentParser(kinds)
    try:
        defaults = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read the recipe {recipe}: {error}")
    if not isinstance(defaults, dict):
        parser.error(f"{recipe} is not a list of `option: value` lines")
    known = {entry.name for kind in kinds for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(defaults) - known):
        parser.error(f"{recipe} sets unknown options: {', '.join(unknown)}")
    # Without `use_cpu`, several processes on a machine without accelerator would not form a group.
    accelerator = torch.accelerator.is_available()
    if accelerator:
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        bf16 = fast_dtype() is torch.bfloat16
    parser.set_defaults(use_cpu=not accelerator, dataloader_pin_memory=accelerator, bf16=bf16)
    # A recipe is so many flags in front of the others: checked alike, and the last one counts.
    recipe_argv = []
    for name, value in defaults.items():
        recipe_argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            recipe_argv + flags, look_for_args_file=False, return_remaining_strings=True
        )
    except ValueError as error:
        parser.error(str(error))
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return tuple(parsed)


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, FineTuningArguments]:
    """Read the recipe and the flags of a fine-tuning run."""
    parsed = parse_recipe(argv, (ModelArguments, DataArguments, FineTuningArguments), DEFAULT_RECIPE)
    parsed[0].fallback_model = unless_none(parsed[0].fallback_model)
    return parsed


# ---------------------------------------------------------------------------- data


def read_messages(data_file: Path, text_column: str, label_column: str) -> pd.DataFrame:
    """Read a user's .csv or .tsv into columns `Label` and `Text` (strings).

    Rows without a label or a text are left out, and their number is said.

    Raises:
        ConfigurationError: the file is missing, not UTF-8, not a table, or lacks a column.
    """
    try:
        (table,) = read_table(data_file)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    for column, option in ((text_column, "--text_column"), (label_column, "--label_column")):
        if column not in table.columns:
            raise ConfigurationError(
                f"{data_file} has no column {column!r}, only {', '.join(map(repr, table.columns))}. "
                f"Name the right one with {option}."
            )
    table = pd.DataFrame({"Label": table[label_column].str.strip(), "Text": table[text_column]})
    complete = table["Label"].ne("") & table["Text"].str.strip().ne("")
    if dropped := int((~complete).sum()):
        logger.warning("%s: %d rows without text or label are left out.", data_file, dropped)
    return table[complete].reset_index(drop=True)


def label_names_of(labels: pd.Series, positive_label: str | None = None) -> tuple[str, str]:
    """Return the names of class 0 and class 1: alphabetical, unless `positive_label` names class 1.

    Raises:
        ConfigurationError: there are not exactly two labels, or `positive_label` is none of them.
    """
    names = sorted(labels.unique())
    if len(names) != 2:
        shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        raise ConfigurationError(f"The classifier needs exactly two labels; the data has {len(names)}: {shown}.")
    if positive_label is not None and positive_label not in names:
        raise ConfigurationError(f"--positive_label {positive_label!r} is none of the labels {names}.")
    return tuple(reversed(names)) if positive_label == names[0] else tuple(names)


def drop_duplicates(df: pd.DataFrame, keep: Literal["first", "last"] = "first") -> pd.DataFrame:
    """Keep the first (or last) of the messages that differ only in case, white space and punctuation.

    Otherwise copies of a training message stand in the test split and are counted as successes.
    """
    return df[~text_key(df["Text"]).duplicated(keep=keep)]


def text_key(texts: pd.Series) -> pd.Series:
    """Return what is left of texts without case, white space and punctuation: the same for duplicates."""
    words = texts.str.casefold().str.replace(r"[\W_]+", " ", regex=True).str.strip()
    return words.where(words.ne(""), texts.str.strip())


def create_balanced_dataset(df: pd.DataFrame, seed: int = 123) -> pd.DataFrame:
    """Return as many messages of each label as the rarer label has (1:1), keeping the index.

    Args:
        df: column `Label` with two labels.
        seed: of the draw from the larger class.
    """
    size = df["Label"].value_counts().min()
    groups = [group for _, group in df.groupby("Label", sort=True)]
    return pd.concat([group if len(group) == size else group.sample(size, random_state=seed) for group in groups])


def random_split(
    df: pd.DataFrame, train_frac: float = 0.7, validation_frac: float = 0.1, seed: int = 123
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Shuffle and cut into train, validation and test; test gets what the two fractions leave."""
    shuffled = df.sample(frac=1, random_state=seed).reset_index(drop=True)
    train_end = int(len(shuffled) * train_frac)
    validation_end = train_end + int(len(shuffled) * validation_frac)
    return shuffled[:train_end], shuffled[train_end:validation_end], shuffled[validation_end:]


def make_splits(messages: pd.DataFrame, label_names: Sequence[str], seed: int = 123) -> dict[str, pd.DataFrame]:
    """Balance and split 70/10/20, and split in the same way what balancing left out.

    Returns:
        `train`, `validation`, `test` and `left_out_train`, `left_out_validation`, `left_out_test`, each
        with `Label` (0/1 in the order of `label_names`) and `Text`.

    Raises:
        ConfigurationError: a class has fewer than 10 messages.
    """
    counts = messages["Label"].value_counts()
    if counts.min() < 10:
        raise ConfigurationError(f"Each label needs at least 10 different messages; found {counts.to_dict()}.")
    balanced = create_balanced_dataset(messages, seed)
    left_out = messages.drop(balanced.index)
    parts = dict(zip(SPLITS, random_split(balanced, seed=seed), strict=True))
    parts |= dict(zip((f"left_out_{name}" for name in SPLITS), random_split(left_out, seed=seed), strict=True))
    ids = {name: number for number, name in enumerate(label_names)}
    return {name: part.assign(Label=part["Label"].map(ids).astype(int)) for name, part in parts.items()}


def read_present_day_messages() -> pd.DataFrame:
    """Return the messages of today that were written for this project, columns `Label` and `Text`.

    Spam's made-up links are kept under `.example`, which belongs to nobody; here they get endings that links have, or
    a model would learn the word.
    """
    messages = read_messages(PRESENT_DAY_MESSAGES, "Text", "Label")
    endings = itertools.cycle((".com", ".info", ".co", ".net", ".top", ".org", ".co.uk", ".online", ".io", ".xyz"))
    return messages.assign(Text=messages["Text"].str.replace(r"\.example\b", lambda _: next(endings), regex=True))


def add_training_messages(
    splits: dict[str, pd.DataFrame], name: str, messages: pd.DataFrame, label_names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the splits with another to train on.

    A message that stands in a split that is held out is left out, so that figures stay honest; one that
    stands among the training messages replaces it.

    Args:
        splits: see `make_splits`.
        name: of the new split, one of `EXTRA_SPLITS`.
        messages: columns `Label` (names) and `Text`.
        label_names: of class 0 and class 1.

    Raises:
        ConfigurationError: the messages have other labels.
    """
    if unknown := sorted(set(messages["Label"]) - set(label_names)):
        raise ConfigurationError(f"The {name} has labels that the data has not: {', '.join(map(repr, unknown))}.")
    held_out = text_key(pd.concat([splits[split]["Text"] for split in HELD_OUT]))
    messages = messages[~text_key(messages["Text"]).isin(held_out)]
    keys = text_key(messages["Text"])
    ids = {label: number for number, label in enumerate(label_names)}
    replaced = {
        split: part if split in HELD_OUT else part[~text_key(part["Text"]).isin(keys)] for split, part in splits.items()
    }
    return replaced | {name: messages.assign(Label=messages["Label"].map(ids).astype(int))}


def load_splits(data_args: DataArguments) -> tuple[dict[str, pd.DataFrame], tuple[str, str], dict]:
    """Find the data, prepare and split it.

    Returns:
        The splits (see `make_splits`), the label names, and a description for the report.

    Raises:
        ArtifactError, ConfigurationError: the data cannot be had, or cannot be used.
    """
    original = data_args.protocol == "original"
    if data_args.data_file:
        path = Path(data_args.data_file)
        messages = read_messages(path, data_args.text_column, data_args.label_column)
        name, source, sha256 = path.name, "local file", file_sha256(path)
    elif data_args.dataset == "imdb":
        file = resolve_imdb(Path(data_args.dataset_dir))
        messages = read_messages(file.path, "text", "label")
        name, source, sha256 = "IMDB reviews", file.source, file.sha256
    else:
        file = resolve_sms_spam(Path(data_args.dataset_dir), data_args.data_source)
        # The published figures were made with pandas' default quoting.
        messages = read_sms_spam(file.path, csv.QUOTE_MINIMAL if original else csv.QUOTE_NONE)
        name, source, sha256 = "SMS Spam Collection", file.source, file.sha256
    label_names = label_names_of(messages["Label"], data_args.positive_label)
    different = messages if original else drop_duplicates(messages)
    splits = make_splits(different, label_names, data_args.split_seed)
    counts = different["Label"].value_counts()
    classes = " and ".join(f"{counts[label]:,} {label}" for label in label_names)
    sizes = " / ".join(f"{len(splits[split]):,}" for split in SPLITS)
    description = (
        f"{len(messages):,} messages, {len(messages) - len(different):,} duplicates dropped before splitting; "
        f"of the rest {classes}, balanced 1:1 and split into {sizes}"
    )
    left_out = len(splits["left_out_train"])
    if data_args.majority == "fresh" and left_out:
        description += (
            f"; every epoch draws its messages of the larger class anew from {left_out:,} more that balancing left out"
        )
    if data_args.majority == "all" and left_out:
        description += f"; every epoch also takes {left_out:,} messages of the larger class that balancing left out"
    if data_args.majority == "all" and left_out and data_args.minority_repeats > 1:
        description += f" and those of the smaller class {data_args.minority_repeats} times"
    if data_args.present_day_messages and data_args.dataset == "sms_spam" and not data_args.data_file:
        splits = add_training_messages(splits, "present_day", read_present_day_messages(), label_names)
        share = f"{EXTRA_SPLITS['present_day']:.0%} of {len(splits['present_day']):,}"
        description += f"; every epoch also takes {share} messages of today, written for this project"
    if data_args.feedback_file:
        try:
            feedback = drop_duplicates(read_feedback(Path(data_args.feedback_file)), keep="last")
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        splits = add_training_messages(splits, "feedback", feedback, label_names)
        used = len(splits["feedback"])
        description += (
            f"; {used:,} messages corrected in the chat are seen in every epoch "
            f"({len(feedback) - used:,} more stand in the held-out splits and are not)"
        )
    return (
        splits,
        label_names,
        {
            "name": name,
            "dataset": "custom" if data_args.data_file else data_args.dataset,
            "source": source,
            "sha256": sha256,
            "protocol": data_args.protocol,
            "max_length": data_args.max_length,
            "description": description + ".",
            "messages": len(messages),
            "duplicates": len(messages) - len(different),
            "split_sizes": {split: len(table) for split, table in splits.items()},
        },
    )


class SpamDataset(Dataset):
    """A split's CSV, tokenised once; padding is left to the batch.

    Args:
        csv_file: the split.
        tokenizer: of the base model.
        max_length: cut messages after this many tokens; None keeps them whole.
        text_column, label_column: of the file; labels are 0 or 1.

    Attributes:
        texts: the messages.
        lengths: number of tokens of each message.
        max_length: the longest of them.
    """

    def __init__(
        self,
        csv_file: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        text_column: str = "Text",
        label_column: str = "Label",
    ):
        table = pd.read_csv(csv_file, keep_default_na=False, dtype={label_column: int, text_column: str})
        self.labels = table[label_column].tolist()
        self.texts = table[text_column].tolist()
        self.encoded = encode(self.texts, tokenizer, max_length)
        self.lengths = [len(tokens) for tokens in self.encoded["input_ids"]]
        self.max_length = max(self.lengths, default=0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in self.encoded.items()} | {"labels": self.labels[index]}


class FreshSampler(Sampler[int]):
    """Draw a fixed number of messages from each pool every epoch, messages of similar length together.

    A pool with more messages than are drawn is walked through without repetition: the next epoch
    takes those that no epoch took yet. The order depends on seed and epoch alone, so a resumed run and
    every process of a distributed one see the same.

    Args:
        pools: which pool each message is in, shape (n,): its label, or a name for those that are drawn apart.
        lengths: of all messages, shape (n,).
        draws: how many messages of each pool an epoch takes.
        group_size: messages of one optimizer step, over all devices.
    """

    def __init__(
        self,
        pools: Sequence[int | str],
        lengths: Sequence[int],
        draws: dict[int | str, int],
        group_size: int,
        seed: int,
    ):
        generator = torch.Generator().manual_seed(seed)
        members = {pool: [] for pool in draws}
        for index, pool in enumerate(pools):
            members[pool].append(index)
        self.walks = {
            pool: torch.tensor(of_pool, dtype=torch.long)[torch.randperm(len(of_pool), generator=generator)]
            for pool, of_pool in members.items()
        }
        self.lengths, self.draws, self.group_size, self.seed = lengths, draws, group_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch; `Trainer` calls this before each."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return sum(self.draws.values())

    def __iter__(self) -> Iterator[int]:
        drawn = []
        for pool, walk in self.walks.items():
            first = self.epoch * self.draws[pool]
            drawn += walk[torch.arange(first, first + self.draws[pool]) % len(walk)].tolist()
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        lengths = [self.lengths[index] for index in drawn]
        order = get_length_grouped_indices(lengths, self.group_size, generator=generator)
        groups = [order[start : start + self.group_size] for start in range(0, len(order), self.group_size)]
        # They come longest first. Spam is long: a hundred steps of spam and then of ham would undo each other.
        full = len(order) // self.group_size
        shuffled = torch.randperm(full, generator=generator).tolist() + list(range(full, len(groups)))
        return iter([drawn[index] for number in shuffled for index in groups[number]])


class TextNoise(Dataset):
    """Replace training messages by other versions of them (`text_noise.add_noise`), others every epoch.

    Args:
        dataset: of tokenised messages.
        texts: the same messages, not tokenised.
        share: probability that a message is replaced.
        tokenizer: tokenises the other version.
        sampler: knows the epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        texts: Sequence[str],
        share: float,
        tokenizer: PreTrainedTokenizerBase,
        sampler: FreshSampler,
        seed: int,
    ):
        self.dataset, self.texts, self.share, self.tokenizer = dataset, texts, share, tokenizer
        self.sampler, self.seed = sampler, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        message = self.dataset[index]
        draw = random.Random(f"{self.seed} {self.sampler.epoch} {index}")
        if draw.random() >= self.share:
            return message
        other = encode([add_noise(self.texts[index], draw)], self.tokenizer, self.tokenizer.model_max_length)
        return {name: values[0] for name, values in other.items()} | {"labels": message["labels"]}


class TokenDropout(Dataset):
    """Leave out random tokens of training messages, others every epoch (special tokens stay).

    A few hundred spam messages are soon known by heart, and what is then unlike all of them counts as
    ham. Random deletion keeps the model from learning whole messages (EDA, Wei and Zou 2019,
    https://arxiv.org/abs/1901.11196). Which tokens go depends on seed, epoch and message alone.

    Args:
        dataset: of tokenised messages.
        share: probability that a token is left out.
        tokenizer: tells the special tokens.
        sampler: knows the epoch.
    """

    def __init__(
        self, dataset: Dataset, share: float, tokenizer: PreTrainedTokenizerBase, sampler: FreshSampler, seed: int
    ):
        self.dataset, self.share, self.tokenizer, self.sampler, self.seed = dataset, share, tokenizer, sampler, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        message = self.dataset[index]
        draw = (self.seed * 1_000 + self.sampler.epoch) * 1_000_000 + index
        chances = torch.rand(len(message["input_ids"]), generator=torch.Generator().manual_seed(draw))
        special = self.tokenizer.get_special_tokens_mask(message["input_ids"], already_has_special_tokens=True)
        kept = (chances >= self.share) | torch.tensor(special, dtype=torch.bool)
        # At least one token: an empty message has no class.
        kept[chances.argmax()] = True
        return {
            name: [value for value, keep in zip(values, kept, strict=True) if keep] if name != "labels" else values
            for name, values in message.items()
        }


# ---------------------------------------------------------------------------- model


def load_tokenizer(base: BaseModel, max_length: int, normalize_text: bool = False) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer, padding on the right; one without a pad token gets its end-of-text token.

    A classifier built on a decoder reads its answer at the last token that is not padding, so padding
    must be told from text; a tokenizer that has a pad token keeps it.

    Args:
        normalize_text: undo letter tricks in front of what the tokenizer does; it is saved with that.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="right", model_max_length=max_length)
    if normalize_text:
        backend = tokenizer.backend_tokenizer
        steps = [make_normalizer(), backend.normalizer] if backend.normalizer else [make_normalizer()]
        backend.normalizer = normalizers.Sequence(steps)
        # GPT-2's own class is built from the vocabulary alone and would forget the normalizer when it is loaded.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side="right",
            model_max_length=max_length,
            model_input_names=tokenizer.model_input_names,
            **tokenizer.special_tokens_map,
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_model(
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    label_names: Sequence[str],
    model_args: ModelArguments,
) -> PeftModel | PreTrainedModel:
    """Load the base with a new two-class head, wrap it in LoRA or choose which of its weights are trained.

    Raises:
        ConfigurationError: the architecture is not in `LORA_TARGETS` or `BLOCKS` and no `--target_modules`
            are given, or no layers are asked for, or the base reads fewer tokens than asked for.
    """
    config = AutoConfig.from_pretrained(
        base.path,
        num_labels=2,
        id2label=dict(enumerate(label_names)),
        label2id={name: number for number, name in enumerate(label_names)},
        pad_token_id=tokenizer.pad_token_id,
    )
    # A deep copy: PEFT adds names of its own to the list of modules to save.
    targets = copy.deepcopy(LORA_TARGETS.get(config.model_type, {"modules_to_save": ["score", "classifier"]}))
    if model_args.target_modules:
        targets["target_modules"] = model_args.target_modules
    if model_args.tuning == "lora" and "target_modules" not in targets:
        raise ConfigurationError(
            f"No LoRA layers are listed for the architecture {config.model_type!r} "
            f"(only for {', '.join(LORA_TARGETS)}). Name them with --target_modules."
        )
    if model_args.tuning not in ("lora", "full") and config.model_type not in BLOCKS:
        raise ConfigurationError(
            f"The blocks of the architecture {config.model_type!r} are not listed (only those of {', '.join(BLOCKS)}). "
            "Use --tuning lora or full."
        )
    if (layers := model_args.num_hidden_layers) is not None:
        if layers < 1:
            raise ConfigurationError(f"--num_hidden_layers {layers}: at least one is needed.")
        config.num_hidden_layers = min(layers, config.num_hidden_layers)
    if (activation := getattr(config, "activation_function", None)) in FUSED_ACTIVATIONS:
        config.activation_function = FUSED_ACTIVATIONS[activation]
    if tokenizer.model_max_length > (limit := getattr(config, "max_position_embeddings", float("inf"))):
        raise ConfigurationError(f"{base.name} reads at most {limit} tokens; lower --max_length.")
    # On a CPU and in batches of short messages, the fused kernel's backward pass is the slower one.
    attention = None if torch.accelerator.is_available() else "eager"
    try:
        with quiet_loading():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.path,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
            )
            if model_args.tuning == "lora":
                lora = LoraConfig(
                    task_type="SEQ_CLS",
                    r=model_args.lora_r,
                    lora_alpha=model_args.lora_alpha,
                    lora_dropout=model_args.lora_dropout,
                    bias="none",
                    **targets,
                )
                model = get_peft_model(model, lora)
            elif model_args.tuning != "full":
                freeze_all_but(model, model_args.tuning, targets["modules_to_save"])
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{base.name} cannot be tuned: {error}") from error
    if missing := [name for name in loading["missing_keys"] if name.split(".")[0] not in targets["modules_to_save"]]:
        raise ConfigurationError(f"{base.name} lacks weights of its architecture: {', '.join(sorted(missing)[:5])} …")
    return model


def store_frozen_in_bfloat16(model: PeftModel) -> None:
    """Keep what mixed precision would convert to bfloat16 at every step, the frozen matrices, in it from the start.

    That changes no result and saves the conversions. A model whose own weights are saved must not be stored so.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(torch.bfloat16)
        if isinstance(module, BaseTunerLayer):
            # Nor need its input go to float32, that of the LoRA weights, and back.
            module.cast_input_dtype_enabled = False


def freeze_all_but(model: PreTrainedModel, tuning: str, head: Sequence[str]) -> None:
    """Train only the new head, or also what is close to it: the last blocks and what comes after them.

    Args:
        model: of an architecture in `BLOCKS`.
        tuning: `head`, `last_block` or `last_two_blocks`.
        head: names of the new layers.
    """
    trained = [model.get_submodule(name) for name in head]
    if tuning != "head":
        blocks, after_blocks = BLOCKS[model.config.model_type]
        trained += [model.get_submodule(name) for name in after_blocks]
        trained += model.get_submodule(blocks)[-2 if tuning == "last_two_blocks" else -1 :]
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)


# ---------------------------------------------------------------------------- training


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy of logits of shape (n, 2) against labels of shape (n,)."""
    return {"accuracy": float((prediction.predictions.argmax(axis=-1) == prediction.label_ids).mean())}


class AccuracyCallback(TrainerCallback):
    """After every evaluation, also measure and log the accuracy on training messages.

    Args:
        trainer: the trainer it is added to.
        dataset: the messages to measure on; by default the trainer's whole training set.
    """

    def __init__(self, trainer: Trainer, dataset: Dataset | None = None):
        self.trainer = trainer
        self.dataset = dataset if dataset is not None else trainer.train_dataset

    def on_evaluate(self, args, state, control, **kwargs):
        output = self.trainer.predict(self.dataset, metric_key_prefix="train")
        self.trainer.log({"train_accuracy": output.metrics["train_accuracy"]})


class ClassificationTrainer(Trainer):
    """`Trainer` that draws training batches from `train_sampler` and evaluates sorted by length."""

    train_sampler: Sampler[int]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> list[int]:
        return length_order(eval_dataset)


def length_order(dataset: Dataset) -> list[int]:
    """Return the indices of tokenised messages from the shortest to the longest: neighbours need almost no padding."""
    return sorted(range(len(dataset)), key=lambda index: len(dataset[index]["input_ids"]))


def build_trainer(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: dict[str, SpamDataset],
    data_args: DataArguments,
    args: FineTuningArguments,
) -> Trainer:
    """Put model, data and arguments into a `Trainer` with the accuracy callback.

    Checkpoints are compared at the ratio of classes in the data where all of the larger class is trained on:
    on all of its validation messages, too.
    """
    train = datasets["train"]
    at_natural_ratio = data_args.majority == "all"
    drawn_from = [train] if data_args.majority == "same" else [train, datasets["left_out_train"]]
    counted_parts = drawn_from if at_natural_ratio else [train]
    counted = [label for part in counted_parts for label in part.labels]
    pools = [label for part in drawn_from for label in part.labels]
    draws = {label: counted.count(label) for label in sorted(set(counted))}
    if at_natural_ratio:
        smaller = min(draws, key=draws.get)
        draws[smaller] = min(draws[smaller] * data_args.minority_repeats, max(draws.values()))
    extra = {name: datasets[name] for name in EXTRA_SPLITS if name in datasets}
    for name, part in extra.items():
        pools_of_part = [f"{name} {label}" for label in part.labels]
        draws |= {pool: math.ceil(size * EXTRA_SPLITS[name]) for pool, size in Counter(pools_of_part).items()}
        pools += pools_of_part
    parts = [*drawn_from, *extra.values()]
    sampler = FreshSampler(
        pools=pools,
        lengths=[length for part in parts for length in part.lengths],
        draws=draws,
        group_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        seed=args.seed,
    )
    texts = [text for part in parts for text in part.texts]
    validation = [datasets["validation"], *([datasets["left_out_validation"]] if at_natural_ratio else [])]
    noisy = TextNoise(ConcatDataset(parts), texts, data_args.text_noise, tokenizer, sampler, args.seed)
    trainer = ClassificationTrainer(
        model=model,
        args=args,
        train_dataset=TokenDropout(noisy, data_args.token_dropout, tokenizer, sampler, args.seed),
        eval_dataset=ConcatDataset(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.train_sampler = sampler
    sample = torch.randperm(len(counted), generator=torch.Generator().manual_seed(args.seed))
    measured = Subset(ConcatDataset(counted_parts), sample[:TRAIN_ACCURACY_MESSAGES].tolist())
    trainer.add_callback(AccuracyCallback(trainer, measured))
    if args.early_stopping_patience is not None:
        # What is stopped after evaluations that were no better has to go back to the best.
        args.load_best_model_at_end = True
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    return trainer


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """Return the folder that `--resume_from_checkpoint` means; `last` is the furthest in `output_dir`.

    Raises:
        ConfigurationError: there is no such checkpoint.
    """
    wanted = args.resume_from_checkpoint
    if wanted == "last":
        wanted = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
        if wanted is None:
            raise ConfigurationError(f"There is no checkpoint in {args.output_dir} to resume from.")
    elif wanted is not None and not Path(wanted, "trainer_state.json").is_file():
        raise ConfigurationError(f"--resume_from_checkpoint {wanted}: not a checkpoint folder.")
    return wanted


def check_outputs(folder: str, *files: str | Path) -> None:
    """See to it before training that its result can be saved.

    Args:
        folder: of the model to be saved; only an earlier result of this project may stand there.
        files: what else will be written.

    Raises:
        ConfigurationError: `folder` is something else; saving would replace it.
    """
    target = Path(folder).resolve()
    ours = not target.exists() or (target.is_dir() and (not any(target.iterdir()) or is_saved_by_us(target)))
    if not ours:
        raise ConfigurationError(f"{folder} exists and is no adapter or model trained here; saving would replace it.")
    for file in map(Path, (target, *files)):
        file.parent.mkdir(parents=True, exist_ok=True)


def remove_old_checkpoints(args: TrainingArguments) -> None:
    """Remove what another run left in `output_dir`, unless it is to be resumed: `last` must never mean that one."""
    if args.resume_from_checkpoint is None:
        for state in Path(args.output_dir).glob("checkpoint-*/trainer_state.json"):
            shutil.rmtree(state.parent)


def is_saved_by_us(folder: Path) -> bool:
    """Tell whether a folder is a PEFT adapter, or a whole model whose config says that it was trained here."""
    if (folder / CONFIG_NAME).is_file():
        return True
    try:
        return "base_model_source" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def kept_step(trainer: Trainer) -> int:
    """Return the step whose weights the model has after training: the best, if those were loaded, or the last."""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return best or trainer.state.global_step


# ---------------------------------------------------------------------------- evaluation


def predict(trainer: Trainer, datasets: dict[str, SpamDataset]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return labels and probabilities of class 1, each of shape (n,), for each split that is held out."""
    predictions = {}
    for split in HELD_OUT:
        labels, probabilities = np.array(datasets[split].labels, dtype=int), np.empty(len(datasets[split]))
        if len(labels):
            logits = torch.tensor(trainer.predict(datasets[split]).predictions, dtype=torch.float64)
            probabilities[length_order(datasets[split])] = logits.softmax(dim=-1)[:, 1].numpy()
        predictions[split] = (labels, probabilities)
    return predictions


def predict_with_tfidf(
    splits: dict[str, pd.DataFrame], majority: str
) -> tuple[dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], TfidfModel]:
    """Train TF-IDF and logistic regression, once per set of messages the language model could learn from.

    Returns:
        The predictions of each, and the last model, which learned from all that the language model learns from.
    """
    name, parts = "TF-IDF, train", ["train", *(["feedback"] if "feedback" in splits else [])]
    training_sets = {name: parts}
    if majority != "same" and len(splits["left_out_train"]):
        name, parts = f"{name} + left out", [*parts, "left_out_train"]
        training_sets[name] = parts
    if "present_day" in splits:
        training_sets[f"{name} + today"] = [*parts, "present_day"]
    predictions = {}
    for name, parts in training_sets.items():
        messages = pd.concat([splits[part] for part in parts])
        try:
            model = fit_tfidf(messages["Text"].tolist(), messages["Label"].tolist())
        except ValueError as error:
            raise ConfigurationError(f"The messages hold no words: {error}") from error
        predictions[name] = tfidf_predictions(model, {split: splits[split] for split in HELD_OUT})
    return predictions, model


def save_predictions(
    predictions: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], splits: dict[str, pd.DataFrame], path: Path
) -> None:
    """Save the held-out messages with the probability of class 1 that each model gave them."""
    tables = [
        splits[split].assign(Split=split, **{name: of_model[split][1] for name, of_model in predictions.items()})
        for split in HELD_OUT
    ]
    with atomic_path(path) as scratch:
        pd.concat(tables).to_csv(scratch, index=False, float_format="%.6f", quoting=csv.QUOTE_NONNUMERIC)


def plot_metrics(
    log_history: list[dict],
    pdf_file: str | Path = "training_metrics.pdf",
    title: str = "",
    best_step: int | None = None,
    over: Literal["step", "epoch"] = "step",
    per_step: tuple[str, int] | None = None,
    charts: dict[str, tuple[str, str]] | None = None,
    more_pages: Sequence[Figure] = (),
) -> None:
    """Draw accuracy and loss over training steps or epochs, train solid blue and validation dashed orange.

    Args:
        log_history: `trainer.state.log_history`; may hold one evaluation or none.
        pdf_file: where to save the charts.
        title: line above them.
        best_step: the checkpoint that was kept, marked in all.
        over: the horizontal axis.
        per_step: what a second axis, above, counts, and how many a step takes: `("Examples seen", 16)`.
        charts: name of each chart -> keys of its train and validation curves in the log.
        more_pages: drawn elsewhere, to come after this one.
    """
    # Where the run ended, in steps and on the axis that is drawn: they are proportional.
    last = max(log_history, key=lambda entry: entry["step"], default={"step": 0, "epoch": 0.0})
    steps_per_unit = last["step"] / last["epoch"] if over == "epoch" and last.get("epoch") else 1
    charts = charts or {"Accuracy": ("train_accuracy", "eval_accuracy"), "Loss": ("loss", "eval_loss")}
    styles = {"Train": ("tab:blue", "-", "o"), "Validation": ("tab:orange", "--", "s")}
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (name, keys) in zip(figure.subplots(1, len(charts)), charts.items(), strict=True):
        for key, (label, (colour, line, marker)) in zip(keys, styles.items(), strict=True):
            points = [(entry["step"] / steps_per_unit, entry[key]) for entry in log_history if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, marker=marker, label=label)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing was logged", transform=axes.transAxes, ha="center", color="gray")
        elif best_step is not None:
            axes.axvline(
                best_step / steps_per_unit, color="gray", linestyle=":", label=f"Best checkpoint (step {best_step})"
            )
        axes.set(title=name, xlabel={"step": "Training step", "epoch": "Epoch"}[over], ylabel=name)
        if per_step:
            counted, number = per_step
            per_unit = number * steps_per_unit
            # The default arguments keep this chart's own scale.
            above = axes.secondary_xaxis("top", functions=(lambda x, k=per_unit: x * k, lambda x, k=per_unit: x / k))
            above.set_xlabel(counted)
            above.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
            axes.set_xlim(left=0)
        if name == "Accuracy":
            axes.set_ylim(0, 1.03)
        elif name == "Perplexity" and axes.lines:
            # It falls by orders of magnitude.
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    figure.suptitle(title)
    # Type 42 embeds fonts as outlines that stay text: searchable, sharp at any size.
    metadata = {"Title": title, "CreationDate": None}
    with (
        matplotlib.rc_context({"pdf.fonttype": 42}),
        atomic_path(Path(pdf_file)) as scratch,
        PdfPages(scratch, metadata=metadata) as pages,
    ):
        for page in (figure, *more_pages):
            pages.savefig(page)


# ---------------------------------------------------------------------------- saving


def save_adapter(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: BaseModel,
    card: str,
    adapter_dir: Path,
    tfidf: TfidfModel | None = None,
    **settings,
) -> None:
    """Save adapter, config, tokenizer and model card as one folder that replaces the previous one whole.

    A model without adapter, whose own weights were trained, is saved as a whole. `tfidf` is its partner, if it has
    one.

    `settings` go into config.json, where the loader finds them.
    """
    model.config.base_model_source = {"name": base.name, "source": base.source, "sha256": base.sha256}
    for name, value in settings.items():
        setattr(model.config, name, value)
    options = {}
    if isinstance(model, PeftModel):
        # The Hub's name, not this machine's cache path: with it plain PEFT loads the adapter anywhere.
        model.peft_config["default"].base_model_name_or_path = base.name
        options["save_embedding_layers"] = False
    save_folder(model, tokenizer, card, adapter_dir, tfidf, **options)


def save_folder(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: str,
    folder: Path,
    tfidf: TfidfModel | None = None,
    **options,
) -> None:
    """Save model, config, tokenizer and model card as one folder that replaces the previous one whole.

    `tfidf` is saved with them if there is one; `options` go to `save_pretrained`. The config's `base_model_source`
    is also the mark by which `check_outputs` knows what it may replace.
    """
    folder = folder.resolve()
    scratch = folder.with_name(f".{folder.name}.new")
    # What a killed run left behind.
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, **options)
    model.config.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    if tfidf:
        save_tfidf(tfidf, scratch)
    (scratch / "README.md").write_text(card, encoding="utf-8")
    exchange_folder(scratch, folder)


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    if sys.platform == "linux":
        # In KiB. Not `getrusage`, whose peak is never below what the process that started this one held.
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def run_facts() -> dict:
    """Return what is needed to repeat a run elsewhere: command, versions, hardware."""
    packages = ("torch", "transformers", "peft", "accelerate", "scikit-learn", "pandas")
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"Python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "hardware": hardware,
    }


# ---------------------------------------------------------------------------- the run


def check_same_everywhere(*checksums: str) -> None:
    """See to it that all processes of a distributed run found the same files.

    Raises:
        ConfigurationError: they did not; an address answered one of them and not the other.
    """
    if broadcast_object_list(list(checksums)) != list(checksums):
        raise ConfigurationError("The processes found different weights or data; start again with local ones.")


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FineTuningArguments,
    dataset_class: type[SpamDataset] = SpamDataset,
    load_tokenizer: Callable[[BaseModel, int, bool], PreTrainedTokenizerBase] = load_tokenizer,
) -> dict:
    """Run a recipe from data to saved adapter and return the report that is saved as metrics.json.

    Args:
        dataset_class: tokenises a split; benchmarks give others.
        load_tokenizer: the same.
    """
    started = time.perf_counter()
    # For every new shape of a matrix product oneDNN, which multiplies on CPUs, prepares a program. It keeps 1,024 of
    # them, fewer than batches of all lengths need, and reads how many it may keep at its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "10000")
    checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="data and base model"):
        splits, label_names, data = load_splits(data_args)
        csv_files = {name: Path(data_args.dataset_dir, f"{name}.csv") for name in splits}
        columns = {"Text": data_args.text_column, "Label": data_args.label_column}
        if args.local_process_index == 0:
            check_outputs(args.adapter_dir, args.metrics_pdf, Path(args.output_dir, "metrics.json"))
            for name, csv_file in csv_files.items():
                with atomic_path(csv_file) as scratch:
                    # Every text is quoted: a lone carriage return would end the row otherwise.
                    splits[name].rename(columns=columns).to_csv(scratch, index=False, quoting=csv.QUOTE_NONNUMERIC)
        base = resolve_base_model_or_fallback(model_args.model_name_or_path, model_args.fallback_model)
    if Path(args.adapter_dir).resolve() == base.path.resolve():
        raise ConfigurationError(f"--adapter_dir {args.adapter_dir} is the base model's own folder.")
    check_same_everywhere(base.sha256, data["sha256"])
    logger.info("Data: %s (%s). %s", data["name"], data["source"], data["description"])
    logger.info("Base model: %s (%s)", base.name, base.source)
    logger.info("Class 1, the one to detect: %s", label_names[1])

    set_seed(args.seed)
    tokenizer = load_tokenizer(base, data_args.max_length, data_args.normalize_text)
    datasets = {
        name: dataset_class(file, tokenizer, data_args.max_length, data_args.text_column, data_args.label_column)
        for name, file in csv_files.items()
    }
    model = build_model(base, tokenizer, label_names, model_args)
    if args.bf16 and model_args.tuning == "lora":
        store_frozen_in_bfloat16(model)
    layers, base_layers = model.config.num_hidden_layers, AutoConfig.from_pretrained(base.path).num_hidden_layers
    total_parameters = sum(weights.numel() for weights in model.parameters())
    trainable_parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    logger.info("Trainable parameters: %s of %s", f"{trainable_parameters:,}", f"{total_parameters:,}")
    trainer = build_trainer(model, tokenizer, datasets, data_args, args)

    # The rivals first: whatever is wrong with the data shows before hours of training. One process alone reports them.
    rivals, partner = predict_with_tfidf(splits, data_args.majority) if args.process_index == 0 else ({}, None)
    if not model_args.add_tfidf:
        partner = None
    logger.info("Evaluating before fine-tuning")
    before = predict(trainer, datasets)
    if args.process_index == 0:
        remove_old_checkpoints(args)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    logger.info("Evaluating after fine-tuning")
    after = predict(trainer, datasets)
    # The row of the table that is what the saved folder answers.
    saved, weight = ("after + TF-IDF", LANGUAGE_MODEL_WEIGHT) if partner else ("after", None)
    everyone = {"before": before, "after": after}
    if partner:
        *_, of_partner = rivals.values()
        everyone[saved] = predictions_together(after, of_partner, weight)
    everyone |= rivals
    results, thresholds = {}, {}
    for name, predictions in everyone.items():
        rows, thresholds[name] = score(name, predictions, None if name == "before" else args.target_false_positive_rate)
        results |= rows
    threshold = thresholds[saved]
    logger.info("Decision threshold: %g", threshold)

    state, requested = trainer.state, model_args.model_name_or_path
    report = {
        **run_facts(),
        "seed": args.seed,
        "label_names": list(label_names),
        "base_model": {
            "requested": requested,
            "name": base.name,
            "source": base.source,
            "sha256": base.sha256,
            "fallback_used": base.name not in (requested, str(Path(requested).expanduser().resolve())),
            "license": LICENCES.get(base.name),
            "layers": layers if layers < base_layers else None,
        },
        "data": data,
        "training": {
            "tuning": model_args.tuning,
            "trained_part": TUNINGS[model_args.tuning],
            "trainable_parameters": trainable_parameters,
            "total_parameters": total_parameters,
            "epochs": state.epoch,
            "steps": state.global_step,
            "best_step": kept_step(trainer),
            "best_checkpoint": args.load_best_model_at_end,
            "train_seconds": outcome.metrics["train_runtime"],
            "processes": args.world_size,
        },
        "decision_threshold": threshold,
        "saved": saved,
        "language_model_weight": weight,
        "results": results,
    }
    if args.process_index == 0:
        report["table"] = results_table(results)
        report["total_seconds"] = time.perf_counter() - started
        report["peak_memory_gib"] = peak_memory_gib()
        card = model_card(report)
        settings = {"decision_threshold": threshold, "language_model_weight": weight}
        save_adapter(model, tokenizer, base, card, Path(args.adapter_dir), partner, **settings)
        trained = f"{base.name} + {TUNINGS[model_args.tuning]}"
        title = f"{trained} on {data['name']}"
        seen = ("Examples seen", args.train_batch_size * args.gradient_accumulation_steps * args.world_size)
        best_step = report["training"]["best_step"] if args.load_best_model_at_end else None
        labels, probabilities = (
            np.concatenate(pair) for pair in zip(everyone[saved]["test"], everyone[saved]["left_out_test"], strict=True)
        )
        reliability_title = f"Held-out messages, {trained}{' + TF-IDF' if partner else ''} on {data['name']}"
        reliability = plot_reliability(labels, probabilities, label_names[1], reliability_title)
        plot_metrics(
            state.log_history, args.metrics_pdf, title, best_step, args.plot_over, seen, more_pages=[reliability]
        )
        save_predictions(everyone, splits, Path(args.output_dir, "predictions.csv"))
        write_json(report, Path(args.output_dir, "metrics.json"))
        print(f"\n{report['table']}\n")
        print(
            f"Saved {args.adapter_dir}/, {args.metrics_pdf}, and metrics.json and predictions.csv in {args.output_dir}/"
        )
    return report


def run_script(run: Callable[[], object], args: TrainingArguments, outputs: str) -> int:
    """Run a training script's work; tell its errors in a line each, and return the exit code.

    Args:
        outputs: what an interrupted run leaves as it was, in words.
    """
    logging.basicConfig(format="%(message)s")
    for name in ("gpt_classification_model", "gpt_pretraining", "text_classifier", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO if args.process_index == 0 else logging.ERROR)
    try:
        run()
    except (ArtifactError, ConfigurationError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; {outputs} are as they were.", file=sys.stderr)
        if list(Path(args.output_dir).glob("checkpoint-*/trainer_state.json")):
            print("Go on with the same command and --resume_from_checkpoint last", file=sys.stderr)
        return 130
    return 0


def main(argv: Sequence[str] | None = None, **pieces) -> int:
    """Train as the command line says; return the exit code.

    Args:
        pieces: what `train` is to use instead of its own.
    """
    model_args, data_args, args = parse_arguments(sys.argv[1:] if argv is None else argv)
    outputs = f"{args.adapter_dir} and {args.metrics_pdf}"
    return run_script(lambda: train(model_args, data_args, args, **pieces), args, outputs)


if __name__ == "__main__":
    sys.exit(main())
