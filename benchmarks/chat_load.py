"""Measure throughput and waiting time of the chat with many people, against one message at a time.

    python -m benchmarks.chat_load

The app runs on this machine with the shipped adapter. Simulated visitors talk to it over the same WebSocket
as a browser; each sends its next message when the last one is answered. The same run also measures the
simpler ways that people write first: one message after another in float32 and in the CPU's fast format, and
the model loaded anew for every message.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.app_server import ChatClient, copy_of_app, running_app
from benchmarks.common import ADAPTER, agreement, number_format, publish, timed
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


async def visitors(address: str, messages: list[str], users: int) -> tuple[list[float], float]:
    """Let `users` visitors send the messages at the same time.

    Returns:
        The seconds until each message was answered, and the seconds until all were.
    """
    started = time.perf_counter()
    waits = await asyncio.gather(*(visitor(address, messages[user::users]) for user in range(users)))
    return [seconds for wait in waits for seconds in wait], time.perf_counter() - started


def main() -> None:
    """Measure, write the table to CHAT_LOAD.md and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    messages = unseen_messages(arguments.messages)
    # The second is as the chat serves: on a CPU without bfloat16 instructions it is float32, too.
    loaded = {
        "one at a time, float32": Classifier.load(ADAPTER, torch.float32),
        f"one at a time, as served ({number_format()})": Classifier.load(ADAPTER, fast_dtype()),
    }
    rows = {}
    for name, classifier in loaded.items():
        classifier.answer(messages[:4])
        seconds = timed(lambda text, classifier=classifier: classifier.answer([text]), messages[:100])
        rows[name] = (seconds, len(seconds) / sum(seconds))
    alike = agreement(*(classifier.answer(messages) for classifier in loaded.values()))
    del classifier, loaded
    seconds = timed(lambda text: Classifier.load(ADAPTER).answer([text]), messages[:5])
    rows["model loaded for every message"] = (seconds, len(seconds) / sum(seconds))

    with tempfile.TemporaryDirectory() as folder:
        copy_of_app(Path(folder))
        with running_app(Path(folder), ADAPTER_DIR=str(ADAPTER)) as address:
            asyncio.run(visitor(address, messages[:20]))
            # The pause is long enough to finish the explanation of one message before the next one comes.
            rows["the app, 1 person"] = (asyncio.run(visitor(address, messages[:30], pause=2)), None)
            seconds, total = asyncio.run(visitors(address, messages, arguments.users))
            rows[f"the app, {arguments.users} people"] = (seconds, len(seconds) / total)
        errors = (Path(folder) / "log.txt").read_text().count("Traceback")

    lines = [("", "Messages/s", "p50 ms", "p95 ms")]
    for name, (seconds, throughput) in rows.items():
        p50, p95 = 1000 * np.quantile(seconds, [0.5, 0.95])
        lines.append((name, "–" if throughput is None else f"{throughput:.1f}", f"{p50:.0f}", f"{p95:.0f}"))
    exactly, fastly, reloaded, _, served = (throughput for _, throughput in rows.values())
    text = f"""{markdown_table(lines)}

{arguments.users} people get {served / exactly:.1f} times the messages of one at a time in float32, and
{served / fastly:.1f} times those in {number_format()}; the model loaded for every message: {reloaded:.2f} messages/s.
Labels as in float32: {100 * alike:.2f} % of {len(messages)}. Errors: {errors}."""
    publish(__file__, "The chat under load", text)


if __name__ == "__main__":
    main()
