"""Many people ask at once: answers are right, single messages come first, an error hits only its own message."""

import asyncio
import threading
import time
from itertools import chain
from types import SimpleNamespace

import pytest

from chat import batching
from chat.batching import BatchingClassifier, BusyError
from text_classifier.inference import Classification, classify, load_tokenizer_and_model

# Stands for a model without TF-IDF; `StubModel` answers in its place.
ALONE = SimpleNamespace(tfidf=None, config=SimpleNamespace())


class StubModel:
    """A stand-in for `classify`: it records batches, and fails on the text "poison".

    Args:
        seconds: what a batch takes.
        held: whether every batch waits for `release`.
    """

    def __init__(self, monkeypatch, seconds: float = 0, held: bool = False):
        self.batches, self.seconds, self.released = [], seconds, threading.Event()
        self.lock = threading.Lock()
        if not held:
            self.release()
        monkeypatch.setattr(batching, "classify", self)
        monkeypatch.setattr(batching, "classify_parts", self)

    def __call__(self, texts, tokenizer, model):
        with self.lock:
            self.batches.append(list(texts))
        time.sleep(self.seconds)
        assert self.released.wait(60), "nobody has released the model"
        if "poison" in texts:
            raise RuntimeError("the model cannot read this")
        return [Classification(label=text, positive_probability=0.5, truncated=False) for text in texts]

    def release(self) -> None:
        self.released.set()

    async def reading(self) -> None:
        """Wait until the model has got its first batch."""
        while not self.batches:
            await asyncio.sleep(0.001)


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
        classifier = BatchingClassifier(None, ALONE, batch_size=8)
        return await asyncio.gather(*(classifier.classify([str(number)]) for number in range(24)))

    answers = asyncio.run(ask_all())
    assert [labels(answer) for answer in answers] == [[str(number)] for number in range(24)]
    assert [len(batch) for batch in stub.batches] == [8, 8, 8]


def test_the_event_loop_goes_on_while_the_model_works(monkeypatch):
    stub = StubModel(monkeypatch, held=True)

    async def ask():
        asking = asyncio.create_task(BatchingClassifier(None, ALONE).classify(["slow"]))
        await stub.reading()
        # This line is not reached while the model holds the event loop.
        stub.release()
        return await asking

    assert labels(asyncio.run(ask())) == ["slow"]


def test_a_single_message_overtakes_a_file(monkeypatch):
    stub = StubModel(monkeypatch, held=True)

    async def ask():
        classifier = BatchingClassifier(None, ALONE, batch_size=4)
        file = asyncio.create_task(classifier.classify([f"row {number}" for number in range(40)]))
        await stub.reading()
        single = asyncio.create_task(classifier.classify(["hello"]))
        await asyncio.sleep(0)
        stub.release()
        await asyncio.gather(file, single)

    asyncio.run(ask())
    assert "hello" in stub.batches[1] and len(stub.batches) == 11


def test_an_error_belongs_to_the_message_that_caused_it(monkeypatch):
    StubModel(monkeypatch)

    async def ask():
        classifier = BatchingClassifier(None, ALONE)
        asked = [classifier.classify([text]) for text in ("one", "poison", "two")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, error, second = asyncio.run(ask())
    assert labels(first) == ["one"] and labels(second) == ["two"]
    assert isinstance(error, RuntimeError)


def test_who_is_gone_is_not_answered_and_others_are(monkeypatch):
    stub = StubModel(monkeypatch, held=True)

    async def ask():
        classifier = BatchingClassifier(None, ALONE, batch_size=1)
        first = asyncio.create_task(classifier.classify(["first"]))
        gone = asyncio.create_task(classifier.classify(["gone"]))
        last = asyncio.create_task(classifier.classify(["last"]))
        await stub.reading()
        gone.cancel()
        stub.release()
        return await asyncio.gather(first, last)

    assert [labels(answers) for answers in asyncio.run(ask())] == [["first"], ["last"]]
    assert ["gone"] not in stub.batches


def test_a_full_queue_says_so_at_once(monkeypatch):
    stub = StubModel(monkeypatch, held=True)

    async def ask():
        classifier = BatchingClassifier(None, ALONE, batch_size=1, max_waiting=3)
        waiting = [asyncio.create_task(classifier.classify(["x"])) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await classifier.classify(["one too many"])
        stub.release()
        await asyncio.gather(*waiting)
        return await classifier.classify(["later"])

    assert labels(asyncio.run(ask())) == ["later"]


def test_bulk_does_not_use_up_the_room_of_single_messages(monkeypatch):
    stub = StubModel(monkeypatch, held=True)

    async def ask():
        classifier = BatchingClassifier(None, ALONE, max_waiting=10)
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


def test_explanations_go_on_beside_a_file(monkeypatch):
    StubModel(monkeypatch, seconds=0.02)

    async def ask():
        classifier = BatchingClassifier(None, ALONE)
        file = asyncio.create_task(classifier.classify([str(row) for row in range(800)]))
        await asyncio.sleep(0)
        await classifier.explain("two words")
        explained_first = not file.done()
        file.cancel()
        return explained_first

    assert asyncio.run(ask())


def test_labels_do_not_wait_for_explanations(monkeypatch):
    stub = StubModel(monkeypatch, seconds=0.05)

    async def ask():
        classifier = BatchingClassifier(None, ALONE, max_explanations=1)
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


@pytest.fixture
def sure(monkeypatch) -> list[list[str]]:
    """TF-IDF that is sure of texts that begin with "sure"; the list gets what it was asked."""
    asked = []

    def answer_by_tfidf(texts, model, thresholds):
        asked.append(list(texts))
        if "tfidf fails" in texts:
            raise RuntimeError("it cannot read this")
        return [Classification(text, 0.9, False, "TF-IDF") if text.startswith("sure") else None for text in texts]

    monkeypatch.setattr(batching, "answer_by_tfidf", answer_by_tfidf)
    return asked


def test_in_a_list_the_language_model_reads_only_what_tfidf_is_unsure_of(monkeypatch, sure):
    model = StubModel(monkeypatch)
    texts = [f"{'sure' if number % 3 else 'open'} {number}" for number in range(60)]
    answers = asyncio.run(BatchingClassifier(None, ALONE).classify(texts))
    assert labels(answers) == texts
    assert [answer.answered_by == "TF-IDF" for answer in answers] == [text.startswith("sure") for text in texts]
    assert sorted(chain(*model.batches)) == sorted(text for text in texts if text.startswith("open"))


def test_asked_for_exact_answers_the_language_model_reads_everything(monkeypatch, sure):
    model = StubModel(monkeypatch)
    asyncio.run(BatchingClassifier(None, ALONE).classify(["sure 1", "sure 2"], exact=True))
    assert not sure and list(chain(*model.batches)) == ["sure 1", "sure 2"]


def test_single_messages_are_read_by_both_until_more_than_a_batch_wait(monkeypatch, sure):
    model = StubModel(monkeypatch, held=True)

    async def ask(number: int) -> list[Classification]:
        classifier = BatchingClassifier(None, ALONE, batch_size=2)
        first = asyncio.create_task(classifier.classify(["sure 0"]))
        await model.reading()
        others = [asyncio.create_task(classifier.classify([f"sure {1 + count}"])) for count in range(number)]
        await asyncio.sleep(0)
        model.release()
        return list(chain(*await asyncio.gather(first, *others)))

    assert [answer.answered_by for answer in asyncio.run(ask(2))] == ["language model"] * 3
    model.batches.clear()
    model.released.clear()
    assert [answer.answered_by for answer in asyncio.run(ask(3))] == ["language model", *["TF-IDF"] * 3]


def test_where_tfidf_fails_the_language_model_answers(monkeypatch, sure):
    StubModel(monkeypatch)
    answers = asyncio.run(BatchingClassifier(None, ALONE).classify(["sure 1", "tfidf fails"]))
    assert [answer.answered_by for answer in answers] == ["language model"] * 2
