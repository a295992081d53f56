"""The options of a training run: a recipe sets them, and flags override the recipe.

`parse_recipe` serves both training scripts. `pretraining_config` holds the options of pretraining.
"""

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from text_classifier.reading.messages import ReadOptions
from text_classifier.runtime import fast_dtype

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "sms_spam_gpt2.yaml"


@dataclass
class ModelArguments:
    """Model: what is adapted, and how."""

    model_name_or_path: str = field(default="gpt2", metadata={"help": "Hub id or folder of the base model."})
    fallback_model: str | None = field(
        default=None, metadata={"help": "Base to use where the first cannot be reached; `none` forbids one."}
    )
    fallback_layers: int | None = field(
        default=None,
        metadata={"help": "Keep only so many layers of the fallback model, the first ones; all if not set."},
    )
    tuning: Literal["lora", "head", "last_block", "last_two_blocks", "full"] = field(
        default="lora",
        metadata={"help": "What is trained. All but `lora` train weights of the base, and save a whole model."},
    )
    lora_r: int = field(default=8, metadata={"help": "Rank of the LoRA matrices."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA updates are scaled by lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout in front of the LoRA matrices."})
    target_modules: list[str] | None = field(
        default=None, metadata={"help": "Parts of a layer that LoRA adapts; the usual ones if not set."}
    )
    lora_layers: int | None = field(
        default=None, metadata={"help": "LoRA adapts only so many layers, the last ones; all if not set."}
    )
    add_tfidf: bool = field(
        default=False,
        metadata={"help": "Save a TF-IDF model as well, which answers together with the language model."},
    )


@dataclass
class DataArguments(ReadOptions):
    """Data: what is learned from."""

    data_file: str | None = field(
        default=None, metadata={"help": "Your own .csv, .tsv, .jsonl or .xlsx, instead of one of the data sets."}
    )
    test_file: str | None = field(
        default=None, metadata={"help": "Test on this file of yours, instead of on a part of the data."}
    )
    dataset: Literal["sms_spam", "imdb"] = field(
        default="sms_spam", metadata={"help": "The SMS Spam Collection, or 50,000 film reviews."}
    )
    data_source: Literal["auto", "uci", "mirror"] = field(
        default="auto", metadata={"help": "Where the SMS Spam Collection comes from."}
    )
    dataset_dir: str = field(default="dataset", metadata={"help": "Folder that data files are written to."})
    feedback_file: str | None = field(
        default=None, metadata={"help": "Also train on answers that were corrected in the chat (its FEEDBACK_FILE)."}
    )
    extra_data: list[str] | None = field(
        default=None,
        metadata={"help": "Also train on `modern`, `chinese`, `background` (SMS Spam Collection only), or on `none`."},
    )
    left_out_kinds: list[str] | None = field(
        default=None,
        metadata={"help": "Train without these kinds of the messages written for this project, to measure on them."},
    )
    protocol: Literal["deduplicated", "original"] = field(
        default="deduplicated",
        metadata={"help": "`original` parses and splits as the published recipe does: duplicates stay in."},
    )
    left_out_messages: bool = field(
        default=False, metadata={"help": "Also train on the messages of the larger class that balancing leaves out."}
    )
    minority_repeats: int = field(
        default=1, metadata={"help": "How often an epoch takes each message of the smaller class."}
    )
    normalize_text: bool = field(
        default=False,
        metadata={"help": "Let the tokenizer undo letter tricks: look-alike letters, accents, letters set apart."},
    )
    prepare_only: bool = field(
        default=False, metadata={"help": "Only make the splits and save them in --dataset_dir; train nothing."}
    )
    split_seed: int = field(default=123, metadata={"help": "Seed of balancing and splitting."})
    max_length: int = field(default=120, metadata={"help": "Tokens of a message that the language model reads."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("extra_data", "left_out_kinds"):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, [value])
        if self.extra_data == ["none"]:
            self.extra_data = None


@dataclass
class FineTuningArguments(TrainingArguments):
    """Result: what is saved."""

    adapter_dir: str = field(
        default="lora_model",
        metadata={"help": "Folder that the adapter is saved to; with --data_file results/<its name>/model."},
    )
    metrics_pdf: str = field(default="training_metrics.pdf", metadata={"help": "File that the charts are saved to."})
    plot_over: Literal["step", "epoch"] = field(default="step", metadata={"help": "Horizontal axis of the charts."})
    target_false_positive_rate: float | None = field(
        default=None,
        metadata={
            "help": "Choose the decision threshold so that this share of held-out class 0 is called class 1; "
            "the threshold is 0.5 if not set."
        },
    )


# Options of older versions of transformers, which documents still show -> what to use instead.
REPLACED_OPTIONS = {
    "warmup_ratio": "--warmup_steps with the same value: below 1, it is a share of all steps",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR; without it, the curves go to --output_dir",
    "evaluation_strategy": "--eval_strategy",
    "group_by_length": "--train_sampling_strategy group_by_length",
    "no_cuda": "--use_cpu true",
}


# Options that `--help` leaves out.
RARELY_SET = {
    *("fallback_model", "fallback_layers", "target_modules", "data_source", "left_out_kinds", "protocol", "plot_over"),
    *("logging_first_step", "label_names", "greater_is_better", "eval_on_start"),
}


class RecipeParser(HfArgumentParser):
    """An `HfArgumentParser` for a recipe and flags, whose help has a line for each option that people set.

    Attributes:
        recipe_options: names of the options that the recipe sets.
    """

    recipe_options: Sequence[str] = ()

    def format_help(self) -> str:
        """Return our own options and those of transformers that the recipe sets, with the recipe's values."""
        of_transformers = {entry.name: entry for entry in dataclasses.fields(TrainingArguments)}
        sections = {
            kind.__doc__.splitlines()[0]: [
                entry for entry in dataclasses.fields(kind) if entry.name not in {*of_transformers, *RARELY_SET}
            ]
            for kind in self.dataclass_types
        }
        set_here = [name for name in self.recipe_options if name in of_transformers and name not in RARELY_SET]
        sections["Training, as the recipe sets it."] = [of_transformers[name] for name in set_here]
        lines = [self.format_usage().strip(), self.description, "--help_all shows every option."]
        for title, entries in sections.items():
            lines += [title, *(self._help_line(entry) for entry in entries)]
        return "\n".join(lines) + "\n"

    def _help_line(self, entry: dataclasses.Field) -> str:
        default = self.get_default(entry.name)
        told = "" if default is None else f" [{default}]"
        text, room = " ".join(entry.metadata["help"].split()), 88 - len(told)
        if len(text) > room:
            text = textwrap.shorten(text.partition(". ")[0], room, placeholder=" …")
        return f"  --{entry.name:28} {text}{told}"

    def format_all_help(self) -> str:
        """Return the help of every option, as `HfArgumentParser` has it."""
        return super().format_help()


def split_recipe(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the recipe (None if the first argument is not a .yaml or .yml) and the flags."""
    named = bool(argv) and argv[0].endswith((".yaml", ".yml"))
    return (argv[0] if named else None), list(argv[named:])


def unless_none(value: str | None) -> str | None:
    """Return None for the word `none`, so that a flag can unset what a recipe sets; return other values unchanged."""
    return None if str(value).lower() == "none" else value


def describe_replaced(unknown: Sequence[str]) -> str:
    """Return a sentence for each unknown option that transformers had once."""
    words = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in unknown]
    return "".join(
        f"\ntransformers no longer has --{word}. Use {REPLACED_OPTIONS[word]}."
        for word in words
        if word in REPLACED_OPTIONS
    )


def read_recipe(recipe: Path, parser: RecipeParser) -> dict:
    """Return the options that a recipe sets, as YAML reads them.

    Raises:
        SystemExit: the file does not exist, is not a recipe, or sets unknown options.
    """
    try:
        options = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read the recipe {recipe}: {error}")
    if not isinstance(options, dict):
        parser.error(f"{recipe} is not a list of `option: value` lines")
    known = {entry.name for kind in parser.dataclass_types for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(options) - known):
        parser.error(f"{recipe} sets unknown options: {', '.join(unknown)}{describe_replaced(unknown)}")
    return options


def machine_defaults(words: Sequence[str] = ()) -> dict:
    """Return the options of `TrainingArguments` that depend on the machine.

    Training uses mixed precision: bfloat16 if the GPU has instructions for it, else float16 on an NVIDIA GPU (such as a
    T4). Without a GPU, it is bfloat16 if the CPU has instructions for it.

    Args:
        words: command line and recipe; if they name a number format, none is chosen here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    named = any(word.startswith(("--bf16", "--fp16")) for word in words)
    bf16 = not named and fast_dtype(accelerator or torch.device("cpu")) is torch.bfloat16
    fp16 = not named and not bf16 and accelerator is not None and accelerator.type == "cuda"
    # On a machine without an accelerator, several processes form a group only if `use_cpu` is set.
    on_cpu = accelerator is None
    return {"use_cpu": on_cpu, "dataloader_pin_memory": not on_cpu, "bf16": bf16, "fp16": fp16}


def parse_recipe(argv: Sequence[str], kinds: Sequence[type], default_recipe: Path, purpose: str) -> tuple:
    """Read a recipe, and the flags that override it.

    Args:
        argv: the command line; a first argument that ends in .yaml or .yml is the recipe.
        kinds: the dataclasses that hold the options.
        default_recipe: recipe to read if `argv` names none.
        purpose: what the script does, for `--help`.

    Returns:
        One instance of each dataclass in `kinds`.

    Raises:
        SystemExit: the recipe or a flag is wrong, or help was asked for.
    """
    named, flags = split_recipe(argv)
    parser = RecipeParser(
        kinds,
        usage="%(prog)s [RECIPE.yaml] [--OPTION VALUE ...]",
        description=(
            f"{purpose} A recipe sets the options, flags override it;\n"
            f"without one it is recipes/{default_recipe.name}, whose values are shown as defaults."
        ),
    )
    recipe = read_recipe(Path(named or default_recipe), parser)
    parser.recipe_options = list(recipe)
    # The recipe is parsed like flags, so its values are checked in the same way. The last one counts.
    words = []
    for name, value in recipe.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    words += flags
    # Help shows the recipe's values as defaults.
    parser.set_defaults(**recipe | machine_defaults(words))
    if "--help_all" in flags:
        print(parser.format_all_help())
        raise SystemExit(0)
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            words, look_for_args_file=False, return_remaining_strings=True
        )
    # TrainingArguments looks at the machine and at installed packages.
    except (ValueError, ImportError, RuntimeError, OSError, TypeError) as error:
        parser.error(" ".join(str(error).split()))
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}{describe_replaced(rest)}")
    return tuple(parsed)


def places_for_own_file(argv: Sequence[str]) -> list[str]:
    """Return flags that send the results of a run on a file of one's own to a folder named after it.

    Without them they would replace the included adapter. A recipe that is named has places of its own.
    """
    recipe, flags = split_recipe(argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data_file", "--data-file")
    own_file = parser.parse_known_args(flags)[0].data_file
    if recipe or not own_file:
        return []
    folder = Path("results", Path(own_file).stem)
    places = {"output_dir": "", "adapter_dir": "model", "metrics_pdf": "training_metrics.pdf", "dataset_dir": "dataset"}
    return [word for name, place in places.items() for word in (f"--{name}", str(folder / place))]


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, FineTuningArguments]:
    """Read the recipe and the flags of a fine-tuning run."""
    kinds = (ModelArguments, DataArguments, FineTuningArguments)
    purpose = "Fine-tune a language model into a text classifier."
    # The last flag of a name counts, so flags of the command line override the places.
    model_args, data_args, args = parse_recipe([*places_for_own_file(argv), *argv], kinds, DEFAULT_RECIPE, purpose)
    model_args.fallback_model = unless_none(model_args.fallback_model)
    return model_args, data_args, args
