"""Read the raw text of a pretraining run, split it, tokenise it and cut it into windows."""

import logging
from array import array
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from text_classifier.errors import ConfigurationError, UnreachableError
from text_classifier.extras.pretraining_config import CorpusArguments, GPTArguments
from text_classifier.files import file_sha256
from text_classifier.sources.datasets import DataFile, read_utterances, resolve_chitchat, resolve_the_verdict
from text_classifier.sources.weights import resolve_tokenizer

logger = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"


def text_files(path: Path) -> list[Path]:
    """Return the file itself, or all .txt files of a folder and its subfolders, sorted by path.

    Raises:
        ConfigurationError: the folder has no .txt file.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"There is no .txt file in {path}.")
    return files


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
    documents = [document for document in documents if document]
    if not documents:
        raise ConfigurationError(f"There is no text in {path}.")
    return documents


def read_conversations(path: Path) -> list[str]:
    """Read the chitchat data set; each conversation is one document, each utterance one line."""
    documents = ("\n".join(utterances) for utterances in read_utterances(path))
    return [document for document in documents if document.strip()]


def load_documents(corpus_args: CorpusArguments) -> tuple[list[str], DataFile, str]:
    """Find the corpus and return its documents, its file and its name.

    Raises:
        ArtifactError, ConfigurationError: the text cannot be obtained, or it cannot be used.
    """
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
    """Cut a text and return its two parts: the beginning for training, the end for validation.

    The document at the cut is divided between both parts.
    """
    left = round((1 - validation_frac) * sum(map(len, documents)))
    train, validation = [], []
    for document in documents:
        train.append(document[:left])
        validation.append(document[left:])
        left = max(0, left - len(document))
    return [text for text in train if text], [text for text in validation if text]


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer like GPT-2's; it can encode every text, because it knows every byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)


def find_tokenizer(
    gpt_args: GPTArguments, documents: Sequence[str], checkpoint: str | None
) -> tuple[PreTrainedTokenizerBase, str]:
    """Find the tokenizer that the options name, or train one on the text. A resumed run keeps its own tokenizer.

    Args:
        checkpoint: folder to resume from, or None.

    Returns:
        The tokenizer and where it came from.

    Raises:
        ArtifactError: there is no tokenizer of that name.
        ConfigurationError: the tokenizer has no end-of-text token.
    """
    name, tokenizer = gpt_args.tokenizer_name, None
    if checkpoint:
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
    """Tokenise documents, put an end-of-text token after each, and cut the stream into training examples.

    Returns:
        One dict per example. Its `input_ids` and `labels` are the same `length` token ids, because the model shifts the
        labels itself. The remainder of the stream is not used.

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
    return [{"input_ids": window, "labels": window} for window in windows]
