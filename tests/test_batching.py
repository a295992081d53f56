"""Many people ask at once: answers are right, single messages come first, an error hits only its own message."""

import asyncio
import threading
import time
from itertools import chain

import pytest

from chat.batching import BatchingClassifier, BusyError
from text_classifier.classifier import Answer, Classifier


class StubClassifier:
    """A stand-in for `Classifier`: it records batches, and fails on the text "poison".

    Args:
        seconds: what a batch takes.
        held: whether every batch waits for `release`.
        sure: whether TF-IDF is sure of texts that begin with "sure".
    """

    def __init__(self, seconds: float = 0, held: bool = False, sure: bool = False):
        self.batches, self.seconds, self.released, self.sure = [], seconds, threading.Event(), sure
        self.prepared = []
        self.lock = threading.Lock()
        if not held:
            self.release()

    def prepare(self, texts: list[str]) -> list[str]:
        self.prepared += texts
        if "unreadable" in texts:
            raise RuntimeError("nobody can read this")
        return texts

    def answer_early(self, text: str, threshold: float | None) -> Answer | None:
        return answer_of(text, "TF-IDF") if self.sure and text.startswith("sure") else None

    def read(self, texts: list[str]) -> list[Answer]:
        with self.lock:
            self.batches.append(list(texts))
        time.sleep(self.seconds)
        assert self.released.wait(60), "nobody has released the model"
        if "poison" in texts:
            raise RuntimeError("the model cannot read this")
        return [answer_of(text) for text in texts]

    answer_parts = read

    def release(self) -> None:
        self.released.set()

    async def reading(self) -> None:
        """Wait until the model has got its first batch."""
        while not self.batches:
            await asyncio.sleep(0.001)


def answer_of(text: str, answered_by: str = "language model") -> Answer:
    """An answer whose label is the text."""
    return Answer(0.5, False, answered_by, False, labels=("", text), threshold=0.5)


def labels(answers) -> list[str]:
    return [answer.label for answer in answers]


def test_answers_are_those_of_the_model_alone(tiny_review_adapter):
    alone = Classifier.load(tiny_review_adapter)
    texts = [f"message number {number} " * (1 + number % 5) for number in range(40)]
    classifier = BatchingClassifier(alone)

    async def ask_all():
        return await asyncio.gather(*(classifier.classify([text]) for text in texts))

    for text, (answer,) in zip(texts, asyncio.run(ask_all()), strict=True):
        (expected,) = alone.answer([text])
        assert answer.label == expected.label
        assert answer.probability == pytest.approx(expected.probability, abs=1e-5)


def test_messages_sent_at_the_same_moment_share_batches():
    stub = StubClassifier()

    async def ask_all():
        classifier = BatchingClassifier(stub, batch_size=8)
        return await asyncio.gather(*(classifier.classify([str(number)]) for number in range(24)))

    answers = asyncio.run(ask_all())
    assert [labels(answer) for answer in answers] == [[str(number)] for number in range(24)]
    assert [len(batch) for batch in stub.batches] == [8, 8, 8]


def test_the_event_loop_goes_on_while_the_model_works():
    stub = StubClassifier(held=True)

    async def ask():
        asking = asyncio.create_task(BatchingClassifier(stub).classify(["slow"]))
        await stub.reading()
        # This line is not reached while the model holds the event loop.
        stub.release()
        return await asking

    assert labels(asyncio.run(ask())) == ["slow"]


def test_a_single_message_overtakes_a_file():
    stub = StubClassifier(held=True)

    async def ask():
        classifier = BatchingClassifier(stub, batch_size=4)
        file = asyncio.create_task(classifier.classify([f"row {number}" for number in range(40)]))
        await stub.reading()
        single = asyncio.create_task(classifier.classify(["hello"]))
        await asyncio.sleep(0)
        stub.release()
        await asyncio.gather(file, single)

    asyncio.run(ask())
    assert "hello" in stub.batches[1] and len(stub.batches) == 11


def test_an_error_belongs_to_the_message_that_caused_it():
    stub = StubClassifier()

    async def ask():
        classifier = BatchingClassifier(stub)
        asked = [classifier.classify([text]) for text in ("one", "poison", "two")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, error, second = asyncio.run(ask())
    assert labels(first) == ["one"] and labels(second) == ["two"]
    assert isinstance(error, RuntimeError)


def test_who_is_gone_is_not_answered_and_others_are():
    stub = StubClassifier(held=True)

    async def ask():
        classifier = BatchingClassifier(stub, batch_size=1)
        first = asyncio.create_task(classifier.classify(["first"]))
        gone = asyncio.create_task(classifier.classify(["gone"]))
        last = asyncio.create_task(classifier.classify(["last"]))
        await stub.reading()
        gone.cancel()
        stub.release()
        return await asyncio.gather(first, last)

    assert [labels(answers) for answers in asyncio.run(ask())] == [["first"], ["last"]]
    assert ["gone"] not in stub.batches


def test_a_full_queue_says_so_at_once():
    stub = StubClassifier(held=True)

    async def ask():
        classifier = BatchingClassifier(stub, batch_size=1, max_waiting=3)
        waiting = [asyncio.create_task(classifier.classify(["x"])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await classifier.classify(["one too many"])
        stub.release()
        await asyncio.gather(*waiting)
        return await classifier.classify(["later"])

    assert labels(asyncio.run(ask())) == ["later"]


def test_bulk_does_not_use_up_the_room_of_single_messages():
    stub = StubClassifier(held=True)

    async def ask():
        classifier = BatchingClassifier(stub, max_waiting=10)
        file = asyncio.create_task(classifier.classify([str(row) for row in range(10)]))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await classifier.classify(["more", "bulk"])
        single = asyncio.create_task(classifier.classify(["hello"]))
        await asyncio.sleep(0)
        stub.release()
        await file
        return await single

    assert labels(asyncio.run(ask())) == ["hello"]


def test_explanations_go_on_beside_a_file():
    stub = StubClassifier(seconds=0.02)

    async def ask():
        classifier = BatchingClassifier(stub)
        file = asyncio.create_task(classifier.classify([str(row) for row in range(800)]))
        await asyncio.sleep(0)
        await classifier.explain("two words")
        explained_first = not file.done()
        file.cancel()
        return explained_first

    assert asyncio.run(ask())


def test_labels_do_not_wait_for_explanations():
    stub = StubClassifier(seconds=0.05)

    async def ask():
        classifier = BatchingClassifier(stub, max_explanations=1)
        explanation = asyncio.create_task(classifier.explain("many words that take a while to explain one by one"))
        await stub.reading()
        with pytest.raises(BusyError):
            await classifier.explain("another")
        begun = len(stub.batches)
        await classifier.classify(["hello"])
        assert stub.batches.index(["hello"]) <= begun + 1, "at most one more batch of the explanation comes first"
        assert not explanation.done()
        return await explanation

    words = asyncio.run(ask())
    assert "".join(word for word, _ in words) == "many words that take a while to explain one by one"


# ---------------------------------------------------------------------------- TF-IDF first


def test_in_a_list_the_language_model_reads_only_what_tfidf_is_unsure_of():
    stub = StubClassifier(sure=True)
    texts = [f"{'sure' if number % 3 else 'open'} {number}" for number in range(60)]
    answers = asyncio.run(BatchingClassifier(stub).classify(texts))
    assert labels(answers) == texts
    assert [answer.answered_by == "TF-IDF" for answer in answers] == [text.startswith("sure") for text in texts]
    assert sorted(chain(*stub.batches)) == sorted(text for text in texts if text.startswith("open"))


def test_asked_for_exact_answers_the_language_model_reads_everything():
    stub = StubClassifier(sure=True)
    asyncio.run(BatchingClassifier(stub).classify(["sure 1", "sure 2"], exact=True))
    assert list(chain(*stub.batches)) == ["sure 1", "sure 2"]


def test_single_messages_are_read_by_both_until_more_than_a_batch_wait():
    stub = StubClassifier(sure=True, held=True)

    async def ask(number: int) -> list[Answer]:
        classifier = BatchingClassifier(stub, batch_size=2)
        first = asyncio.create_task(classifier.classify(["sure 0"]))
        await stub.reading()
        others = [asyncio.create_task(classifier.classify([f"sure {1 + count}"])) for count in range(number)]
        await asyncio.sleep(0)
        stub.release()
        return list(chain(*await asyncio.gather(first, *others)))

    assert [answer.answered_by for answer in asyncio.run(ask(2))] == ["language model"] * 3
    stub.batches.clear()
    stub.released.clear()
    assert [answer.answered_by for answer in asyncio.run(ask(3))] == ["language model", *["TF-IDF"] * 3]


def test_a_message_is_prepared_once_and_one_that_cannot_be_is_its_own_error():
    stub = StubClassifier(sure=True)
    asyncio.run(BatchingClassifier(stub).classify(["sure 1", "open 2", "open 3"]))
    assert sorted(stub.prepared) == ["open 2", "open 3", "sure 1"]

    async def ask():
        asked = BatchingClassifier(stub).classify
        return await asyncio.gather(asked(["unreadable"]), asked(["open 4"]), return_exceptions=True)

    error, answers = asyncio.run(ask())
    assert isinstance(error, RuntimeError) and labels(answers) == ["open 4"]
