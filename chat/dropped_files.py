"""Classify a file of messages that was dropped into the chat; show the progress, charts and the result.

A file that cannot be used raises a TableError.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import chainlit as cl
import numpy as np
import pandas as pd
from chainlit.session import WebsocketSession

from chat.batching import BatchingClassifier, BusyError
from chat.settings import FILE_LIMITS, MAX_MESSAGE_CHARACTERS
from chat.texts import label_name, quoted, say, show_probability, visible
from text_classifier.classifier import Answer
from text_classifier.reading.decoding import ENCODINGS, SUFFIXES
from text_classifier.reading.messages import Messages, ReadOptions, read_messages
from text_classifier.reading.notes import Note, TableError
from text_classifier.scoring import add_answers
from text_classifier.text import replace_half_surrogates

# Rows given to the model at a time, or a batch where that is more. Between these steps, the app checks whether the
# visitor has stopped it.
ROWS_PER_STEP = 128
MOST_CHOICES = 12  # buttons of a question
PREVIEW_ROWS = 10  # rows of the result that the page shows

# A spreadsheet runs a cell that begins like this as a formula (OWASP, "CSV Injection"), unless it is a number.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d\s.,]*\d%?")


@dataclass(frozen=True)
class ClassifiedFile:
    """A file's messages and their answers."""

    name: str
    table: pd.DataFrame
    column: str
    """Name of the column with the messages."""
    answers: list[Answer | None]
    """One for each row; None if its message is blank or was not reached."""
    unreached: int
    """Number of rows that were not reached, because the visitor stopped."""
    seconds: float
    notes: list[Note]


async def answer_file(
    path: Path,
    name: str,
    classifier: BatchingClassifier,
    language: str,
    threshold: Callable[[], float],
    encoding: str | None = None,
) -> None:
    """Classify every message of a file and send charts, the first rows and the whole result.

    Args:
        name: name of the file on the visitor's machine.
        threshold: returns the decision threshold; asked again at the end, because the visitor may have moved it.
    """
    started = time.monotonic()
    messages = await read_file(path, name, language, ReadOptions(encoding=encoding))
    if messages is None:
        await cl.Message(say("no_column", language)).send()
        return
    table, (column,) = await cl.make_async(messages.table)(), messages.text_columns
    texts = [text.strip()[:MAX_MESSAGE_CHARACTERS] for text in table[column]]
    answers, unreached = await classify_with_progress(texts, name, classifier, threshold(), language)
    if not is_over():
        seconds = time.monotonic() - started
        cl.user_session.set("last_file", (path, name))
        classified = ClassifiedFile(name, table, column, answers, unreached, seconds, messages.notes)
        await send_result(classified, classifier.classifier.labels, threshold(), language)


async def read_file(path: Path, name: str, language: str, options: ReadOptions) -> Messages | None:
    """Read a file, and ask for its column or sheet with the messages if that is not clear; None without an answer."""
    if Path(name).suffix.lower() not in SUFFIXES:
        raise TableError("file_type", formats=" ".join(SUFFIXES))
    try:
        return await cl.make_async(read_messages)(path, options, name, limits=FILE_LIMITS)
    except TableError as error:
        choices = error.values.get("choices", [])[:MOST_CHOICES]
        if not choices:
            raise
        missing = {"file_several_sheets": "sheet", "file_which_text_column": "text_column"}[error.key]
        shown = ", ".join(map(quoted, choices))
        chosen = await ask(say(error.key, language, sheets=shown, columns=shown), choices)
    if chosen is None:
        return None
    return await read_file(path, name, language, replace(options, **{missing: choices[chosen]}))


async def answer_file_again(classifier: BatchingClassifier, language: str, threshold: Callable[[], float]) -> None:
    """Ask for the encoding of the visitor's last file, and classify the file again."""
    path, name = cl.user_session.get("last_file")
    names = {"utf-8": "utf-8"} | {encoding: f"{encoding} · {where}" for encoding, where in ENCODINGS.items()}
    chosen = await ask(say("which_encoding", language, name=quoted(name)), list(names.values()))
    if chosen is not None:
        await answer_file(path, name, classifier, language, threshold, [*names][chosen])


def is_over() -> bool:
    """Return whether the visitor has left for good. Nobody would get a result then, and its file would stay."""
    return WebsocketSession.get_by_id(cl.context.session.id) is None


async def ask(question: str, choices: Sequence[str]) -> int | None:
    """Ask the visitor with a button for each choice; return its number, or None without an answer in five minutes."""
    labels = [visible(choice)[:60] for choice in choices]
    actions = [cl.Action(name="choice", payload={"number": number}, label=label) for number, label in enumerate(labels)]
    asked = cl.AskActionMessage(question, actions, timeout=300)
    answer = await asked.send()
    # Remove the question, because Chainlit leaves "Selected: …" there, in English.
    await asked.remove()
    return int(answer["payload"]["number"]) if answer else None


# ---------------------------------------------------------------------------- classifying


async def classify_with_progress(
    texts: list[str], name: str, classifier: BatchingClassifier, threshold: float, language: str
) -> tuple[list[Answer | None], int]:
    """Classify n texts while the page shows the progress.

    Returns:
        n answers, None for a text that is blank or was not reached; and how many were not reached.
    """
    answers: list[Answer | None] = [None] * len(texts)

    def progress(done: int) -> dict:
        count = say("progress_count", language, done=f"{done:,}", total=f"{len(texts):,}")
        return {"done": done, "total": len(texts), "count": count, "stop": say("stop", language)}

    element = cl.CustomElement(name="Progress", url="/public/elements/Progress.jsx", props=progress(0))
    message = await cl.Message(say("progress", language, name=quoted(name)), elements=[element]).send()
    # Sort by length, because some models pad a batch to its longest text. Sort within blocks, so that the progress bar
    # moves evenly.
    order = sorted(range(len(texts)), key=lambda row: (row // 1024, len(texts[row])))
    step = max(ROWS_PER_STEP, classifier.batch_size)
    done, shown_at = 0, time.monotonic()
    stopped = asyncio.Event()
    cl.user_session.set("stop_file", stopped)
    try:
        while done < len(texts) and not (stopped.is_set() or is_over()):
            rows = order[done : done + step]
            try:
                said = await classifier.classify([texts[row] for row in rows], threshold)
            except BusyError:
                await asyncio.sleep(1)  # Other visitors keep the model busy.
                continue
            for row, answer in zip(rows, said, strict=True):
                answers[row] = answer
            done += len(rows)
            if time.monotonic() - shown_at > 0.4:
                shown_at = time.monotonic()
                element.props = progress(done)
                await element.update()
    except asyncio.CancelledError:
        pass  # The page's own stop button cancels this task. What is done is sent all the same.
    finally:
        await message.remove()
    return answers, len(texts) - done


@cl.action_callback("stop_file")
async def stop_file(action: cl.Action) -> None:
    """Stop the file that is being classified."""
    if stopped := cl.user_session.get("stop_file"):
        stopped.set()


# ---------------------------------------------------------------------------- the result


async def send_result(file: ClassifiedFile, labels: tuple[str, str], threshold: float, language: str) -> None:
    """Send the result of a file: charts, the first rows, and all rows as a CSV."""
    result = add_answers(file.table, file.answers, labels[1], threshold)
    overview = cl.CustomElement(
        name="FileResult",
        url="/public/elements/FileResult.jsx",
        props=describe_answers(file, labels, threshold, language) | preview(file, result, language),
    )
    csv_name, content = f"{Path(visible(file.name)).stem}_classified.csv", await cl.make_async(to_csv)(result)
    csv_file = cl.File(name=csv_name, content=content, mime="text/csv")
    total, seconds = f"{len(file.answers):,}", f"{file.seconds:.1f}"
    done = say("file_done", language, name=quoted(file.name), total=total, seconds=seconds)
    lines = [f"{say('stopped', language)} {done}" if file.unreached else done]
    # The page shows the messages of the column that was read, so it need not name it.
    lines += [describe_reading(note, language) for note in file.notes if note.key != "note_text_column"]
    actions = []
    if any(note.key in ("note_guessed", "note_repaired") for note in file.notes):
        actions.append(cl.Action(name="other_encoding", payload={}, label=say("other_encoding", language)))
    await cl.Message("\n\n".join(lines), elements=[overview], actions=actions).send()
    await cl.Message(say("download", language), elements=[csv_file]).send()


def describe_reading(note: Note, language: str) -> str:
    """Return how a file was read; names from the file are shown as code, so that they are no markup."""
    from_file = ("name", "columns", "column", "delimiter", "sheet", "others")
    values = {key: quoted(value) if key in from_file else value for key, value in note.values.items()}
    return say(note.key, language, **values)


def describe_answers(file: ClassifiedFile, labels: tuple[str, str], threshold: float, language: str) -> dict:
    """Return the number of messages of each label and the histogram of their probabilities, for the page."""
    answered = [answer for answer in file.answers if answer]
    told = [answer.label_at(threshold) for answer in answered]
    counts = {label_name(label, language): told.count(label) for label in labels}
    counts[say("empty_rows", language)] = len(file.answers) - len(answered) - file.unreached
    counts[say("unclassified_rows", language)] = file.unreached
    return {
        "shares": [{"name": name, "count": count} for name, count in counts.items()],
        "histogram": np.histogram([answer.probability for answer in answered], bins=10, range=(0, 1))[0].tolist(),
        "histogramTitle": say("histogram", language, label=label_name(labels[1], language)),
        "threshold": threshold,
    }


def preview(file: ClassifiedFile, result: pd.DataFrame, language: str) -> dict:
    """Return the first rows of a result for the page. A phone shows few columns, so label and message come first."""
    label_column, probability_column, *_ = result.columns[len(file.table.columns) :]
    others = (column for column in file.table.columns if column != file.column)
    head = result[[label_column, file.column, probability_column, *others]].head(PREVIEW_ROWS)
    answers = file.answers[:PREVIEW_ROWS]
    head[label_column] = [label_name(label, language) for label in head[label_column]]
    head[probability_column] = [show_probability(answer.probability) if answer else "" for answer in answers]
    head = head.map(lambda cell: visible(cell if len(cell) <= 100 else f"{cell[:99]}…"))
    return {
        "tableTitle": say("table_title", language, count=len(head)),
        "columns": [visible(column) for column in head.columns],
        "rows": head.to_numpy().tolist(),
    }


def neutralise_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula; numbers stay as they are."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def to_csv(table: pd.DataFrame) -> bytes:
    """Return a table of strings as a CSV with neutralised formulas; its first bytes tell spreadsheets the encoding."""
    safe = table.map(neutralise_formula).rename(columns=neutralise_formula)
    return replace_half_surrogates(safe.to_csv(index=False, lineterminator="\r\n")).encode("utf-8-sig")
