"""One model answers many people at once: messages that arrive together are classified together."""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from chat.explanation import word_contributions
from text_classifier.classifier import Answer, Classifier, Message


class BusyError(RuntimeError):
    """More requests are waiting than the model can answer soon; try again later."""


def usual_batch_size(device: torch.device) -> int:
    """Return how many messages to classify together on a device; a CPU's cores are busy with fewer of them."""
    return 16 if device.type == "cpu" else 256


@dataclass(order=True)
class _Job:
    """A waiting message. Single messages are sorted before bulk; each kind is sorted by arrival."""

    bulk: bool
    number: int
    text: str = field(compare=False)
    threshold: float | None = field(compare=False)
    answer: asyncio.Future = field(compare=False)
    needs_both: bool = field(compare=False)
    """Whether both models must read it: it was asked for, or TF-IDF is not sure."""
    message: Message | None = field(default=None, compare=False)
    """The text as the models take it, when it has been prepared; then TF-IDF is not asked again."""


class BatchingClassifier:
    """Classify for all visitors of a server without blocking its event loop.

    When the model becomes free, the waiting messages form the next batch, so batches grow with the load. A
    single message waits for at most one batch of a file. Explanations use the time that is left: they pause
    while a single message waits for its label.

    TF-IDF alone answers what it is sure of in files and lists; of single messages, only while more than a batch wait.

    Args:
        classifier: answers; `Classifier.load` makes it.
        batch_size: largest number of messages in a batch; 1 classifies one at a time.
        max_waiting: number of messages that may wait before `BusyError` is raised; single messages and bulk
            are counted apart.
        max_explanations: number of explanations that may wait or run.
    """

    def __init__(
        self,
        classifier: Classifier,
        batch_size: int = 16,
        max_waiting: int = 2_000,
        max_explanations: int = 4,
    ):
        self.classifier = classifier
        self.batch_size, self.max_waiting = batch_size, max_waiting
        self.max_explanations = max_explanations
        self._waiting: list[_Job] = []
        self._numbers = itertools.count()
        self._worker: asyncio.Task | None = None
        self._explanations = 0
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
        loop = asyncio.get_running_loop()
        jobs = [_Job(bulk, next(self._numbers), text, threshold, loop.create_future(), exact) for text in texts]
        for job in jobs:
            heapq.heappush(self._waiting, job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.gather(*(job.answer for job in jobs))

    @property
    def can_explain(self) -> bool:
        """Whether `explain` accepts another message now."""
        return self._explanations < self.max_explanations

    async def explain(self, text: str) -> list[tuple[str, float]]:
        """Return how much each word of a message contributed; see `chat.explanation.word_contributions`.

        Raises:
            BusyError: too many explanations are waiting or running.
        """
        if not self.can_explain:
            raise BusyError
        self._explanations += 1
        try:
            return await self._run(self._explanation_thread, word_contributions, text, self._classify_when_idle)
        finally:
            self._explanations -= 1

    @staticmethod
    async def _run(thread: ThreadPoolExecutor, function: Callable, *arguments):
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

    def _prepare(self, jobs: Sequence[_Job]) -> None:
        unprepared = [job for job in jobs if job.message is None]
        messages = self.classifier.prepare([job.text for job in unprepared])
        for job, message in zip(unprepared, messages, strict=True):
            job.message = message

    def _answer_early(self, jobs: Sequence[_Job]) -> list[Answer | None]:
        self._prepare(jobs)
        return [self.classifier.answer_early(job.message, job.threshold) for job in jobs]

    def _read(self, jobs: Sequence[_Job]) -> list[Answer | None]:
        self._prepare(jobs)
        return self.classifier.read([job.message for job in jobs])

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
            await self._answer(self._next_batch())
        self._labels_idle.set()

    async def _answer_sure_ones(self) -> None:
        """Let TF-IDF answer waiting messages that it is sure of, so that the language model reads fewer."""
        long_queue = sum(not job.bulk for job in self._waiting) > self.batch_size
        asked = [job for job in self._waiting if not job.needs_both and (job.bulk or long_queue)]
        # A single message that comes meanwhile waits for so many.
        asked = heapq.nsmallest(256, asked)
        if not asked:
            return
        for job in asked:
            job.needs_both = True
        try:
            answers = await self._run(self._label_thread, self._answer_early, asked)
        except Exception:
            # Both models try each message later, and the one that cannot be read gets the error.
            return
        for job, answer in zip(asked, answers, strict=True):
            if answer is not None and not job.answer.done():
                job.answer.set_result(answer)
        self._waiting = [job for job in self._waiting if not job.answer.done()]
        heapq.heapify(self._waiting)

    def _next_batch(self) -> list[_Job]:
        batch = []
        while self._waiting and len(batch) < self.batch_size:
            job = heapq.heappop(self._waiting)
            # The visitor may have left; the answer is cancelled then.
            if not job.answer.done():
                batch.append(job)
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            answers = await self._run(self._label_thread, self._read, batch)
        except Exception as error:
            if len(batch) > 1:
                # Try each message alone: one that fails must not fail those of other people.
                for job in batch:
                    await self._answer([job])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for job, answer in zip(batch, answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)
