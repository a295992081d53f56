"""Messages in languages that the adapter did not learn are found; English and Chinese ones are left alone."""

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY

from text_classifier.characters import normalise
from text_classifier.languages import is_other_language


def is_other(text: str, learned=("en", "zh")) -> bool:
    return is_other_language(text, normalise(text), learned)


def share(texts) -> float:
    return float(np.mean(list(map(is_other, texts))))


def test_short_messages_in_ten_languages_are_found():
    messages = pd.read_csv(REPOSITORY / "tests/other_languages.tsv", sep="\t")
    found = messages.groupby("Language")["Text"].apply(lambda texts: share(texts.tolist()))
    assert len(messages) == 300 and len(found) == 10
    assert found.min() >= 0.9 and found.mean() >= 0.95


@pytest.mark.parametrize("name", ["modern_messages", "chinese_messages"])
def test_english_and_chinese_messages_are_left_alone(name):
    texts = pd.read_csv(REPOSITORY / f"tests/{name}.tsv", sep="\t", quoting=3)["Text"].tolist()
    assert share(texts) <= 0.01


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "12:30",
        "👍",
        "Eh wat time u reach ah, I wait at void deck lah",
        "Dun lidat leh, makan first then go can or not",
        "Yоur Аррle ID hаs bееn lосkеd",  # with Cyrillic letters
        "你係咪攞錯我把遮呀？",  # Cantonese
        "加微❤ abc888 领红包",
    ],
)
def test_what_is_short_or_disguised_or_a_form_of_them_is_left_alone(text):
    assert not is_other(text)


def test_chinese_is_another_language_to_an_adapter_that_learned_english():
    assert is_other("晚上七点老地方见", ["en"])
    assert not is_other("Wann kommst du heute nach Hause?", []), "nobody knows"
