"""The TF-IDF model equals scikit-learn's, survives saving, and adds its log odds to the language model's."""

import shutil

import numpy as np
import pytest
from conftest import give_tfidf, make_messages
from scipy.special import logit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from text_classifier.classifier import Classifier
from text_classifier.tfidf import fit_tfidf, load_tfidf, save_tfidf

TEXTS = ["WIN a prize, call 77", "see you at 7 tonight", "", "免费 ❤️ \ud800", "free " * 500]


@pytest.fixture(scope="module")
def messages():
    table = make_messages()
    return table["Text"].tolist(), table["Label"].eq("spam").astype(int).tolist()


@pytest.fixture(scope="module")
def model(messages):
    return fit_tfidf(*messages)


def test_it_is_the_logistic_regression_on_ngrams_that_people_know(messages, model):
    texts, labels = messages
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
    )
    usual = make_pipeline(features, LogisticRegression(C=30, max_iter=1000, class_weight="balanced")).fit(texts, labels)
    assert model.log_odds(TEXTS[:3]) == pytest.approx(usual.decision_function(TEXTS[:3]), abs=1e-6)
    assert model.log_odds([]).shape == (0,)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("您的貸款已批准，請點擊連結", "您的贷款已批准,请点击链接"),
        ("ＷＩＮ　a ｐｒｉｚｅ", "WIN a prize"),
        ("F R E E! рrize", "FREE! prize"),
        ("贷.款.秒.批", "贷款秒批"),
    ],
    ids=["traditional", "full width", "set apart and Cyrillic", "Chinese set apart"],
)
def test_it_reads_what_is_meant(messages, written, meant):
    texts, labels = messages
    model = fit_tfidf([*texts, "您的贷款已批准,请点击链接", "贷款秒批", "晚上回家吃饭"], [*labels, 1, 1, 0])
    assert model.log_odds([written]) == pytest.approx(model.log_odds([meant]))


def test_enough_chinese_messages_get_a_model_of_their_own_and_change_nothing_for_the_others(messages, model):
    texts, labels = messages
    chinese = [f"晚上{number}点见面" for number in range(50)] + [f"恭喜中奖{number}元" for number in range(50)]
    both = fit_tfidf([*texts, *chinese], [*labels, *[0] * 50, *[1] * 50])
    assert both.log_odds(TEXTS[:3]) == pytest.approx(model.log_odds(TEXTS[:3]))
    ham, spam = both.log_odds(["晚上见面吧", "您中奖了"])
    assert ham < 0 < spam
    few = fit_tfidf([*texts, *chinese[1:]], [*labels, *[0] * 49, *[1] * 50])
    assert list(few.models) == ["other"] and np.diff(few.log_odds(["晚上见面吧", "您中奖了"])) > 1


def test_weights_are_those_of_scikit_learn(messages, model):
    texts, labels = messages
    twice = fit_tfidf(texts, labels, [2.0 - label for label in labels]).log_odds(TEXTS)
    assert not np.allclose(twice, model.log_odds(TEXTS))
    assert twice.mean() < model.log_odds(TEXTS).mean(), "class 0 weighs more"


def test_of_a_pasted_book_only_the_beginning_is_read(messages, model):
    beginning = "free prize " * 1000
    assert np.array_equal(model.log_odds([beginning + "see you " * 100_000]), model.log_odds([beginning[:10_000]]))
    texts, labels = messages
    cut = fit_tfidf([text.ljust(10_000) + " win" for text in texts], labels)
    assert cut.log_odds(texts) == pytest.approx(model.log_odds(texts)), "in training, too"


def test_saved_and_loaded_it_says_the_same(model, tmp_path):
    save_tfidf(model, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert np.array_equal(load_tfidf(tmp_path).log_odds(TEXTS), model.log_odds(TEXTS))


@pytest.mark.parametrize(
    ("texts", "labels"), [(["?", "!"], [0, 1]), (["one class", "one class only"], [0, 0])], ids=["no words", "no class"]
)
def test_what_cannot_be_learned_is_refused(texts, labels):
    with pytest.raises(ValueError):
        fit_tfidf(texts, labels)


@pytest.fixture
def folder(tmp_path, tiny_review_adapter, model):
    """An adapter with the model beside it."""
    folder = shutil.copytree(tiny_review_adapter, tmp_path / "adapter")
    give_tfidf(folder, model, 0.25)
    return folder


def test_beside_an_adapter_both_answer(model, folder, tiny_review_adapter):
    texts = [text for text in TEXTS if text]

    def log_odds(adapter_dir):
        return logit([answer.probability for answer in Classifier.load(adapter_dir).answer(texts)])

    expected = 0.25 * log_odds(tiny_review_adapter) + model.log_odds(texts)
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
