"""Many people ask at once: answers are right, single messages come first, an error hits only its own message."""

import asyncio
import threading
import time

import pytest

from chat import batching
from chat.batching import BatchingClassifier, BusyError
from text_classifier.inference import Classification, classify, load_tokenizer_and_model


class StubModel:
    """A stand-in for `classify`: it records batches, takes `seconds` for each, and fails on the text "poison"."""

    def __init__(self, monkeypatch, seconds=0.0):
        self.batches, self.seconds = [], seconds
        self.lock = threading.Lock()
        monkeypatch.setattr(batching, "classify", self)
        monkeypatch.setattr(batching, "classify_parts", self)

    def __call__(self, texts, tokenizer, model):
        with self.lock:
            self.batches.append(list(texts))
        time.sleep(self.seconds)
        if "poison" in texts:
            raise RuntimeError("the model cannot read this")
        return [Classification(label=text, positive_probability=0.5, truncated=False) for text in texts]


def labels(answers) -> list[str]:
    return [answer.label for answer in answers]


def test_answers_are_those_of_the_model_alone(tiny_review_adapter):
    tokenizer, model = load_tokenizer_and_model(tiny_review_adapter)
    texts = [f"message number {number} " * (1 + number % 5) for number in range(40)]
    classifier = BatchingClassifier(tokenizer, model)

    async def ask_all():
        return await asyncio.gather(*(classifier.classify([text]) for text in texts))

    for text, (answer,) in zip(texts, asyncio.run(ask_all()), strict=True):
        (alone,) = classify([text], tokenizer, model)
        assert answer.label == alone.label
        assert answer.positive_probability == pytest.approx(alone.positive_probability, abs=1e-5)


def test_messages_sent_at_the_same_moment_share_batches(monkeypatch):
    stub = StubModel(monkeypatch)

    async def ask_all():
        classifier = BatchingClassifier(None, None, batch_size=8)
        return await asyncio.gather(*(classifier.classify([str(number)]) for number in range(24)))

    answers = asyncio.run(ask_all())
    assert [labels(answer) for answer in answers] == [[str(number)] for number in range(24)]
    assert [len(batch) for batch in stub.batches] == [8, 8, 8]


def test_the_event_loop_goes_on_while_the_model_works(monkeypatch):
    StubModel(monkeypatch, seconds=0.4)

    async def count_turns():
        classifier = BatchingClassifier(None, None)
        asking = asyncio.create_task(classifier.classify(["slow"]))
        turns = 0
        while not asking.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(count_turns()) > 15


def test_a_single_message_overtakes_a_file(monkeypatch):
    stub = StubModel(monkeypatch, seconds=0.02)

    async def ask():
        classifier = BatchingClassifier(None, None, batch_size=4)
        file = asyncio.create_task(classifier.classify([f"row {number}" for number in range(40)]))
        await asyncio.sleep(0.03)
        await classifier.classify(["hello"])
        overtook = not file.done()
        await file
        return overtook

    assert asyncio.run(ask())
    assert next(number for number, batch in enumerate(stub.batches) if "hello" in batch) <= 3


def test_an_error_belongs_to_the_message_that_caused_it(monkeypatch):
    StubModel(monkeypatch)

    async def ask():
        classifier = BatchingClassifier(None, None)
        asked = [classifier.classify([text]) for text in ("one", "poison", "two")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, error, second = asyncio.run(ask())
    assert labels(first) == ["one"] and labels(second) == ["two"]
    assert isinstance(error, RuntimeError)


def test_who_is_gone_is_not_answered_and_others_are(monkeypatch):
    stub = StubModel(monkeypatch, seconds=0.05)

    async def ask():
        classifier = BatchingClassifier(None, None, batch_size=1)
        first = asyncio.create_task(classifier.classify(["first"]))
        gone = asyncio.create_task(classifier.classify(["gone"]))
        last = asyncio.create_task(classifier.classify(["last"]))
        await asyncio.sleep(0.02)
        gone.cancel()
        return await asyncio.gather(first, last)

    assert [labels(answers) for answers in asyncio.run(ask())] == [["first"], ["last"]]
    assert ["gone"] not in stub.batches


def test_a_full_queue_says_so_at_once(monkeypatch):
    StubModel(monkeypatch, seconds=0.1)

    async def ask():
        classifier = BatchingClassifier(None, None, batch_size=1, max_waiting=3)
        waiting = [asyncio.create_task(classifier.classify(["x"])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await classifier.classify(["one too many"])
        await asyncio.gather(*waiting)
        return await classifier.classify(["later"])

    assert labels(asyncio.run(ask())) == ["later"]


def test_bulk_does_not_use_up_the_room_of_single_messages(monkeypatch):
    StubModel(monkeypatch, seconds=0.01)

    async def ask():
        classifier = BatchingClassifier(None, None, max_waiting=10)
        file = asyncio.create_task(classifier.classify([str(row) for row in range(10)]))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await classifier.classify(["more", "bulk"])
        single = await classifier.classify(["hello"])
        await file
        return single

    assert labels(asyncio.run(ask())) == ["hello"]


def test_explanations_go_on_beside_a_file(monkeypatch):
    StubModel(monkeypatch, seconds=0.02)

    async def ask():
        classifier = BatchingClassifier(None, None)
        file = asyncio.create_task(classifier.classify([str(row) for row in range(800)]))
        await asyncio.sleep(0)
        await classifier.explain("two words")
        explained_first = not file.done()
        file.cancel()
        return explained_first

    assert asyncio.run(ask())


def test_labels_do_not_wait_for_explanations(monkeypatch):
    StubModel(monkeypatch, seconds=0.05)

    async def ask():
        classifier = BatchingClassifier(None, None, max_explanations=1)
        explanation = asyncio.create_task(classifier.explain("many words that take a while to explain one by one"))
        await asyncio.sleep(0.1)
        with pytest.raises(BusyError):
            await classifier.explain("another")
        started = time.perf_counter()
        await classifier.classify(["hello"])
        waited = time.perf_counter() - started
        assert not explanation.done()
        return waited, await explanation

    waited, words = asyncio.run(ask())
    assert waited < 0.2, "a label takes one batch of its own, and at most one that had begun"
    assert "".join(word for word, _ in words) == "many words that take a while to explain one by one"
