"""Load a trained adapter, merge it into its base model, and classify messages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from text_classifier.characters import is_empty
from text_classifier.merged import ADAPTER_CONFIG, load_merged, quiet_loading
from text_classifier.runtime import choose_device, encode, read_log_odds
from text_classifier.tfidf import TFIDF_MAX_CHARACTERS, load_tfidf

# An answer is said to be less sure if its odds differ from those of the decision threshold by less than this factor.
# With the threshold 0.5, the label has a probability below 0.9 then.
LESS_SURE = 9


@dataclass(frozen=True)
class Classification:
    """The answer to one message."""

    label: str
    positive_probability: float
    """Probability of class 1 (spam), from 0 to 1; `label` is class 1 if this reaches the decision threshold."""
    truncated: bool
    """Whether the message was too long, so that its end was not read by the language model, or by whoever answered."""
    answered_by: str = "language model"
    """`language model`, `TF-IDF`, or `both`."""


def holds_adapter(folder: Path) -> bool:
    """Return whether a folder that the training script saved holds an adapter; if not, it holds a whole model.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds neither.
    """
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    if not is_adapter and not list(folder.glob("model*.safetensors")):
        raise FileNotFoundError(f"{folder} holds neither an adapter nor a model")
    return is_adapter


def load_config(adapter_dir: Path) -> PreTrainedConfig:
    """Return the config of an adapter folder: names of the labels, decision threshold, and more.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds neither an adapter nor a model.
        ValueError, OSError: its config is damaged.
    """
    holds_adapter(adapter_dir)
    return AutoConfig.from_pretrained(adapter_dir)


def load_tokenizer_and_model(
    adapter_dir: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load an adapter folder and merge it into its base model, ready to classify (eval mode).

    Tunings other than LoRA save a whole model, which is loaded as it is. The returned model has an attribute `tfidf`:
    the TF-IDF model if the config has a `language_model_weight`, else None.

    Args:
        adapter_dir: a folder that the training script saved.
        dtype: number format of the returned weights; merging is done in float32.
        device: where the model goes; by default the one that `choose_device` chooses.

    Raises:
        FileNotFoundError: the folder does not exist, or it holds neither an adapter nor a model.
        ArtifactError: the base model cannot be obtained.
        ValueError, OSError: the folder's files are damaged, its model has no classification head, or the environment
            variable DEVICE names a device that is not there.
    """
    adapter_dir, device = Path(adapter_dir), device or choose_device()
    is_adapter, config = holds_adapter(adapter_dir), load_config(adapter_dir)
    tokenizer = AutoTokenizer.from_pretrained(adapter_dir)
    if is_adapter:
        model = load_merged(adapter_dir, config, dtype)
    else:
        with quiet_loading():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                adapter_dir, config=config, dtype=dtype, output_loading_info=True
            )
        if loading["missing_keys"]:
            raise ValueError(f"{adapter_dir} is no classifier, but a base to train one on (--model_name_or_path)")
    # Each message is read once, so keys and values are not kept for a next token.
    model.config.use_cache = False
    model.tfidf = load_tfidf(adapter_dir) if getattr(config, "language_model_weight", None) else None
    return tokenizer, model.to(device).eval().requires_grad_(False)


def decision_threshold(config: PreTrainedConfig) -> float:
    """Return the adapter's decision threshold, the lowest probability that makes a message class 1; 0.5 by default."""
    return getattr(config, "decision_threshold", 0.5)


def decide(positive_probability: float, threshold: float, id2label: dict[int, str]) -> tuple[str, float]:
    """Return the label at a decision threshold, and the probability of that label."""
    if positive_probability >= threshold:
        return id2label[1], positive_probability
    return id2label[0], 1 - positive_probability


def is_less_sure(positive_probability: float, threshold: float) -> bool:
    """Return whether an answer is so near to the decision threshold that it is often wrong; see `LESS_SURE`."""
    above, below = positive_probability * (1 - threshold), threshold * (1 - positive_probability)
    return above < LESS_SURE * below and below < LESS_SURE * above


def joint_log_odds(language_model: np.ndarray, tfidf: np.ndarray, weight: float) -> np.ndarray:
    """Add the two models' log odds of class 1 and return the sums for n messages, shape (n,).

    Args:
        language_model, tfidf: log odds of class 1, shape (n,).
        weight: factor for the language model's log odds, because the language model is overconfident.
    """
    return weight * language_model + tfidf


def as_list(texts: Iterable[str]) -> list[str]:
    """Return messages as a list, in the order in which they come; the index of a pandas Series does not count.

    Raises:
        TypeError: it is one message instead of several, or one of them is not a string.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError("Several messages are expected, such as a list; for a single one write [text].")
    # A column of pyarrow yields objects of its own.
    texts = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"The message at position {position} is not a string: {text!r:.40}")
    return texts


def classify(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    threshold: float | None = None,
    exact: bool = True,
) -> list[Classification | None]:
    """Classify n messages and return n answers in the same order; a message with nothing to read gets None.

    A message is class 1 if its probability reaches the decision threshold. If the adapter has a TF-IDF model, the log
    odds of both models are added; the config's `language_model_weight` multiplies the language model's.

    Args:
        texts: a list, a column of a table, a generator or the like.
        model: a model from `load_tokenizer_and_model`.
        threshold: decision threshold, from 0 to 1; by default the adapter's own.
        exact: let both models read every message. Otherwise `answer_by_tfidf` answers those that it is sure of.

    Raises:
        TypeError: `texts` is one message, or one of the messages is not a string.
        ValueError: the threshold is not between 0 and 1.
    """
    texts = as_list(texts)
    threshold = decision_threshold(model.config) if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f"The decision threshold {threshold:g} does not lie between 0 and 1.")
    answers = [None] * len(texts) if exact else answer_by_tfidf(texts, model, [threshold] * len(texts))
    open_ones = [index for index, text in enumerate(texts) if answers[index] is None and not is_empty(text)]
    read = _classify([texts[index] for index in open_ones], tokenizer, model, threshold)
    for index, answer in zip(open_ones, read, strict=True):
        answers[index] = answer
    return answers


def answer_by_tfidf(
    texts: Sequence[str], model: PreTrainedModel, thresholds: Sequence[float]
) -> list[Classification | None]:
    """Answer those of n messages that TF-IDF is sure of, without the language model; the others get None.

    TF-IDF is sure where its log odds are farther from the threshold than the language model's can outweigh. How far
    that is, was measured on validation messages (`training.evaluation.choose_cascade`) and stands in the config as
    `cascade`. The probability takes the log odds that the language model usually adds to such messages.

    Args:
        thresholds: decision thresholds, shape (n,).
    """
    cascade = getattr(model.config, "cascade", None)
    if model.tfidf is None or cascade is None or not len(texts):
        return [None] * len(texts)
    of_tfidf = model.tfidf.log_odds(texts)
    beyond = of_tfidf - logit(np.asarray(thresholds, dtype=float))
    below, above = cascade["usual_log_odds"]
    positive = expit(of_tfidf + np.where(beyond > 0, above, below)).tolist()
    answers: list[Classification | None] = [None] * len(texts)
    for index in np.flatnonzero(np.abs(beyond) >= cascade["bound"]):
        text = texts[index]
        if not is_empty(text):
            label, _ = decide(positive[index], thresholds[index], model.config.id2label)
            answers[index] = Classification(label, positive[index], len(text) > TFIDF_MAX_CHARACTERS, "TF-IDF")
    return answers


def classify_parts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> list[Classification]:
    """Classify n parts of messages, for explanations; a part with nothing to read is read as one space."""
    readable = [" " if is_empty(text) else text for text in texts]
    return _classify(readable, tokenizer, model, decision_threshold(model.config))


def _classify(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, threshold: float
) -> list[Classification]:
    encoded = encode(texts, tokenizer, tokenizer.model_max_length)
    log_odds = read_log_odds(encoded, tokenizer, model)
    if model.tfidf:
        log_odds = joint_log_odds(log_odds, model.tfidf.log_odds(texts), model.config.language_model_weight)
    return [
        Classification(
            label=decide(probability, threshold, model.config.id2label)[0],
            positive_probability=probability,
            truncated=bool(encoding.overflowing),
            answered_by="both" if model.tfidf else "language model",
        )
        for probability, encoding in zip(expit(log_odds).tolist(), encoded.encodings or [], strict=True)
    ]
