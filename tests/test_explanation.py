"""Explanations name the words that really moved the answer."""

import math

import pytest

from chat.explanation import split_words, word_contributions
from text_classifier.inference import Classification, classify_parts, load_tokenizer_and_model


def stub(texts):
    """Answer by words: 'prize' adds 2 to the log odds of spam, 'call' beside it 2 more, and 'mum' takes 1 away."""
    answers = []
    for text in texts:
        log_odds = 2.0 * ("prize" in text) + 2.0 * ("prize" in text and "call" in text) - 1.0 * ("mum" in text)
        answers.append(Classification("", 1 / (1 + math.exp(-log_odds)), False))
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


def test_only_words_that_matter_are_credited():
    contributions = dict(word_contributions("call mum about the prize today", stub))
    assert contributions["prize "] > 1.9 and contributions["mum "] == pytest.approx(-1, abs=1e-3)
    assert contributions["about "] == contributions["the "] == contributions["today"] == 0
    assert sum(contributions.values()) == pytest.approx(3, abs=1e-3), "together they are the whole answer"


def test_contributions_add_up_to_the_answer_of_a_model(tiny_review_adapter):
    tokenizer, model = load_tokenizer_and_model(tiny_review_adapter)

    def log_odds(text):
        probability = classify_parts([text], tokenizer, model)[0].positive_probability
        return math.log(probability / (1 - probability))

    text = "WIN a FREE prize now, call 12345 to claim"
    words = word_contributions(text, lambda texts: classify_parts(texts, tokenizer, model))
    assert "".join(word for word, _ in words) == text
    assert sum(value for _, value in words) == pytest.approx(log_odds(text) - log_odds(" "), abs=1e-3)
    assert words == word_contributions(text, lambda texts: classify_parts(texts, tokenizer, model)), (
        "the same every time"
    )


@pytest.mark.parametrize(
    "text",
    [
        "one",
        "免费领取大奖 now",
        "【江南银行】（您好）",
        "（",
        "。",
        "請點擊連結，領取紅包！",
        "tabs\tand\nlines  and spaces ",
        "🎁🎁 <b>",
        "word " * 300,
    ],
)
def test_words_put_together_are_the_text(text):
    words = split_words(text, 20)
    assert "".join(words) == text and 1 <= len(words) <= 20
