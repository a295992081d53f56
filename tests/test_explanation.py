"""Explanations name the words that really moved the answer."""

import math

import pytest

from chat.explanation import split_words, word_contributions
from text_classifier.classifier import Answer, Classifier


def stub(texts):
    """Answer by words: 'prize' adds 2 to the log odds of spam, 'call' beside it 2 more, and 'mum' takes 1 away."""
    answers = []
    for text in texts:
        log_odds = 2.0 * ("prize" in text) + 2.0 * ("prize" in text and "call" in text) - 1.0 * ("mum" in text)
        answers.append(Answer(1 / (1 + math.exp(-log_odds)), False, "both", False, ("ham", "spam"), 0.5))
    return answers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("您的银行账户异常，请点击链接。", ["您", "的", "银行", "账户", "异常，", "请", "点击", "链接。"]),
        ("請點擊連結領取紅包", ["請", "點擊", "連結", "領取", "紅包"]),
        ("【江南银行】尾号3316 OK", ["【江南", "银行】", "尾号", "3316 ", "OK"]),
        ("Win £5 now!", ["Win ", "£5 ", "now!"]),
    ],
)
def test_chinese_is_cut_into_words_too(text, words):
    assert split_words(text, 99) == words


def test_a_word_is_credited_with_what_its_absence_changes():
    contributions = dict(word_contributions("call mum about the prize today", stub))
    moved = {"prize ": 4, "call ": 2, "mum ": -1, "about ": 0, "the ": 0, "today": 0}
    assert contributions == pytest.approx(moved, abs=1e-3)


def test_words_of_a_model_are_those_of_the_text(tiny_review_adapter):
    classifier = Classifier.load(tiny_review_adapter)
    for text in ("WIN a FREE prize now, call 12345 to claim", "one"):
        words = word_contributions(text, classifier.answer_parts)
        assert "".join(word for word, _ in words) == text
        assert all(math.isfinite(value) for _, value in words)


def test_words_put_together_are_the_text():
    marks = ["（", "。", "【江南银行】（您好）", "請點擊連結，領取紅包！", "免费领取大奖 now"]
    for text in ["one", "tabs\tand\nlines  and spaces ", "🎁🎁 <b>", "word " * 300, *marks]:
        words = split_words(text, 20)
        assert "".join(words) == text and 1 <= len(words) <= 20, text
