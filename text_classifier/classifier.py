"""The classifier: a language model and TF-IDF, loaded from the folder that training saved, which give one answer."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from text_classifier.merged import ADAPTER_CONFIG, load_merged, quiet_loading
from text_classifier.runtime import choose_device, encode, read_log_odds
from text_classifier.text import is_empty, is_other_language, normalise
from text_classifier.tfidf import TFIDF_MAX_CHARACTERS, TfidfModel, load_tfidf

# Our file in an adapter folder, beside those of PEFT and transformers.
SETTINGS_FILE = "text_classifier.json"

# An answer is said to be less sure if its odds differ from those of the decision threshold by less than this factor.
# With the threshold 0.5, the label has a probability below 0.9 then.
LESS_SURE = 9


@dataclass(frozen=True)
class Joint:
    """How the log odds of both models are joined; `JOINT` or `SPAM_JOINT` in training/evaluation.py."""

    language_model: float
    tfidf: float = 1.0
    intercept: float = 0.0

    def log_odds(self, language_model: np.ndarray, tfidf: np.ndarray) -> np.ndarray:
        """Return the joint log odds of class 1 for n messages from those of each model, all of shape (n,)."""
        return self.language_model * language_model + self.tfidf * tfidf + self.intercept


@dataclass(frozen=True)
class Settings:
    """What training found out about a classifier; `SETTINGS_FILE` holds it."""

    base_model: dict | None = None  # name, source and SHA-256 of the base weights
    decision_threshold: float = 0.5  # lowest probability that makes a message class 1
    joint: Joint | None = None  # None if the language model answers alone
    early_exit: dict | None = None  # where TF-IDF answers alone; see `training.evaluation.choose_early_exit`
    languages: Sequence[str] = ()  # ISO 639-1 codes of the languages that were learned; empty if they are not known
    accuracy: dict[str, float] = field(default_factory=dict)  # share of held-out messages that each model gets right
    warnings: Sequence[str] = ()  # where the language model is of no use
    exported_from: dict | None = None  # the folder that an export was made from, with its checksum

    @classmethod
    def load(cls, folder: Path) -> "Settings":
        """Read the settings of a folder; older folders have them in config.json.

        Raises:
            OSError: neither file can be read.
            ValueError: the file is damaged, or of a later version.
        """
        older = not (folder / SETTINGS_FILE).is_file()
        file = folder / ("config.json" if older else SETTINGS_FILE)
        found = json.loads(file.read_text(encoding="utf-8"))
        try:
            if older:
                found = _older_settings(found)
            return cls(**found | {"joint": Joint(**found["joint"]) if found.get("joint") else None})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged, or of another version: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the settings to a folder."""
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def _older_settings(config: dict) -> dict:
    same = ("decision_threshold", "languages", "accuracy", "warnings", "exported_from")
    found = {name: config[name] for name in same if config.get(name)}
    found |= {"base_model": config.get("base_model_source"), "early_exit": config.get("cascade")}
    if weight := config.get("language_model_weight"):
        found["joint"] = {"language_model": weight}
    return found


@dataclass(frozen=True)
class Answer:
    """The answer to one message."""

    probability: float  # of class 1 (spam), from 0 to 1
    truncated: bool  # the language model, or TF-IDF where it answers alone, did not read the end of the message
    answered_by: str  # `language model`, `TF-IDF`, or `both`
    other_language: bool  # the message is in a language that was not learned
    labels: tuple[str, str]  # names of class 0 and class 1
    threshold: float  # decision threshold of `label`

    @property
    def label(self) -> str:
        """The label at the decision threshold."""
        return self.label_at(self.threshold)

    @property
    def positive_probability(self) -> float:
        """The same as `probability`, under its older name."""
        return self.probability

    def label_at(self, threshold: float) -> str:
        """Return the label at another decision threshold."""
        return self.labels[int(self.probability >= threshold)]

    def probability_at(self, threshold: float) -> float:
        """Return the probability of the label at a decision threshold."""
        return self.probability if self.probability >= threshold else 1 - self.probability

    def less_sure_at(self, threshold: float) -> bool:
        """Return whether the answer is so near to a decision threshold that it is often wrong; see `LESS_SURE`."""
        above, below = self.probability * (1 - threshold), threshold * (1 - self.probability)
        return above < LESS_SURE * below and below < LESS_SURE * above


@dataclass(frozen=True)
class Message:
    """A message to answer, and what is known of it before the language model reads it."""

    text: str
    of_tfidf: float  # TF-IDF's log odds of class 1; NaN without TF-IDF
    other_language: bool


@dataclass(frozen=True)
class Classifier:
    """A language model that is ready to classify, and the TF-IDF model that answers with it."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    settings: Settings = Settings()
    tfidf: TfidfModel | None = None

    @classmethod
    def load(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> "Classifier":
        """Load a folder that the training script saved, and merge its adapter into its base model.

        Args:
            dtype: number format of the weights; merging is done in float32.
            device: where the model goes; by default the one that `runtime.choose_device` chooses.

        Raises:
            FileNotFoundError: the folder does not exist, or it holds neither an adapter nor a model.
            ArtifactError: the base model cannot be obtained.
            ValueError, OSError: the folder's files are damaged, its model has no classification head, or the
                environment variable DEVICE names a device that is not there.
        """
        folder, device = Path(folder), device or choose_device()
        is_adapter, settings = holds_adapter(folder), Settings.load(folder)
        config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        if is_adapter:
            model = load_merged(folder, config, settings.base_model, dtype)
        else:
            with quiet_loading():
                model, loading = AutoModelForSequenceClassification.from_pretrained(
                    folder, config=config, dtype=dtype, output_loading_info=True
                )
            if loading["missing_keys"]:
                raise ValueError(f"{folder} is no classifier, but a base to train one on (--model_name_or_path)")
        # Each message is read once, so keys and values are not kept for a next token.
        model.config.use_cache = False
        model = model.to(device).eval().requires_grad_(False)
        return cls(tokenizer, model, settings, load_tfidf(folder) if settings.joint else None)

    @property
    def labels(self) -> tuple[str, str]:
        """Names of class 0 and class 1."""
        return self.model.config.id2label[0], self.model.config.id2label[1]

    @property
    def base_name(self) -> str:
        """Name of the base model, or its kind if that is all that is known."""
        return (self.settings.base_model or {}).get("name") or self.model.config.model_type

    def answer(self, texts: Iterable[str], threshold: float | None = None, exact: bool = True) -> list[Answer | None]:
        """Answer n messages in their order; a message with nothing to read gets None.

        Args:
            texts: a list, a column of a table, a generator or the like.
            threshold: decision threshold, from 0 to 1; by default the classifier's own.
            exact: let both models read every message. Otherwise TF-IDF alone answers what it is sure of.

        Raises:
            TypeError: `texts` is one message, or one of the messages is not a string.
            ValueError: the threshold is not between 0 and 1.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"The decision threshold {threshold:g} does not lie between 0 and 1.")
        messages = self.prepare(as_list(texts))
        early = [None if exact else self.answer_early(message, threshold) for message in messages]
        others = iter(self.read([message for message, answer in zip(messages, early, strict=True) if answer is None]))
        answers = [next(others) if answer is None else answer for answer in early]
        return answers if threshold is None else [answer and replace(answer, threshold=threshold) for answer in answers]

    def prepare(self, texts: Sequence[str]) -> list[Message | None]:
        """Return n messages as both models take them, None for a message with nothing to read."""
        normalised = list(map(normalise, texts))
        messages: list[Message | None] = [None] * len(texts)
        for index, log_odds in enumerate(self._of_tfidf(normalised)):
            text, plain = texts[index], normalised[index]
            if not is_empty(text, plain):
                messages[index] = Message(text, log_odds, is_other_language(text, plain, self.settings.languages))
        return messages

    def answer_early(self, message: Message | None, threshold: float | None = None) -> Answer | None:
        """Answer a message that TF-IDF is sure of, without the language model; any other gets None.

        TF-IDF is sure where its log odds are farther from the threshold than the language model's can outweigh. How
        far that is was measured on validation messages (`training.evaluation.choose_early_exit`). For the probability,
        the log odds that the language model usually adds to such messages are added.
        """
        early_exit = self.settings.early_exit
        if message is None or self.tfidf is None or early_exit is None:
            return None
        beyond = message.of_tfidf - logit(self.settings.decision_threshold if threshold is None else threshold)
        if abs(beyond) < early_exit["bound"]:
            return None
        log_odds = message.of_tfidf + early_exit["usual_log_odds"][int(beyond > 0)]
        return self._answer(message, log_odds, len(message.text) > TFIDF_MAX_CHARACTERS, "TF-IDF")

    def read(self, messages: Sequence[Message | None]) -> list[Answer | None]:
        """Let the language model read n messages, and answer them together with TF-IDF; None gets None."""
        given = [message for message in messages if message is not None]
        encoded = encode([message.text for message in given], self.tokenizer, self.tokenizer.model_max_length)
        log_odds, who = read_log_odds(encoded, self.tokenizer, self.model), "language model"
        if self.tfidf is not None:
            of_tfidf = np.array([message.of_tfidf for message in given])
            log_odds, who = self.settings.joint.log_odds(log_odds, of_tfidf), "both"
        answers = (
            self._answer(message, of_message, bool(encoding.overflowing), who)
            for message, of_message, encoding in zip(given, log_odds, encoded.encodings or [], strict=True)
        )
        return [message if message is None else next(answers) for message in messages]

    def answer_parts(self, texts: Sequence[str]) -> list[Answer]:
        """Answer n parts of messages, for explanations; a part with nothing to read is read as one space."""
        readable = [" " if is_empty(text) else text for text in texts]
        of_tfidf = self._of_tfidf(list(map(normalise, readable)))
        return self.read([Message(*part, other_language=False) for part in zip(readable, of_tfidf, strict=True)])

    def _of_tfidf(self, normalised: Sequence[str]) -> list[float]:
        return self.tfidf.log_odds(normalised, normalised=True).tolist() if self.tfidf else [np.nan] * len(normalised)

    def _answer(self, message: Message, log_odds: float, truncated: bool, answered_by: str) -> Answer:
        probability, threshold = float(expit(log_odds)), self.settings.decision_threshold
        return Answer(probability, truncated, answered_by, message.other_language, self.labels, threshold)


def holds_adapter(folder: Path) -> bool:
    """Return whether a trained folder holds an adapter; else it holds a whole model, or FileNotFoundError is raised."""
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    if not is_adapter and not list(folder.glob("model*.safetensors")):
        raise FileNotFoundError(f"{folder} holds neither an adapter nor a model")
    return is_adapter


def as_list(texts: Iterable[str]) -> list[str]:
    """Return messages as a list, in the order in which they come; the index of a pandas Series does not count.

    Raises:
        TypeError: it is one message instead of several, or a table or dict, or a message is not a string.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError("Several messages are expected, such as a list; for a single one write [text].")
    # They would yield the names of their columns or keys, which are strings too.
    if isinstance(texts, (Mapping, pd.DataFrame)):
        raise TypeError('Give one column of the table, as in table["text"], or the values of the dict.')
    # A column of pyarrow yields objects of its own.
    texts = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"The message at position {position} is not a string: {text!r:.40}")
    return texts


def load_tokenizer_and_model(
    adapter_dir: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and model of `Classifier.load`, for code that handles the two itself."""
    classifier = Classifier.load(adapter_dir, dtype, device)
    # `classify` finds TF-IDF and settings by it.
    classifier.model.text_classifier = classifier
    return classifier.tokenizer, classifier.model


def classify(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    threshold: float | None = None,
    exact: bool = True,
) -> list[Answer | None]:
    """Answer n messages with what `load_tokenizer_and_model` returned; see `Classifier.answer`."""
    return model.text_classifier.answer(texts, threshold, exact)
