"""Classify the messages of a file of any length."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from text_classifier.classifier import Answer, Classifier
from text_classifier.files import LINE_END, file_sha256
from text_classifier.metrics import classification_metrics, results_table
from text_classifier.reading.columns import texts_of
from text_classifier.reading.labels import Classes, find_classes, is_missing, without_case
from text_classifier.reading.messages import Messages, ReadOptions, read_messages

# Large enough to sort messages by length, small enough that a stopped run loses little work.
ROWS_PER_CHUNK = 1024

# Digits of probabilities that figures are computed from.
_EXACT_DIGITS = 9


@dataclass(frozen=True)
class Task:
    """What is classified, and how."""

    source: Path
    options: ReadOptions = field(default_factory=ReadOptions)
    """How the source is read; with a column of labels, the answers are measured."""
    threshold: float = 0.5
    """Decision threshold."""
    exact: bool = False
    """Whether both models read every message; see `Classifier.answer`."""

    def open(self) -> tuple[Messages, "Task"]:
        """Read the file once; return its messages, and the task with the columns that were found.

        Raises:
            TableError: the file cannot be used; the message says why.
        """
        messages = read_messages(self.source, self.options)
        return messages, replace(self, options=replace(self.options, text_column=messages.text_columns))


def add_answers(
    table: pd.DataFrame,
    answers: Sequence[Answer | None],
    positive_label: str,
    threshold: float,
    digits: int = 4,
) -> pd.DataFrame:
    """Return the table with the answers in six more columns.

    They are: label, probability of class 1, whether the message was too long, who answered, whether it is in a language
    that the adapter did not learn, and whether the answer is less sure than usual.

    Args:
        table: n messages.
        answers: n answers, None for a message that was not classified.
        positive_label: name of class 1.
        threshold: decision threshold.
        digits: digits of the probability after the decimal point.
    """

    def column(value: Callable[[Answer], str]) -> list[str]:
        return [value(answer) if answer else "" for answer in answers]

    added = {
        "predicted_label": column(lambda answer: answer.label_at(threshold)),
        f"{positive_label}_probability": column(lambda answer: f"{answer.probability:.{digits}f}"),
        "truncated": column(lambda answer: str(answer.truncated).lower()),
        "answered_by": column(lambda answer: answer.answered_by),
        "other_language": column(lambda answer: str(answer.other_language).lower()),
        "less_sure": column(lambda answer: str(answer.less_sure_at(threshold)).lower()),
    }
    result = table.copy()
    for name, values in added.items():
        while name in result.columns:
            name += "_2"
        result[name] = values
    return result


def score_table(table: pd.DataFrame, task: Task, classifier: Classifier) -> pd.DataFrame:
    """Return the table with an answer to each message; empty messages get none."""
    answers = classifier.answer(texts_of(table, task.options.text_column), task.threshold, task.exact)
    digits = _EXACT_DIGITS if task.options.label_column else 4
    return add_answers(table, answers, classifier.labels[1], task.threshold, digits)


def as_csv(table: pd.DataFrame, header: bool) -> bytes:
    """Return a table as CSV. The csv module reads the same cells from it, pandas too, and this project."""
    return table.to_csv(index=False, header=header, lineterminator=LINE_END).encode()


def score_file(messages: Messages, task: Task, part: Path, classifier: Classifier, model_sha256: str) -> None:
    """Classify the messages of a file of any length.

    Only some rows are in memory at a time. If a run is stopped, the next one continues after the rows in `part`.

    Args:
        messages, task: see `Task.open`.
        part: CSV that gets the finished rows; what was done with which task stands beside it.
        model_sha256: checksum of the adapter; a run with another adapter is not continued.

    Raises:
        TableError: the source cannot be read.
        ValueError: the unfinished file belongs to another source, column or adapter.
    """
    state_file = _state_file(part)
    same = {"source": file_sha256(task.source), "model": model_sha256}
    same |= {name: value for name, value in asdict(task).items() if name != "source"}
    state = _unfinished(part, state_file, same)
    with (
        part.open("ab") as output,
        tqdm(total=messages.rows, initial=state["rows"], unit=" messages", disable=None) as progress,
    ):
        # Cut off rows that a stopped run wrote after it last saved its state.
        output.truncate(state["bytes"])
        rows = 0
        for chunk in messages.chunks(ROWS_PER_CHUNK):
            rows += len(chunk)
            if rows <= state["rows"]:
                continue
            output.write(as_csv(score_table(chunk, task, classifier), header=not state["rows"]))
            output.flush()
            os.fsync(output.fileno())
            state |= {"rows": rows, "bytes": output.tell()}
            # The temporary file always has the same name, so the next run overwrites what a killed run left.
            scratch = state_file.with_suffix(".new")
            scratch.write_text(json.dumps(state), encoding="utf-8")
            os.replace(scratch, state_file)
            progress.update(len(chunk))


def remove_part(part: Path) -> None:
    """Remove the rows of a run that is done, and what was noted about it."""
    part.unlink()
    _state_file(part).unlink(missing_ok=True)


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


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
            f"{part} belongs to another file, adapter or option. Finish that run with its own command, "
            f"or remove {part.name} and {state_file.name}."
        )
    # A run was killed right after it had renamed the part, or somebody removed the part.
    if not part.is_file() or part.stat().st_size < state["bytes"]:
        return nothing_done
    return state


# ---------------------------------------------------------------------------- measuring


def classes_of(messages: Messages, task: Task, names: Sequence[str]) -> Classes:
    """Return the two classes of the file's labels: those of the adapter, or else what its own labels must mean.

    Args:
        names: names of the adapter's class 0 and class 1.

    Raises:
        ValueError: the labels are neither the adapter's nor two of their own.
    """
    labels = pd.concat([chunk[messages.label_column] for chunk in messages.chunks(ROWS_PER_CHUNK)], ignore_index=True)
    labels = labels[~is_missing(labels)]
    own = {name.casefold(): number for number, name in enumerate(names)}
    if task.options.positive_label is None and set(without_case(labels)) <= set(own):
        return Classes((names[0], names[1]), own)
    return find_classes(labels, task.options.positive_label)


def measure(part: Path, task: Task, ids: dict[str, int], adapter: str) -> str:
    """Compare the answers in a finished CSV with its labels, and return the figures as a table.

    Args:
        ids: label without case -> 0 or 1.
        adapter: name of the adapter in the table.
    """
    scored = pd.read_csv(part, dtype=str, keep_default_na=False)
    probability = scored.columns[-5]
    told = scored[scored[probability].ne("")]
    truth = without_case(told[task.options.label_column]).map(ids)
    told, truth = told[truth.notna()], truth.dropna().astype(int)
    # A probability of 1 with a wrong label would be an infinite loss.
    probabilities = np.clip(told[probability].astype(float), 10**-_EXACT_DIGITS, 1 - 10**-_EXACT_DIGITS)
    metrics = classification_metrics(truth.to_numpy(), probabilities.to_numpy(), task.threshold)
    return results_table({adapter: {task.source.name: metrics}})
