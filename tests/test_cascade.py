"""TF-IDF answers alone where it is sure, with the label that both models would give."""

import shutil

import numpy as np
import pytest
from conftest import give_tfidf, make_messages
from scipy.special import expit

from text_classifier.inference import answer_by_tfidf, classify, load_tokenizer_and_model
from text_classifier.tfidf import fit_tfidf
from text_classifier.training.evaluation import choose_cascade

CASCADE = {"bound": 1.0, "usual_log_odds": [-0.5, 0.25]}
SPAM, HAM, OPEN = "WIN a prize now, call 09061", "see you tonight, mum", "zebra quilt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_review_adapter):
    folder = tmp_path_factory.mktemp("cascade") / "adapter"
    shutil.copytree(tiny_review_adapter, folder)
    table = make_messages()
    tfidf = fit_tfidf(table["Text"].tolist(), table["Label"].eq("spam").astype(int).tolist())
    give_tfidf(folder, tfidf, 0.01, cascade=CASCADE)
    return folder


@pytest.fixture
def loaded(folder):
    return load_tokenizer_and_model(folder)


def answered_by(texts, loaded, **options) -> list[str | None]:
    return [answer and answer.answered_by for answer in classify(texts, *loaded, exact=False, **options)]


def test_tfidf_answers_what_it_is_sure_of_and_the_output_says_so(loaded):
    texts = [SPAM, HAM, OPEN, "\u200b"]
    assert answered_by(texts, loaded) == ["TF-IDF", "TF-IDF", "both", None]
    both, cascaded = classify(texts, *loaded), classify(texts, *loaded, exact=False)
    assert [answer and answer.answered_by for answer in both] == ["both"] * 3 + [None], "exact unless it is told"
    assert [answer and answer.label for answer in cascaded] == [answer and answer.label for answer in both]
    _, model = loaded
    spam, ham = model.tfidf.log_odds(texts[:2])
    assert [answer.positive_probability for answer in cascaded[:2]] == pytest.approx(
        [expit(spam + 0.25), expit(ham - 0.5)]
    )


def test_whether_it_is_sure_is_measured_from_the_threshold(loaded):
    _, model = loaded
    for text in (SPAM, HAM):
        (log_odds,) = model.tfidf.log_odds([text])
        for distance, by in ((0.9, "both"), (1.1, "TF-IDF"), (-1.1, "TF-IDF")):
            threshold = expit(log_odds - distance)
            (answer,) = classify([text], *loaded, threshold=threshold, exact=False)
            assert (answer.answered_by, answer.label == "positive") == (by, distance > 0)
    for threshold, label in ((0, "positive"), (1, "negative")):
        assert classify([OPEN], *loaded, threshold=threshold, exact=False)[0].label == label


def test_an_adapter_without_cascade_or_tfidf_reads_everything(folder, tiny_review_adapter, loaded, tmp_path):
    _, model = loaded
    model.config.cascade = None
    assert answered_by([SPAM], loaded) == ["both"]
    assert answered_by([SPAM], load_tokenizer_and_model(tiny_review_adapter)) == ["language model"]
    assert answer_by_tfidf([], model, []) == []


def predictions(log_odds: list[float]) -> dict:
    """The same probabilities in both validation splits."""
    probabilities = expit(np.array(log_odds))
    return dict.fromkeys(("validation", "left_out_validation"), (np.zeros(len(log_odds), dtype=int), probabilities))


def test_the_bound_lies_beyond_every_validation_message_that_was_turned():
    tfidf = [-6.0, -4.0, -3.2, 1.0, 5.0]
    # The language model turns the third message, which stands 3.2 below the threshold.
    cascade = choose_cascade(predictions([-7.0, -6.0, 0.5, 2.0, 9.0]), predictions(tfidf), 0.5)
    assert cascade == {"bound": 3.7, "usual_log_odds": [-1.5, 4.0]}
    none_turned = choose_cascade(predictions(tfidf), predictions(tfidf), 0.5)
    assert none_turned == {"bound": 2.5, "usual_log_odds": [0.0, 0.0]}
    one_side = choose_cascade(predictions([1.0]), predictions([0.5]), float(expit(1.2)))
    assert one_side == {"bound": 2.5, "usual_log_odds": [0.0, 0.0]}
