"""One model answers many people at once: messages that arrive together are classified together."""

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from chat.explanation import word_contributions
from text_classifier.classifier import Answer, Classifier, Message


class BusyError(RuntimeError):
    """More requests are waiting than the model can answer soon; try again later."""


def usual_batch_size(device: torch.device) -> int:
    """Return how many messages to classify together on a device; a CPU's cores are busy with fewer of them."""
    return 16 if device.type == "cpu" else 256


@dataclass(eq=False)
class _Job:
    """A waiting message."""

    text: str
    bulk: bool
    threshold: float | None
    needs_both: bool
    """Whether both models must read it: it was asked for, or TF-IDF is not sure."""
    answer: asyncio.Future
    message: Message | None = None
    """The text as the models take it, when it has been prepared; then TF-IDF is not asked again."""


class BatchingClassifier:
    """Classify for all visitors of a server without blocking its event loop.

    When the model becomes free, the waiting messages form the next batch, so batches grow with the load. A
    single message waits for at most one batch of a file. Explanations use the time that is left: they pause
    while a single message waits for its label.

    In files and lists, TF-IDF alone answers what it is sure of; in single messages, only while more than a batch wait.

    Args:
        batch_size: largest number of messages in a batch; 1 classifies one at a time.
        max_waiting: number of messages that may wait before `BusyError` is raised; single messages and bulk
            are counted apart.
        max_explanations: number of explanations that may wait or run.
    """

    def __init__(
        self, classifier: Classifier, batch_size: int = 16, max_waiting: int = 2_000, max_explanations: int = 4
    ):
        self.classifier, self.batch_size, self.max_waiting = classifier, batch_size, max_waiting
        # Single messages, and behind them bulk; each in the order of arrival.
        self._waiting: list[_Job] = []
        self._worker: asyncio.Task | None = None
        self._explanations = asyncio.Semaphore(max_explanations)
        self._labels_idle = threading.Event()
        self._labels_idle.set()
        # Labels and explanations have a thread each, so that a label never queues behind an explanation.
        self._label_thread = ThreadPoolExecutor(1, "labels")
        self._explanation_thread = ThreadPoolExecutor(1, "explanations")

    async def classify(
        self, texts: Sequence[str], threshold: float | None = None, exact: bool = False
    ) -> list[Answer | None]:
        """Classify n messages and return n answers in the same order; a message with nothing to read gets None.

        More than one message counts as bulk, which waits behind single messages.

        Args:
            threshold: decision threshold from which TF-IDF must be far to answer alone; by default the adapter's own.
            exact: let both models read every message.

        Raises:
            BusyError: too many messages are waiting.
        """
        bulk = len(texts) > 1
        if sum(job.bulk == bulk for job in self._waiting) + len(texts) > self.max_waiting:
            raise BusyError
        new_future = asyncio.get_running_loop().create_future
        jobs = [_Job(text, bulk, threshold, exact, new_future()) for text in texts]
        self._waiting = sorted([*self._waiting, *jobs], key=lambda job: job.bulk)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.gather(*(job.answer for job in jobs))

    @property
    def can_explain(self) -> bool:
        """Whether `explain` accepts another message now."""
        return not self._explanations.locked()

    async def explain(self, text: str) -> list[tuple[str, float]]:
        """Return how much each word of a message contributed; see `chat.explanation.word_contributions`.

        Raises:
            BusyError: too many explanations are waiting or running.
        """
        if not self.can_explain:
            raise BusyError
        async with self._explanations:
            thread, loop = self._explanation_thread, asyncio.get_running_loop()
            return await loop.run_in_executor(thread, word_contributions, text, self._classify_when_idle)

    def _classify_when_idle(self, texts: Sequence[str]) -> list[Answer]:
        answers = []
        # Go in small steps, so that a label requested meanwhile waits for one step at most.
        step = max(1, self.batch_size // 4)
        for start in range(0, len(texts), step):
            self._labels_idle.wait()
            answers += self.classifier.answer_parts(texts[start : start + step])
        return answers

    async def _work(self) -> None:
        while self._waiting:
            # Explanations pause for a single message, but not for a file, which is less urgent.
            if self._waiting[0].bulk:
                self._labels_idle.set()
            else:
                self._labels_idle.clear()
            await self._answer_sure_ones()
            # Some are answered now, and of some the visitor has left, which cancels the answer.
            waiting = [job for job in self._waiting if not job.answer.done()]
            batch, self._waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            if batch:
                await self._answer(batch)
        self._labels_idle.set()

    async def _answer_sure_ones(self) -> None:
        """Let TF-IDF answer waiting messages that it is sure of, so that the language model reads fewer."""
        long_queue = sum(not job.bulk for job in self._waiting) > self.batch_size
        asked = [job for job in self._waiting if not job.needs_both and (job.bulk or long_queue)]
        asked = asked[:256]  # A single message that comes meanwhile waits for all of these.
        for job in asked:
            job.needs_both = True
        # After an error both models try each message later, and the error goes to the message that causes it.
        if asked:
            with contextlib.suppress(Exception):
                await self._ask(asked, early=True)

    async def _answer(self, batch: Sequence[_Job]) -> None:
        """Let both models answer a batch; an error is given to the message that causes it."""
        try:
            await self._ask(batch, early=False)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    await self._answer([job])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)

    async def _ask(self, jobs: Sequence[_Job], early: bool) -> None:
        """Answer n messages in the labels' thread; with `early`, only those that TF-IDF is sure of."""

        def ask() -> list[Answer | None]:
            new = [job for job in jobs if job.message is None]
            for job, message in zip(new, self.classifier.prepare([job.text for job in new]), strict=True):
                job.message = message
            if early:
                return [self.classifier.answer_early(job.message, job.threshold) for job in jobs]
            return self.classifier.read([job.message for job in jobs])

        answers = await asyncio.get_running_loop().run_in_executor(self._label_thread, ask)
        for job, answer in zip(jobs, answers, strict=True):
            if not job.answer.done() and not (early and answer is None):
                job.answer.set_result(answer)
