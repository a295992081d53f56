"""TF-IDF answers alone where it is sure, with the label that both models would give."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import give_tfidf, make_messages
from scipy.special import expit

from text_classifier.classifier import Classifier
from text_classifier.tfidf import fit_tfidf
from text_classifier.training.evaluation import choose_early_exit

EARLY_EXIT = {"bound": 1.0, "usual_log_odds": [-0.5, 0.25]}
SPAM, HAM, OPEN = "WIN a prize now, call 09061", "see you tonight, mum", "zebra quilt"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, tiny_review_adapter):
    folder = shutil.copytree(tiny_review_adapter, tmp_path_factory.mktemp("early_exit") / "adapter")
    table = make_messages()
    tfidf = fit_tfidf(table["Text"].tolist(), table["Label"].eq("spam").astype(int).tolist())
    give_tfidf(folder, tfidf, 0.01, early_exit=EARLY_EXIT)
    return Classifier.load(folder)


def answered_by(texts, loaded, **options) -> list[str | None]:
    return [answer and answer.answered_by for answer in loaded.answer(texts, exact=False, **options)]


def test_tfidf_answers_what_it_is_sure_of_and_the_output_says_so(loaded):
    texts = [SPAM, HAM, OPEN, "\u200b"]
    assert answered_by(texts, loaded) == ["TF-IDF", "TF-IDF", "both", None]
    both, early = loaded.answer(texts), loaded.answer(texts, exact=False)
    assert [answer and answer.answered_by for answer in both] == ["both"] * 3 + [None], "exact unless it is told"
    assert [answer and answer.label for answer in early] == [answer and answer.label for answer in both]
    spam, ham = loaded.tfidf.log_odds(texts[:2])
    assert [answer.positive_probability for answer in early[:2]] == pytest.approx(
        [expit(spam + 0.25), expit(ham - 0.5)]
    )


def test_whether_it_is_sure_is_measured_from_the_threshold(loaded):
    for text in (SPAM, HAM):
        (log_odds,) = loaded.tfidf.log_odds([text])
        for distance, by in ((0.9, "both"), (1.1, "TF-IDF"), (-1.1, "TF-IDF")):
            threshold = expit(log_odds - distance)
            (answer,) = loaded.answer([text], threshold=threshold, exact=False)
            assert (answer.answered_by, answer.label == "positive") == (by, distance > 0)
    for threshold, label in ((0, "positive"), (1, "negative")):
        assert loaded.answer([OPEN], threshold=threshold, exact=False)[0].label == label


def test_without_early_exit_or_tfidf_the_language_model_reads_everything(tiny_review_adapter, loaded):
    assert answered_by([SPAM], replace(loaded, settings=replace(loaded.settings, early_exit=None))) == ["both"]
    assert answered_by([SPAM], Classifier.load(tiny_review_adapter)) == ["language model"]
    assert loaded.answer([], exact=False) == []


def predictions(log_odds: list[float]) -> dict:
    """The same probabilities in both validation splits."""
    probabilities = expit(np.array(log_odds))
    return dict.fromkeys(("validation", "left_out_validation"), (np.zeros(len(log_odds), dtype=int), probabilities))


def test_the_bound_lies_beyond_every_validation_message_that_was_turned():
    tfidf = [-6.0, -4.0, -3.2, 1.0, 5.0]
    # The language model turns the third message, which stands 3.2 below the threshold.
    early_exit = choose_early_exit(predictions([-7.0, -6.0, 0.5, 2.0, 9.0]), predictions(tfidf), 0.5)
    assert early_exit == {"bound": 3.7, "usual_log_odds": [-1.5, 4.0]}
    none_turned = choose_early_exit(predictions(tfidf), predictions(tfidf), 0.5)
    assert none_turned == {"bound": 2.5, "usual_log_odds": [0.0, 0.0]}
    one_side = choose_early_exit(predictions([1.0]), predictions([0.5]), float(expit(1.2)))
    assert one_side == {"bound": 2.5, "usual_log_odds": [0.0, 0.0]}
