"""Classify the messages of a file of any length."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from text_classifier.files import file_sha256
from text_classifier.inference import Classification, classify
from text_classifier.tables import check_columns, read_table

# Large enough to sort messages by length, small enough that a stopped run loses little work.
ROWS_PER_CHUNK = 1024


def add_answers(
    table: pd.DataFrame, answers: Sequence[Classification | None], labels: Sequence[str | None], positive_label: str
) -> pd.DataFrame:
    """Return the table with three more columns: label, probability of `positive_label`, and truncation.

    Args:
        table: n messages.
        answers: n answers, None for a message that was not classified.
        labels: n labels, None for a message that was not classified. They can differ from the labels in `answers`,
            because a chat user can set another decision threshold.
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
    """Return the table with an answer to each message at the adapter's decision threshold; empty messages get none."""
    answers = classify(table[text_column].tolist(), tokenizer, model)
    labels = [answer.label if answer else None for answer in answers]
    return add_answers(table, answers, labels, model.config.id2label[1])


def as_csv(table: pd.DataFrame, header: bool) -> bytes:
    """Return the rows as CSV bytes, with or without a header."""
    return table.to_csv(index=False, header=header, lineterminator="\n").encode()


def score_file(
    source: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    text_column: str,
    model_sha256: str,
) -> int:
    """Classify the messages of a .csv or .tsv of any length, and return how many rows were written.

    Only some rows are in memory at a time. Until all rows are done, the finished rows stand beside `target` in a file
    that ends in .part. If a run is stopped, the next one continues from there.

    Args:
        target: the .csv to write.
        model_sha256: checksum of the adapter; a run with another adapter is not continued.

    Raises:
        ValueError: the source cannot be read, lacks the column or has no rows, or the unfinished file belongs to
            another source, column or adapter.
    """
    part, state_file = (target.with_name(f"{target.name}{suffix}") for suffix in (".part", ".part.json"))
    task = {"source": file_sha256(source), "model": model_sha256, "text_column": text_column}
    state = _unfinished(part, state_file, task)
    total = _count_rows(source, text_column)
    with (
        part.open("ab") as output,
        tqdm(total=total, initial=state["rows"], unit=" messages", disable=None) as progress,
    ):
        # Cut off rows that a stopped run wrote after it last saved its state.
        output.truncate(state["bytes"])
        rows = 0
        for table in read_table(source, ROWS_PER_CHUNK):
            rows += len(table)
            if rows <= state["rows"]:
                continue
            scored = score_table(table, text_column, tokenizer, model)
            output.write(as_csv(scored, header=not state["rows"]))
            output.flush()
            os.fsync(output.fileno())
            state |= {"rows": rows, "bytes": output.tell()}
            # The temporary file always has the same name, so the next run overwrites what a killed run left.
            scratch = state_file.with_suffix(".new")
            scratch.write_text(json.dumps(state), encoding="utf-8")
            os.replace(scratch, state_file)
            progress.update(len(table))
    os.replace(part, target)
    state_file.unlink()
    return total


def _unfinished(part: Path, state_file: Path, task: dict) -> dict:
    """Return how far a stopped run came: its `task`, and the `rows` and `bytes` that it finished.

    Raises:
        ValueError: the stopped run had another task.
    """
    nothing_done = {"task": task, "rows": 0, "bytes": 0}
    if not state_file.is_file():
        return nothing_done
    state = json.loads(state_file.read_text(encoding="utf-8"))
    if state["task"] != task:
        raise ValueError(
            f"{part} belongs to another file or adapter. Finish that run with its own command, "
            f"or remove {part.name} and {state_file.name}."
        )
    # A run was killed right after it had renamed the part, or somebody removed the part.
    if not part.is_file() or part.stat().st_size < state["bytes"]:
        return nothing_done
    return state


def _count_rows(source: Path, text_column: str) -> int:
    """Read a whole file, so that an error in row 90,000 shows at once and not after an hour; return its rows.

    Raises:
        ValueError: it cannot be read, lacks the column or has no rows.
    """
    total = 0
    for table in read_table(source, ROWS_PER_CHUNK):
        check_columns(source, table.columns, text_column=text_column)
        total += len(table)
    if not total:
        raise ValueError(f"{source} has no rows.")
    return total
