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
from benchmarks.common import ADAPTER, FIGURES, shipped_splits
from text_classifier.files import write_json
from text_classifier.inference import classify, load_tokenizer_and_model
from text_classifier.runtime import fast_dtype


def unseen_messages(count: int) -> list[str]:
    """Return `count` messages that the shipped adapter was not trained on; if there are fewer, some repeat."""
    splits = shipped_splits()
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


def timed(function, repetitions: int) -> list[float]:
    """Return the seconds of each call of `function(0)`, `function(1)`, …"""
    seconds = []
    for number in range(repetitions):
        started = time.perf_counter()
        function(number)
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--messages", type=int, default=1000)
    arguments = parser.parse_args()
    messages = unseen_messages(arguments.messages)
    rows, served_format = {}, str(fast_dtype()).removeprefix("torch.")

    exact = load_tokenizer_and_model(ADAPTER, torch.float32)
    fast = load_tokenizer_and_model(ADAPTER, fast_dtype())
    for number, loaded in enumerate((exact, fast)):
        classify(messages[:4], *loaded)
        seconds = timed(lambda index, loaded=loaded: classify([messages[index]], *loaded), 100)
        # The second is as the chat serves: on a CPU without bfloat16 instructions it is float32, too.
        name = ("one at a time, float32", f"one at a time, as served ({served_format})")[number]
        rows[name] = (seconds, len(seconds) / sum(seconds))
    agreement = np.mean(
        [
            one.label == other.label
            for one, other in zip(classify(messages, *exact), classify(messages, *fast), strict=True)
        ]
    )
    del exact, fast
    reloading = timed(lambda index: classify([messages[index]], *load_tokenizer_and_model(ADAPTER)), 5)
    rows["model loaded for every message"] = (reloading, len(reloading) / sum(reloading))

    with tempfile.TemporaryDirectory() as folder:
        copy_of_app(Path(folder))
        with running_app(Path(folder), ADAPTER_DIR=str(ADAPTER)) as address:
            asyncio.run(visitors(address, messages[:20], 1))
            # The pause is long enough to finish the explanation of one message before the next one comes.
            rows["the app, 1 person"] = (asyncio.run(visitor(address, messages[:30], pause=2)), None)
            seconds, total = asyncio.run(visitors(address, messages, arguments.users))
            rows[f"the app, {arguments.users} people"] = (seconds, len(seconds) / total)
        errors = (Path(folder) / "log.txt").read_text().count("Traceback")

    print(f"\n{'':32} {'messages/s':>10} {'p50 ms':>8} {'p95 ms':>8}")
    for name, (seconds, throughput) in rows.items():
        p50, p95 = (1000 * np.quantile(seconds, [0.5, 0.95])).tolist()
        shown = "–" if throughput is None else f"{throughput:.1f}"
        print(f"{name:32} {shown:>10} {p50:8.0f} {p95:8.0f}")
    figures = {
        name: {"messages_per_second": throughput, "p50_ms": 1000 * np.median(seconds)}
        for name, (seconds, throughput) in rows.items()
    }
    write_json(figures | {"agreement": agreement, "errors": errors}, FIGURES / "chat_load.json")
    names = list(rows)
    served = rows[names[-1]][1]
    print(
        f"\n{arguments.users} people against one at a time in float32: {served / rows[names[0]][1]:.2f}x the messages"
    )
    print(f"... and in {served_format}: {served / rows[names[1]][1]:.2f}x")
    once = np.median(rows[names[3]][0])
    print(f"One message, loaded once against loaded for every message: {np.median(reloading) / once:.0f} times faster")
    print(f"Labels that agree with float32: {100 * agreement:.2f} % of {len(messages)}; errors: {errors}")


if __name__ == "__main__":
    main()
