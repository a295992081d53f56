"""The options of a training run: a recipe sets them, flags override it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import yaml
from transformers import (
    HfArgumentParser,
    TrainingArguments,
)

from text_classifier.inference import fast_dtype

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "sms_spam_gpt2.yaml"


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
