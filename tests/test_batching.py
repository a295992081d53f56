"""Many people ask at once: answers are right, single messages come first, an error hits only its own message."""

import asyncio
import threading
import time
from itertools import chain

import pytest

from chat.batching import BatchingClassifier, BusyError
from text_classifier.classifier import Answer, Classifier

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class StubClassifier:
    """A stand-in for `Classifier`: it records batches, and fails on the text "poison".

    Args:
        seconds: what a batch takes.
        held: whether every batch waits for `released`.
        sure: whether TF-IDF is sure of texts that begin with "sure".
    """

    def __init__(self, seconds: float = 0, held: bool = False, sure: bool = False):
        self.batches, self.prepared, self.seconds, self.sure = [], [], seconds, sure
        self.released = threading.Event()
        if not held:
            self.released.set()

    def prepare(self, texts: list[str]) -> list[str]:
        self.prepared += texts
        if "unreadable" in texts:
            raise RuntimeError("nobody can read this")
        return texts

    def answer_early(self, text: str, threshold: float | None) -> Answer | None:
        return answer_of(text, "TF-IDF") if self.sure and text.startswith("sure") else None

    def read(self, texts: list[str]) -> list[Answer]:
        self.batches.append(list(texts))
        time.sleep(self.seconds)
        assert self.released.wait(60), "nobody has released the model"
        if "poison" in texts:
            raise RuntimeError("the model cannot read this")
        return [answer_of(text) for text in texts]

    answer_parts = read

    async def reading(self) -> None:
        """Wait until the model has got its first batch."""
        while not self.batches:
            await asyncio.sleep(0.001)


def answer_of(text: str, answered_by: str = "language model") -> Answer:
    """An answer whose label is the text."""
    return Answer(0.5, False, answered_by, False, labels=("", text), threshold=0.5)


def labels(answers) -> list[str]:
    return [answer.label for answer in answers]


async def asked(classifier: BatchingClassifier, *texts: str) -> asyncio.Task:
    """Ask about a message or the rows of a file, and return when they wait."""
    asking = asyncio.create_task(classifier.classify(texts))
    await asyncio.sleep(0)
    return asking


async def test_answers_are_those_of_the_model_alone(tiny_review_adapter):
    alone = Classifier.load(tiny_review_adapter)
    texts = [f"message number {number} " * (1 + number % 5) for number in range(40)]
    classifier = BatchingClassifier(alone)
    answers = await asyncio.gather(*(classifier.classify([text]) for text in texts))
    for (answer,), expected in zip(answers, alone.answer(texts), strict=True):
        assert answer.label == expected.label
        assert answer.probability == pytest.approx(expected.probability, abs=1e-5)


async def test_messages_sent_at_the_same_moment_share_batches():
    stub = StubClassifier()
    classifier = BatchingClassifier(stub, batch_size=8)
    answers = await asyncio.gather(*(classifier.classify([str(number)]) for number in range(24)))
    assert [labels(answer) for answer in answers] == [[str(number)] for number in range(24)]
    assert [len(batch) for batch in stub.batches] == [8, 8, 8]


async def test_a_single_message_overtakes_a_file_and_the_event_loop_goes_on():
    stub = StubClassifier(held=True)
    classifier = BatchingClassifier(stub, batch_size=4)
    file = await asked(classifier, *(f"row {number}" for number in range(40)))
    await stub.reading()
    # This line is not reached while the model holds the event loop.
    single = await asked(classifier, "hello")
    stub.released.set()
    assert labels(await single) == ["hello"]
    await file
    assert "hello" in stub.batches[1] and len(stub.batches) == 11


async def test_an_error_belongs_to_the_message_that_caused_it():
    classifier = BatchingClassifier(StubClassifier(sure=True))
    for bad in ("poison", "unreadable"):
        asking = [classifier.classify([text]) for text in ("one", bad, "two")]
        first, error, second = await asyncio.gather(*asking, return_exceptions=True)
        assert labels(first) == ["one"] and labels(second) == ["two"]
        assert isinstance(error, RuntimeError)


async def test_who_is_gone_is_not_answered_and_others_are():
    stub = StubClassifier(held=True)
    classifier = BatchingClassifier(stub, batch_size=1)
    first, gone, last = [await asked(classifier, text) for text in ("first", "gone", "last")]
    await stub.reading()
    gone.cancel()
    stub.released.set()
    assert [labels(answers) for answers in await asyncio.gather(first, last)] == [["first"], ["last"]]
    assert ["gone"] not in stub.batches


async def test_a_full_queue_says_so_at_once_and_a_file_leaves_room_for_single_messages():
    stub = StubClassifier(held=True)
    classifier = BatchingClassifier(stub, batch_size=1, max_waiting=3)
    file = await asked(classifier, "1", "2", "3")
    with pytest.raises(BusyError):
        await classifier.classify(["more", "bulk"])
    single = asyncio.gather(*(classifier.classify(["x"]) for _ in range(3)))
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await classifier.classify(["one too many"])
    stub.released.set()
    assert labels(await file) == ["1", "2", "3"] and list(map(labels, await single)) == [["x"]] * 3
    assert labels(await classifier.classify(["later"])) == ["later"]


async def test_explanations_go_on_beside_a_file():
    classifier = BatchingClassifier(StubClassifier(seconds=0.02))
    file = await asked(classifier, *map(str, range(800)))
    await classifier.explain("two words")
    assert not file.done()
    file.cancel()


async def test_labels_do_not_wait_for_explanations():
    stub = StubClassifier(seconds=0.05)
    classifier = BatchingClassifier(stub, max_explanations=1)
    text = "many words that take a while to explain one by one"
    explanation = asyncio.create_task(classifier.explain(text))
    await stub.reading()
    with pytest.raises(BusyError):
        await classifier.explain("another")
    begun = len(stub.batches)
    await classifier.classify(["hello"])
    assert stub.batches.index(["hello"]) <= begun + 1, "at most one more batch of the explanation comes first"
    assert not explanation.done()
    assert "".join(word for word, _ in await explanation) == text


# ---------------------------------------------------------------------------- TF-IDF first


async def test_in_a_list_the_language_model_reads_only_what_tfidf_is_unsure_of():
    stub = StubClassifier(sure=True)
    texts = [f"{'sure' if number % 3 else 'open'} {number}" for number in range(60)]
    answers = await BatchingClassifier(stub).classify(texts)
    assert labels(answers) == texts
    assert [answer.answered_by == "TF-IDF" for answer in answers] == [text.startswith("sure") for text in texts]
    assert sorted(chain(*stub.batches)) == sorted(text for text in texts if text.startswith("open"))
    assert sorted(stub.prepared) == sorted(texts), "each is prepared once"


async def test_asked_for_exact_answers_the_language_model_reads_everything():
    stub = StubClassifier(sure=True)
    await BatchingClassifier(stub).classify(["sure 1", "sure 2"], exact=True)
    assert list(chain(*stub.batches)) == ["sure 1", "sure 2"]


@pytest.mark.parametrize(("others", "answered_by"), [(2, "language model"), (3, "TF-IDF")])
async def test_single_messages_are_read_by_both_until_more_than_a_batch_wait(others, answered_by):
    stub = StubClassifier(sure=True, held=True)
    classifier = BatchingClassifier(stub, batch_size=2)
    first = await asked(classifier, "sure 0")
    await stub.reading()
    waiting = [await asked(classifier, f"sure {1 + count}") for count in range(others)]
    stub.released.set()
    answers = list(chain(*await asyncio.gather(first, *waiting)))
    assert [answer.answered_by for answer in answers] == ["language model", *[answered_by] * others]
