"""Use a trained adapter: load it once, merge it into its base, and classify messages with it."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import PeftConfig, PeftModel
from peft.utils import CONFIG_NAME
from scipy.special import expit
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from text_classifier.characters import replace_half_surrogates
from text_classifier.sources.weights import resolve_base_model
from text_classifier.tfidf import load_tfidf

# Read together. Fewer leave the cores idle; with more, attention to other messages, which is computed and
# thrown away, takes longer than it saves.
_BATCH_TOKENS = 256

# Decoders whose classification head reads the last token: their messages need no padding.
_PACKABLE = {"gpt2": "transformer", "llama": "model"}


@dataclass(frozen=True)
class Classification:
    """The answer to one message."""

    label: str
    positive_probability: float
    """Of class 1 (spam), between 0 and 1; `label` is class 1 where it reaches the decision threshold."""
    truncated: bool
    """Whether the message was longer than the language model reads."""


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> BatchEncoding:
    """Tokenise messages, in training and in serving alike.

    Args:
        texts: n messages.
        max_length: cut after this many tokens; None keeps them whole.

    Returns:
        `input_ids` and `attention_mask`: n lists of token ids, not padded.
    """
    if not texts:
        return BatchEncoding({"input_ids": [], "attention_mask": []})
    texts = [replace_half_surrogates(text) for text in texts]
    # A message that spells out a special token such as <|endoftext|> is text like any other.
    return tokenizer(texts, truncation=max_length is not None, max_length=max_length, split_special_tokens=True)


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep two messages from alarming people: neither names anything they could or should change.

    transformers reports that the base lacks the classification head (it is new, or comes with the
    adapter), and warns that PEFT 0.21 asks it by an attribute's old name.
    """
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def fast_dtype() -> torch.dtype:
    """Return the number format that this machine's CPU multiplies fastest without changing labels.

    bfloat16 where there are instructions for it (AVX-512 BF16, AMX), else float32: emulated, bfloat16
    would be slower. `benchmarks/chat_load.py` measures both the gain and that labels agree.
    """
    instructions = torch.cpu.get_capabilities()
    native = instructions.get("avx512_bf16") or instructions.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def load_tokenizer_and_model(
    adapter_dir: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load an adapter folder and merge it into its base model, ready to classify (eval mode).

    A folder with a whole model, which other kinds of tuning than LoRA save, is loaded as it is. The TF-IDF model
    that answers together with either, if its config has a `language_model_weight`, becomes the model's attribute
    `tfidf`; otherwise that is None.

    Args:
        adapter_dir: as the training script saves it.
        dtype: of the merged weights; merging itself is done in float32.

    Raises:
        FileNotFoundError: there is no such folder, or it holds neither an adapter nor a model.
        ArtifactError: the base model cannot be had.
        ValueError, OSError: the folder's files are damaged, or hold a model without a classification head.
    """
    adapter_dir = Path(adapter_dir)
    is_adapter = (adapter_dir / CONFIG_NAME).is_file()
    if not is_adapter and not list(adapter_dir.glob("model*.safetensors")):
        raise FileNotFoundError(f"{adapter_dir} holds neither an adapter nor a model")
    config = AutoConfig.from_pretrained(adapter_dir)
    weights_dir = adapter_dir
    if is_adapter:
        base_name = PeftConfig.from_pretrained(adapter_dir).base_model_name_or_path
        weights_dir = resolve_base_model(base_name, trained_on=getattr(config, "base_model_source", None)).path
    tokenizer = AutoTokenizer.from_pretrained(adapter_dir)
    with quiet_loading():
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            weights_dir, config=config, dtype=torch.float32, output_loading_info=True
        )
        if not is_adapter and loading["missing_keys"]:
            raise ValueError(f"{adapter_dir} is no classifier, but a base to train one on (--model_name_or_path)")
        if is_adapter:
            model = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload()
    model.tfidf = load_tfidf(adapter_dir) if getattr(config, "language_model_weight", None) else None
    return tokenizer, model.to(dtype).eval().requires_grad_(False)


def decision_threshold(model: PreTrainedModel) -> float:
    """Return the probability of class 1 from which the adapter calls a message class 1; 0.5 if it has none."""
    return getattr(model.config, "decision_threshold", 0.5)


def decide(positive_probability: float, threshold: float, id2label: dict[int, str]) -> tuple[str, float]:
    """Return the label at a threshold, and the probability of that label."""
    if positive_probability >= threshold:
        return id2label[1], positive_probability
    return id2label[0], 1 - positive_probability


def joint_log_odds(language_model: np.ndarray, tfidf: np.ndarray, weight: float) -> np.ndarray:
    """Return what the two models say together of n messages: their log odds of class 1 added, shape (n,).

    Args:
        language_model, tfidf: log odds of class 1, shape (n,).
        weight: of the language model, which is too sure of itself.
    """
    return weight * language_model + tfidf


def classify(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[Classification]:
    """Classify n messages and return n answers in their order.

    A message is class 1 when its probability reaches the adapter's `decision_threshold`. Where a TF-IDF model
    belongs to the adapter, its log odds are added to the language model's, which the config gives a weight.

    Args:
        model: with its attribute `tfidf`; or an `int8_model.Int8Model`.

    Raises:
        ValueError: a message is empty.
    """
    if not all(texts):
        raise ValueError("an empty message cannot be classified")
    threshold = decision_threshold(model)
    encoded = encode(texts, tokenizer, tokenizer.model_max_length)
    packed = isinstance(model, PreTrainedModel) and model.config.model_type in _PACKABLE
    batch_tokens = getattr(model, "batch_tokens", _BATCH_TOKENS)
    of_tfidf = model.tfidf.log_odds(texts) if model.tfidf else None
    answers: list[Classification | None] = [None] * len(texts)
    for indices in _batches([len(ids) for ids in encoded["input_ids"]], batch_tokens):
        rows = {name: [values[index] for index in indices] for name, values in encoded.items()}
        with torch.inference_mode():
            if packed and len(indices) > 1:
                logits = _packed_logits(rows["input_ids"], model)
            else:
                logits = model(**tokenizer.pad(rows, return_tensors="pt").to(model.device)).logits
        logits = logits.float().cpu().numpy().astype(float)
        log_odds = logits[:, 1] - logits[:, 0]
        if of_tfidf is not None:
            log_odds = joint_log_odds(log_odds, of_tfidf[indices], model.config.language_model_weight)
        positive = expit(log_odds).tolist()
        for index, probability in zip(indices, positive, strict=True):
            answers[index] = Classification(
                label=decide(probability, threshold, model.config.id2label)[0],
                positive_probability=probability,
                truncated=bool(encoded.encodings[index].overflowing),
            )
    return answers


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of messages of like length, so many that padded they have at most `batch_tokens`, or one."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _packed_logits(input_ids: Sequence[Sequence[int]], model: PreTrainedModel) -> torch.Tensor:
    """Return the logits, shape (n, 2), of n messages laid end to end in one row.

    Positions that start anew tell transformers where a message begins: none sees another.
    """
    ids = torch.tensor([[token for message in input_ids for token in message]], device=model.device)
    positions = torch.tensor([[position for message in input_ids for position in range(len(message))]])
    last = torch.tensor([len(message) for message in input_ids]).cumsum(0) - 1
    decoder = getattr(model, _PACKABLE[model.config.model_type])
    hidden = decoder(input_ids=ids, position_ids=positions.to(model.device), use_cache=False).last_hidden_state
    return model.score(hidden[0, last.to(model.device)])
