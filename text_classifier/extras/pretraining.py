"""What a pretraining run reads: its options, its text and its tokenizer."""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, TrainingArguments
from transformers.hf_argparser import HfArg

from text_classifier.errors import ConfigurationError, UnreachableError
from text_classifier.files import file_sha256
from text_classifier.sources.datasets import DataFile, read_utterances, resolve_chitchat, resolve_the_verdict
from text_classifier.sources.weights import resolve_tokenizer
from text_classifier.training.config import check_limits, check_training_arguments, parse_recipe, unless_none

logger = logging.getLogger(__name__)

DEFAULT_RECIPE = Path(__file__).parents[2] / "recipes" / "gpt_pretraining.yaml"

END_OF_TEXT = "<|endoftext|>"


@dataclass
class GPTArguments:
    """Model: its size and its tokenizer."""

    n_layer: int = HfArg(default=6, help="Number of transformer blocks.")
    n_head: int = HfArg(default=8, help="Attention heads of a block; divides n_embd.")
    n_embd: int = HfArg(default=256, help="Width of the embeddings.")
    context_length: int = HfArg(default=256, help="Tokens the model reads at once.")
    dropout: float = HfArg(default=0.1, help="Dropout everywhere.")
    tokenizer_name: str = HfArg(
        default="gpt2", help="Hub id or folder of the tokenizer; `none`, or a Hub out of reach, trains one on the text."
    )
    vocab_size: int = HfArg(default=8192, help="Tokens of a tokenizer trained here, at most (257 or more).")


@dataclass
class CorpusArguments:
    """Text: what is read, and what the model is asked to go on with."""

    corpus: Literal["the_verdict", "chitchat"] = HfArg(
        default="the_verdict", help="A short story of 1908, or 258,000 utterances of conversations."
    )
    fallback_recipe: str | None = HfArg(
        default=None, help="Recipe to follow where the corpus cannot be reached; `none` forbids one."
    )
    text_file: str | None = HfArg(default=None, help="Your own text instead: a UTF-8 file, or a folder of .txt files.")
    validation_frac: float = HfArg(default=0.1, help="Share of the text, its end, that is held out.")
    prompt: str = HfArg(default="Every effort moves you", help="Beginning of the sample texts.")
    sample_tokens: int = HfArg(default=50, help="Tokens of a sample text; 0: none.")

    def __post_init__(self):
        self.fallback_recipe = unless_none(self.fallback_recipe)


@dataclass
class PretrainingArguments(TrainingArguments):
    """Result: what is saved."""

    model_dir: str = HfArg(
        default="results/gpt_pretraining/model", help="Folder that the model is saved to; loss.pdf is put beside it."
    )
    # By default, with several processes, PyTorch looks for unused weights in every step, and warns that it finds none.
    ddp_find_unused_parameters: bool | None = False

    @property
    def loss_pdf(self) -> str:
        """The file of the charts."""
        return str(Path(self.model_dir).parent / "loss.pdf")


def parse_arguments(argv: Sequence[str]) -> tuple[GPTArguments, CorpusArguments, PretrainingArguments]:
    """Read the recipe and the flags of a pretraining run."""
    kinds = (GPTArguments, CorpusArguments, PretrainingArguments)
    return parse_recipe(argv, kinds, DEFAULT_RECIPE, "Pretrain a small GPT from scratch on raw text.")


def check_options(gpt_args: GPTArguments, corpus_args: CorpusArguments, args: PretrainingArguments) -> None:
    """Raise a ConfigurationError if an option cannot work, alone, with the others or on this machine."""
    check_limits(gpt_args, args)
    if gpt_args.n_embd % gpt_args.n_head:
        raise ConfigurationError(f"--n_head {gpt_args.n_head} does not divide --n_embd {gpt_args.n_embd}.")
    if not 0 < corpus_args.validation_frac < 1:
        raise ConfigurationError(f"--validation_frac {corpus_args.validation_frac}: it must lie between 0 and 1.")
    if not 0 <= corpus_args.sample_tokens < gpt_args.context_length:
        raise ConfigurationError(f"--sample_tokens {corpus_args.sample_tokens}: it must be less than --context_length.")
    check_training_arguments(args, ["loss"])


# ---------------------------------------------------------------------------- the text


def text_files(path: Path) -> list[Path]:
    """Return the file itself, or all .txt files of a folder and its subfolders, sorted by path."""
    return sorted(path.rglob("*.txt")) if path.is_dir() else [path]


def read_documents(path: Path) -> list[str]:
    """Read a UTF-8 text file, or all those of a folder; each file is one document.

    Raises:
        ConfigurationError: a file cannot be read or is not UTF-8, or there is no text.
    """
    documents = []
    for file in text_files(path):
        try:
            documents.append(file.read_text(encoding="utf-8-sig").strip())
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file} is not UTF-8 text (byte {error.start}); convert it first.") from error
        except OSError as error:
            raise ConfigurationError(f"Cannot read {file}: {error.strerror}") from error
    if not any(documents):
        raise ConfigurationError(f"There is no text in {path}, or no .txt file.")
    return list(filter(None, documents))


def read_conversations(path: Path) -> list[str]:
    """Read the chitchat data set; each conversation is one document, each utterance one line."""
    return [text for utterances in read_utterances(path) if (text := "\n".join(utterances)).strip()]


def load_documents(corpus_args: CorpusArguments) -> tuple[list[str], DataFile, str]:
    """Find the corpus and return its documents, its file and its name."""
    if corpus_args.text_file:
        path = Path(corpus_args.text_file)
        documents = read_documents(path)
        return documents, DataFile(path, "local text", file_sha256(*text_files(path))), path.resolve().name
    if corpus_args.corpus == "chitchat":
        file = resolve_chitchat()
        return read_conversations(file.path), file, "chitchat"
    file = resolve_the_verdict()
    return read_documents(file.path), file, "The Verdict"


def split_documents(documents: Sequence[str], validation_frac: float) -> tuple[list[str], list[str]]:
    """Cut a text, also within a document: its beginning is for training, its end for validation."""
    left = round((1 - validation_frac) * sum(map(len, documents)))
    train, validation = [], []
    for document in documents:
        train.append(document[:left])
        validation.append(document[left:])
        left = max(0, left - len(document))
    return list(filter(None, train)), list(filter(None, validation))


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer like GPT-2's; it can encode every text, because it knows every byte."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(documents, vocab_size, special_tokens=[END_OF_TEXT], show_progress=False)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(bpe.to_str()), **ends)


def find_tokenizer(
    gpt_args: GPTArguments, documents: Sequence[str], checkpoint: str | None
) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer that the options name, or train one on the text; and say where it came from.

    Raises:
        ArtifactError: there is no tokenizer of that name.
        ConfigurationError: the tokenizer has no end-of-text token.
    """
    name, tokenizer = gpt_args.tokenizer_name, None
    if checkpoint:  # the model to resume knows no other
        tokenizer, source = AutoTokenizer.from_pretrained(checkpoint), "the resumed run"
    elif name.lower() != "none":
        try:
            tokenizer, source = AutoTokenizer.from_pretrained(resolve_tokenizer(name)), name
        except UnreachableError as error:
            logger.warning("%s\nTRAINING A TOKENIZER ON THE TEXT INSTEAD.", error)
    if tokenizer is None:
        tokenizer, source = train_tokenizer(documents, gpt_args.vocab_size), "trained on the text"
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"The tokenizer {name} has no end-of-text token: it is not one of a decoder.")
    tokenizer.model_max_length = gpt_args.context_length
    return tokenizer, source


def to_windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict]:
    """Tokenise documents, put an end-of-text token after each, and cut the stream into examples of `length` tokens.

    The remainder of the stream is not used.

    Raises:
        ConfigurationError: the text is shorter than one window.
    """
    stream = array("i")
    # Only some documents are tokenised at a time, because the tokenizer's output takes a hundred times the memory of
    # the text.
    for start in range(0, len(documents), 256):
        encoded = tokenizer(
            list(documents[start : start + 256]),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            # Turn off the warning that a text is longer than the model reads: it is cut into windows below.
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            stream.extend((*ids, tokenizer.eos_token_id))
    windows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    if not len(windows):
        raise ConfigurationError(
            f"{len(stream)} tokens of text are fewer than one window of {length}: give more text, lower "
            "--context_length, or change --validation_frac."
        )
    # The model shifts the labels itself.
    return [{"input_ids": window, "labels": window} for window in windows]
