"""Classify the messages of a file of any length."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from text_classifier.files import file_sha256
from text_classifier.inference import Classification, classify
from text_classifier.tables import check_columns, read_table

# Enough to sort by length, few enough to lose when a run is stopped.
ROWS_PER_CHUNK = 1024


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


def as_csv(table: pd.DataFrame, header: bool) -> bytes:
    """Return rows of the result as they are written, with or without the names of their columns."""
    return table.to_csv(index=False, header=header, lineterminator="\n").encode()


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
    for table in read_table(source, ROWS_PER_CHUNK):
        check_columns(source, table.columns, text_column=text_column)
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
        for table in read_table(source, ROWS_PER_CHUNK):
            rows += len(table)
            if rows <= state["rows"]:
                continue
            scored = score_table(table, text_column, tokenizer, model)
            output.write(as_csv(scored, header=not state["rows"]))
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
