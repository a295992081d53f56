"""Use a trained adapter: load it once, merge it into its base, and classify messages with it.

A file of any length:

    python text_classifier.py messages.csv --output scored.csv --text_column body
"""

import argparse
import contextlib
import csv
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import transformers
from peft import PeftConfig, PeftModel
from peft.utils import CONFIG_NAME
from scipy.special import expit
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from artifact_sources import ArtifactError, file_sha256, resolve_base_model
from tfidf_model import load_tfidf


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
    # Half a surrogate pair, which a browser can send, is no character.
    texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
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


# Read together. Fewer leave the cores idle; with more, attention to other messages, which is computed and
# thrown away, takes longer than it saves.
_BATCH_TOKENS = 256

# Decoders whose classification head reads the last token: their messages need no padding.
_PACKABLE = {"gpt2": "transformer", "llama": "model"}


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


def decision_threshold(model: PreTrainedModel) -> float:
    """Return the probability of class 1 from which the adapter calls a message class 1; 0.5 if it has none."""
    return getattr(model.config, "decision_threshold", 0.5)


def decide(positive_probability: float, threshold: float, id2label: dict[int, str]) -> tuple[str, float]:
    """Return the label at a threshold, and the probability of that label."""
    if positive_probability >= threshold:
        return id2label[1], positive_probability
    return id2label[0], 1 - positive_probability


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
            log_odds = model.config.language_model_weight * log_odds + of_tfidf[indices]
        positive = expit(log_odds).tolist()
        for index, probability in zip(indices, positive, strict=True):
            answers[index] = Classification(
                label=decide(probability, threshold, model.config.id2label)[0],
                positive_probability=probability,
                truncated=bool(encoded.encodings[index].overflowing),
            )
    return answers


# ---------------------------------------------------------------------------- files

# Enough to sort by length, few enough to lose when a run is stopped.
ROWS_AT_A_TIME = 1024


def read_table(path: Path, rows_at_a_time: int | None = None) -> Iterator[pd.DataFrame]:
    """Yield the rows of a .csv or .tsv as strings, all at once or some at a time; an empty cell is "".

    A .csv may quote its fields; a .tsv is read as the format is defined, one line a row, no quoting.

    Raises:
        ValueError: the file is missing, not UTF-8 or not a table; the message says what to do.
    """
    tab_separated = path.suffix.lower() in (".tsv", ".tab")
    try:
        with warnings.catch_warnings():
            # Rows with more fields than the header: text with commas that nobody quoted.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep="\t" if tab_separated else ",",
                quoting=csv.QUOTE_NONE if tab_separated else csv.QUOTE_MINIMAL,
                dtype=str,
                encoding="utf-8-sig",
                index_col=False,
                # "NA", "null" and "None" are things people write.
                keep_default_na=False,
                chunksize=rows_at_a_time,
            )
            yield from [table] if rows_at_a_time is None else table
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}). Convert it first, with its own encoding "
            f"(cp1252, gb18030, utf-16 …) for ENCODING: iconv -f ENCODING -t utf-8 {path} > converted{path.suffix}"
        ) from error
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(f"Cannot read {path} as a table: {str(error).strip()}") from error


def add_answers(
    table: pd.DataFrame, answers: Sequence[Classification | None], labels: Sequence[str | None], positive_label: str
) -> pd.DataFrame:
    """Return the table with columns for label, probability of `positive_label` and truncation.

    Args:
        table: n messages.
        answers: n answers, None for a message that was not classified.
        labels: n labels, at the threshold of the person who asked.
        positive_label: name of class 1.
    """
    added = {
        "predicted_label": [label or "" for label in labels],
        f"{positive_label}_probability": [f"{answer.positive_probability:.4f}" if answer else "" for answer in answers],
        "truncated": [str(answer.truncated).lower() if answer else "" for answer in answers],
    }
    result = table.copy()
    for name, values in added.items():
        while name in result.columns:
            name += "_2"
        result[name] = values
    return result


def score_table(
    table: pd.DataFrame, text_column: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> pd.DataFrame:
    """Return the table with an answer to each message, at the adapter's threshold; to an empty one, none."""
    texts = table[text_column].tolist()
    filled = [index for index, text in enumerate(texts) if text.strip()]
    answers: list[Classification | None] = [None] * len(texts)
    classified = classify([texts[index] for index in filled], tokenizer, model)
    for index, answer in zip(filled, classified, strict=True):
        answers[index] = answer
    labels = [answer.label if answer else None for answer in answers]
    return add_answers(table, answers, labels, model.config.id2label[1])


def check_text_column(source: Path, columns: Sequence[str], text_column: str) -> None:
    """See to it that a file has the column with the messages.

    Raises:
        ValueError: it has not.
    """
    if text_column not in columns:
        raise ValueError(
            f"{source} has no column {text_column!r}, only {', '.join(map(repr, columns))}. "
            "Name the right one with --text_column."
        )


def score_file(
    source: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    text_column: str,
    model_sha256: str,
) -> int:
    """Classify the messages of a .csv or .tsv of any length, and return how many rows were written to a .csv.

    Only some rows are in memory at a time. Until all is done, what is done stands in `target`.part, and a
    run that was stopped goes on from there.

    Args:
        model_sha256: of the adapter: rows of another are not continued.

    Raises:
        ValueError: the source cannot be read, lacks the column, or the unfinished file is of something else.
    """
    part, state_file = (target.with_name(f"{target.name}{suffix}") for suffix in (".part", ".part.json"))
    task = {"source": file_sha256(source), "model": model_sha256, "text_column": text_column}
    state = {"task": task, "rows": 0, "bytes": 0}
    if state_file.is_file():
        state = json.loads(state_file.read_text(encoding="utf-8"))
        if state["task"] != task:
            raise ValueError(f"{part} is of another file or adapter. Finish that, or remove it and {state_file.name}.")
    # All is read once before: what is wrong with row 90,000 shows at once, not after an hour.
    total = 0
    for table in read_table(source, ROWS_AT_A_TIME):
        check_text_column(source, table.columns, text_column)
        total += len(table)
    if not total:
        raise ValueError(f"{source} has no rows.")
    with (
        part.open("ab") as output,
        tqdm(total=total, initial=state["rows"], unit=" messages", disable=None) as progress,
    ):
        # What a stopped run wrote after it last took note.
        output.truncate(state["bytes"])
        rows = 0
        for table in read_table(source, ROWS_AT_A_TIME):
            rows += len(table)
            if rows <= state["rows"]:
                continue
            scored = score_table(table, text_column, tokenizer, model)
            output.write(scored.to_csv(index=False, header=not state["rows"], lineterminator="\n").encode())
            output.flush()
            os.fsync(output.fileno())
            state |= {"rows": rows, "bytes": output.tell()}
            # Always the same scratch file, so that a killed run's is used again.
            scratch = state_file.with_suffix(".new")
            scratch.write_text(json.dumps(state), encoding="utf-8")
            os.replace(scratch, state_file)
            progress.update(len(table))
    os.replace(part, target)
    state_file.unlink()
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Classify a file as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Classify the messages of a file.")
    parser.add_argument("file", type=Path, help="a UTF-8 .csv or .tsv with a header")
    parser.add_argument("--output", type=Path, required=True, help=".csv to write: the file's columns and the answers")
    parser.add_argument("--text_column", default="Text", help="column with the messages (default: Text)")
    parser.add_argument("--adapter_dir", type=Path, default=Path("lora_model"), help="default: lora_model")
    parser.add_argument("--int8", action="store_true", help="faster: weights of 8 bits (requirements-int8.txt)")
    options = parser.parse_args(argv)
    try:
        if options.output.resolve() == options.file.resolve():
            raise ValueError("--output is the file itself.")
        tokenizer, model = load_tokenizer_and_model(
            options.adapter_dir, torch.float32 if options.int8 else fast_dtype()
        )
        sha256 = file_sha256(*sorted(options.adapter_dir.glob("*.safetensors")), options.adapter_dir / "config.json")
        if options.int8:
            # An extra of its own, and slow to import.
            from int8_model import Int8Model

            model, sha256 = Int8Model(model), f"{sha256} int8"
        rows = score_file(options.file, options.output, tokenizer, model, options.text_column, sha256)
    except ModuleNotFoundError as error:
        print(f"Error: --int8 needs {error.name}: pip install -r requirements-int8.txt", file=sys.stderr)
        return 1
    except (ArtifactError, ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    print(f"{rows:,} rows in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
