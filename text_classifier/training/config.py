"""The options of a training run: a recipe sets them, flags override it, and wrong ones are told within seconds.

`parse_recipe` serves both training scripts. The options of pretraining are in `extras/pretraining.py`.
"""

import dataclasses
import logging
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from transformers import GPT2Config, GPT2ForSequenceClassification, HfArgumentParser, Trainer, TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.integrations import is_tensorboard_available
from transformers.utils import is_liger_kernel_available

from text_classifier.errors import ConfigurationError
from text_classifier.reading.messages import ReadOptions
from text_classifier.runtime import fast_dtype

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "sms_spam_gpt2.yaml"


def unless_none(value: str | None) -> str | None:
    """Return None for the word `none`, with which a flag unsets what a recipe sets; other values stay as they are."""
    return None if str(value).lower() == "none" else value


@dataclass
class ModelArguments:
    """Model: what is adapted, and how."""

    model_name_or_path: str = HfArg(default="gpt2", help="Hub id or folder of the base model.")
    fallback_model: str | None = HfArg(default=None, help="Base if the Hub is out of reach. `none` forbids one.")
    fallback_layers: int | None = HfArg(default=None, help="First layers of the fallback to keep; all if not set.")
    tuning: Literal["lora", "head", "last_block", "last_two_blocks", "full"] = HfArg(
        default="lora", help="What is trained; all but `lora` change the base, and save a whole model."
    )
    lora_r: int = HfArg(default=8, help="Rank of the LoRA matrices.")
    lora_alpha: int = HfArg(default=32, help="LoRA updates are scaled by lora_alpha / lora_r.")
    lora_dropout: float = HfArg(default=0.1, help="Dropout in front of the LoRA matrices.")
    target_modules: list[str] | None = HfArg(default=None, help="Parts of a layer that LoRA adapts, if not the usual.")
    lora_layers: int | None = HfArg(default=None, help="Last layers that LoRA adapts; all if not set.")
    add_tfidf: bool = HfArg(default=False, help="Also save a TF-IDF model, which answers with the language model.")

    def __post_init__(self):
        self.fallback_model = unless_none(self.fallback_model)


@dataclass
class DataArguments(ReadOptions):
    """Data: what is learned from."""

    data_file: str | None = HfArg(default=None, help="Your own .csv, .tsv, .jsonl or .xlsx, instead of a data set.")
    test_file: str | None = HfArg(default=None, help="Test on this file of yours, instead of on a part of the data.")
    data_source: Literal["auto", "uci", "mirror", "imdb"] = HfArg(
        default="auto", help="SMS Spam Collection (`uci`, a `mirror`, `auto`: either), or `imdb` film reviews."
    )
    dataset_dir: str = HfArg(default="dataset", help="Folder that data files are written to.")
    feedback_file: str | None = HfArg(default=None, help="Also train on answers corrected in the chat (FEEDBACK_FILE).")
    extra_data: list[str] | None = HfArg(
        default=None, help="Train on these beside the SMS collection. `modern`, `chinese`, `background` or `none`."
    )
    left_out_kinds: list[str] | None = HfArg(
        default=None, help="Kinds of the messages written for this project to leave out, to measure on them."
    )
    protocol: Literal["deduplicated", "original"] = HfArg(
        default="deduplicated", help="`original` parses and splits as published: duplicates stay in."
    )
    minority_repeats: int = HfArg(default=0, help="0: as many of each class; n: all, the smaller class up to n times.")
    normalize_text: bool = HfArg(default=False, help="Undo letter tricks: look-alikes, accents, letters set apart.")
    prepare_only: bool = HfArg(default=False, help="Only make the splits and save them in --dataset_dir.")
    max_length: int = HfArg(default=120, help="Tokens of a message that the language model reads.")

    def __post_init__(self):
        super().__post_init__()
        if self.extra_data == ["none"]:
            self.extra_data = None

    @property
    def dataset(self) -> str:
        """`sms_spam`, `imdb` or `custom`."""
        return "custom" if self.data_file else "imdb" if self.data_source == "imdb" else "sms_spam"


@dataclass
class FineTuningArguments(TrainingArguments):
    """Result: what is saved."""

    adapter_dir: str = HfArg(
        default="lora_model", help="Folder that the adapter is saved to; training_metrics.pdf is put beside it."
    )
    target_false_positive_rate: float | None = HfArg(
        default=None, help="Set the threshold (0.5) so that this share of held-out class 0 is called class 1."
    )
    # By default, Trainer looks for the labels' name in the model, which PEFT hides.
    label_names: list[str] = dataclasses.field(default_factory=lambda: ["labels"])
    min_steps = 0  # not an option: a run with fewer steps gets more epochs

    @property
    def metrics_pdf(self) -> str:
        """The file of the charts."""
        return str(Path(self.adapter_dir).parent / "training_metrics.pdf")


# Options of older versions, which documents still show -> what to use instead.
REPLACED_OPTIONS = {
    "warmup_ratio": "use --warmup_steps with the same value; below 1, it is a share of all steps",
    "logging_dir": "set TENSORBOARD_LOGGING_DIR in the environment; without it, the curves go to --output_dir",
    "evaluation_strategy": "use --eval_strategy",
    "group_by_length": "messages of similar length share a batch without it",
    "no_cuda": "use --use_cpu true",
    "metrics_pdf": "the charts are put beside --adapter_dir",
    "loss_pdf": "the charts are put beside --model_dir",
    "split_seed": "--seed draws the split as well",
    "left_out_messages": "use --minority_repeats 1 or more",
    "dataset": "use --data_source",
}

# ---------------------------------------------------------------------------- recipe and flags


class RecipeParser(HfArgumentParser):
    """An `HfArgumentParser` whose help has a line for each option that is ours or that the recipe sets."""

    recipe_options: Sequence[str] = ()
    """Names of the options that the recipe sets."""

    def format_help(self) -> str:
        """Return the usage and the options, with the recipe's values."""
        of_transformers = {entry.name: entry for entry in dataclasses.fields(TrainingArguments)}
        sections = {
            kind.__doc__.splitlines()[0]: [one for one in dataclasses.fields(kind) if one.name not in of_transformers]
            for kind in self.dataclass_types
        }
        sections["Training, as the recipe sets it."] = [
            of_transformers[name] for name in self.recipe_options if name in of_transformers
        ]
        lines = [self.format_usage().strip(), self.description, "--help_all shows every option."]
        for title, entries in sections.items():
            lines += [title, *(self._help_line(entry) for entry in entries)]
        return "\n".join(lines) + "\n"

    def _help_line(self, entry: dataclasses.Field) -> str:
        default = self.get_default(entry.name)
        told = "" if default is None else f" [{default}]"
        text, room = " ".join(entry.metadata["help"].split()), 87 - len(told)
        if len(text) > room:
            text = textwrap.shorten(text.partition(". ")[0], room, placeholder=" …")
        return f"  --{entry.name:28} {text}{told}"

    def refuse_unknown(self, message: str, words: Sequence[str]) -> None:
        """End with an error if there are unknown options; it says what to use instead of those of older versions."""
        names = [word.partition("=")[0].removeprefix("--").replace("-", "_") for word in words]
        hints = [f"\n--{name} is gone: {REPLACED_OPTIONS[name]}." for name in names if name in REPLACED_OPTIONS]
        if words:
            self.error(f"{message}: {' '.join(words)}{''.join(hints)}")


def split_recipe(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the recipe (None if the first argument is not a .yaml or .yml) and the flags."""
    named = bool(argv) and argv[0].endswith((".yaml", ".yml"))
    return (argv[0] if named else None), list(argv[named:])


def read_recipe(recipe: Path, parser: RecipeParser) -> dict:
    """Return the options that a recipe sets, as YAML reads them; end with an error if it cannot be used."""
    try:
        options = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read the recipe {recipe}: {error}")
    if not isinstance(options, dict):
        parser.error(f"{recipe} is not a list of `option: value` lines")
    known = {entry.name for kind in parser.dataclass_types for entry in dataclasses.fields(kind)}
    parser.refuse_unknown(f"{recipe} sets unknown options", sorted(set(options) - known))
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
    """Read a recipe, and the flags that override it; return one instance of each dataclass in `kinds`.

    Args:
        argv: the command line; a first argument that ends in .yaml or .yml is the recipe.
        purpose: what the script does, for `--help`.

    Raises:
        SystemExit: the recipe or a flag is wrong, or help was asked for.
    """
    named, flags = split_recipe(argv)
    parser = RecipeParser(
        kinds,
        allow_abbrev=False,  # `machine_defaults` and others look for whole names
        usage="%(prog)s [RECIPE.yaml] [--OPTION VALUE ...]",
        description=(
            f"{purpose} A recipe sets the options, flags override it;\n"
            f"without one it is recipes/{default_recipe.name}, whose values are shown as defaults."
        ),
    )
    recipe = read_recipe(Path(named or default_recipe), parser)
    # The recipe is parsed like flags, so its values are checked in the same way. The last one counts.
    words = []
    for name, value in recipe.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    words += flags
    # Help shows the recipe's values as defaults.
    parser.recipe_options = list(recipe)
    parser.set_defaults(**recipe | machine_defaults(words))
    if "--help_all" in flags:
        print(HfArgumentParser.format_help(parser))
        raise SystemExit(0)
    try:
        *parsed, rest = parser.parse_args_into_dataclasses(
            words, look_for_args_file=False, return_remaining_strings=True
        )
    # TrainingArguments looks at the machine and at installed packages.
    except (ValueError, ImportError, RuntimeError, OSError, TypeError) as error:
        parser.error(" ".join(str(error).split()))
    parser.refuse_unknown("unknown arguments", rest)
    return tuple(parsed)


def parse_arguments(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, FineTuningArguments]:
    """Read the recipe and the flags of a fine-tuning run."""
    kinds = (ModelArguments, DataArguments, FineTuningArguments)
    purpose = "Fine-tune a language model into a text classifier."
    parsed = parse_recipe(argv, kinds, DEFAULT_RECIPE, purpose)
    own_file, (recipe, flags) = parsed[1].data_file, split_recipe(argv)
    if not own_file or (recipe and Path(recipe).resolve() != DEFAULT_RECIPE.resolve()):
        return parsed
    # The default recipe would replace the included adapter, so the results on a file of one's own go to a folder named
    # after it. The last flag of a name counts, so the command line can name other places.
    folder = Path("results", Path(own_file).stem)
    places = [f"--output_dir={folder}", f"--adapter_dir={folder / 'model'}", f"--dataset_dir={folder / 'dataset'}"]
    parsed = parse_recipe([*places, *flags], kinds, DEFAULT_RECIPE, purpose)
    # One epoch of a small file has too few steps. Who names the epochs gets that many.
    if not any(word.replace("-", "_").startswith("__num_train_epochs") for word in flags):
        parsed[2].min_steps = 300
    return parsed


# ---------------------------------------------------------------------------- options that cannot work

# Smallest and largest value (None: no limit) of options of both training scripts.
LIMITS = [
    (0, 1, "lora_dropout dropout target_false_positive_rate label_smoothing_factor"),
    (0, 2**32 - 1, "seed"),
    (0, None, "minority_repeats learning_rate weight_decay max_grad_norm warmup_steps dataloader_num_workers"),
    (1, None, "fallback_layers lora_r lora_alpha lora_layers max_length n_layer n_head n_embd"),
    (1, None, "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps"),
    (1, None, "eval_accumulation_steps"),
    (2, None, "context_length"),
    (257, None, "vocab_size"),  # a byte-level tokenizer has all bytes and the end-of-text token
]

# With other values of these, evaluations would leave out messages or their answers.
_NEEDED = {
    "batch_eval_metrics": [False],
    "dataloader_drop_last": [False],
    "eval_do_concat_batches": [True],
    "label_names": [None, ["labels"]],
    "prediction_loss_only": [False],
}

# What checkpoints of a classifier can be compared by; see `gpt_classification_model.compute_metrics`.
METRICS = ("loss", "accuracy", "precision", "recall", "f1")


def check_limits(*all_options: object) -> None:
    """Raise a ConfigurationError if a number is not finite, or does not lie within `LIMITS`."""
    for name, value in (option for options in all_options for option in vars(options).items()):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"--{name} {value}: a number is needed.")
    for least, most, names in LIMITS:
        needed = f"at least {least} is needed" if most is None else f"it must lie between {least} and {most}"
        for name in names.split():
            for value in (getattr(options, name, None) for options in all_options):
                if value is not None and (value < least or (most is not None and value > most)):
                    raise ConfigurationError(f"--{name} {value}: {needed}.")


def check_training_arguments(args: TrainingArguments, metrics: Sequence[str]) -> None:
    """Raise a ConfigurationError if transformers' own options are wrong, lack a package or do not go together.

    They are tried on a tiny model: trackers, optimizer, schedule, precision, loader.

    Args:
        metrics: what checkpoints can be compared by.
    """
    for name, needed in _NEEDED.items():
        if getattr(args, name) not in needed:
            raise ConfigurationError(f"--{name} does not work here: evaluations would leave something out.")
    metric = args.metric_for_best_model
    if metric and metric.removeprefix("eval_") not in metrics:
        raise ConfigurationError(f"--metric_for_best_model {metric}: there are only {', '.join(metrics)}.")
    if args.num_train_epochs <= 0 and args.max_steps <= 0:
        raise ConfigurationError(f"--num_train_epochs {args.num_train_epochs:g}: it must be above 0.")
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ConfigurationError("--use_liger_kernel needs it: pip install liger-kernel")
    if "tensorboard" in args.report_to and not is_tensorboard_available():
        raise ConfigurationError("--report_to tensorboard needs it: pip install -r requirements/tensorboard.txt")
    try:
        tiny = GPT2Config(vocab_size=2, n_positions=2, n_embd=2, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
        examples = [{"input_ids": [0, 1], "labels": 1}]
        trainer = Trainer(GPT2ForSequenceClassification(tiny), args, train_dataset=examples, eval_dataset=examples)
        trainer.create_optimizer_and_scheduler(num_training_steps=10)
        trainer.get_train_dataloader()
    # Each integration raises what it likes; all of it means that these options do not work here.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        logging.getLogger(__name__).debug("An option cannot work", exc_info=True)
        raise ConfigurationError(f"These options cannot work here: {reason}") from error
