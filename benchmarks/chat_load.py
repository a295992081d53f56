"""Measure throughput and waiting time of the chat with many people: `python -m benchmarks.chat_load`.

The app runs on this machine with the shipped adapter. Simulated visitors talk to it over the same WebSocket as a
browser; each sends its next message when the last one is answered. The same run also classifies one message after
another without the app, to compare.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.app_server import ChatClient, copy_of_app, running_app
from benchmarks.common import ADAPTER, publish
from gpt_classification_model import load_splits
from text_classifier.classifier import Classifier
from text_classifier.metrics import markdown_table
from text_classifier.runtime import fast_dtype
from text_classifier.training.config import DataArguments


def unseen_messages(count: int) -> list[str]:
    """Return `count` messages that the shipped adapter was not trained on; if there are fewer, some repeat."""
    with tempfile.TemporaryDirectory() as folder:
        splits, _, _ = load_splits(DataArguments(data_source="mirror", dataset_dir=folder))
    messages = pd.concat([splits["test"], splits["left_out_test"]])["Text"]
    return messages.sample(count, random_state=0, replace=count > len(messages)).tolist()


async def visitor(address: str, messages: list[str], pause: float = 0.0) -> list[float]:
    """Send messages one after another and return the seconds until each was answered.

    Args:
        pause: seconds between an answer and the next message.
    """
    seconds = []
    async with ChatClient(address) as client:
        for text in messages:
            started = time.perf_counter()
            await client.send(text)
            reply = await client.answer(120)
            if "该文本被分类为" not in reply:
                raise RuntimeError(f"no label but: {reply}")
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(pause)
    return seconds


async def visitors(address: str, messages: list[str], users: int) -> list[float]:
    """Let `users` visitors send the messages at the same time; return the seconds until each was answered."""
    waits = await asyncio.gather(*(visitor(address, messages[user::users]) for user in range(users)))
    return [seconds for wait in waits for seconds in wait]


def main() -> None:
    """Measure, write the table to CHAT_LOAD.md and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    messages = unseen_messages(arguments.messages)
    classifier = Classifier.load(ADAPTER, fast_dtype())
    classifier.answer(messages[:4])
    started = time.perf_counter()
    for text in messages[:100]:
        classifier.answer([text])
    one_at_a_time = len(messages[:100]) / (time.perf_counter() - started)
    del classifier
    with tempfile.TemporaryDirectory() as folder:
        copy_of_app(Path(folder))
        with running_app(Path(folder), ADAPTER_DIR=str(ADAPTER)) as address:
            asyncio.run(visitor(address, messages[:20]))
            # The pause is long enough to finish the explanation of one message before the next one comes.
            alone = asyncio.run(visitor(address, messages[:30], pause=2))
            started = time.perf_counter()
            together = asyncio.run(visitors(address, messages, arguments.users))
            throughput = len(messages) / (time.perf_counter() - started)
        errors = (Path(folder) / "log.txt").read_text().count("Traceback")
    rows = [("", "Messages/s", "p50 ms", "p95 ms")]
    people = f"the app, {arguments.users} people"
    for name, per_second, seconds in (("the app, 1 person", "–", alone), (people, f"{throughput:.1f}", together)):
        p50, p95 = 1000 * np.quantile(seconds, [0.5, 0.95])
        rows.append((name, per_second, f"{p50:.0f}", f"{p95:.0f}"))
    gain = f"{throughput / one_at_a_time:.1f} times the {one_at_a_time:.1f} messages/s of one at a time without the app"
    publish(__file__, "The chat under load", f"{markdown_table(rows)}\n\n{people}: {gain}. Errors: {errors}.")


if __name__ == "__main__":
    main()
