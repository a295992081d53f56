"""Classify the messages of a file of any length, measure the answers, and write them in the format that is asked for.

While it works, the finished rows stand in a CSV beside the result, from which the next run goes on.
"""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from tqdm import tqdm

from text_classifier.classifier import Answer, Classifier
from text_classifier.files import STANDARD, atomic_path, exclusive, file_sha256, is_stream
from text_classifier.metrics import classification_metrics, results_table
from text_classifier.reading.columns import texts_of
from text_classifier.reading.labels import Classes, find_classes, is_missing, without_case
from text_classifier.reading.messages import Messages, ReadOptions

# Large enough to sort messages by length, small enough that a stopped run loses little work.
ROWS_PER_CHUNK = 1024

# Line end of the tables that are written. With "\n", Python before 3.11.9 leaves a cell with a lone carriage return
# without quotation marks, and readers take it for two rows.
_LINE_END = "\r\n"

# Digits of probabilities that figures are computed from.
_EXACT_DIGITS = 9


@dataclass(frozen=True)
class Task:
    """What is classified, and how."""

    source: Path
    options: ReadOptions  # how it was read, with the `text_column` that was found
    threshold: float  # decision threshold
    exact: bool  # both models read every message; see `Classifier.answer`


def add_answers(
    table: pd.DataFrame, answers: Sequence[Answer | None], positive_label: str, threshold: float, digits: int = 4
) -> pd.DataFrame:
    """Return a table of n messages with n answers in six more columns, empty for a message that was not classified.

    Args:
        positive_label: name of class 1, whose probability is given with `digits` digits after the decimal point.
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
    """Return a table as CSV from which the csv module, pandas and this project read the same cells."""
    return table.to_csv(index=False, header=header, lineterminator=_LINE_END).encode()


def score_file(messages: Messages, task: Task, part: Path, classifier: Classifier, model_sha256: str) -> None:
    """Classify the messages of a file of any length.

    Only some rows are in memory at a time. If a run is stopped, the next one continues after the rows in `part`.

    Args:
        part: CSV that gets the finished rows; what was done with which task stands beside it.
        model_sha256: checksum of the adapter; a run with another adapter is not continued.

    Raises:
        TableError: the source cannot be read.
        ValueError: the unfinished file belongs to another source, column or adapter.
    """
    same = asdict(task) | {"source": file_sha256(task.source), "model": model_sha256}
    state = _unfinished(part, same)
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
            scratch = _state_file(part).with_suffix(".new")
            scratch.write_text(json.dumps(state), encoding="utf-8")
            os.replace(scratch, _state_file(part))
            progress.update(len(chunk))


@contextlib.contextmanager
def finished_rows(target: Path | None) -> Iterator[Path]:
    """Yield the path of the CSV that gets the finished rows; if the block ends without error, the CSV is removed.

    If `target` is a file, the CSV stands beside it, and `target` is locked meanwhile; see `exclusive`. Otherwise (a
    device, a pipe, standard output, None) the CSV is a temporary file.
    """
    if target is None or is_stream(target):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "scored.csv.part")
        return
    target = target.resolve()
    part = target.with_name(f"{target.name}.part")
    with exclusive(target):
        yield part
        part.unlink()
        _state_file(part).unlink(missing_ok=True)


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _unfinished(part: Path, task: dict) -> dict:
    """Return how far a stopped run came: its `task`, `rows` and `bytes`; ValueError if that was another task."""
    state_file = _state_file(part)
    if state_file.is_file():
        state = json.loads(state_file.read_text(encoding="utf-8"))
        if state["task"] != task:
            raise ValueError(
                f"{part} belongs to another file, adapter or option. Finish that run with its own command, "
                f"or remove {part.name} and {state_file.name}."
            )
        # Otherwise a run was killed right after it had removed its rows, or somebody else removed them.
        if part.is_file() and part.stat().st_size >= state["bytes"]:
            return state
    return {"task": task, "rows": 0, "bytes": 0}


# ---------------------------------------------------------------------------- measuring


def classes_of(messages: Messages, task: Task, names: Sequence[str]) -> Classes:
    """Return the two classes of the file's labels: those of the adapter (`names`), or else of `find_classes`."""
    labels = pd.concat([chunk[messages.label_column] for chunk in messages.chunks(ROWS_PER_CHUNK)], ignore_index=True)
    labels = labels[~is_missing(labels)]
    own = {name.casefold(): number for number, name in enumerate(names)}
    if task.options.positive_label is None and set(without_case(labels)) <= set(own):
        return Classes((names[0], names[1]), own)
    return find_classes(labels, task.options.positive_label)


def measure(part: Path, task: Task, classes: Classes, adapter: str) -> str:
    """Compare the answers in a finished CSV with its labels, and return the figures of the adapter as a table."""
    scored = pd.read_csv(part, dtype=str, keep_default_na=False)
    probability = scored.columns[-5]
    told = scored[scored[probability].ne("")]
    truth = classes.ids_of(told[task.options.label_column])
    told, truth = told[truth.notna()], truth.dropna().astype(int)
    # A probability of 1 with a wrong label would be an infinite loss.
    probabilities = np.clip(told[probability].astype(float), 10**-_EXACT_DIGITS, 1 - 10**-_EXACT_DIGITS)
    metrics = classification_metrics(truth.to_numpy(), probabilities.to_numpy(), task.threshold)
    return results_table({adapter: {task.source.name: metrics}})


# ---------------------------------------------------------------------------- the result

_PACK = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ESCAPED = re.compile(r"[\x00-\x08\x0b-\x1f]|_(?=x[0-9A-Fa-f]{4}_)")
_EXCEL_ROWS, _EXCEL_CHARACTERS = 1_048_576, 32_767


def format_of(target: Path) -> tuple[str, str]:
    """Return what a result's name ends in: its format, such as .csv, and its compression, such as .gz, or "".

    A device, a pipe and standard output may have any name; without an ending they get a CSV. For another format,
    ValueError is raised.
    """
    suffixes = [suffix.lower() for suffix in target.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _PACK else ""
    name = suffixes[-1] if suffixes else ""
    if name in (".csv", ".tsv", ".jsonl") or (name == ".xlsx" and not packed):
        return name, packed
    if is_stream(target):
        return ".csv", ""
    raise ValueError(f"--output {target}: the name must end in .csv, .tsv or .jsonl, perhaps with .gz, or in .xlsx.")


def check_output(target: Path, source: Path, rows: int = 0) -> None:
    """Check that a result with so many rows can be written, before any work; a ValueError says why it cannot."""
    if target.is_dir():
        raise ValueError(f"--output {target} is a folder; name the file to write.")
    if not target.parent.is_dir():
        raise ValueError(f"--output {target}: there is no folder {target.parent}.")
    # `realpath` follows links to their end, unless they lead in a circle.
    if os.path.islink(os.path.realpath(target)):
        raise ValueError(f"--output {target} is a link that leads to itself.")
    if target != STANDARD and target.resolve() == source.resolve():
        raise ValueError("--output is the file itself.")
    if format_of(target)[0] == ".xlsx" and rows >= _EXCEL_ROWS:
        raise ValueError(f"--output {target}: Excel takes {_EXCEL_ROWS - 1:,} rows, the file has {rows:,}. Use .csv.")


def write_result(part: Path, target: Path) -> None:
    """Write the rows of `part`, a finished CSV in UTF-8, in the format that the name of the result says."""
    name, packed = format_of(target)
    if target == STANDARD:
        _write(part, sys.stdout.buffer, name)
        return
    with atomic_path(target) as scratch, _PACK[packed](scratch, "wb") as output:
        if name == ".csv" and not is_stream(target) and not _is_ascii(part):
            # Excel takes a CSV without this mark for one in an older encoding; other programs of a pipe do not want it.
            output.write(codecs.BOM_UTF8)
        _write(part, output, name)


def _is_ascii(path: Path) -> bool:
    with path.open("rb") as file:
        return all(block.isascii() for block in iter(lambda: file.read(1 << 20), b""))


def _write(part: Path, output: BinaryIO, name: str) -> None:
    if name == ".csv":
        with part.open("rb") as content:
            shutil.copyfileobj(content, output)
        return
    with part.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if name == ".xlsx":
            workbook = Workbook(write_only=True)
            sheet = workbook.create_sheet("messages")
            for row in rows:
                sheet.append([_text_cell(sheet, cell) for cell in row])
            workbook.save(output)
            return
        text = io.TextIOWrapper(output, "utf-8", newline="")
        if name == ".jsonl":
            header = next(rows)
            text.writelines(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        else:
            csv.writer(text, delimiter="\t", lineterminator=_LINE_END).writerows(rows)
    # Flushes, and leaves `output` open.
    text.detach()


def _text_cell(sheet: object, text: str) -> WriteOnlyCell:
    # Excel's own escapes, for characters that XML cannot hold or would change, and for a text that looks like one.
    escaped = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    cell = WriteOnlyCell(sheet, escaped[:_EXCEL_CHARACTERS])
    # A text is no formula, whatever it begins with.
    cell.data_type = "s"
    return cell
