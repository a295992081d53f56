"""Classify a file of messages that was dropped into the chat; show the progress, charts and the result."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import chainlit as cl
import numpy as np
import pandas as pd
from chainlit.session import WebsocketSession

from chat.batching import BatchingClassifier, BusyError
from chat.display import quoted, show_probability, visible
from chat.limits import MAX_MESSAGE_CHARACTERS
from chat.message_tables import find_text_column, mean_lengths, read_dropped_file, to_csv
from chat.texts import label_name, say
from text_classifier.characters import is_empty
from text_classifier.inference import Classification, decide
from text_classifier.scoring import add_answers

# Rows given to the model at a time, or a batch where that is more. Between these steps, the app checks whether the
# visitor has stopped it.
ROWS_PER_STEP = 64
# Rows of the result that the page shows.
PREVIEW_ROWS = 10


@dataclass(frozen=True)
class ClassifiedFile:
    """A file's messages and their answers."""

    name: str
    """Name of the file on the visitor's machine."""
    table: pd.DataFrame
    column: str
    """Name of the column with the messages."""
    texts: list[str]
    answers: list[Classification | None]
    """One answer for each text; None if the text is blank or was not reached."""
    finished: bool
    seconds: float


async def answer_file(
    path: Path, name: str, classifier: BatchingClassifier, tongue: str, threshold: Callable[[], float]
) -> None:
    """Classify every message of a file and send charts, the first rows and the whole result.

    Args:
        name: name of the file on the visitor's machine.
        tongue: language to answer in, `zh` or `en`.
        threshold: returns the decision threshold; called at the end, because the visitor may have moved it meanwhile.

    Raises:
        TableError: the file cannot be used.
    """
    started = time.monotonic()
    table = await cl.make_async(read_dropped_file)(path, name)
    column = find_text_column(table) or await ask_for_column(table, name, tongue)
    if column is None:
        await cl.Message(say("no_column", tongue)).send()
        return
    texts = [text.strip()[:MAX_MESSAGE_CHARACTERS] for text in table[column]]
    answers, finished = await classify_with_progress(texts, name, classifier, tongue)
    if not is_over():
        file = ClassifiedFile(name, table, column, texts, answers, finished, time.monotonic() - started)
        await send_result(file, classifier.model.config.id2label, threshold(), tongue)


def is_over() -> bool:
    """Return whether the visitor has left for good. Nobody would get a result then, and its file would stay."""
    return WebsocketSession.get_by_id(cl.context.session.id) is None


async def ask_for_column(table: pd.DataFrame, name: str, tongue: str) -> str | None:
    """Ask the visitor for the text column; return None if there is no answer within five minutes."""
    longest_first = mean_lengths(table).index[:12]
    actions = [
        cl.Action(name="column", payload={"number": number}, label=visible(column)[:60])
        for number, column in enumerate(longest_first)
    ]
    question = cl.AskActionMessage(say("which_column", tongue, name=quoted(name)), actions, timeout=300)
    answer = await question.send()
    # Remove the question, because Chainlit leaves "Selected: …" there, in English.
    await question.remove()
    return longest_first[int(answer["payload"]["number"])] if answer else None


# ---------------------------------------------------------------------------- classifying


async def classify_with_progress(
    texts: list[str], name: str, classifier: BatchingClassifier, tongue: str
) -> tuple[list[Classification | None], bool]:
    """Classify n texts while the page shows the progress.

    Returns:
        n answers, None for a text that is blank or was not reached; and whether nobody stopped it.
    """
    answers: list[Classification | None] = [None] * len(texts)

    def progress(done: int) -> dict:
        count = say("progress_count", tongue, done=f"{done:,}", total=f"{len(texts):,}")
        return {"done": done, "total": len(texts), "count": count, "stop": say("stop", tongue)}

    stopped = asyncio.Event()
    cl.user_session.set("stop_file", stopped)
    element = cl.CustomElement(name="Progress", url="/public/elements/Progress.jsx", props=progress(0))
    message = await cl.Message(say("progress", tongue, name=quoted(name)), elements=[element]).send()
    # Sort by length, because some models pad a batch to its longest text. Sort within blocks, so that the progress bar
    # moves evenly.
    order = sorted(range(len(texts)), key=lambda row: (row // 1024, len(texts[row])))
    step = max(ROWS_PER_STEP, classifier.batch_size)
    shown_at = time.monotonic()
    try:
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            said = await classify_patiently([texts[row] for row in rows], classifier)
            for row, answer in zip(rows, said, strict=True):
                answers[row] = answer
            if stopped.is_set() or is_over():
                break
            if time.monotonic() - shown_at > 0.4:
                shown_at = time.monotonic()
                element.props = progress(start + step)
                await element.update()
    # The page's own stop button cancels this task. The finished part is sent all the same.
    except asyncio.CancelledError:
        stopped.set()
    finally:
        await message.remove()
    return answers, not stopped.is_set()


async def classify_patiently(texts: list[str], classifier: BatchingClassifier) -> list[Classification | None]:
    """Classify rows of a file, of which a blank one gets None; wait as long as other visitors keep the model busy."""
    while True:
        try:
            return await classifier.classify(texts)
        except BusyError:
            await asyncio.sleep(1)


@cl.action_callback("stop_file")
async def stop_file(action: cl.Action) -> None:
    """Stop the file that is being classified."""
    if stopped := cl.user_session.get("stop_file"):
        stopped.set()


# ---------------------------------------------------------------------------- the result


async def send_result(file: ClassifiedFile, id2label: dict[int, str], threshold: float, tongue: str) -> None:
    """Send the result of a file: charts, the first rows, and all rows as a CSV."""
    labels = [
        decide(answer.positive_probability, threshold, id2label)[0] if answer else None for answer in file.answers
    ]
    result = add_answers(file.table, file.answers, labels, id2label[1])
    charts = describe_answers(file, labels, id2label, tongue) | {"threshold": threshold}
    overview = cl.CustomElement(
        name="FileResult",
        url="/public/elements/FileResult.jsx",
        props=charts | preview(file, result, tongue),
    )
    csv_file = cl.File(
        name=f"{Path(visible(file.name)).stem}_classified.csv",
        content=await cl.make_async(to_csv)(result),
        mime="text/csv",
    )
    total, seconds = f"{len(file.texts):,}", f"{file.seconds:.0f}"
    done = say("file_done", tongue, name=quoted(file.name), total=total, seconds=seconds)
    await cl.Message(done if file.finished else f"{say('stopped', tongue)} {done}", elements=[overview]).send()
    await cl.Message(say("download", tongue), elements=[csv_file]).send()


def describe_answers(file: ClassifiedFile, labels: list[str | None], id2label: dict[int, str], tongue: str) -> dict:
    """Return the number of messages of each label and the histogram of their probabilities, for the page."""
    blank = sum(map(is_empty, file.texts))
    shares = [{"name": label_name(label, tongue), "count": labels.count(label)} for label in id2label.values()]
    shares.append({"name": say("empty_rows", tongue), "count": blank})
    shares.append({"name": say("unclassified_rows", tongue), "count": labels.count(None) - blank})
    probabilities = [answer.positive_probability for answer in file.answers if answer]
    return {
        "shares": shares,
        "histogram": np.histogram(probabilities, bins=10, range=(0, 1))[0].tolist(),
        "histogramTitle": say("histogram", tongue, label=label_name(id2label[1], tongue)),
    }


def preview(file: ClassifiedFile, result: pd.DataFrame, tongue: str) -> dict:
    """Return the first rows of a result for the page. A phone shows few columns, so label and message come first."""
    label_column, probability_column, _ = result.columns[len(file.table.columns) :]
    others = (column for column in file.table.columns if column != file.column)
    head = result[[label_column, file.column, probability_column, *others]].head(PREVIEW_ROWS)
    head[probability_column] = [
        show_probability(answer.positive_probability) if answer else "" for answer in file.answers[: len(head)]
    ]
    head = head.map(lambda cell: visible(cell if len(cell) <= 100 else f"{cell[:99]}…"))
    return {
        "tableTitle": say("table_title", tongue, count=len(head)),
        "columns": [visible(column) for column in head.columns],
        "rows": head.to_numpy().tolist(),
    }
