"""The options of a pretraining run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import TrainingArguments

from text_classifier.errors import ConfigurationError
from text_classifier.training.checks import check_limits
from text_classifier.training.config import parse_recipe, unless_none

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "gpt_pretraining.yaml"


@dataclass
class GPTArguments:
    """Model: its size and its tokenizer."""

    n_layer: int = field(default=6, metadata={"help": "Number of transformer blocks."})
    n_head: int = field(default=8, metadata={"help": "Attention heads of a block; divides n_embd."})
    n_embd: int = field(default=256, metadata={"help": "Width of the embeddings."})
    context_length: int = field(default=256, metadata={"help": "Tokens the model reads at once."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout everywhere."})
    tokenizer_name: str = field(
        default="gpt2",
        metadata={
            "help": "Hub id or folder of the tokenizer; `none` trains a byte-level BPE on the text, as does a Hub "
            "that cannot be reached."
        },
    )
    vocab_size: int = field(
        default=8192, metadata={"help": "Tokens of a tokenizer trained here, at most (257 or more)."}
    )


@dataclass
class CorpusArguments:
    """Text: what is read, and what the model is asked to go on with."""

    corpus: Literal["the_verdict", "chitchat"] = field(
        default="the_verdict", metadata={"help": "A short story of 1908, or 258,000 utterances of conversations."}
    )
    fallback_recipe: str | None = field(
        default=None, metadata={"help": "Recipe to follow where the corpus cannot be reached; `none` forbids one."}
    )
    text_file: str | None = field(
        default=None, metadata={"help": "Your own text instead: a UTF-8 file, or a folder of .txt files."}
    )
    validation_frac: float = field(default=0.1, metadata={"help": "Share of the text, its end, that is held out."})
    prompt: str = field(default="Every effort moves you", metadata={"help": "Beginning of the sample texts."})
    sample_tokens: int = field(default=50, metadata={"help": "Tokens of a sample text; 0: none."})


@dataclass
class PretrainingArguments(TrainingArguments):
    """Result: what is saved."""

    model_dir: str = field(
        default="results/gpt_pretraining/model", metadata={"help": "Folder that the model is saved to."}
    )
    loss_pdf: str = field(
        default="results/gpt_pretraining/loss.pdf", metadata={"help": "File that the charts are saved to."}
    )


def parse_arguments(argv: Sequence[str]) -> tuple[GPTArguments, CorpusArguments, PretrainingArguments]:
    """Read the recipe and the flags of a pretraining run."""
    kinds = (GPTArguments, CorpusArguments, PretrainingArguments)
    purpose = "Pretrain a small GPT from scratch on raw text."
    gpt_args, corpus_args, args = parse_recipe(argv, kinds, DEFAULT_RECIPE, purpose)
    corpus_args.fallback_recipe = unless_none(corpus_args.fallback_recipe)
    return gpt_args, corpus_args, args


def check_sizes(gpt_args: GPTArguments, corpus_args: CorpusArguments) -> None:
    """Check that a model can have the sizes that are asked for.

    Raises:
        ConfigurationError: a size is impossible; the message names it.
    """
    check_limits(gpt_args)
    if gpt_args.n_embd % gpt_args.n_head:
        raise ConfigurationError(f"--n_head {gpt_args.n_head} does not divide --n_embd {gpt_args.n_embd}.")
    if not 0 <= gpt_args.dropout < 1:
        raise ConfigurationError(f"--dropout {gpt_args.dropout}: it must be at least 0 and below 1.")
    if not 0 < corpus_args.validation_frac < 1:
        raise ConfigurationError(f"--validation_frac {corpus_args.validation_frac}: it must lie between 0 and 1.")
    if not 0 <= corpus_args.sample_tokens < gpt_args.context_length:
        raise ConfigurationError(f"--sample_tokens {corpus_args.sample_tokens}: it must be less than --context_length.")
