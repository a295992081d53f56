"""Messages come in every form, a mistake is named, and TF-IDF and language model answer together or TF-IDF alone."""

import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.special import expit, logit
from shared import give_tfidf, make_messages
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from transformers import modeling_utils

from text_classifier import classify, load_tokenizer_and_model
from text_classifier.classifier import Classifier
from text_classifier.tfidf import fit_tfidf, load_tfidf, save_tfidf
from text_classifier.training.evaluation import choose_early_exit

GIVEN = ["WIN a FREE prize now", "see you at seven", "call 12345 to claim", "", "ok"]


@pytest.fixture(scope="module")
def pair(tiny_review_adapter):
    return load_tokenizer_and_model(tiny_review_adapter)


@pytest.mark.parametrize(
    "give",
    [
        lambda texts: pd.Series(texts, index=[4, 2, 0, 1, 3]),
        lambda texts: pd.Series(texts, index=list("abcde")),
        lambda texts: pd.Series([*texts, "x"], dtype="str").iloc[:-1],
        lambda texts: pa.chunked_array([texts]),
        lambda texts: dict(enumerate(texts)).values(),
        *(np.array, pa.array, tuple, iter),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_answers_come_in_the_order_of_the_messages(pair, give, exact):
    answers = classify(give(GIVEN), *pair, exact=exact)
    assert answers == classify(GIVEN, *pair, exact=exact) and answers[3] is None
    assert len({answer.positive_probability for answer in answers if answer}) > 1


def test_gpt2_reads_its_messages_together_without_a_warning(trained, monkeypatch):
    """They begin with its end-of-text token, which is its pad token, too."""
    warned = Mock()
    monkeypatch.setattr(modeling_utils.logger, "warning_once", warned)
    assert len(Classifier.load(trained / "lora_model").answer(GIVEN)) == 5
    assert not warned.called


def test_what_is_no_list_of_messages_or_no_threshold_is_named(pair):
    for one in ("WIN a prize", b"WIN a prize"):
        with pytest.raises(TypeError, match=r"for a single one write \[text\]"):
            classify(one, *pair)
    for table in (pd.DataFrame({"text": GIVEN}), {"text": "WIN a prize"}):
        with pytest.raises(TypeError, match="Give one column"):
            classify(table, *pair)
    for wrong in (None, float("nan"), pd.NA, 7, b"bytes", ["hi"]):
        with pytest.raises(TypeError, match="position 1 is not a string"):
            classify(["hi", wrong], *pair)
    for threshold in (-0.1, 1.5, float("nan"), 50):
        with pytest.raises(ValueError, match="between 0 and 1"):
            classify(["hi"], *pair, threshold)


# ---------------------------------------------------------------------------- TF-IDF


TEXTS = ["WIN a prize, call 77", "see you at 7 tonight", "", "免费 ❤️ \ud800", "free " * 500]


@pytest.fixture(scope="module")
def messages():
    table = make_messages()
    return table["Text"].tolist(), table["Label"].eq("spam").astype(int).tolist()


@pytest.fixture(scope="module")
def tfidf(messages):
    return fit_tfidf(*messages)


def test_it_is_the_logistic_regression_on_ngrams_that_people_know(messages, tfidf):
    texts, labels = messages
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
    )
    usual = make_pipeline(features, LogisticRegression(C=30, max_iter=1000, class_weight="balanced")).fit(texts, labels)
    assert tfidf.log_odds(TEXTS[:3]) == pytest.approx(usual.decision_function(TEXTS[:3]), abs=1e-6)
    assert tfidf.log_odds([]).shape == (0,)


def test_it_reads_what_is_meant(messages):
    texts, labels = messages
    chinese = fit_tfidf([*texts, "您的贷款已批准,请点击链接", "贷款秒批", "晚上回家吃饭"], [*labels, 1, 1, 0])
    # Traditional characters, full width, letters set apart with a Cyrillic one, Chinese characters set apart.
    written = ["您的貸款已批准，請點擊連結", "ＷＩＮ　a ｐｒｉｚｅ", "F R E E! рrize", "贷.款.秒.批"]
    meant = ["您的贷款已批准,请点击链接", "WIN a prize", "FREE! prize", "贷款秒批"]
    assert chinese.log_odds(written) == pytest.approx(chinese.log_odds(meant))


def test_enough_chinese_messages_get_a_model_of_their_own_and_change_nothing_for_the_others(messages, tfidf):
    texts, labels = messages
    chinese = [f"晚上{number}点见面" for number in range(50)] + [f"恭喜中奖{number}元" for number in range(50)]
    both = fit_tfidf([*texts, *chinese], [*labels, *[0] * 50, *[1] * 50])
    assert both.log_odds(TEXTS[:3]) == pytest.approx(tfidf.log_odds(TEXTS[:3]))
    ham, spam = both.log_odds(["晚上见面吧", "您中奖了"])
    assert ham < 0 < spam
    few = fit_tfidf([*texts, *chinese[1:]], [*labels, *[0] * 49, *[1] * 50])
    assert list(few.models) == ["other"] and np.diff(few.log_odds(["晚上见面吧", "您中奖了"])) > 1


def test_weights_are_those_of_scikit_learn(messages, tfidf):
    texts, labels = messages
    twice = fit_tfidf(texts, labels, [2.0 - label for label in labels]).log_odds(TEXTS)
    assert not np.allclose(twice, tfidf.log_odds(TEXTS))
    assert twice.mean() < tfidf.log_odds(TEXTS).mean(), "class 0 weighs more"


def test_of_a_pasted_book_only_the_beginning_is_read(messages, tfidf):
    beginning = "free prize " * 1000
    assert np.array_equal(tfidf.log_odds([beginning + "see you " * 100_000]), tfidf.log_odds([beginning[:10_000]]))
    texts, labels = messages
    cut = fit_tfidf([text.ljust(10_000) + " win" for text in texts], labels)
    assert cut.log_odds(texts) == pytest.approx(tfidf.log_odds(texts)), "in training, too"


def test_saved_and_loaded_it_says_the_same(tfidf, tmp_path):
    save_tfidf(tfidf, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert np.array_equal(load_tfidf(tmp_path).log_odds(TEXTS), tfidf.log_odds(TEXTS))


@pytest.mark.parametrize(("texts", "labels"), [(["?", "!"], [0, 1]), (["one class", "one class only"], [0, 0])])
def test_what_cannot_be_learned_is_refused(texts, labels):
    with pytest.raises(ValueError):
        fit_tfidf(texts, labels)


@pytest.fixture
def folder(tmp_path, tiny_review_adapter, tfidf):
    """An adapter with the TF-IDF model beside it."""
    folder = shutil.copytree(tiny_review_adapter, tmp_path / "adapter")
    give_tfidf(folder, tfidf, 0.25)
    return folder


def test_beside_an_adapter_both_answer(tfidf, folder, tiny_review_adapter):
    texts = [text for text in TEXTS if text]

    def log_odds(adapter_dir):
        return logit([answer.probability for answer in Classifier.load(adapter_dir).answer(texts)])

    expected = 0.25 * log_odds(tiny_review_adapter) + tfidf.log_odds(texts)
    assert log_odds(folder) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("file", ["tfidf.safetensors", "tfidf_vocabulary.json"])
@pytest.mark.parametrize("content", [None, b"{}", b'{"words": null}', b'{"words": ["a', b"\xff"])
def test_an_incomplete_folder_is_refused(folder, file, content):
    """The adapter was made to answer with two models, so one of them must not answer alone."""
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises((OSError, ValueError), match="tfidf"):
        Classifier.load(folder)


# ---------------------------------------------------------------------------- early exit


SPAM, HAM, OPEN = "WIN a prize now, call 09061", "see you tonight, mum", "zebra quilt"


@pytest.fixture(scope="module")
def both(tmp_path_factory, tiny_review_adapter, tfidf):
    folder = shutil.copytree(tiny_review_adapter, tmp_path_factory.mktemp("both") / "adapter")
    give_tfidf(folder, tfidf, 0.01, early_exit={"bound": 1.0, "usual_log_odds": [-0.5, 0.25]})
    return Classifier.load(folder)


def answered_by(texts, both, **options) -> list[str | None]:
    return [answer and answer.answered_by for answer in both.answer(texts, exact=False, **options)]


def test_tfidf_answers_what_it_is_sure_of_and_the_output_says_so(both):
    texts = [SPAM, HAM, OPEN, "\u200b"]
    assert answered_by(texts, both) == ["TF-IDF", "TF-IDF", "both", None]
    exact, early = both.answer(texts), both.answer(texts, exact=False)
    assert [answer and answer.answered_by for answer in exact] == ["both"] * 3 + [None], "exact unless it is told"
    assert [answer and answer.label for answer in early] == [answer and answer.label for answer in exact]
    spam, ham = both.tfidf.log_odds(texts[:2])
    expected = pytest.approx([expit(spam + 0.25), expit(ham - 0.5)])
    assert [answer.positive_probability for answer in early[:2]] == expected


def test_whether_it_is_sure_is_measured_from_the_threshold(both):
    for text in (SPAM, HAM):
        (log_odds,) = both.tfidf.log_odds([text])
        for distance, by in ((0.9, "both"), (1.1, "TF-IDF"), (-1.1, "TF-IDF")):
            threshold = expit(log_odds - distance)
            (answer,) = both.answer([text], threshold=threshold, exact=False)
            assert (answer.answered_by, answer.label == "positive") == (by, distance > 0)
    for threshold, label in ((0, "positive"), (1, "negative")):
        assert both.answer([OPEN], threshold=threshold, exact=False)[0].label == label


def test_without_early_exit_or_tfidf_the_language_model_reads_everything(tiny_review_adapter, both):
    assert answered_by([SPAM], replace(both, settings=replace(both.settings, early_exit=None))) == ["both"]
    assert answered_by([SPAM], Classifier.load(tiny_review_adapter)) == ["language model"]
    assert both.answer([], exact=False) == []


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
